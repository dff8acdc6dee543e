"""How long an acknowledgement takes: from the call until the program can see it, in its own loop.

    python -m benchmarks.latency [--rounds N] [--quick] [--cases PATTERN ...] [--peers NAME ...]

Paced: messages of 100 bytes at a given rate, the four partitions in turn, so that every acknowledgement
says which messages it is for. Awaited: each message is awaited before the next, in 1, 10 and 100 tasks
(threads, for those without a loop).
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness.command import Bench, Options, bench
from benchmarks.harness.figures import ack_ms, middle, rate as reached
from benchmarks.harness.plots import lines
from benchmarks.harness.tables import Table
from benchmarks.harness.turns import Case, Rounds, make_job
from benchmarks.peers import PEERS

#: Messages a second, and for how many seconds.
RATES = {100: 2, 1_000: 3, 10_000: 2, 50_000: 2}

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


def table(name: str, taken: Rounds) -> Table:
    """Percentiles in milliseconds, and the rate that was reached."""
    rows = [
        [
            peer,
            *(f"{middle(rounds, ack_ms(percentile)):.2f}" for percentile in PERCENTILES),
            f"{middle(rounds, reached):,.0f}",
        ]
        for peer, rounds in taken.items()
    ]
    return Table(name, ["producer", *(f"{percentile} ms" for percentile in PERCENTILES), "messages/s"], rows)


def measure(running: Bench) -> None:
    """Every case that is wanted."""
    share = running.options.share
    for case in (*paced(share), *awaited(share)):
        running.measure(case, running.peers, table)


def plot(running: Bench) -> None:
    """The median and the 99th percentile over the rate."""
    for percentile in ("p50", "p99"):
        series = _series(running, percentile)
        if series and (path := running.plot(f"latency-{percentile}")):
            title = f"Acknowledgement time, {percentile}, 100 bytes, four partitions"
            lines(path, title, "messages a second", "ms", series, log="xy")


def _series(running: Bench, percentile: str) -> dict[str, dict[int, float]]:
    found = running.results.found
    rates = {case.name: int(case.job.rate) for case in paced() if case.name in found}
    return {
        peer: {
            rates[case]: middle(found[case][peer], ack_ms(percentile))
            for case in rates
            if peer in found[case]
        }
        for peer in PEERS
        if any(peer in found[case] for case in rates)
    }


def main() -> None:
    """Measure, print, keep."""
    with bench("latency", "Latency", Options.parse(__doc__)) as running:
        measure(running)
        plot(running)


if __name__ == "__main__":
    main()
