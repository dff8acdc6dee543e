"""Many inputs of a target, each made from its number."""

from __future__ import annotations

import faulthandler
import inspect
import logging
import resource
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import NamedTuple

import trio
import trio.testing

from tests.fuzz.measures import check_memory, counting, peak_of
from tests.fuzz.targets import Target, check_text

#: One of this many inputs is measured: its work and its memory. It takes longer than the others together.
_MEASURED = 200

#: An input that takes longer, in seconds, is reported with a traceback of where it hangs.
_HANGS = 60


class Tally(NamedTuple):
    """What came of some inputs."""

    target: str
    inputs: int
    outcomes: Counter[str]
    crashes: list[tuple[int, str]]
    slowest: tuple[float, int]  # seconds of processor time, and the number of the input
    peak: int  # of the process, in kilobytes


def draw(target: Target, number: int) -> object:
    """The input with a number."""
    return target.draw(Random(number))


class _Run:
    def __init__(self, target: Target) -> None:
        self.target = target
        self.outcomes: Counter[str] = Counter()
        self.crashes: list[tuple[int, str]] = []
        self.slowest = (0.0, 0)

    def sync(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            fuzzed = draw(self.target, number)
            begun = time.process_time()
            try:
                self.outcomes[self.target.check(fuzzed)] += 1
                self.note(number, begun)
                if number % _MEASURED == 0:
                    measure(self.target, fuzzed)
            except BaseException as error:
                self.crash(number, error)

    async def trio(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            fuzzed = draw(self.target, number)
            begun = time.process_time()
            try:
                self.outcomes[await self.target.check(fuzzed)] += 1
                self.note(number, begun)
            except BaseException as error:
                self.crash(number, error)

    def note(self, number: int, begun: float) -> None:
        self.slowest = max(self.slowest, (time.process_time() - begun, number))

    def crash(self, number: int, error: BaseException) -> None:
        if isinstance(error, KeyboardInterrupt):
            raise error
        self.crashes.append((number, f"{type(error).__name__}: {error}"[:500]))


def is_async(target: Target) -> bool:
    return inspect.iscoroutinefunction(inspect.unwrap(getattr(target.check, "func", target.check)))


def measure(target: Target, fuzzed: object) -> None:
    """That work and memory are bounded by the size of the input."""
    with counting() as work:
        target.check(fuzzed)
    work.check(target.size(fuzzed))
    check_memory(peak_of(lambda: target.check(fuzzed)), target.size(fuzzed))


class _Listener(logging.Handler):
    """Hears what the client logs: it must be fit for a terminal, too."""

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith("trio_kprod.testing"):
            check_text(record.getMessage())


@contextmanager
def _listening() -> Iterator[None]:
    logger, listener = logging.getLogger("trio_kprod"), _Listener()
    before = logger.level, logger.propagate
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(listener)
    try:
        yield
    finally:
        logger.removeHandler(listener)
        logger.level, logger.propagate = before


def check(target: Target, fuzzed: object) -> None:
    """Put one input to it, in virtual time where it wants a loop."""
    with _listening():
        if is_async(target):
            trio.run(target.check, fuzzed, clock=trio.testing.MockClock(autojump_threshold=0))
        else:
            target.check(fuzzed)


def run_some(target: Target, numbers: Sequence[int]) -> Tally:
    """Put these inputs to it."""
    run = _Run(target)
    faulthandler.dump_traceback_later(_HANGS + len(numbers) * 0.05, exit=False)
    try:
        with _listening():
            if is_async(target):
                trio.run(run.trio, numbers, clock=trio.testing.MockClock(autojump_threshold=0))
            else:
                run.sync(numbers)
    finally:
        faulthandler.cancel_dump_traceback_later()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Tally(target.name, len(numbers), run.outcomes, run.crashes, run.slowest, peak)
