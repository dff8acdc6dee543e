"""How late a timer of 5 ms fires in the loop of the program that produces.

    python -m benchmarks.responsiveness [--rounds N] [--quick] [--cases PATTERN ...] [--peers NAME ...]

As fast as it goes and at 10,000 messages a second, beside an idle loop: its lateness is the machine's own.
Producers without a loop have none to disturb.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.cost import FULL_SPEED
from benchmarks.harness.command import Bench, Options, bench
from benchmarks.harness.figures import by_case, late_ms, middle, rate
from benchmarks.harness.plots import bars
from benchmarks.harness.tables import Table
from benchmarks.harness.turns import Case, Rounds, make_job
from benchmarks.peers import PEERS

RATE = 10_000
SECONDS = 2
PERCENTILES = ("p50", "p99", "max")


def cases(share: float = 1.0) -> tuple[Case, ...]:
    """At full speed, at a rate, and next to nothing."""
    flood = make_job(task="flood", timer=True)
    paced = make_job(task="paced", timer=True, rate=RATE, messages=int(RATE * SECONDS * share))
    idle = replace(paced, rate=2, messages=max(2, int(2 * SECONDS * share)))
    return (
        Case(FULL_SPEED, flood, scaled=2.0),
        Case(f"{RATE:,} messages/s", paced, fast=False),
        Case("idle", idle, fast=False),
    )


def table(name: str, taken: Rounds) -> Table:
    """Percentiles of the lateness, and the rate meanwhile."""
    rows = [
        [
            peer,
            str(PEERS[peer].loop),
            *(f"{middle(rounds, late_ms(percentile)):.2f}" for percentile in PERCENTILES),
            f"{middle(rounds, rate):,.0f}",
        ]
        for peer, rounds in taken.items()
    ]
    columns = ["producer", "loop", *(f"{percentile} ms" for percentile in PERCENTILES), "messages/s"]
    return Table(name, columns, rows)


def measure(running: Bench) -> None:
    """Every case that is wanted."""
    with_loop = [peer for peer in running.peers if peer.loop]
    for case in cases(running.options.share):
        running.measure(case, with_loop, table)


def plot(running: Bench) -> None:
    """The 99th percentile."""
    found = running.results.found
    if found and (path := running.plot("responsiveness")):
        title = "Lateness of a 5 ms timer in the producer's loop, 99th percentile"
        bars(path, title, "ms", by_case(found, late_ms("p99")))


def main() -> None:
    """Measure, print, keep."""
    with bench("responsiveness", "Responsiveness", Options.parse(__doc__)) as running:
        measure(running)
        plot(running)


if __name__ == "__main__":
    main()
