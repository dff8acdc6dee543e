"""How long an acknowledgement takes: from the call until the program can see it, in its own loop.

    python -m benchmarks.latency [--rounds N] [--quick] [--cases PATTERN ...] [--peers NAME ...]

Paced: messages of 100 bytes at a given rate, the four partitions in turn, so that every acknowledgement
says which messages it is for. Awaited: each message is awaited before the next, in 1, 10 and 100 tasks
(threads, for those without a loop). `send_nowait` and `send_and_wait` are there in every mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.harness.command import Bench, Command, Options, bench
from benchmarks.harness.figures import RATE, Found, Taken, ack
from benchmarks.harness.plots import lines
from benchmarks.harness.tables import Table
from benchmarks.harness.turns import Case, make_job
from benchmarks.peers import PEERS, pick

#: Messages a second, and for how many seconds: longer where a percentile has a target.
RATES = {100: 2, 1_000: 5, 10_000: 4, 50_000: 2}

#: Tasks, and how many messages all of them await.
TASKS = {1: 1_500, 10: 4_000, 100: 8_000}
PERCENTILES = ("p50", "p99", "p99.9", "max")


def paced_at(rate: int) -> str:
    """The name of a paced case."""
    return f"{rate:,} messages/s"


def awaited_by(tasks: int) -> str:
    """The name of an awaited case."""
    return f"awaited, tasks: {tasks}"


def paced(share: float = 1.0) -> Iterator[Case]:
    """A case for each rate."""
    for each, seconds in RATES.items():
        job = make_job(task="paced", rate=each, messages=max(100, int(each * seconds * share)))
        yield Case(paced_at(each), job, fast=False)


def awaited(share: float = 1.0) -> Iterator[Case]:
    """A case for each number of tasks."""
    for tasks, messages in TASKS.items():
        job = make_job(task="waited", tasks=tasks, messages=int(messages * share))
        yield Case(awaited_by(tasks), job, fast=False)


def tables(found: Found) -> Iterator[Table]:
    """One for each case."""
    return (table(name, taken) for name, taken in found.items())


def table(name: str, taken: Taken) -> Table:
    """Percentiles in milliseconds, and the rate that was reached."""
    rows = [
        [
            peer,
            *(f"{row[ack(percentile)].median:.2f}" for percentile in PERCENTILES),
            *(row[ack(percentile)].range(2) for percentile in ("p50", "p99")),
            f"{row[RATE].median:,.0f}",
        ]
        for peer, row in taken.items()
    ]
    ranges = ["p50, lowest to highest", "p99, lowest to highest"]
    return Table(name, ["producer", *(f"{each} ms" for each in PERCENTILES), *ranges, RATE], rows)


def plot(percentile: str, path: Path, found: Found) -> None:
    """It over the rate."""
    series = _series(found, percentile)
    if series:
        title = f"Acknowledgement time, {percentile}, 100 bytes, four partitions"
        lines(path, title, "messages a second", "ms", series, log="xy")


def _series(found: Found, percentile: str) -> dict[str, dict[int, float]]:
    rates = {case.name: int(case.job.rate) for case in paced() if case.name in found}
    every = {
        peer: {
            rates[case]: found[case][peer][ack(percentile)].median for case in rates if peer in found[case]
        }
        for peer in PEERS
    }
    return {peer: series for peer, series in every.items() if series}


def measure(running: Bench) -> None:
    """Every case that is wanted."""
    share = running.options.share
    for case in (*paced(share), *awaited(share)):
        running.measure(case, pick(running.peers, ["send_nowait", "send_and_wait"]))


COMMAND = Command(
    "latency", "Latency", tables, {f"latency-{each}": partial(plot, each) for each in ("p50", "p99")}
)


def main() -> None:
    """Measure, print, keep."""
    with bench(COMMAND, Options.parse(__doc__)) as running:
        measure(running)


if __name__ == "__main__":
    main()
