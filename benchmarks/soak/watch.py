"""What is looked at while a soak runs: the process, the log, how long faults are felt, and stalls."""

from __future__ import annotations

import gc
import logging
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import trio

from benchmarks.harness.watch import resident_mib
from benchmarks.soak.ledger import Ledger
from benchmarks.soak.lives import LOGGER, Lives
from benchmarks.soak.schedule import Fault
from trio_kprod import Undelivered

if TYPE_CHECKING:
    from typing_extensions import Self


class Gauges(NamedTuple):
    """What this process holds. Memory is without that of the ledger."""

    mib: float
    descriptors: int
    threads: int

    @classmethod
    def read(cls, ledger: Ledger) -> Gauges:
        mib = resident_mib() - ledger.size / 2**20
        return cls(round(mib, 1), len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")))


class LogWatch(logging.Handler):
    """Counts what is logged, keeps it in a bounded file, and finds messages that are told there only."""

    def __init__(self, ledger: Ledger, file: Path) -> None:
        super().__init__()
        file.parent.mkdir(parents=True, exist_ok=True)
        self.counts: Counter[str] = Counter()
        self.criticals: list[str] = []
        self._ledger = ledger
        self._file = RotatingFileHandler(file, maxBytes=2**22, backupCount=1, encoding="utf-8")
        self._file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.counts[record.levelname] += 1
        self._file.emit(record)
        if record.levelno >= logging.CRITICAL:
            self.criticals.append(record.getMessage())
        if "no room to keep it" in record.msg:
            assert isinstance(record.args, tuple)
            self._ledger.tell(Undelivered(*record.args))  # type: ignore[arg-type]

    def __enter__(self) -> Self:
        LOGGER.addHandler(self)
        LOGGER.setLevel(logging.INFO)
        LOGGER.propagate = False
        return self

    def __exit__(self, *_: object) -> None:
        LOGGER.removeHandler(self)
        self._file.close()


@dataclass
class Watch:
    """What was seen of a run.

    Attributes:
        faults: how many there were, by kind.
        longest: seconds without any acknowledgement, at the worst, by the kind of the last fault.
        latest: seconds by which this loop's timer was late, at the worst: how slow machine and loop were.
        gauges: at the first quarter, and at the end.
        unsure: what could not be done, by reasons of the cluster or the machine.
        connections: how many there were to Kafka when every producer had been left.
        stalled: what is known of a stall.
        fault: the last one, which may be under way.
    """

    lives: Lives
    ledger: Ledger
    minutes: float
    patience: float
    faults: Counter[str] = field(default_factory=Counter)
    longest: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    latest: float = 0.0
    gauges: list[Gauges] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)
    stalled: str | None = None
    connections: int = 0
    fault: Fault | None = None
    under_way: bool = False

    async def look(self, probe: Callable[[], object]) -> None:
        """Look ten times a second, until the run is over and every producer left."""
        began = moved = trio.current_time()
        calm = oldest = 0.0
        before = 0
        while True:
            asleep = trio.current_time()
            await trio.sleep(0.1)
            now = trio.current_time()
            self.latest = max(self.latest, now - asleep - 0.1)
            delivered, _ = self.lives.totals()
            if delivered > before or not self.lives.now:
                kind = self.fault.kind if self.fault else "none"
                self.longest[kind] = max(self.longest[kind], now - moved)
                before, moved = delivered, now
            if not self.gauges and now - began > self.minutes * 15:
                self._gauge()
            # What passes while a fault is under way says nothing of us: Kafka may take minutes to come back.
            oldest, was = self.lives.oldest_age(), oldest
            calm = 0.0 if oldest < was else calm + (now - asleep) * (not self.under_way)
            if calm > self.patience and oldest and not self.stalled:
                self.stalled = f"a message waits for {oldest:.0f} s, {calm:.0f} s of them without a fault"
                probe()

    def _gauge(self) -> None:
        gc.collect()
        self.gauges.append(Gauges.read(self.ledger))

    def end(self) -> None:
        """Read the gauges for the last time."""
        self._gauge()

    async def tell(self) -> None:
        """The status line: each second anew in a terminal, each minute one elsewhere."""
        began, before = time.monotonic(), 0
        terminal = sys.stdout.isatty()
        every = 1.0 if terminal else 60.0
        while True:
            await trio.sleep(every)
            line = self._line(time.monotonic() - began, before, every)
            before, _ = self.lives.totals()
            print(f"\r{line}\x1b[K" if terminal else line, end="" if terminal else "\n", flush=True)

    def _line(self, seconds: float, before: int, every: float) -> str:
        delivered, undelivered = self.lives.totals()
        mib, descriptors, threads = Gauges.read(self.ledger)
        now = f", {self.fault.kind} now" if self.fault and self.under_way else ""
        return (
            f"{seconds / 60:5.1f} of {self.minutes:g} min: {delivered:,} delivered, "
            f"{undelivered:,} undelivered, {(delivered - before) / every:,.0f}/s, {mib:.0f} MiB, "
            f"{descriptors} descriptors, {threads} threads, {self.faults.total()} faults{now}"
        )
