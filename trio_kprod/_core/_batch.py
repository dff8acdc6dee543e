"""A batch of one partition, the chain of sequence numbers it belongs to, and the request that carries it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .._messages import BATCH_OVERHEAD, Entry, total_size

if TYPE_CHECKING:
    from ._partition import Partition

_SEQUENCES = 2**31  # they wrap around
LAST_EPOCH = 2**15 - 1


def sequence_after(first: int, records: int) -> int:
    """The sequence number that follows this number of records from `first`; without idempotence -1."""
    return (first + records) % _SEQUENCES if first >= 0 else first


class Chain:
    """Sequence numbers of one partition under one producer id and epoch (KIP-98).

    A partition's epoch is the client's own counter: a broker takes a higher one with sequence 0 at any
    time (KIP-360), and from then on refuses batches that are still under way under the lower one. A fresh
    producer id would fence nothing, so "start afresh" always means `next_epoch`, until epochs run out.
    """

    __slots__ = ("epoch", "next_number", "next_sequence", "producer_id")

    def __init__(self, producer_id: int, epoch: int) -> None:
        self.producer_id = producer_id
        self.epoch = epoch
        self.next_sequence = 0 if producer_id >= 0 else -1
        self.next_number = 0

    def next_epoch(self) -> Chain:
        return Chain(self.producer_id, self.epoch + 1)

    def take(self, records: int) -> int:
        """The first sequence number of a batch of that many records."""
        first = self.next_sequence
        self.next_sequence = sequence_after(first, records)
        return first


class Batch:
    """Messages that travel together; from its first transmission on always under the same sequence numbers.

    `maybe_written`: a broker may have appended it, as some attempt was not refused before the append. Such a
    batch is never reported as not written: nothing clears it.

    `pinned`: it may be in the log under its present chain, so encoding it under another could duplicate it.
    Set together with `maybe_written`; cleared when it is shown that the log lacks the batch and will take no
    old copy of it. (Only a broker that has forgotten the producer shows it falsely.)

    `whole` and `rest`: set in the first part of a halved batch (`Partition.halve`). `whole` is the halved
    batch, which may be in the log as a whole; `rest` is its second part.
    """

    __slots__ = (
        "attempts",
        "connections_lost",
        "data",
        "entries",
        "failures",
        "indivisible",
        "limited_failures",
        "may_be_there_in_part",
        "maybe_written",
        "number",
        "out_of_order",
        "partition",
        "pinned",
        "request",
        "rest",
        "retry_at",
        "sequence",
        "size",
        "unanswered",
        "wait_for_connection",
        "wait_for_metadata",
        "whole",
    )

    def __init__(self, partition: Partition, entries: Sequence[Entry], size: int) -> None:
        self.partition = partition
        self.entries = entries
        self.size = size
        # None until it is sealed, just before it is first sent; and None again while it waits to be sealed
        # under another chain.
        self.data: bytearray | None = None
        self.number = -1  # its place in the chain
        self.sequence = -1  # of its first record; parts of a halved batch have theirs before they are sealed
        self.whole: Batch | None = None
        self.rest: Batch | None = None
        self.indivisible = False  # a part of it was out of order, so perhaps it is in the log as a whole
        # The request that carries it now. A response to another request does not matter any more.
        self.request: Request | None = None
        self.may_be_there_in_part = False  # a first part of it was sent, and not refused
        self.maybe_written = False
        self.unanswered = False  # it was sent as it is, and not refused before the append
        self.pinned = False
        self.attempts = 0  # transmissions whose bytes reached a socket
        self.failures = 0  # of those, the ones that ended in an error
        self.limited_failures = 0  # responses with a code that is retried a few times only
        self.connections_lost = 0  # connections, in a row, that ended while it was the first to be answered
        self.out_of_order = 0  # responses "out of order" at the head of the chain, in a row
        self.wait_for_metadata = 0  # the number of the topic's metadata request whose response it waits for
        self.retry_at = 0.0
        self.wait_for_connection = False  # a connection to its leader ends the wait until `retry_at`

    def __repr__(self) -> str:
        where = f"{self.partition.topic.name}-{self.partition.index}"
        return f"<Batch {self.number} of {where}: {len(self.entries)} from sequence {self.sequence}>"

    @property
    def full_size(self) -> int:
        """Its bytes before compression; `size` is that of its messages only."""
        return self.size + BATCH_OVERHEAD

    @property
    def is_divisible(self) -> bool:
        """Whether it may be sent in parts."""
        return len(self.entries) > 1 and not self.indivisible

    @property
    def is_numbered(self) -> bool:
        """Whether the batches behind it in its chain continue its sequence numbers."""
        return self.data is not None or self.sequence >= 0

    def part(self, start: int, stop: int) -> Batch:
        """Some of its messages as a batch of their own, under the same sequence numbers."""
        entries = self.entries[start:stop]
        part = Batch(self.partition, entries, total_size(entries))
        part.sequence = sequence_after(self.sequence, start)
        part.maybe_written, part.pinned = self.maybe_written, self.pinned
        part.attempts = self.attempts
        part.connections_lost = max(0, self.connections_lost - 1)  # so that it is sent before larger ones
        part.retry_at, part.wait_for_connection = self.retry_at, self.wait_for_connection
        return part

    @property
    def is_being_written(self) -> bool:
        """Whether a byte of the request that carries it may have reached a socket."""
        return self.request is not None and self.request.write_started

    def pause_until(self, when: float) -> None:
        """Do not send it before that time."""
        self.retry_at = when
        outbox = self.partition.shared.outbox
        outbox.call_at(when, lambda: outbox.wake([self.partition]))

    def mark_maybe_written(self) -> None:
        """A transmission of it was not refused before the append."""
        self.maybe_written = self.pinned = self.unanswered = True

    def shows_what_is_behind(self) -> None:
        """It was acknowledged, so no larger batch that it is a part of is in the log, or can still get there.

        So the rest of those batches is not in the log either, unless it was sent by itself.
        """
        part: Batch | None = self
        while part is not None and part.rest is not None:
            if not part.rest.unanswered:
                part.rest.pinned = False
            part = part.whole

    def unseal(self, number: int) -> None:
        """Make it ready to be sealed under a new chain. That ends no pause after an error."""
        self.data = None
        self.number = number
        self.sequence = -1
        self.whole = self.rest = None
        self.indivisible = self.pinned = self.unanswered = self.may_be_there_in_part = False
        self.out_of_order = 0
        self.wait_for_metadata = 0


class Request:
    """One produce request to one broker: at most one batch of each of its partitions.

    (Of two batches of one partition in one request, a broker processes the last and drops the first
    silently.)
    `write_started` is set before its first byte reaches a socket: until then nothing of it is written.
    """

    __slots__ = ("batches", "node", "write_started")

    def __init__(self, node: int, batches: list[Batch]) -> None:
        self.node = node
        self.batches = batches
        self.write_started = False

    @property
    def size(self) -> int:
        """Of its batches, before compression."""
        return sum(batch.full_size for batch in self.batches)

    def __repr__(self) -> str:
        return f"<Request to node {self.node}: {self.batches}>"
