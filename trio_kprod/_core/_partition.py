"""One partition: what waits for it, what is sealed and unsettled, and which batch may be sent next.

Three rules keep the order of a partition's log. Batches are numbered in a chain and sent lowest first. No
batch is sent before the one five places ahead of it is settled (the *window*: a broker recognises a
duplicate among the last five batches it appended, no further back). And only one batch is in flight while we
*probe*: a broker that knows nothing of a producer, or has forgotten it, accepts any first sequence number.

A partition is in one of four phases (`Phase`):

==========  ===========================================  ===========================================
phase       what may be sent                             what ends it
==========  ===========================================  ===========================================
STARTING    nothing: there is no chain yet               a producer id: PROBING
PROBING     the lowest batch, alone                      it is acknowledged: FLOWING
FLOWING     up to the window                             an error, a lost connection, another leader,
                                                         a long silence: PROBING
RESTARTING  only what is *pinned*, lowest first, alone   nothing is in flight and nothing is pinned:
                                                         the next epoch begins, PROBING
==========  ===========================================  ===========================================

Any phase but STARTING becomes RESTARTING when a sealed batch is settled without having been written: the
sequence numbers of the batches behind it now have a gap before them. A batch is *pinned* to its chain while
it may be in the log under that chain; sealed under another one, it could be in the log twice. So a pinned
batch is sent again first, to learn whether it is there. Then all unsettled batches go on under the next
epoch, from sequence 0. (Without idempotence there are no epochs: PROBING takes the place of RESTARTING.)
"""

from __future__ import annotations

import enum
import itertools
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from .._messages import BATCH_OVERHEAD, SIZE, Entry, total_size
from ._batch import LAST_EPOCH, Batch, Chain
from ._progress import Part
from ._records import encode
from ._shared import Shared

if TYPE_CHECKING:
    from ._topic import Topic

#: Brokers look every ten minutes for producers to forget (KIP-854).
_LONG_SILENCE = 600.0


class Phase(enum.Enum):
    """How much of a partition may be in flight; see the table above."""

    STARTING = enum.auto()
    PROBING = enum.auto()
    FLOWING = enum.auto()
    RESTARTING = enum.auto()


