"""The clocks of a round: wall and processors, acknowledgements, timers, and who may send how much by now."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import resource
import sys
import time
from array import array
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from time import perf_counter

from .job import Figures, Job, Round

#: How long the timer sleeps whose lateness is measured.
TIMER_INTERVAL = 0.005

_PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
_TIMELINE_STEP = 0.05


class Watch:
    """Takes the time of one round."""

    def __init__(self) -> None:
        self.seconds = self.cpu_seconds = 0.0
        self.late = array("d")
        self.extra: Figures = {}
        self._sent = array("d")
        self._acknowledged = array("d")
        self._failed = array("d")

    def ready(self) -> None:
        """Say that everything is warm, and wait for the word to begin."""
        gc.collect()
        gc.freeze()  # the messages to send are the benchmark's; no producer is to pay for looking at them
        print("ready", flush=True)
        sys.stdin.readline()

    @contextlib.contextmanager
    def running(self) -> Generator[None, None, None]:
        """Take the time of what is inside."""
        began, cpu = perf_counter(), time.process_time()
        yield
        self.seconds, self.cpu_seconds = perf_counter() - began, time.process_time() - cpu

    def acknowledged(self, sent_at: float, *_: object) -> None:
        """A message that was sent then has just been acknowledged."""
        self._sent.append(sent_at)
        self._acknowledged.append(perf_counter())

    def fail(self, *_: object) -> None:
        """A message was told as not delivered."""
        self._failed.append(perf_counter())

    @property
    def told(self) -> int:
        """How many messages have had their outcome."""
        return len(self._acknowledged) + len(self._failed)

    def result(self, job: Job) -> Round:
        """All of it."""
        acks = [then - sent for sent, then in zip(self._sent, self._acknowledged, strict=True)]
        return Round(
            messages=job.messages,
            seconds=self.seconds,
            cpu_seconds=self.cpu_seconds,
            peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            failed=len(self._failed),
            acks=percentiles(acks) if acks else None,
            lateness=percentiles(self.late) if self.late else None,
            timeline=self._timeline() if job.timeline else None,
            extra=self.extra,
        )

    def _timeline(self) -> list[tuple[float, int, int]]:
        return timeline(self._sent, self._acknowledged + self._failed)


class Pacer:
    """Says which messages are due, so that `rate` of them are sent a second whatever the timers do."""

    def __init__(self, rate: float, messages: int) -> None:
        self._rate = rate
        self._messages = messages
        self._sent = 0
        self._began = perf_counter()

    @property
    def done(self) -> bool:
        return self._sent >= self._messages

    def due(self) -> range:
        """The numbers of the messages to send now."""
        by_now = math.floor((perf_counter() - self._began) * self._rate) + 1
        first, self._sent = self._sent, max(self._sent, min(by_now, self._messages))
        return range(first, self._sent)

    def pause(self) -> float:
        """Seconds until the next is due."""
        return max(0.0, self._began + self._sent / self._rate - perf_counter())


def percentiles(found: Sequence[float]) -> Figures:
    """By nearest rank: of a hundred, the 99th percentile is the second largest."""
    ordered = sorted(found)
    return {name: ordered[max(0, math.ceil(len(ordered) * part) - 1)] for name, part in _PERCENTILES.items()}


def timeline(sent: Sequence[float], settled: Sequence[float]) -> list[tuple[float, int, int]]:
    """At each step of time, how many had been sent and how many had their outcome."""
    starts, ends = _by_step(sent), _by_step(settled)
    steps = range(min(starts), max(ends) + 1)
    totals = zip(steps, _totals(starts, steps), _totals(ends, steps), strict=True)
    return [(step * _TIMELINE_STEP, begun, done) for step, begun, done in totals]


def _by_step(times: Sequence[float]) -> Counter[int]:
    return Counter(math.floor(then / _TIMELINE_STEP) + 1 for then in times)


def _totals(counts: Counter[int], steps: range) -> Iterator[int]:
    return accumulate(counts[step] for step in steps)


def resident_mib() -> float:
    """This process's resident memory now, in MiB; from Linux's ``/proc``."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
