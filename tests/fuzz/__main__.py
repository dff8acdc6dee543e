"""Many inputs, one of them again, or as many as atheris finds.

``python -m tests.fuzz --inputs 10000000 [--first K] [--target NAME] [--jobs 2]``
``python -m tests.fuzz --input NAME NUMBER``
``python -m tests.fuzz --atheris NAME SECONDS``

The exit code is 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tests
from tests.fuzz.all_targets import TARGETS, Job, target_named, work
from tests.fuzz.run import Tally, draw

#: Seconds between two lines of progress.
_PACE = 30.0

#: Inputs that a process is given at a time: for about a second.
_CHUNK = {"decoder": 20_000, "loop": 200}


def main() -> None:
    _fix_hashes()
    options = _options()
    if options.input is not None:
        name, number = options.input
        _again(name, int(number))
    elif options.atheris is not None:
        # A script, not a module: the package `tests` imports what atheris has to see being imported.
        script = Path(__file__).with_name("by_atheris.py")
        os.environ["PYTHONPATH"] = str(Path(tests.__file__).parents[1])
        os.execv(sys.executable, [sys.executable, str(script), *options.atheris])
    else:
        names = [options.target] if options.target else [target.name for target in TARGETS]
        sys.exit(_many(names, options.first, options.inputs, options.jobs))


def _fix_hashes() -> None:
    """A number decides the order in sets only if Python does not shuffle it."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.fuzz", *sys.argv[1:]])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--inputs", type=int, default=100_000, help="how many, of all targets together")
    parser.add_argument("--first", type=int, default=0, help="the number of the first of each target")
    parser.add_argument("--target", choices=[target.name for target in TARGETS], help="only this one")
    parser.add_argument("--jobs", type=int, default=1, help="how many processes")
    parser.add_argument("--input", nargs=2, metavar=("NAME", "NUMBER"), help="one input again")
    parser.add_argument("--atheris", nargs=2, metavar=("NAME", "SECONDS"), help="guided by coverage")
    return parser.parse_args()


def _again(name: str, number: int) -> None:
    target = target_named(name)
    print(draw(target, number))
    tally = work((name, number, number + 1))
    print(tally)
    sys.exit(bool(tally.crashes))


def _jobs(names: list[str], first: int, inputs: int) -> Iterator[Job]:
    """Chunks of all targets in turn, so that the figures of each can be seen early."""
    shares = {name: target_named(name).share for name in names}
    wanted = {name: inputs * share // sum(shares.values()) for name, share in shares.items()}
    done = dict.fromkeys(names, 0)
    while any(done[name] < wanted[name] for name in names):
        for name in names:
            chunk = min(_CHUNK[target_named(name).pace], wanted[name] - done[name])
            if chunk > 0 and done[name] * max(wanted.values()) <= wanted[name] * max(done.values()):
                yield name, first + done[name], first + done[name] + chunk
                done[name] += chunk


@contextmanager
def _mapping(jobs: int) -> Iterator[Any]:
    if jobs == 1:
        yield map
    else:
        with multiprocessing.get_context("spawn").Pool(jobs) as pool:
            yield pool.imap_unordered


class _Totals:
    """What came of all inputs so far."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.inputs: Counter[str] = Counter()
        self.outcomes: dict[str, Counter[str]] = {}
        self.slowest: dict[str, tuple[float, int]] = {}
        self.crashes = self.peak = 0

    def add(self, tally: Tally) -> None:
        name = tally.target
        self.inputs[name] += tally.inputs
        self.outcomes.setdefault(name, Counter()).update(tally.outcomes)
        self.slowest[name] = max(self.slowest.get(name, (0.0, 0)), tally.slowest)
        self.peak = max(self.peak, tally.peak)
        self.crashes += len(tally.crashes)
        for number, text in tally.crashes[:5]:
            print(f"python -m tests.fuzz --input {name} {number}: {text}", flush=True)

    def line(self) -> str:
        seconds = time.monotonic() - self.begun
        total = self.inputs.total()
        rate = total / max(seconds, 0.001)
        return (
            f"{total} inputs in {seconds:.0f} s, {rate:.0f} a second, {self.crashes} crashes, "
            f"{self.peak / 1024:.0f} MB at most"
        )

    def table(self) -> Iterable[str]:
        for name, count in self.inputs.items():
            slowest, number = self.slowest[name]
            outcomes = ", ".join(f"{many} {what}" for what, many in self.outcomes[name].most_common())
            yield f"{name}: {count} inputs ({outcomes}); slowest {slowest * 1000:.1f} ms, number {number}"


def _many(names: list[str], first: int, inputs: int, jobs: int) -> bool:
    totals = _Totals()
    told = time.monotonic()
    with _mapping(jobs) as mapped:
        for tally in mapped(work, _jobs(names, first, inputs)):
            totals.add(tally)
            if time.monotonic() - told > _PACE:
                told = time.monotonic()
                print(totals.line(), flush=True)
    print(totals.line(), *totals.table(), sep="\n")
    return totals.crashes > 0


if __name__ == "__main__":
    main()
