"""One topic: its partitions, and the messages that have no partition yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from .._errors import PartitioningFailed, UnknownTopic, explained
from .._messages import (
    BATCH_OVERHEAD,
    KEY,
    PARTITION,
    PARTITION_OVERHEAD,
    SIZE,
    Entry,
    topic_overhead,
    total_size,
)
from ._batch import Chain
from ._error_codes import Reaction, refusal, row
from ._expiry import Expiry
from ._keyless import Keyless
from ._metadata import NO_TOPIC_ID, MetadataRequests, MetadataTrust, TopicMetadata
from ._partition import Partition
from ._partitioners import Partitioner, hash_key
from ._progress import Part, Progress
from ._reports import PartitionCount, Settled
from ._responses import give_up
from ._shared import PARTITION_GRACE, Abandoned, Shared
from ._troubles import WHOLE_TOPIC, Troubles

_LEADER_NOT_AVAILABLE = 5


class Topic:
    """A topic that has, or had, messages."""

    def __init__(self, name: str, shared: Shared) -> None:
        self.name = name
        self.shared = shared
        self.id = NO_TOPIC_ID
        self.known = False
        self.partitions: list[Partition] = []
        # Messages wait in one of three rooms until they have a partition:
        self.arrivals: deque[Entry] = deque()  # the partitions are not known yet
        self.keyless = Keyless(self)  # any will do: they get one when a batch is formed
        # for a partition that the topic did not have when we last looked. The key is the number of metadata
        # requests that had been made when they came.
        self.strays: dict[int, _Strays] = {}
        self.unsettled = 0
        self.request_overhead = topic_overhead(name)  # what it takes in a request besides its partitions
        overhead = shared.rules.request_overhead + self.request_overhead + PARTITION_OVERHEAD
        self._largest_batch = min(shared.rules.batch_size, shared.rules.max_request_size - overhead)
        self.batch_limit = self._largest_batch
        self.awaited = False  # a task waits for the number of partitions
        self.requests = MetadataRequests()
        self._trust = MetadataTrust(shared.rules.topic_timeout)
        # Brokers tell what looks like old news. We go on asking, even if no message waits: with acks=0,
        # messages are lost that are sent to a broker that no longer leads.
        self._is_doubting = False
        self._former_chains: dict[int, Chain] = {}  # of partitions that the topic no longer has
        self.placeless = Part()  # the messages without partition
        self.troubles = Troubles(name, shared.outbox)
        self.progress = Progress(name, shared.outbox, self._parts, self.trouble_of)
        self._expiry = Expiry(self)

    def __repr__(self) -> str:
        return f"<Topic {self.name}: {len(self.partitions)} partitions, {self.unsettled} unsettled>"

    @property
    def wanted(self) -> bool:
        """Whether its metadata is needed."""
        return self.unsettled > 0 or self.awaited or self._is_doubting

    def want_count(self) -> None:
        """A task waits for the number of partitions."""
        if not self.wanted:
            self._begin_to_be_wanted()
        self.awaited = True
        self.shared.outbox.refresh(self)

    def _begin_to_be_wanted(self) -> None:
        # The time until now, in which no metadata was requested, does not count against the topic.
        self._trust.settle()
        if self.requests.is_outdated:
            self.requests.is_outdated = False
            self.shared.outbox.refresh(self)

    # ---- messages come in ------------------------------------------------------------------------------

    def accept(self, messages: list[Entry]) -> None:
        if not self.wanted:
            self._begin_to_be_wanted()
        self.unsettled += len(messages)
        self._expiry.watch(messages)
        if self.known:
            self._place(messages)
        else:
            self.arrivals.extend(messages)
            self.shared.outbox.refresh(self)
        self._watch_progress()

    def _parts(self) -> list[Part]:
        return [self.placeless, *[partition.progress for partition in self.partitions]]

    def _watch_progress(self, since: float | None = None) -> None:
        """Messages came in now; or messages that wait since `since` got their partition."""
        if since is None:
            since = self.shared.outbox.now
        if self.has_placeless:
            self.placeless.begin_to_wait(since)
        for partition in self.shared.outbox.ready_partitions:
            if partition.topic is self:
                partition.progress.begin_to_wait(since)
        if not self.progress.is_watched:
            self.progress.watch()

    @property
    def has_placeless(self) -> bool:
        return bool(self.arrivals or self.keyless.messages or self.strays)

    def _place(self, messages: Iterable[Entry]) -> None:
        partitions, count, keyless = self.partitions, len(self.partitions), self.keyless
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
                    keyless.messages.append(message)
                    keyless.size += message[SIZE]
                    continue
            if index < count:
                partitions[index].append(message)
                self.shared.outbox.ready_partitions[partitions[index]] = None
            else:
                self._keep_stray(message)
        if keyless.messages:
            self.shared.outbox.ready_topics[self] = None

    def _keep_stray(self, message: Entry) -> None:
        strays = self.strays.setdefault(self.requests.made, _Strays())
        strays.messages.append(message)
        strays.since = self.shared.outbox.now
        self.shared.outbox.refresh(self)

    def _ask(self, partitioner: Partitioner, message: Entry) -> int | None:
        """A partitioner that raises, or returns nonsense, fails this message only."""
        count = len(self.partitions)
        available = [partition.index for partition in self.partitions if partition.leader >= 0]
        try:
            index = partitioner(message, count, available)
        except Abandoned:
            raise
        except BaseException as error:
            # Also SystemExit and KeyboardInterrupt, if the partitioner raises them: they would end the
            # client, and not the program. (Ctrl-C reaches neither a thread nor a protected task.)
            failure = PartitioningFailed(f"the partitioner raised {error!r}")
            failure.__cause__ = error
        else:
            if isinstance(index, int) and 0 <= index < count:
                return index
            failure = PartitioningFailed(
                f"the partitioner returned {index!r}, not a partition from 0 to {count - 1}"
            )
        self.settle([message], error=failure)
        return None

    # ---- the size of batches -----------------------------------------------------------------------------

    def lower_batch_limit(self, size: int) -> None:
        """The broker refused a batch as too large."""
        self.batch_limit = max(min(self.batch_limit, size), BATCH_OVERHEAD + 1)

    def restore_batch_limit(self) -> None:
        """It was one record that was too large."""
        self.batch_limit = self._largest_batch

    # ---- metadata ----------------------------------------------------------------------------------------

    def learn(self, metadata: TopicMetadata, responding_since: float) -> None:
        """Take in what a broker says of this topic; it may be older than what we know."""
        self._end_waits_for_metadata()
        self._is_doubting = False
        if row(metadata.code).reaction is Reaction.REFUSED:
            error = refusal(metadata.code)
            self.troubles.add(WHOLE_TOPIC, error, final=True)
            self.fail(error)
            self._tell_count(error)
        elif not metadata.partitions:
            self._missing(metadata.code, responding_since)
        elif not self._trust.looks_older(metadata, self.id, [one.leader_epoch for one in self.partitions]):
            self._trust.settle()
            self._update(metadata)
        elif self._trust.is_useless_for_too_long(self.shared.outbox.now, responding_since):
            self._trust.settle()
            self._stop_doubting(metadata)
            self._update(metadata)
        else:
            self._is_doubting = True
            if metadata.id not in self._trust.former_ids:
                self._update(metadata)  # of some partitions it may know more than we do

    @property
    def unresolved(self) -> bool:
        """Whether another request for metadata is needed after the response to the last one."""
        useless = not self.known or self._trust.is_in_doubt or bool(self.strays)
        return useless or any(partition.leader < 0 for partition in self.partitions)

    def _update(self, metadata: TopicMetadata) -> None:
        recreated = NO_TOPIC_ID not in (self.id, metadata.id) and self.id != metadata.id
        if recreated:
            self._trust.former_ids.add(self.id)
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
        self.troubles.over(WHOLE_TOPIC)
        self._place_all()
        for partition in self.partitions:
            if partition.leader < 0 and (self.keyless.messages or not partition.idle):
                self.troubles.add(partition.index, refusal(_LEADER_NOT_AVAILABLE))
        if self.awaited or len(self.partitions) != before:
            self._tell_count()
        self.shared.outbox.wake(self.partitions)

    def _stop_doubting(self, metadata: TopicMetadata) -> None:
        """For `topic_timeout` brokers told only what looked like old news, so we believe it.

        If the topic has a former id again, messages that were sent meanwhile may be in its log after all.
        """
        if metadata.id == NO_TOPIC_ID:
            self._forget_partitions(len(metadata.partitions))
        if metadata.id not in self._trust.former_ids:
            return self._doubt_epochs()
        self._trust.former_ids.discard(metadata.id)
        error = UnknownTopic(f"brokers disagreed about which topic {self.name!r} is")
        for partition in self.partitions:
            for batch in list(partition.batches):
                if batch.maybe_written:
                    give_up(batch, error)
        return None

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
            f"topic {self.name!r} was created again, with partitions 0 to {count - 1} only"
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
            self.arrivals.popleft()  # only now: if its partitioner never returns, it is not lost
        self._place_strays()
        since = self.placeless.waits_since
        if not self.has_placeless:
            self.placeless.move_on(self.shared.outbox.now, still_waits=False)
        self._watch_progress(since)

    def _place_strays(self) -> None:
        """Place those whose partition is known now. Those that have waited for it long enough fail."""
        count = len(self.partitions)
        for asked, strays in list(self.strays.items()):
            # A response to a request made before they came says nothing of the partitions there are now.
            asked_since = self.requests.made > asked
            is_over = asked_since and self.shared.outbox.now >= strays.since + PARTITION_GRACE
            for message in [strays.messages.popleft() for _ in range(len(strays.messages))]:
                index = message[PARTITION]
                if index is None or index < count:
                    self._place([message])
                elif is_over:
                    text = f"topic {self.name!r} has partitions 0 to {count - 1}, not {index}"
                    self.settle([message], error=PartitioningFailed(text))
                else:
                    strays.messages.append(message)
            if not strays.messages:
                del self.strays[asked]

    def _missing(self, code: int, responding_since: float) -> None:
        """The topic, or all of its partitions, are unknown to the broker that responded."""
        if self.id == NO_TOPIC_ID:
            self._doubt_epochs()  # it may come back as another topic, and we could not tell
        if self._trust.is_useless_for_too_long(self.shared.outbox.now, responding_since):
            error = UnknownTopic(
                f"the cluster does not know topic {self.name!r}: {refusal(code)} "
                f"for {self.shared.rules.topic_timeout:g} s"
            )
            error.__cause__ = refusal(code)
            self._trust.settle()
            self.known = False
            self.troubles.add(WHOLE_TOPIC, error, final=True)
            self.fail(error)
            self._tell_count(error)
        elif self.wanted:
            error = UnknownTopic(f"the cluster does not know topic {self.name!r}: {refusal(code)}")
            error.__cause__ = refusal(code)
            self.troubles.add(WHOLE_TOPIC, error)
        if not self.shared.rules.has_responses:
            self._wait_for_leaders()

    def _wait_for_leaders(self) -> None:
        """Send nothing until metadata names leaders again.

        A broker that no longer has the topic cannot say so with ``acks=0``. It closes the connection, and
        what other topics have sent over it is lost.
        """
        for partition in self.partitions:
            partition.follow_nobody()

    def _tell_count(self, error: BaseException | None = None) -> None:
        if error is None or self.awaited:
            self.shared.outbox.actions.append(PartitionCount(self.name, len(self.partitions), error))
        self.awaited = False

    def _end_waits_for_metadata(self) -> None:
        for partition in self.partitions:
            for batch in partition.batches:
                if batch.wait_for_metadata <= self.requests.made:
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
        """Give up everything unsettled; later messages are tried again."""
        self._fail_each(lambda _: error)

    def stop(self, error: BaseException, cause: BaseException | None) -> None:
        """The same. The error's cause is what held up each message, or `cause` if that is not known."""
        self._fail_each(lambda partition: explained(error, self.trouble_of(partition) or cause))

    def _fail_each(self, error_of: Callable[[Partition | None], BaseException]) -> None:
        """Messages are reported in the order of submission, so that they can be sent again in the order of
        the reports.
        """
        of_placeless = error_of(None)  # first: what is known of a partition is forgotten when it is idle
        for partition in self.partitions:
            self._fail_partition(partition, error_of(partition))
        self.keyless.size = 0
        strays = [group.messages for group in self.strays.values()]
        self.strays = {}
        for room in (self.keyless.messages, *strays, self.arrivals):
            self._fail_room(room, of_placeless)

    def trouble_of(self, partition: Partition | None = None) -> BaseException | None:
        """What holds up the messages of a partition, or those without partition."""
        shared = self.shared
        known = self.troubles.of(WHOLE_TOPIC if partition is None else partition.index)
        if known is not None:
            return known
        if shared.no_producer_id is not None and shared.needs_producer_id:
            return shared.no_producer_id
        return None if self.known else shared.no_metadata

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
            self.settle(entries, partition=partition, error=error)

    def rooms(self) -> list[tuple[deque[Entry], Partition | None]]:
        rooms: list[tuple[deque[Entry], Partition | None]] = [
            (self.arrivals, None),
            (self.keyless.messages, None),
            *[(strays.messages, None) for strays in self.strays.values()],
        ]
        return rooms + [(partition.queue, partition) for partition in self.partitions]

    # ---- the way out -------------------------------------------------------------------------------------

    def settle(
        self,
        entries: Sequence[Entry],
        *,
        partition: int = -1,
        base_offset: int = -1,
        timestamp_ms: int = -1,
        attempts: int = 0,
        error: BaseException | None = None,
        maybe_written: bool = False,
        size: int | None = None,
    ) -> None:
        """The one way out of the core for a message. `size` is that of all `entries`, if it is known."""
        self.unsettled -= len(entries)
        self.shared.outbox.actions.append(
            Settled(
                self.name,
                partition,
                base_offset,
                timestamp_ms,
                entries,
                total_size(entries) if size is None else size,
                attempts,
                error,
                maybe_written,
            )
        )
        self.made_progress(partition, acknowledged=error is None)

    # ---- progress ----------------------------------------------------------------------------------------

    def made_progress(self, partition: int, *, acknowledged: bool) -> None:
        """Messages were settled; `partition` is -1 if they never had one."""
        if partition < 0:
            part, still_waits = self.placeless, self.has_placeless
        elif partition < len(self.partitions):
            part, still_waits = self.partitions[partition].progress, not self.partitions[partition].idle
        else:
            return self.troubles.over(partition, recovered=False)  # the topic no longer has this partition
        if acknowledged:
            self.troubles.over(partition)
        elif not still_waits:
            self.troubles.over(partition, recovered=False)
        if acknowledged or not still_waits:
            part.move_on(self.shared.outbox.now, still_waits=still_waits)
        if acknowledged:
            self.progress.acknowledged()
        return None


class _Strays:
    """Messages for a partition that is not there yet, and when the last of them came."""

    __slots__ = ("messages", "since")

    def __init__(self) -> None:
        self.messages: deque[Entry] = deque()
        self.since = 0.0
