"""Does a topic count as stalled while one of its partitions makes no progress? By books of its own.

The room of the producer lets stalled topics hold a part of the buffer only, so that whatever set of
partitions is dead, the other topics keep theirs. That is as good as these reports are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from tests.simulation.history import Broken
from trio_kprod._core._progress import STALL_AFTER
from trio_kprod._core._reports import Recovered, Settled, Stalled
from trio_kprod._messages import PARTITION, TOPIC, VALUE, Entry

#: Rounding.
_EPSILON = 1e-6


class Stalls:
    """The messages for named partitions that wait, and since when nothing of their partition was
    acknowledged."""

    def __init__(self) -> None:
        self._waiting: defaultdict[tuple[str, int], dict[bytes | None, float]] = defaultdict(dict)
        self._acknowledged_at: dict[tuple[str, int], float] = {}
        self._stalled: set[str] = set()

    def submitted(self, messages: Iterable[Entry], now: float) -> None:
        for message in messages:
            partition = message[PARTITION]
            if partition is not None:
                self._waiting[message[TOPIC], partition][message[VALUE]] = now

    def reported(self, report: object, now: float) -> None:
        if isinstance(report, Stalled):
            if report.topic in self._stalled:
                raise Broken(f"{report.topic} stalls twice")
            self._stalled.add(report.topic)
        elif isinstance(report, Recovered):
            self._stalled.remove(report.topic)
        elif isinstance(report, Settled):
            if report.error is None:
                self._acknowledged_at[report.topic, report.partition] = now
            for message in report.entries:
                if message[PARTITION] is not None:
                    del self._waiting[message[TOPIC], message[PARTITION]][message[VALUE]]

    def check(self, partitions: Mapping[str, int], now: float) -> None:
        """`partitions` tells how many partitions of each topic the producer knows."""
        for (topic, partition), waiting in self._waiting.items():
            if waiting and partition < partitions.get(topic, 0) and topic not in self._stalled:
                since = max(next(iter(waiting.values())), self._acknowledged_at.get((topic, partition), 0.0))
                if now > since + STALL_AFTER + _EPSILON:
                    raise Broken(f"{topic}-{partition} waits since {since:g}, and {topic} is not stalled")
