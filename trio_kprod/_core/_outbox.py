"""Where topics and partitions leave what is to be done about them: actions, timers, who is ready to send."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ._reports import Observed

if TYPE_CHECKING:
    from ._actions import Action
    from ._partition import Partition
    from ._topic import Topic


class Outbox:
    """Where topics and partitions leave what is to be done about them."""

    def __init__(self, *, observed: bool) -> None:
        self.now = 0.0  # when the event happened that is being handled
        self.actions: list[Action] = []
        # Partitions and topics that may have something to send; the one that waits longest comes first.
        self.ready_partitions: dict[Partition, None] = {}
        self.ready_topics: dict[Topic, None] = {}
        self.stale_topics: dict[Topic, None] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._ticket = itertools.count()
        self._observed = observed

    def refresh(self, topic: Topic) -> None:
        """The topic's metadata is missing or known to be old."""
        if topic.requests.not_before <= self.now:
            self.stale_topics[topic] = None
        elif not topic.requests.is_due_later:
            topic.requests.is_due_later = True
            self.call_at(topic.requests.not_before, lambda: self._refresh_now(topic))

    def _refresh_now(self, topic: Topic) -> None:
        topic.requests.is_due_later = False
        self.refresh(topic)

    def pause_requests(self, topic: Topic, seconds: float) -> None:
        """Make no request for metadata of the topic sooner than that."""
        topic.requests.not_before = self.now + seconds
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
            if partition.topic.keyless.messages:
                self.ready_topics[partition.topic] = None

    def take(self) -> list[Action]:
        taken, self.actions = self.actions, []
        return taken
