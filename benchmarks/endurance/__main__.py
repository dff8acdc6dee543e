"""``python -m benchmarks.endurance``: see the package."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import benchmarks.endurance
from benchmarks.endurance.measures import MEASURES, QUICK, Figures, Scale, measure_with
from benchmarks.endurance.places import EMBEDDED, REAL
from benchmarks.endurance.rows import Row, keep, table
from benchmarks.harness.command import NoKafka
from benchmarks.harness.machine import load, machine
from benchmarks.harness.results import DIRECTORY
from tests.kafka.jars import Unavailable

#: In which nothing happens for most of the time, so that both clients may be measured side by side.
QUIET = ("idle", "down", "frozen")
CLIENTS = {"thread": True, "loop": False}


def main() -> None:
    """Measure, print, keep, judge."""
    given = _parser().parse_args()
    scale = QUICK if given.quick else Scale(seconds=given.minutes * 60)
    kafka = EMBEDDED if given.quick or given.embedded else REAL
    rows: list[Row] = []
    for name in given.measures or MEASURES:
        found = list(measure(name, given.clients, kafka, scale))
        rows += found
        print(table(found).text(), flush=True)
    directory = given.results or (None if given.quick else DIRECTORY)
    if directory is not None:
        keep(rows, directory)
    missed = [goal for row in rows for goal in row.missed(quick=given.quick)]
    print(f"MISSED: {'; '.join(missed)}" if missed else "every target met")
    raise SystemExit(bool(missed))


def measure(name: str, clients: Iterable[str], kafka: str, scale: Scale) -> Iterable[Row]:
    """One measure of each client, each in a process of its own."""
    with contextlib.ExitStack() as stack:
        began, busy = time.monotonic(), round(load(), 1)
        waiting = []
        for client in clients:
            alone = stack.enter_context(ProcessPoolExecutor(1, get_context("spawn")))
            future = alone.submit(measure_with, name, kafka, CLIENTS[client], scale)
            waiting.append((client, future))
            if name not in QUIET:
                future.exception()
        for client, future in waiting:
            figures: Figures = {key: float(f"{value:.4g}") for key, value in _result(future).items()}
            seconds = round(time.monotonic() - began, 1)
            yield Row(name, client, kafka, scale._asdict(), figures, seconds, machine(), busy)


def _result(future: Future[Figures]) -> Figures:
    try:
        return future.result()
    except Unavailable as error:
        raise NoKafka(f"no Apache Kafka: {error}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.endurance",
        description=benchmarks.endurance.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "measures", nargs="*", choices=[*MEASURES, []], metavar="MEASURE", help="default: all"
    )
    parser.add_argument("--quick", action="store_true", help="some seconds each, without Java")
    parser.add_argument("--embedded", action="store_true", help="the embedded broker, without Java")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long idle, down and frozen last")
    parser.add_argument("--clients", nargs="+", choices=CLIENTS, default=list(CLIENTS))
    parser.add_argument("--results", type=Path, help="a directory for what is found")
    return parser


if __name__ == "__main__":
    main()