class Partition:
    """The state of one partition, and the decisions about it; `_responses` says what responses change."""

    def __init__(self, topic: Topic, index: int, shared: Shared, former: Chain | None = None) -> None:
        self.topic = topic
        self.index = index
        self.shared = shared
        self.queue: deque[Entry] = deque()  # not sealed yet, in accepted order
        self.queue_bytes = 0
        self.batches: deque[Batch] = deque()  # sealed (or to be sealed again), unsettled, in order
        self.leader = -1
        self.leader_epoch = -1
        # After a `former` chain we begin the next epoch: if the log is the old one after all, it must not
        # take new messages for duplicates.
        self.chain = former
        self.phase = Phase.STARTING
        if former is not None:
            self.phase = Phase.RESTARTING if shared.rules.idempotent else Phase.PROBING
        # It proves nothing that the leader lacks a batch of this chain: another batch was given up and may
        # still be appended, or the leader may be deposed.
        self.absence_proves_nothing = False
        self.gathers_until = 0.0  # when its wait for a request in flight ends, see `_gathering`
        self.progress = Part()
        self.heard_at = 0.0  # the last acknowledgement
        self.log_is_gone = False  # the topic was recreated: nothing old can be in the new log

    def __repr__(self) -> str:
        return (
            f"<Partition {self.topic.name}-{self.index}: {len(self.queue)} queued, "
            f"{len(self.batches)} unsettled batches, leader {self.leader}>"
        )

    # ---- what waits ------------------------------------------------------------------------------------

    def append(self, message: Entry) -> None:
        self.queue.append(message)
        self.queue_bytes += message[SIZE]

    @property
    def idle(self) -> bool:
        return not self.batches and not self.queue

    @property
    def has_unsent(self) -> bool:
        return bool(self.queue) or self._lowest_unsent() is not None

    @property
    def unsettled_bytes(self) -> int:
        return self.queue_bytes + sum(batch.size for batch in self.batches)

    @property
    def in_flight(self) -> bool:
        return any(batch.request is not None for batch in self.batches)

    @property
    def batch_limit(self) -> float:
        """How many bytes its topic and its leader take in one batch."""
        return min(self.topic.batch_limit, self.shared.limits.of(self.leader))

    # ---- what to send ----------------------------------------------------------------------------------

    def next_batch(self) -> Batch | None:
        """The batch that may be sent now, if there is one; formed from the queue if need be."""
        if self.leader < 0:
            return None
        if self.phase is Phase.RESTARTING and not self._restart():
            proving = self._next_to_prove()
            return None if proving is None else self._small_enough(proving)
        waiting = self._lowest_unsent()
        if waiting is not None:
            return self._small_enough(waiting) if self._may_send(waiting) else None
        if self.queue and self.may_form(self.queue_bytes):
            entries, size = take(self.queue, self.batch_limit)
            self.queue_bytes -= size
            return self.form(entries, size)
        return None

    def may_form(self, available_bytes: int) -> bool:
        """Whether a batch may be formed now of the `available_bytes` that wait.

        A full one, within the window. Or any, if nothing of the partition is unsettled and it need not wait
        for the response to a request in flight (see `_gathering`).
        """
        if self.leader < 0 or (self.phase is Phase.RESTARTING and not self._restart()):
            return False
        if self.phase is Phase.STARTING and not self._start_chain():
            return False
        full = available_bytes >= self.batch_limit - BATCH_OVERHEAD
        if not self.batches:
            return full or not self.shared.gathering.must_wait(self)
        if self.phase is Phase.PROBING or self._lowest_unsent() is not None:
            return False
        assert self.chain is not None
        distance = self.chain.next_number - self.batches[0].number
        return full and distance < self.shared.rules.window

    def _small_enough(self, batch: Batch) -> Batch:
        """The batch, or as much of it as its leader takes."""
        while self.is_beyond_limit(batch) and batch.is_divisible:
            batch = self.halve(batch)
        self._isolate(batch)
        return batch

    def is_beyond_limit(self, batch: Batch) -> bool:
        """Whether it is larger than what its leader takes, as far as we know."""
        return batch.full_size > self.shared.limits.of(self.leader)

    def _isolate(self, batch: Batch) -> None:
        """A batch that is larger than its leader takes may have to be given up. Until that is decided, no
        later batch is sent: we could not prove that the log lacks the later one and will not get it."""
        if self.is_beyond_limit(batch):
            self.probe()

    def shorten(self, batch: Batch, entries: Sequence[Entry]) -> None:
        """Keep only these messages of a batch; they must be sealed under another chain."""
        shorter = Batch(self, entries, total_size(entries))
        shorter.attempts = batch.attempts
        self._put(shorter if entries else None, in_place_of=[batch])

    def halve(self, batch: Batch) -> Batch:
        """Put two batches in the place of one, under the same sequence numbers, and return the first.

        A broker appends each sequence number of an epoch once, and in order. So the parts of a batch that
        may be in the log cannot duplicate it, nor can a late copy of it duplicate the parts. What differs is
        what "out of order" means: see `join`.
        """
        cut = _where_to_cut(batch.entries)
        first = batch.part(0, cut)
        second = batch.part(cut, len(batch.entries))
        if batch.pinned and self.shared.rules.idempotent:
            first.whole, first.rest = batch, second
            self.probe()  # the rest is not sent before it is known what became of the first part
        batch.data = None
        self._put(first, second, in_place_of=[batch])
        return first

    def join(self, first: Batch) -> bool:
        """Undo `halve`, to ask whether the log has the whole batch.

        The whole has to be sent for that, as brokers recognise a duplicate by first and last sequence number.
        Returns False if it cannot be undone because the rest was given up.
        """
        whole, rest = first.whole, first.rest
        if whole is None or rest is None or rest not in self.batches:
            return False
        whole.indivisible = True
        whole.may_be_there_in_part |= first.unanswered or first.may_be_there_in_part
        whole.out_of_order = 1
        whole.attempts, whole.retry_at = first.attempts, first.retry_at
        self._put(whole, in_place_of=[first, rest])
        return True

    def _put(self, *batches: Batch | None, in_place_of: Sequence[Batch]) -> None:
        assert self.chain is not None
        new = [batch for batch in batches if batch is not None]
        place, number = self.batches.index(in_place_of[0]), in_place_of[0].number
        for old in in_place_of:
            self.batches.remove(old)
        for batch in reversed(new):
            self.batches.insert(place, batch)
        for step, batch in enumerate(new):
            batch.number = number + step
        more = len(new) - len(in_place_of)
        for behind in itertools.islice(self.batches, place + len(new), None):
            behind.number += more
        self.chain.next_number += more

    def form(self, entries: Sequence[Entry], size: int) -> Batch:
        """Make a batch of messages, behind all others."""
        assert self.chain is not None
        if self.shared.outbox.now - self.heard_at > _LONG_SILENCE:
            self.probe()
        batch = Batch(self, entries, size)
        batch.number = self.chain.next_number
        self.chain.next_number += 1
        self.batches.append(batch)
        self._isolate(batch)
        return batch

    def seal(self, batch: Batch) -> None:
        """Give a batch its sequence number and its bytes, unless it has them already."""
        if batch.data is not None:
            return
        assert self.chain is not None
        rules = self.shared.rules
        if batch.sequence < 0:
            batch.sequence = self.chain.take(len(batch.entries))
        # Encoding may take long, and another thread may give everything up meanwhile. So leave nothing half
        # done here.
        data, uncompressed = rules.unlocked(
            partial(
                encode,
                batch.entries,
                producer_id=self.chain.producer_id,
                epoch=self.chain.epoch,
                sequence=batch.sequence,
                compression=rules.compression,
                compression_level=rules.compression_level,
                yield_gil=rules.yield_gil,
            )
        )
        batch.data = data
        if rules.compression:
            sizes = {"uncompressed_bytes": uncompressed, "compressed_bytes": len(data)}
            self.shared.outbox.observe("compress", lambda: {"message_count": len(batch.entries), **sizes})

    def _lowest_unsent(self) -> Batch | None:
        for batch in self.batches:
            if batch.request is None:
                return batch
        return None

    def _may_send(self, batch: Batch) -> bool:
        if batch.wait_for_metadata or batch.retry_at > self.shared.outbox.now:
            return False
        if self.phase is Phase.PROBING and self.in_flight:
            return False
        return batch.number - self.batches[0].number < self.shared.rules.window

    # ---- starting and restarting the chain -------------------------------------------------------------

    def probe(self) -> None:
        """From now on one batch at a time, until one is acknowledged."""
        if self.phase is Phase.FLOWING:
            self.phase = Phase.PROBING

    def flow(self) -> None:
        """The lowest batch was acknowledged, and nothing else is in flight."""
        if self.phase is Phase.PROBING:
            self.phase = Phase.FLOWING

    def restart(self) -> None:
        """The chain has a gap: go on under the next epoch as soon as it is safe."""
        self.phase = Phase.RESTARTING if self.shared.rules.idempotent else Phase.PROBING

    def forget_log(self) -> None:
        """The topic was deleted and created again (another topic id): its old log is gone, with all in it."""
        self.log_is_gone = True
        self.restart()

    def _start_chain(self) -> bool:
        shared = self.shared
        if shared.producer_id is None or shared.needs_producer_id:
            return False
        self.chain = Chain(shared.producer_id, 0 if shared.rules.idempotent else -1)
        self.phase = Phase.PROBING
        return True

    def _restart(self) -> bool:
        """Start the next epoch if all unsettled batches may be sealed again. Returns whether it did."""
        if self.in_flight:
            return False
        if not self.log_is_gone and any(batch.pinned for batch in self.batches):
            return False
        chain = self._next_chain()
        if chain is None:
            return False
        for batch in self.batches:
            batch.unseal(chain.next_number)
            chain.next_number += 1
        self.chain = chain
        self.log_is_gone = self.absence_proves_nothing = False
        self.phase = Phase.PROBING
        return True

    def _next_chain(self) -> Chain | None:
        current, fresh_id, spoiled = self.chain, self.shared.producer_id, self.shared.spoiled_ids
        if current is not None and current.producer_id not in spoiled:
            if current.epoch < LAST_EPOCH:
                return current.next_epoch()
            self.spoil_producer_id()
        if fresh_id is None or fresh_id in spoiled:
            return None
        return Chain(fresh_id, 0)

    def spoil_producer_id(self) -> None:
        """Never start a chain under the present producer id again; the core asks for another."""
        if self.chain is not None and self.shared.rules.idempotent:
            self.shared.spoiled_ids.add(self.chain.producer_id)

    @property
    def needs_producer_id(self) -> bool:
        """Whether nothing can be sent before a broker gives us another producer id."""
        if self.chain is None:
            return self.shared.needs_producer_id
        if self.in_flight or any(batch.pinned for batch in self.batches):
            return False
        spoiled = self.phase is Phase.RESTARTING and self.chain.producer_id in self.shared.spoiled_ids
        return spoiled and self.shared.needs_producer_id

    def _next_to_prove(self) -> Batch | None:
        """While restarting: the lowest batch that may be in the log, sent again to learn whether it is."""
        if self.in_flight or self.log_is_gone:
            return None
        for batch in self.batches:
            if batch.pinned:
                ready = not batch.wait_for_metadata and batch.retry_at <= self.shared.outbox.now
                return batch if ready else None
        return None

    # ---- leadership ------------------------------------------------------------------------------------

    def follow(self, leader: int, epoch: int) -> bool:
        """Take a leader from metadata or a response. Returns whether it is news.

        Metadata with a lower epoch is older than what we know: a leader epoch never goes back (KIP-320).
        """
        if epoch < self.leader_epoch or (leader, epoch) == (self.leader, self.leader_epoch):
            return False
        self.probe()  # so nothing goes there before the old leader has responded
        if leader != self.leader:
            self.follow_nobody()
            self.shared.led_by.setdefault(leader, {})[self] = None
        self.leader, self.leader_epoch = leader, epoch
        return True

    def doubt_epoch(self) -> None:
        """What we know may be wrong, or the topic may have been created again: any leader epoch is news.

        So we may follow a deposed leader, and it proves nothing what the log of that one lacks.
        """
        self.leader_epoch = -1
        self.absence_proves_nothing = True

    def follow_nobody(self) -> None:
        self.shared.led_by.get(self.leader, {}).pop(self, None)
        self.leader = -1


def _where_to_cut(entries: Sequence[Entry]) -> int:
    """The middle; but a message that may be too large by itself comes last in its part.

    The messages before it can then be acknowledged, which shows that those behind it are not in the log.
    """
    largest = max(range(len(entries)), key=lambda index: entries[index][SIZE])
    middle = len(entries) // 2
    if middle != largest and 2 * entries[largest][SIZE] <= total_size(entries):
        return middle
    return min(largest + 1, len(entries) - 1)


def take(queue: deque[Entry], limit: float) -> tuple[list[Entry], int]:
    """Take from the left what fits into a batch of `limit` bytes, but at least one message."""
    room = limit - BATCH_OVERHEAD
    count = size = 0
    for message in queue:
        held = size + message[SIZE]
        if held > room and count:
            break
        size = held
        count += 1
    return [queue.popleft() for _ in range(count)], size
