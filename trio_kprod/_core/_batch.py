"""A batch of one partition, the chain of sequence numbers it belongs to, and the request that carries it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .._messages import Entry

if TYPE_CHECKING:
    from ._partition import Partition

_SEQUENCES = 2**31
LAST_EPOCH = 2**15 - 1


class Chain:
    """Sequence numbers of one partition under one producer id and epoch (KIP-98).

    A partition's epoch is the client's own counter: a broker takes a higher one with sequence 0 at any
    time (KIP-360), and from then on refuses whatever is still under way under the lower one. A fresh
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
        if first >= 0:
            self.next_sequence = (first + records) % _SEQUENCES
        return first


class Batch:
    """Messages that travel together; from its first transmission on always as the same bytes.

    `maybe_written`: some attempt may have been appended, because it was not refused before the append. Never
    cleared; such a batch is not split, and never reported as not written.

    `pinned`: it may be in the log under its present chain, so encoding it under another could duplicate it.
    Set together with `maybe_written`; cleared when the log is shown to lack the batch and to take no old
    copy.
    """

    __slots__ = (
        "attempts",
        "connections_lost",
        "data",
        "entries",
        "failures",
        "limited_failures",
        "maybe_written",
        "number",
        "out_of_order",
        "partition",
        "pinned",
        "request",
        "retry_at",
        "sequence",
        "size",
        "wait_for_connection",
        "wait_for_metadata",
    )

    def __init__(self, partition: Partition, entries: Sequence[Entry], size: int) -> None:
        self.partition = partition
        self.entries = entries
        self.size = size
        # None until it is sealed, which happens when it is first sent; and again when it is to be sealed
        # again.
        self.data: bytearray | None = None
        self.number = -1  # its place in the chain
        self.sequence = -1
        # The request that carries it now. A response to any other tells nothing that we still wait for.
        self.request: Request | None = None
        self.maybe_written = False
        self.pinned = False
        self.attempts = 0  # transmissions whose bytes reached a socket
        self.failures = 0  # of those, the ones that ended in an error
        self.limited_failures = 0  # responses with a code that is retried a few times only
        self.connections_lost = 0  # connections that died under it
        self.out_of_order = 0  # responses "out of order" at the head of the chain, in a row
        self.wait_for_metadata = 0  # the number of the topic's metadata request whose response it waits for
        self.retry_at = 0.0
        self.wait_for_connection = False  # a connection to its leader ends the wait until `retry_at`

    def __repr__(self) -> str:
        where = f"{self.partition.topic.name}-{self.partition.index}"
        return f"<Batch {self.number} of {where}: {len(self.entries)} from sequence {self.sequence}>"

    @property
    def is_being_written(self) -> bool:
        """Whether a request carries it of which a byte may have reached a socket."""
        return self.request is not None and self.request.write_started

    def mark_maybe_written(self) -> None:
        """A transmission of it did not end in a refusal before the append."""
        self.maybe_written = self.pinned = True

    def unseal(self, number: int) -> None:
        """Make it ready to be sealed under a new chain. That ends no pause after an error."""
        self.data = None
        self.number = number
        self.pinned = False
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

    def __repr__(self) -> str:
        return f"<Request to node {self.node}: {self.batches}>"
