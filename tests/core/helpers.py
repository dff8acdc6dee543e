"""Drive a produce core by hand: a clock, a cluster of one's own words, and batches decoded again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import Any, NamedTuple
from uuid import UUID

from kafka.record.default_records import DefaultRecordBatch

from trio_kprod._core._actions import (
    Action,
    Connect,
    RequestMetadata,
    RequestProducerId,
    Send,
    Shrunk,
    Troubled,
    Untroubled,
    Withdraw,
)
from trio_kprod._core._batch import Request
from trio_kprod._core._core import ProduceCore
from trio_kprod._core._error_codes import PartitionResponse
from trio_kprod._core._metadata import PartitionMetadata, TopicMetadata
from trio_kprod._core._partition import Partition
from trio_kprod._core._reports import Report, Settled
from trio_kprod._core._shared import Rules
from trio_kprod._errors import ConnectionLost
from trio_kprod._messages import VALUE, Entry

TOPIC = "topic"
TOPIC_ID = UUID(int=1)
PRODUCER_ID = 7
SIZE = 100  # of every message, unless a test says otherwise


def message(
    value: str = "v",
    *,
    key: bytes | None = None,
    topic: str = TOPIC,
    partition: int | None = None,
    accepted_at: float = 0.0,
    size: int = SIZE,
) -> Entry:
    return (topic, value.encode(), key, (), partition, 1_700_000_000_000, size, accepted_at, None, 0)


def messages(values: str, **how: Any) -> list[Entry]:
    """One message for each letter."""
    return [message(value, **how) for value in values]


def metadata(
    leaders: Sequence[int] = (1,), *, name: str = TOPIC, topic_id: UUID = TOPIC_ID, epoch: int = 0
) -> TopicMetadata:
    """The topic's partitions, by their leaders (-1 for none)."""
    partitions = [PartitionMetadata(index, leader, epoch) for index, leader in enumerate(leaders)]
    return TopicMetadata(name, 0, topic_id, partitions)


class Seen(NamedTuple):
    """A batch as it stands in a request."""

    topic: str
    partition: int
    producer_id: int
    epoch: int
    sequence: int
    values: str
    data: bytes


def see(request: Request) -> list[Seen]:
    """The batches of a request, decoded from their bytes."""
    return [_decode(batch.partition, bytes(batch.data)) for batch in request.batches if batch.data]


def _decode(partition: Partition, data: bytes) -> Seen:
    batch = DefaultRecordBatch(data)
    assert batch.validate_crc()
    values = "".join(record.value.decode() for record in batch)
    return Seen(
        partition.topic.name,
        partition.index,
        batch.producer_id,
        batch.producer_epoch,
        batch.base_sequence,
        values,
        data,
    )


class Outcome(NamedTuple):
    """What `Settled` says, with the values as one string."""

    values: str
    error: str | None  # the name of its class
    maybe_written: bool
    base_offset: int


