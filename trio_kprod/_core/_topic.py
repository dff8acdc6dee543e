"""One topic: its partitions, and the messages that have no partition yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from operator import attrgetter
from typing import NamedTuple
from uuid import UUID

from .._errors import DeliveryTimedOut, PartitioningFailed, UnknownTopic
from .._messages import (
    ACCEPTED_AT,
    BATCH_OVERHEAD,
    KEY,
    PARTITION,
    PARTITION_OVERHEAD,
    SIZE,
    Entry,
    topic_overhead,
    total_size,
)
from ._batch import Batch, Chain
from ._error_codes import Reaction, refusal, row
from ._partition import Partition, take
from ._partitioners import Partitioner, hash_key
from ._progress import Part, Progress
from ._reports import PartitionCount
from ._responses import give_up
from ._shared import EXPIRY_PACE, PARTITION_GRACE, Abandoned, Shared

#: How many partitions compete for the next messages without key.
_CANDIDATES = 32

#: What brokers without topic ids (KIP-516) call every topic.
NO_TOPIC_ID = UUID(int=0)


@dataclass(frozen=True, slots=True)
class PartitionMetadata:
    index: int
    leader: int
    leader_epoch: int


class TopicMetadata(NamedTuple):
    """What a metadata answer says of one topic."""

    name: str
    code: int
    id: UUID = NO_TOPIC_ID
    partitions: Sequence[PartitionMetadata] = ()


class Topic:
    """A topic that has, or had, messages."""

    def __init__(self, name: str, shared: Shared) -> None:
        self.name = name
        self.shared = shared
        self.id = NO_TOPIC_ID
        self.known = False
        self._expires = shared.rules.delivery_timeout < inf
        self.partitions: list[Partition] = []
        # Messages wait in one of three rooms until they have a partition:
        self.arrivals: deque[Entry] = deque()  # the partitions are not known yet
        self.keyless: deque[Entry] = deque()  # any will do: they get one when a batch is formed
        self.keyless_bytes = 0
        # Asked for a partition that the topic did not have when we last looked: by the number of metadata
        # requests that had been made when they came.
        self.strays: dict[int, _Strays] = {}
        self.unsettled = 0
        overhead = shared.rules.request_overhead + topic_overhead(name) + PARTITION_OVERHEAD
        self._largest_batch = min(shared.rules.batch_size, shared.rules.max_request_size - overhead)
        self.batch_limit = self._largest_batch
        self.awaited = False  # somebody waits to hear the number of partitions
        self.requests_made = 0  # how often the core has asked about it
        self.useless_responses = 0
        self.ask_at = 0.0  # not before
        self.outdated = False  # to be asked about as soon as anybody needs to know
        self._former_ids: set[UUID] = set()
        self._former_chains: dict[int, Chain] = {}  # of partitions that the topic has no more
        # Since when metadata is of no use: it lacks the topic, or looks older than what we know.
        self._useless_for = 0.0
        self._useless_at: float | None = None
        self.asks_later = False  # a timer is set for `ask_at`
        self._placeless = Part()  # the messages without partition
        self.progress = Progress(name, shared.outbox, self._parts)
        self._expires_at = inf

    def __repr__(self) -> str:
        return f"<Topic {self.name}: {len(self.partitions)} partitions, {self.unsettled} unsettled>"

    @property
    def wanted(self) -> bool:
        """Whether anybody needs to know its metadata."""
        return self.unsettled > 0 or self.awaited

    def want_count(self) -> None:
        """Somebody waits to hear the number of partitions."""
        if not self.wanted:
            self._begin_to_be_wanted()
        self.awaited = True
        self.shared.outbox.refresh(self)

    def _begin_to_be_wanted(self) -> None:
        # The time until now, during which nobody asked, does not count against the topic.
        self._useless_for, self._useless_at = 0.0, None
        if self.outdated:
            self.outdated = False
            self.shared.outbox.refresh(self)

    # ---- messages come in ------------------------------------------------------------------------------

    def accept(self, messages: list[Entry]) -> None:
        if not self.wanted:
            self._begin_to_be_wanted()
        self.unsettled += len(messages)
        if self._expires:
            self._watch_expiry(_oldest(messages))
        if self.known:
            self._place(messages)
        else:
            self.arrivals.extend(messages)
            self.shared.outbox.refresh(self)
        self._watch_progress()

    def _parts(self) -> list[Part]:
        return [self._placeless, *[partition.progress for partition in self.partitions]]

    def _watch_progress(self, since: float | None = None) -> None:
        """Messages came in, or (`since` they wait) got their partition."""
        if since is None:
            since = self.shared.outbox.now
        if self._has_placeless:
            self._placeless.begin_to_wait(since)
        for partition in self.shared.outbox.ready_partitions:
            if partition.topic is self:
                partition.progress.begin_to_wait(since)
        self.progress.watch()

    @property
    def _has_placeless(self) -> bool:
        return bool(self.arrivals or self.keyless or self.strays)

    def _place(self, messages: Iterable[Entry]) -> None:
        partitions, count = self.partitions, len(self.partitions)
        partitioner = self.shared.rules.partitioner
        for message in messages:
            index, key = message[PARTITION], message[KEY]
            if index is None:
                if partitioner is not None:
                    index = self._ask(partitioner, message)
                    if index is None:
                        continue
                elif key is not None:
                    index = hash_key(key) % count
                else:
                    self.keyless.append(message)
                    self.keyless_bytes += message[SIZE]
                    continue
            if index < count:
                partitions[index].append(message)
                self.shared.outbox.ready_partitions[partitions[index]] = None
            else:
                self._keep_stray(message)
        if self.keyless:
            self.shared.outbox.ready_topics[self] = None

    def _keep_stray(self, message: Entry) -> None:
        strays = self.strays.setdefault(self.requests_made, _Strays())
        strays.messages.append(message)
        strays.since = self.shared.outbox.now
        self.shared.outbox.refresh(self)

    def _ask(self, partitioner: Partitioner, message: Entry) -> int | None:
        """One that raises, or answers nonsense, fails this message only."""
        count = len(self.partitions)
        available = [partition.index for partition in self.partitions if partition.leader >= 0]
        try:
            index = partitioner(message, count, available)
        except Abandoned:
            raise
        except BaseException as error:
            # Also SystemExit and the like: the worker is not the program that they are meant to end.
            failure = PartitioningFailed(f"the partitioner raised {error!r}")
            failure.__cause__ = error
        else:
            if isinstance(index, int) and 0 <= index < count:
                return index
            failure = PartitioningFailed(
                f"the partitioner answered {index!r}, not a partition from 0 to {count - 1}"
            )
        self.shared.outbox.settle(self, [message], error=failure)
        return None

    # ---- batches of messages without key -----------------------------------------------------------------

    def form_keyless(
        self, may_send_to: Callable[[int], bool], taken: Collection[Partition]
    ) -> Iterator[Batch]:
        """Form batches of messages without key, each for the partition with the fewest unsettled bytes.

        Only partitions whose leader is connected count, so that a dead broker holds none of them up
        (KIP-794). `taken` have their batch of this round already. Of many partitions, some by lot are looked
        at, and the others only if those will not do.
        """
        if len(self.partitions) > _CANDIDATES:
            some = self.shared.random.sample(self.partitions, _CANDIDATES)
            formed = False
            for batch in self._form_keyless_among(some, may_send_to, taken):
                formed = True
                yield batch
            if formed:
                return
        yield from self._form_keyless_among(self.partitions, may_send_to, taken)

    def _form_keyless_among(
        self,
        partitions: Sequence[Partition],
        may_send_to: Callable[[int], bool],
        taken: Collection[Partition],
    ) -> Iterator[Batch]:
        if any(partition.leader < 0 for partition in partitions):
            self.shared.outbox.refresh(self)
        open_to = [one for one in partitions if one not in taken and may_send_to(one.leader)]
        self.shared.random.shuffle(open_to)
        for partition in sorted(open_to, key=attrgetter("unsettled_bytes")):
            if self.keyless and partition.may_form(self.keyless_bytes):
                entries, size = take(self.keyless, self.batch_limit)
                self.keyless_bytes -= size
                now = self.shared.outbox.now
                self._placeless.move_on(now, still_waits=self._has_placeless)
                partition.progress.begin_to_wait(now)
                yield partition.form(entries, size)

    def lower_batch_limit(self, size: int) -> None:
        """The broker refused a batch as too large."""
        self.batch_limit = max(min(self.batch_limit, size), BATCH_OVERHEAD + 1)

    def restore_batch_limit(self) -> None:
        """It was one record that was too large."""
        self.batch_limit = self._largest_batch

    # ---- metadata ----------------------------------------------------------------------------------------

    def learn(self, metadata: TopicMetadata, answering_since: float) -> None:
        """Take in what a broker says of this topic; it may be older than what we know."""
        self._end_waits_for_metadata()
        if row(metadata.code).reaction is Reaction.REFUSED:
            self.fail(refusal(metadata.code))
            self._tell_count(refusal(metadata.code))
        elif not metadata.partitions:
            self._missing(metadata.code, answering_since)
        elif not self._looks_older(metadata):
            self._useless_for, self._useless_at = 0.0, None
            self._update(metadata)
        elif self._useless_too_long(answering_since):
            self._useless_for, self._useless_at = 0.0, None
            self._stop_doubting(metadata)
            self._update(metadata)
        elif metadata.id not in self._former_ids:
            self._update(metadata)  # of some partitions it may know more than we do

    @property
    def unresolved(self) -> bool:
        """Whether another look at the metadata is needed although the last one has been answered."""
        useless = not self.known or self._useless_at is not None or bool(self.strays)
        return useless or any(partition.leader < 0 for partition in self.partitions)

    def _update(self, metadata: TopicMetadata) -> None:
        recreated = NO_TOPIC_ID not in (self.id, metadata.id) and self.id != metadata.id
        if recreated:
            self._former_ids.add(self.id)
        if metadata.id != NO_TOPIC_ID:
            self.id = metadata.id
        before = len(self.partitions)
        count = max(one.index for one in metadata.partitions) + 1
        if recreated:
            self._forget_log(count)
        # Otherwise, fewer partitions than before can only be old news: Kafka never takes any away.
        for index in range(before, count):
            self.partitions.append(Partition(self, index, self.shared, self._former_chains.pop(index, None)))
        for one in metadata.partitions:
            partition = self.partitions[one.index]
            if partition.follow(one.leader, one.leader_epoch) or recreated:
                self.shared.outbox.ready_partitions[partition] = None
        self.known = True
        self._place_all()
        if self.awaited or len(self.partitions) != before:
            self._tell_count()
        self.shared.outbox.wake(self.partitions)

    def _looks_older(self, metadata: TopicMetadata) -> bool:
        """Whether this seems to be old news. (Without topic ids it may be a topic made anew.)"""
        if metadata.id not in (NO_TOPIC_ID, self.id):
            return metadata.id in self._former_ids
        known = self.partitions
        if metadata.id == NO_TOPIC_ID and len(metadata.partitions) < len(known):
            return True
        return any(
            one.leader_epoch < known[one.index].leader_epoch
            for one in metadata.partitions
            if one.index < len(known)
        )

    def _stop_doubting(self, metadata: TopicMetadata) -> None:
        """What looks like old news has been told for so long that it is true.

        If it is a former id, what was sent meanwhile may be in the log after all.
        """
        if metadata.id == NO_TOPIC_ID:
            self._forget_partitions(len(metadata.partitions))
        if metadata.id not in self._former_ids:
            return self._doubt_epochs()
        self._former_ids.discard(metadata.id)
        error = UnknownTopic(f"brokers disagreed about which topic {self.name!r} is")
        for partition in self.partitions:
            for batch in list(partition.batches):
                if batch.maybe_written:
                    give_up(batch, error)
        return None

    def _useless_too_long(self, answering_since: float) -> bool:
        """Only time during which some broker answers counts against `topic_timeout`: an outage never does."""
        again = self._useless_at is not None
        if self._useless_at is not None:
            self._useless_for += max(0.0, self.shared.outbox.now - max(self._useless_at, answering_since))
        self._useless_at = self.shared.outbox.now
        return again and self._useless_for >= self.shared.rules.topic_timeout

    def _doubt_epochs(self) -> None:
        for partition in self.partitions:
            partition.doubt_epoch()

    def _forget_log(self, count: int) -> None:
        self._forget_partitions(count)
        for partition in self.partitions:
            partition.leader_epoch = -1
            if partition.chain is not None:
                partition.forget_log()

    def _forget_partitions(self, count: int) -> None:
        error = PartitioningFailed(
            f"topic {self.name!r} was made anew, with partitions 0 to {count - 1} only"
        )
        for partition in self.partitions[count:]:
            partition.follow_nobody()
            self._fail_partition(partition, error)
            if partition.chain is not None:
                self._former_chains[partition.index] = partition.chain
        del self.partitions[count:]

    def _place_all(self) -> None:
        while self.arrivals:
            self._place([self.arrivals[0]])
            self.arrivals.popleft()  # only now: what a partitioner never returns from is not lost
        self._place_strays()
        since = self._placeless.waits_since
        if not self._has_placeless:
            self._placeless.move_on(self.shared.outbox.now, still_waits=False)
        self._watch_progress(since)

    def _place_strays(self) -> None:
        """Those whose partition is known now; those that have waited for it long enough fail."""
        count = len(self.partitions)
        for asked, strays in list(self.strays.items()):
            # A response to a request that was made before they came says nothing of what is there now.
            asked_since = self.requests_made > asked
            is_over = asked_since and self.shared.outbox.now >= strays.since + PARTITION_GRACE
            for message in [strays.messages.popleft() for _ in range(len(strays.messages))]:
                index = message[PARTITION]
                if index is None or index < count:
                    self._place([message])
                elif is_over:
                    text = f"topic {self.name!r} has partitions 0 to {count - 1}, not {index}"
                    self.shared.outbox.settle(self, [message], error=PartitioningFailed(text))
                else:
                    strays.messages.append(message)
            if not strays.messages:
                del self.strays[asked]

    def _missing(self, code: int, answering_since: float) -> None:
        """The topic, or all of its partitions, are unknown to the broker that answered."""
        if self.id == NO_TOPIC_ID:
            self._doubt_epochs()  # it may come back as another topic, and we could not tell
        if self._useless_too_long(answering_since):
            error = UnknownTopic(
                f"the cluster does not know topic {self.name!r}: {refusal(code)} "
                f"for {self.shared.rules.topic_timeout:g} s"
            )
            self._useless_for, self._useless_at, self.known = 0.0, None, False
            self.fail(error)
            self._tell_count(error)

    def _tell_count(self, error: BaseException | None = None) -> None:
        if error is None or self.awaited:
            self.shared.outbox.actions.append(PartitionCount(self.name, len(self.partitions), error))
        if error is not None:
            self.shared.outbox.observe("topic_error", lambda: {"topic": self.name, "error": error})
        self.awaited = False

    def _end_waits_for_metadata(self) -> None:
        for partition in self.partitions:
            for batch in partition.batches:
                if batch.wait_for_metadata <= self.requests_made:
                    batch.wait_for_metadata = 0
        self.shared.outbox.wake(self.partitions)

    def fail_without_producer_id(self, error: BaseException) -> None:
        """Give up what cannot be sent without another producer id."""
        starved = [partition for partition in self.partitions if partition.needs_producer_id]
        if len(starved) == len(self.partitions):
            return self.fail(error)
        for partition in starved:
            self._fail_partition(partition, error)
        return None

    # ---- messages are given up ---------------------------------------------------------------------------

    def fail(self, error: BaseException) -> None:
        """Give up everything unsettled. Messages that come later are tried on their own account.

        What was handed over first is told first, so that it can be sent again in the order it is told.
        """
        for partition in self.partitions:
            self._fail_partition(partition, error)
        self.keyless_bytes = 0
        strays = [group.messages for group in self.strays.values()]
        self.strays = {}
        for room in (self.keyless, *strays, self.arrivals):
            self._fail_room(room, error)

    def _fail_partition(self, partition: Partition, error: BaseException) -> None:
        for batch in list(partition.batches):
            if batch in partition.batches:
                give_up(batch, error)
        partition.queue_bytes = 0
        self._fail_room(partition.queue, error, partition.index)

    def _fail_room(self, room: deque[Entry], error: BaseException, partition: int = -1) -> None:
        if room:
            entries = list(room)
            room.clear()
            self.shared.outbox.settle(self, entries, partition=partition, error=error)

    def _watch_expiry(self, first: float) -> None:
        """Have messages expire `delivery_timeout` after they were accepted; the first was at `first`.

        They do not come in that order: tasks that waited for room hand over later what they accepted before.
        """
        when = first + self.shared.rules.delivery_timeout
        if when < self._expires_at:
            self._expires_at = when
            self.shared.outbox.call_at(when, self._expire)

    def _expire(self) -> None:
        if self.shared.outbox.now < self._expires_at:
            return  # done meanwhile, for a message that was older
        self._expires_at = inf
        timeout = self.shared.rules.delivery_timeout
        due = self.shared.outbox.now - timeout
        error = DeliveryTimedOut(f"not acknowledged within {timeout:g} s of the call{self._no_producer_id()}")
        error.__cause__ = self.shared.no_producer_id
        for room, partition in self._rooms():
            self._expire_room(room, due, error, partition)
        for partition in self.partitions:
            for batch in list(partition.batches):
                if batch in partition.batches and _oldest(batch.entries) <= due:
                    give_up(batch, error)
        self.shared.outbox.wake(self.partitions)
        remaining = [_oldest(room) for room, _ in self._rooms() if room]
        remaining += [_oldest(batch.entries) for p in self.partitions for batch in p.batches]
        if remaining:
            # Not for each message by itself: looking through all of them takes its time.
            self._watch_expiry(max(min(remaining), due + EXPIRY_PACE))

    def _no_producer_id(self) -> str:
        cause = self.shared.no_producer_id
        return "" if cause is None else f"; no broker gives a producer id: {cause}"

    def _rooms(self) -> list[tuple[deque[Entry], Partition | None]]:
        rooms: list[tuple[deque[Entry], Partition | None]] = [
            (self.arrivals, None),
            (self.keyless, None),
            *[(strays.messages, None) for strays in self.strays.values()],
        ]
        return rooms + [(partition.queue, partition) for partition in self.partitions]

    def _expire_room(
        self, room: deque[Entry], due: float, error: BaseException, partition: Partition | None
    ) -> None:
        expired = [message for message in room if message[ACCEPTED_AT] <= due]
        if not expired:
            return
        gone = set(map(id, expired))
        kept = [message for message in room if id(message) not in gone]
        room.clear()
        room.extend(kept)
        size = total_size(expired)
        if room is self.keyless:
            self.keyless_bytes -= size
        if partition is not None:
            partition.queue_bytes -= size
        index = -1 if partition is None else partition.index
        self.shared.outbox.settle(self, expired, partition=index, error=error)

    # ---- progress ----------------------------------------------------------------------------------------

    def made_progress(self, partition: int, *, acknowledged: bool) -> None:
        """Messages were settled; `partition` is -1 if they never had one."""
        now = self.shared.outbox.now
        if partition < 0:
            self._placeless.move_on(now, still_waits=self._has_placeless)
        elif partition < len(self.partitions):
            one = self.partitions[partition]
            one.progress.move_on(now, still_waits=not one.idle)
        if acknowledged:
            self.progress.acknowledged()


class _Strays:
    """Messages for a partition that is not there yet, and when the last of them came."""

    __slots__ = ("messages", "since")

    def __init__(self) -> None:
        self.messages: deque[Entry] = deque()
        self.since = 0.0


def _oldest(messages: Iterable[Entry]) -> float:
    return min(message[ACCEPTED_AT] for message in messages)
