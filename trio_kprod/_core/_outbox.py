"""What the produce core says: actions for the client, reports for the delivery task, notes to itself."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .._messages import Entry, total_size
from ._reports import Observed, Report, Settled

if TYPE_CHECKING:
    from ._batch import Request
    from ._partition import Partition
    from ._topic import Topic


class Send(NamedTuple):
    """Send this request over the connection to its node."""

    request: Request


class Withdraw(NamedTuple):
    """Every batch of this request was given up before its write started: forget it."""

    request: Request


class Connect(NamedTuple):
    """Something waits for a connection to this node."""

    node: int


class RequestMetadata(NamedTuple):
    """Ask any broker for these topics; answer by `metadata` or `metadata_failed`."""

    topics: tuple[str, ...]


class RequestProducerId(NamedTuple):
    """Ask any broker for a producer id; answer by `producer_id` or `producer_id_failed`."""


Action = Send | Withdraw | Connect | RequestMetadata | RequestProducerId | Report


class Outbox:
    """Where topics and partitions leave what is to be done about them."""

    def __init__(self, *, observed: bool) -> None:
        self.now = 0.0  # when the event happened that the core is being told of
        self.actions: list[Action] = []
        # Partitions and topics that may have something to send, in the order in which they came to it.
        self.ready_partitions: dict[Partition, None] = {}
        self.ready_topics: dict[Topic, None] = {}
        self.stale_topics: dict[Topic, None] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._ticket = itertools.count()
        self._observed = observed

    def settle(
        self,
        topic: Topic,
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
        topic.unsettled -= len(entries)
        self.actions.append(
            Settled(
                topic.name,
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
        topic.made_progress(partition, acknowledged=error is None)

    def refresh(self, topic: Topic) -> None:
        """The topic's metadata is missing or known to be old."""
        if topic.ask_at <= self.now:
            self.stale_topics[topic] = None
        elif not topic.asks_later:
            topic.asks_later = True
            self.call_at(topic.ask_at, lambda: self._refresh_now(topic))

    def _refresh_now(self, topic: Topic) -> None:
        topic.asks_later = False
        self.refresh(topic)

    def pause_requests(self, topic: Topic, seconds: float) -> None:
        """Whoever wants metadata of the topic gets it no sooner."""
        topic.ask_at = self.now + seconds
        self.stale_topics.pop(topic, None)

    def observe(self, hook: str, payload: Callable[[], Mapping[str, Any]]) -> None:
        if self._observed:
            self.actions.append(Observed(hook, payload()))

    def call_at(self, when: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (when, next(self._ticket), call))

    def call_due(self) -> None:
        while self._timers and self._timers[0][0] <= self.now:
            heapq.heappop(self._timers)[2]()

    @property
    def next_call(self) -> float:
        return self._timers[0][0] if self._timers else float("inf")

    def wake(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            if partition.has_unsent:
                self.ready_partitions[partition] = None
            if partition.topic.keyless:
                self.ready_topics[partition.topic] = None

    def take(self) -> list[Action]:
        taken, self.actions = self.actions, []
        return taken