class Bench:
    """A core on a bench. With `ready`, its topic, producer id and connection to node 1 are there already."""

    def __init__(self, *, ready: bool = True, leaders: Sequence[int] = (1,), **rules: Any) -> None:
        rules.setdefault("batch_size", 61 + 2 * SIZE)
        rules.setdefault("retry_backoff", 0.1)
        self.core = ProduceCore(Rules(**rules), Random(1))
        self.requests: list[Request] = []  # sent and not answered yet
        self.settled: list[Settled] = []
        self.troubles: list[Troubled | Untroubled] = []
        self.limits: list[Shrunk] = []
        self.reports: list[Report] = []
        self.asked: list[tuple[str, ...]] = []  # questions for metadata, not answered yet
        self.ids_asked = 0
        self.connects: list[int] = []
        if ready:
            if rules.get("idempotent", True):
                self.core.producer_id(PRODUCER_ID)
            self.core.want_partitions(TOPIC)
            self.step()
            self.learn(metadata(leaders))
            for node in set(leaders) - {-1}:
                self.core.connected(node)
            self.step()
            self.ids_asked = 0
            self.reports.clear()

    @property
    def now(self) -> float:
        return self.core.now

    @now.setter
    def now(self, now: float) -> None:
        self.core.now = now

    # ---- what happens ------------------------------------------------------------------------------------

    def step(self) -> None:
        """Take what the core wants done."""
        for action in self.core.actions():
            self._take(action)

    def _take(self, action: Action) -> None:
        if isinstance(action, Send):
            assert action.request.batches
            self.requests.append(action.request)
        elif isinstance(action, Withdraw):
            self.requests.remove(action.request)
        elif isinstance(action, Connect):
            self.connects.append(action.node)
        elif isinstance(action, RequestMetadata):
            self.asked.append(action.topics)
        elif isinstance(action, RequestProducerId):
            self.ids_asked += 1
        elif isinstance(action, Troubled | Untroubled):
            self.troubles.append(action)
        elif isinstance(action, Shrunk):
            self.limits.append(action)
        else:
            self.reports.append(action)
            if isinstance(action, Settled):
                self.settled.append(action)

    def submit(self, entries: Iterable[Entry] | str, **how: Any) -> None:
        how.setdefault("partition", 0)
        self.core.submit(messages(entries, **how) if isinstance(entries, str) else entries)
        self.step()

    def learn(self, *topics: TopicMetadata) -> None:
        """Answer the question for metadata that is open."""
        asked = self.asked.pop(0) if self.asked else ()
        self.core.metadata(topics, asked)
        self.step()

    def pass_time(self, seconds: float) -> None:
        """Time passes, step by step from one of the core's deadlines to the next."""
        end = self.now + seconds
        while self.core.deadline <= end:
            self.now = max(self.now, self.core.deadline)
            self.core.advance()
            self.step()
        self.now = end

    def start_writing(self) -> None:
        """The first byte of each request in flight reaches the socket."""
        for request in self.requests:
            request.write_started = True

    def take(self) -> Request:
        """The request that was sent first of those not answered yet; its bytes reach the socket."""
        request = self.requests.pop(0)
        request.write_started = True
        return request

    def answer(self, code: int, base_offset: int = -1, *, request: Request | None = None, **how: Any) -> None:
        """Answer the oldest request, the same for each of its batches."""
        request = request or self.take()
        answer = PartitionResponse(code, base_offset, **how)
        places = [(batch.partition.topic.name, batch.partition.index) for batch in request.batches]
        self.core.responded(request, dict.fromkeys(places, answer))
        self.step()

    def lose(self, node: int = 1, *, write_started: bool = True, reconnect: bool = True) -> None:
        """The connection to a node ends, with all that is in flight there."""
        lost = [request for request in self.requests if request.node == node]
        self.requests = [request for request in self.requests if request.node != node]
        for request in lost:
            request.write_started = write_started
        self.core.lost(node, lost, ConnectionLost("it ended"))
        self.step()
        if reconnect:
            self.core.connected(node)
            self.step()

    # ---- what came of it -----------------------------------------------------------------------------------

    @property
    def sent(self) -> list[list[Seen]]:
        """What is in flight and not given up."""
        return [seen for request in self.requests if (seen := see(request))]

    def only(self) -> Seen:
        """The one batch in flight."""
        [[seen]] = self.sent
        return seen

    def place(self) -> tuple[str, int, int]:
        """The one batch in flight: its values, and its place, which is epoch and sequence number."""
        only = self.only()
        return only.values, only.epoch, only.sequence

    def outcomes(self) -> list[Outcome]:
        """What was settled since the last call."""
        settled, self.settled = self.settled, []
        return [
            Outcome(
                "".join((entry[VALUE] or b"").decode() for entry in one.entries),
                None if one.error is None else type(one.error).__name__,
                one.maybe_written,
                one.base_offset,
            )
            for one in settled
        ]

    def started(self) -> Bench:
        """Have a first batch acknowledged, so that more than one may be in flight."""
        self.submit("0")
        self.answer(0, 0)
        self.settled.clear()
        return self

    def quiet(self) -> bool:
        """Whether nothing is in flight, settled or asked for."""
        return not (self.requests or self.settled or self.asked)
