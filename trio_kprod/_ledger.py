"""Which accepted messages are still unsettled, in constant work for a batch.

Messages have running numbers (*positions*) in the order in which they are accepted. The ledger cuts them
into *runs* of neighbours, and counts for each how many are settled; a message knows the first position of
its run. A batch's messages mostly share one, so settling a batch is one addition, not one per message.

A run ends where it matters when everything before is settled: where a `flush` begins, and at each submission
to the client. A flush is done when every run before it is settled.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import count
from operator import itemgetter
from typing import Any

from ._counters import LedgerCounters
from ._messages import RUN, Entry

_run = itemgetter(RUN)


class Run:
    """The messages from position `start` up to `end`, which is None as long as more may come."""

    __slots__ = ("delivery", "end", "settled", "since", "start")

    def __init__(self, start: int, end: int | None = None) -> None:
        self.start = start
        self.end = end
        self.settled = 0
        self.since: float | None = None  # when its first message was accepted, once that has left the queue
        self.delivery: Any = None  # the submission that it was part of, if instruments observe those


class Ledger(LedgerCounters):
    """
    Attributes:
        tickets (Iterator[int]): numbers for the messages that someone follows one by one.
    """

    def __init__(self) -> None:
        self.tickets: Iterator[int] = count()
        self.run: int = 0
        self._runs: dict[int, Run] = {0: Run(0)}  # those with anything unsettled, and the last, in order

    def cut(self, position: int) -> int:
        """End the run around `position`, and begin another there. Returns the start of the run that it ended.

        Messages that were accepted after `position` still carry the old run: the caller must relabel them.
        """
        divided = self._runs[self.run]
        if position < self.run:
            divided = next(run for run in reversed(self._runs.values()) if run.start <= position)
        if divided.start < position:
            self._runs[position] = Run(position, divided.end)
            divided.end = position
            if divided.start == self.run:
                self.run = position
            else:
                self._runs = dict(sorted(self._runs.items()))
        return divided.start

    def parts(self, entries: Sequence[Entry]) -> Iterator[tuple[Run, int, int]]:
        """Cut messages, which are in the order in which they were accepted, into those of each run."""
        at, end = 0, len(entries)
        while at < end:
            run = self._runs[entries[at][RUN]]
            if entries[-1][RUN] == run.start:
                until = end
            else:
                until = bisect_right(entries, run.start, lo=at, key=_run)
            yield run, at, until
            at = until

    def settle(self, entries: Sequence[Entry]) -> Iterator[tuple[Run, int]]:
        """Note messages as settled, and tell how many were of which run."""
        for run, start, stop in self.parts(entries):
            run.settled += stop - start
            if run.end is not None and run.settled == run.end - run.start:
                del self._runs[run.start]
            yield run, stop - start

    def settled_before(self) -> int:
        """The position before which every message is settled."""
        return self._first.start

    def oldest(self) -> float | None:
        """When the oldest of the messages was accepted that have left the queue and are unsettled.

        The first message of a run stands for all of it.
        """
        return self._first.since

    @property
    def _first(self) -> Run:
        while True:
            try:
                return next(iter(self._runs.values()))
            except RuntimeError:  # another thread looks, for `statistics`, while the runs change
                continue
