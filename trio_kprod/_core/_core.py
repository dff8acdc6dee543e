"""The produce core: events in, actions out.

Set `now`, call the method for what happened, then do what `actions` says. If nothing happens before
`deadline`, call `advance` then.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from random import Random

from .._errors import explained
from .._messages import PARTITION_OVERHEAD, TOPIC, Entry
from ._actions import Action, Connect, RequestMetadata, RequestProducerId, Send
from ._batch import Batch, Request
from ._error_codes import PartitionResponse
from ._metadata import TopicMetadata
from ._partition import Partition
from ._responses import (
    LOSSES_UNTIL_ALONE,
    LOSSES_UNTIL_HALVED,
    TURN_OF_OTHERS,
    blame,
    delivered,
    no_response,
    responded,
)
from ._shared import Rules, Shared
from ._topic import Topic

#: One call of `actions` encodes about this many bytes, before compression, so that the loop can do other
#: things in between. gzip takes some 20 ms for them.
_ENCODED_AT_ONCE = 1_048_576

_MISSING_CODE = 3  # UNKNOWN_TOPIC_OR_PARTITION


class ProduceCore:
    """What one client knows and decides."""

    def __init__(self, rules: Rules, random: Random) -> None:
        self._shared = Shared(rules, random)
        self._outbox = self._shared.outbox
        self._topics: dict[str, Topic] = {}
        # Submitted, but not handed to their topic yet: a partitioner may be looking at the first.
        self._arriving: deque[list[Entry]] = deque()
        self._usable: set[int] = set()  # nodes with a connection
        self._asked_to_connect: set[int] = set()
        self._metadata_requested = False
        self._responding_since = 0.0
        self._producer_id_requested = False
        self._id_failures = 0
        self._to_encode = 0
        self._outbox.call_at(rules.metadata_max_age, self._refresh_by_age)

    @property
    def now(self) -> float:
        """The time in seconds, on any clock that does not go back. Set it before any event."""
        return self._outbox.now

    @now.setter
    def now(self, now: float) -> None:
        self._outbox.now = now

    # ---- events ------------------------------------------------------------------------------------------

    def submit(self, entries: Iterable[Entry]) -> None:
        """Messages were submitted."""
        self._arriving.extend(self._together(entries))
        while self._arriving:
            messages = self._arriving[0]
            self._topic(messages[0][TOPIC]).accept(messages)
            self._arriving.popleft()

    def _together(self, entries: Iterable[Entry]) -> Iterable[list[Entry]]:
        """Group messages by topic. If there is a partitioner, which may never return, each by itself."""
        if self._shared.rules.partitioner is not None:
            return ([message] for message in entries)
        by_topic: defaultdict[str, list[Entry]] = defaultdict(list)
        for message in entries:
            by_topic[message[TOPIC]].append(message)
        return by_topic.values()

    def want_partitions(self, name: str) -> None:
        """A task wants to know how many partitions a topic has: a `PartitionCount` report follows."""
        self._topic(name).want_count()

    def producer_id(self, producer_id: int) -> None:
        if producer_id in self._shared.spoiled_ids:
            return self.producer_id_failed(None)
        self._producer_id_requested = False
        self._id_failures = 0
        self._shared.producer_id = producer_id
        self._shared.no_producer_id = None
        return self._wake_all()

    def producer_id_failed(self, cause: BaseException | None, *, final: bool = False) -> None:
        """No broker gave us a producer id; `cause` says why, as far as that is known.

        A `final` cause fails all messages that cannot be sent without an id. Later messages wait for the next
        attempt.
        """
        self._id_failures += 1
        if cause is not None:
            self._shared.no_producer_id = cause
            for topic in self._topics.values() if final else ():
                topic.fail_without_producer_id(cause)
        self._outbox.call_at(self.now + self._shared.request_pause(self._id_failures), self._end_id_pause)

    def metadata(self, topics: Iterable[TopicMetadata], asked: Iterable[str]) -> None:
        """A broker responded to a metadata request for the topics `asked`."""
        self._metadata_requested = False
        self._shared.no_metadata = None
        told = {one.name: one for one in topics}
        for name in dict.fromkeys([*asked, *told]):
            topic = self._topics.get(name)
            if topic is not None:
                metadata = told.get(name) or TopicMetadata(name, _MISSING_CODE)
                topic.learn(metadata, self._responding_since)
                self._pace_requests(topic)

    def metadata_failed(self, asked: Iterable[str], cause: BaseException | None = None) -> None:
        """No broker responded: this time does not count against any topic."""
        self._metadata_requested = False
        self._shared.no_metadata = cause
        self._responding_since = self.now
        for name in asked:
            self._pace_requests(self._topics[name], failed=True)

    def connected(self, node: int) -> None:
        """A connection to a node is ready. Batches that lost their connection there end their pause.

        But batches that may have killed the last connections let the others go first.
        """
        self._usable.add(node)
        self._asked_to_connect.discard(node)
        for partition in self._led_by(node):
            partition.topic.troubles.reached(partition.index)
            for batch in partition.batches:
                if not batch.wait_for_connection:
                    continue
                if batch.connections_lost < LOSSES_UNTIL_HALVED and not partition.is_beyond_limit(batch):
                    batch.retry_at = self.now
                else:
                    batch.pause_until(max(batch.retry_at, self.now + TURN_OF_OTHERS))
        self._outbox.wake(self._led_by(node))

    def unreachable(self, node: int, cause: BaseException | None = None) -> None:
        """An attempt to connect failed. Perhaps another node leads by now."""
        self._asked_to_connect.discard(node)
        for partition in self._led_by(node):
            for batch in partition.batches:  # an outage is not their fault
                batch.connections_lost = min(batch.connections_lost, LOSSES_UNTIL_ALONE)
            if not partition.idle or partition.topic.keyless.messages:
                self._outbox.refresh(partition.topic)
                if cause is not None:
                    partition.topic.troubles.unreachable(partition.index, cause)
        self._outbox.wake(self._led_by(node))

    def lost(self, node: int, requests: Iterable[Request], cause: BaseException) -> None:
        """A connection ended. `Request.write_started` says whether any byte may have left."""
        self._usable.discard(node)
        self._shared.gathering.lost(node)
        # A broker answers one request after the other, so if one ended the connection, it is the first.
        blamed: list[Batch] = []
        for request in requests:
            carried = [batch for batch in request.batches if batch.request is request]
            for batch in carried:
                no_response(batch, cause, write_started=request.write_started)
            if request.write_started and not blamed:
                blamed = carried
        if blamed:
            blame(node, blamed, cause)
        else:
            self._shared.limits.connection_ended(node, LOSSES_UNTIL_HALVED)
        # A broker that no longer leads closes the connection; with acks=0 it has no other way to say so.
        for partition in self._led_by(node):
            self._outbox.refresh(partition.topic)
        self._outbox.wake(self._led_by(node))

    def sent(self, request: Request) -> None:
        """With ``acks=0``: the whole request is written, which settles it."""
        self._shared.gathering.end(request)
        self._shared.limits.written(request.node, request.size)
        for batch in request.batches:
            if batch.request is request:
                batch.request = None
                batch.attempts += 1
                delivered(batch, -1, -1)
                self._outbox.wake([batch.partition])

    def responded(self, request: Request, responses: Mapping[tuple[str, int], PartitionResponse]) -> None:
        """A broker responded to a request, for each topic and partition in it."""
        self._shared.gathering.end(request)
        self._shared.limits.responded(request.node, request.size)
        for batch in request.batches:
            if batch.request is not request:
                continue  # given up meanwhile
            response = responses.get((batch.partition.topic.name, batch.partition.index))
            if response is None:
                cause = ValueError(f"the response does not mention {batch.partition!r}")
                no_response(batch, cause, write_started=True)
            else:
                responded(batch, response)

    def stop(self, late: Iterable[Entry], error: BaseException, cause: BaseException | None = None) -> None:
        """Give up everything, also the messages that came too `late` to be submitted.

        Each message gets `error`. Its cause is what held the message up, or `cause` if that is not known.
        No byte may be written after this: `Request.write_started` is final.
        """
        self._arriving.extend(self._together(late))
        for topic in self._topics.values():
            for partition in topic.partitions:
                _forget_unsent(partition)
            topic.stop(error, cause)
        while self._arriving:
            messages = self._arriving.popleft()
            topic = self._topic(messages[0][TOPIC])
            topic.unsettled += len(messages)
            topic.settle(messages, error=explained(error, topic.trouble_of() or cause))

    def advance(self) -> None:
        """Time has passed."""
        self._outbox.call_due()

    # ---- actions -----------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float:
        """When `advance` has something to do."""
        return self.now if self._has_ready() else self._outbox.next_call

    def _has_ready(self) -> bool:
        return bool(self._outbox.ready_partitions or self._outbox.ready_topics)

    def actions(self) -> list[Action]:
        """What to do now, in order. Encodes a bounded number of bytes; `deadline` is now if more is ready."""
        self._to_encode = _ENCODED_AT_ONCE
        while self._to_encode > 0 and self._has_ready() and self._send_round():
            pass
        # Last: a round may have found that a leader is not known, or that a chain is out of epochs.
        self._request_metadata()
        self._request_producer_id()
        return self._outbox.take()

    def _send_round(self) -> bool:
        """Send at most one batch of each partition that is ready, in few requests; tell whether there was
        one."""
        chosen: dict[Partition, Batch] = {}
        # In random order, so that under full load neither kind starves the other.
        if self._shared.random.random() < 0.5:
            self._choose_keyless(chosen)
            self._choose_queued(chosen)
        else:
            self._choose_queued(chosen)
            self._choose_keyless(chosen)
        for partition, batch in chosen.items():
            partition.seal(batch)
        for request in self._pack(chosen.values()):
            self._outbox.actions.append(Send(request))
        self._outbox.wake(chosen)
        return bool(chosen)

    def _choose_queued(self, chosen: dict[Partition, Batch]) -> None:
        ready, self._outbox.ready_partitions = self._outbox.ready_partitions, {}
        for partition in ready:
            if self._to_encode <= 0:
                self._outbox.ready_partitions[partition] = None
                continue
            if partition in chosen or partition.idle:
                continue
            if partition.leader < 0:
                self._outbox.refresh(partition.topic)
            if not self._may_send_to(partition.leader):
                partition.progress.is_blocked = True
                partition.topic.progress.look()
                continue
            partition.progress.is_blocked = False
            batch = partition.next_batch()
            if batch is not None:
                chosen[partition] = batch
                self._count_to_encode(batch)

    def _choose_keyless(self, chosen: dict[Partition, Batch]) -> None:
        ready, self._outbox.ready_topics = self._outbox.ready_topics, {}
        for topic in ready:
            if not topic.keyless.messages:
                continue
            formed = topic.keyless.form(self._may_send_to, chosen)
            while self._to_encode > 0 and (batch := next(formed, None)) is not None:
                chosen[batch.partition] = batch
                self._count_to_encode(batch)
            if self._to_encode <= 0 and topic.keyless.messages:
                self._outbox.ready_topics[topic] = None

    def _count_to_encode(self, batch: Batch) -> None:
        if batch.data is None:
            self._to_encode -= batch.size

    def _may_send_to(self, node: int) -> bool:
        if node in self._usable:
            return True
        if node >= 0 and node not in self._asked_to_connect:
            self._asked_to_connect.add(node)
            self._outbox.actions.append(Connect(node))
        return False

    def _pack(self, batches: Iterable[Batch]) -> list[Request]:
        """One request for each leader, or more if it would be too large. A batch that has killed connections
        travels alone.
        """
        requests: list[Request] = []
        open_for: dict[int, _OpenRequest] = {}
        limit = self._shared.rules.max_request_size
        for batch in batches:
            node = batch.partition.leader
            if batch.connections_lost >= LOSSES_UNTIL_ALONE:
                requests.append(Request(node, [batch]))
                continue
            open_request = open_for.get(node)
            if open_request is None or not open_request.add(batch, limit):
                overhead, most = self._shared.rules.request_overhead, self._shared.limits.of(node)
                open_request = open_for[node] = _OpenRequest(overhead, batch, most)
                requests.append(Request(node, open_request.batches))
        for request in requests:
            self._shared.gathering.begin(request)
            for batch in request.batches:
                batch.request = request
        return requests

    # ---- metadata and producer id --------------------------------------------------------------------------

    def _request_metadata(self) -> None:
        if self._metadata_requested or not self._outbox.stale_topics:
            return
        stale, self._outbox.stale_topics = self._outbox.stale_topics, {}
        wanted: list[str] = []
        for topic in stale:
            # With acks=0 only a closed connection shows that the leader changed; by then nothing waits.
            if topic.wanted or not (self._shared.rules.has_responses or topic.unresolved):
                topic.requests.made += 1
                wanted.append(topic.name)
            else:
                topic.requests.is_outdated = True
        if wanted:
            self._metadata_requested = True
            self._outbox.actions.append(RequestMetadata(tuple(wanted)))

    def _pace_requests(self, topic: Topic, *, failed: bool = False) -> None:
        """After a useless request, pause before the next one, whether the topic is wanted or not."""
        if not failed and not topic.unresolved:
            topic.requests.useless = 0
        else:
            topic.requests.useless += 1
            self._outbox.pause_requests(topic, self._shared.request_pause(topic.requests.useless))
            self._outbox.refresh(topic)

    def _refresh_by_age(self) -> None:
        """Leaders move and partitions are added without notice."""
        for topic in self._topics.values():
            self._outbox.refresh(topic)
        self._outbox.call_at(self.now + self._shared.rules.metadata_max_age, self._refresh_by_age)

    def _request_producer_id(self) -> None:
        if self._shared.needs_producer_id and not self._producer_id_requested:
            self._producer_id_requested = True
            self._outbox.actions.append(RequestProducerId())

    def _end_id_pause(self) -> None:
        self._producer_id_requested = False

    @property
    def unsettled(self) -> int:
        """How many messages are not settled."""
        return sum(topic.unsettled for topic in list(self._topics.values()))

    # ---- small things --------------------------------------------------------------------------------------

    def _topic(self, name: str) -> Topic:
        topic = self._topics.get(name)
        if topic is None:
            topic = self._topics[name] = Topic(name, self._shared)
        return topic

    def _led_by(self, node: int) -> list[Partition]:
        return list(self._shared.led_by.get(node, ()))

    def _wake_all(self) -> None:
        for topic in self._topics.values():
            self._outbox.wake(topic.partitions)


def _forget_unsent(partition: Partition) -> None:
    """Take batches back from connections that will not write them any more."""
    for batch in partition.batches:
        if batch.request is not None and not batch.request.write_started:
            batch.request = None


class _OpenRequest:
    """A request that more batches may join, and an upper bound of its size in bytes."""

    __slots__ = ("_room", "_size", "_topics", "batches")

    def __init__(self, overhead: int, first: Batch, most: float) -> None:
        topic = first.partition.topic
        self._room = most - first.full_size  # how much more its node takes
        self.batches = [first]
        self._topics = {topic}
        self._size = overhead + topic.request_overhead + PARTITION_OVERHEAD + len(first.data or b"")

    def add(self, batch: Batch, limit: int) -> bool:
        """Let a batch join, unless the request would be larger than `limit`."""
        topic = batch.partition.topic
        size = self._size + PARTITION_OVERHEAD + len(batch.data or b"")
        if topic not in self._topics:
            size += topic.request_overhead
        if size > limit or batch.full_size > self._room:
            return False
        self._room -= batch.full_size
        self._topics.add(topic)
        self._size = size
        self.batches.append(batch)
        return True
