"""Many storms, or one to read.

``python -m tests.chaos --seeds N [--first K] [--jobs 2] [--threads | --loop] [--log]``
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from tests.chaos.run import Failed, run_in_memory, run_on_sockets
from tests.chaos.storm import Storm

#: Seconds between two lines of progress.
_PACE = 10.0


def main() -> None:
    _fix_hashes()
    options = _options()
    failed = runs = 0
    totals: Counter[str] = Counter()
    begun = told = time.monotonic()
    seeds = range(options.first, options.first + options.seeds)
    with _mapping(options.jobs) as mapped:
        for story, counts in mapped(_Run(options.run, log=options.log), seeds):
            runs += 1
            totals.update(counts)
            if story:
                failed += not options.log
                print(story, flush=True)
            if time.monotonic() - told > _PACE:
                told = time.monotonic()
                print(_progress(runs, failed, totals, told - begun), flush=True)
    print(_progress(runs, failed, totals, time.monotonic() - begun))
    sys.exit(failed > 0)


def _fix_hashes() -> None:
    """A seed decides the order in sets only if Python does not shuffle it."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.chaos", *sys.argv[1:]])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first")
    parser.add_argument("--jobs", type=int, default=1, help="how many processes")
    parser.set_defaults(run=run_in_memory)
    for flag, own_thread, where in (
        ("--threads", True, "a worker thread"),
        ("--loop", False, "the same loop"),
    ):
        run = partial(run_on_sockets, own_thread=own_thread)
        text = f"with sockets and real time, in {where}"
        parser.add_argument(flag, dest="run", action="store_const", const=run, help=text)
    parser.add_argument("--log", action="store_true", help="show what happens also if all is well")
    return parser.parse_args()


class _Run:
    """Runs a seed, and tells what there is to tell."""

    def __init__(self, run: Callable[[int], Storm], *, log: bool) -> None:
        self._run = run
        self._log = log

    def __call__(self, seed: int) -> tuple[str, Counter[str]]:
        try:
            storm = self._run(seed)
        except Failed as failure:
            return str(failure), Counter()
        return storm.story() if self._log else "", storm.counts()


_Map = Callable[[_Run, Iterable[int]], Iterator[tuple[str, "Counter[str]"]]]


@contextmanager
def _mapping(jobs: int) -> Iterator[_Map]:
    if jobs == 1:
        yield map
    else:
        with multiprocessing.get_context("spawn").Pool(jobs) as pool:
            yield pool.imap_unordered


def _progress(runs: int, failed: int, totals: Counter[str], seconds: float) -> str:
    counts = ", ".join(f"{count} {what}" for what, count in totals.most_common())
    return f"{runs} seeds in {seconds:.0f} s, {failed} failed; {counts}"


if __name__ == "__main__":
    main()
