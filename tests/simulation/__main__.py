"""Run one seed and print what happened, or run many on all cores, and explain the first that fails.

``python -m tests.simulation 17`` or ``python -m tests.simulation --seeds 1000000 [--first N] [--seconds S]
[--acks A] [--jobs J]``. The exit code is 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from math import inf
from multiprocessing import Pool
from multiprocessing.pool import AsyncResult
from typing import NamedTuple

from tests.simulation.run import Step, draw, fast_sealing, replay, run
from tests.simulation.setting import Setting
from tests.simulation.shrink import shrink
from tests.simulation.timeline import Timeline

_CHUNK = 200
_PROGRESS_EVERY = 10.0
_SHOWN = 3  # violations that are explained


class Tally(NamedTuple):
    """What came of some seeds."""

    seeds: int
    excused: Counter[str]
    failed: dict[int, str]


# ---- one seed --------------------------------------------------------------------------------------------


def failure(setting: Setting, schedule: Sequence[Step], timeline: Timeline | None = None) -> str | None:
    """What is wrong with a run, if anything is."""
    try:
        replay(setting, schedule, timeline)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def kind(text: str | None) -> str | None:
    """Which promise it is, without the particulars."""
    return None if text is None else text.split(":")[1]


def explain(seed: int, acks: int | None = None) -> bool:
    """Print what happened; if it went wrong, how little of it suffices. Tell whether it went well."""
    setting, schedule = draw(seed, acks)
    timeline = Timeline()
    wrong = failure(setting, schedule, timeline)
    if wrong is not None:
        print(f"seed {seed}: {wrong}\n")
        what = kind(wrong)
        schedule = shrink(schedule, lambda rest: kind(failure(setting, rest)) == what)
        timeline = Timeline()
        wrong = failure(setting, schedule, timeline)
        print(f"The smallest schedule that fails so, {len(schedule)} events of {setting.steps}:")
        print(*(f"  {step.event.__name__} {step.load}" for step in schedule), sep="\n")
    print(f"\n{setting}\n\n{timeline}")
    print(f"\nseed {seed}: {wrong or 'every promise was kept'}")
    return wrong is None


# ---- many seeds ------------------------------------------------------------------------------------------


def run_some(seeds: range, acks: int | None = None) -> Tally:
    excused: Counter[str] = Counter()
    failed: dict[int, str] = {}
    with fast_sealing():
        for seed in seeds:
            try:
                excused.update(run(seed, acks))
            except Exception as error:
                failed[seed] = f"{type(error).__name__}: {error}"
    return Tally(len(seeds), excused, failed)


def run_many(first: int, seeds: float, seconds: float, jobs: int, acks: int | None = None) -> Tally:
    """Run seeds on all cores until there were enough, or time is up."""
    begun = time.monotonic()
    done, excused, failed, next_line = 0, Counter[str](), dict[int, str](), begun + _PROGRESS_EVERY
    for tally in _spread(_chunks(first, seeds, begun + seconds), jobs, acks):
        done += tally.seeds
        excused.update(tally.excused)
        failed.update(tally.failed)
        for seed, text in tally.failed.items():
            print(f"seed {seed}: {text[:200]}", flush=True)
        if time.monotonic() >= next_line:
            next_line += _PROGRESS_EVERY
            print(_line(done, excused, failed, time.monotonic() - begun), flush=True)
    print(_line(done, excused, failed, time.monotonic() - begun))
    return Tally(done, excused, failed)


def _spread(chunks: Iterable[range], jobs: int, acks: int | None) -> Iterator[Tally]:
    """Run each chunk in one of so many processes; no more of them wait than keeps those busy."""
    if jobs == 1:
        yield from (run_some(chunk, acks) for chunk in chunks)
        return
    with Pool(jobs) as pool:
        waiting: deque[AsyncResult[Tally]] = deque()
        for chunk in chunks:
            waiting.append(pool.apply_async(run_some, (chunk, acks)))
            if len(waiting) > 2 * jobs:
                yield waiting.popleft().get()
        for result in waiting:
            yield result.get()


def _chunks(first: int, seeds: float, end: float) -> Iterator[range]:
    for start in count(first, _CHUNK):
        if start >= first + seeds or time.monotonic() >= end:
            return
        yield range(start, int(min(start + _CHUNK, first + seeds)))


def _line(done: int, excused: Counter[str], failed: dict[int, str], elapsed: float) -> str:
    excuses = "; ".join(f"{what}: {number}" for what, number in sorted(excused.items())) or "none"
    rate = done / max(elapsed, 0.001)
    return f"{done} seeds, {rate:.0f}/s, {len(failed)} violations; excused: {excuses}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seed", type=int, nargs="?", help="run this one, and print what happens")
    parser.add_argument(
        "--seeds", type=int, default=None, help="how many (default: 10000, or until --seconds)"
    )
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=inf, help="stop after so long")
    parser.add_argument("--acks", type=int, choices=(-1, 0, 1), help="of each run (default: drawn)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    chosen = parser.parse_args(arguments)
    with fast_sealing():
        if chosen.seed is not None:
            return 0 if explain(chosen.seed, chosen.acks) else 1
    seeds = chosen.seeds or (10_000 if chosen.seconds == inf else inf)
    failed = run_many(chosen.first, seeds, chosen.seconds, chosen.jobs, chosen.acks).failed
    with fast_sealing():
        for seed in sorted(failed)[:_SHOWN]:
            print()
            explain(seed, chosen.acks)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
