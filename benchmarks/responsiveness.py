"""How late a timer of 5 ms fires in the loop of the program that produces.

    python -m benchmarks.responsiveness [--rounds N] [--quick] [--cases PATTERN ...] [--peers NAME ...]

As fast as it goes and at 10,000 messages a second, beside an idle loop: its lateness is the machine's own.
Producers without a loop have none to disturb. `send_nowait` is there in every mode, and `await send` at full
speed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.cost import FULL_SPEED
from benchmarks.harness.command import Bench, Command, Options, bench
from benchmarks.harness.figures import RATE, Found, Taken, by_case, late
from benchmarks.harness.plots import bars
from benchmarks.harness.tables import Table
from benchmarks.harness.turns import Case, make_job
from benchmarks.peers import PEERS, pick

PACE = 10_000
SECONDS = 2
PERCENTILES = ("p50", "p99", "max")


def cases(share: float = 1.0) -> tuple[Case, ...]:
    """At full speed, at a rate, and next to nothing."""
    flood = make_job(task="flood", timer=True)
    paced = make_job(task="paced", timer=True, rate=PACE, messages=int(PACE * SECONDS * share))
    idle = replace(paced, rate=2, messages=max(2, int(2 * SECONDS * share)))
    return (
        Case(FULL_SPEED, flood, scaled=2.0),
        Case(f"{PACE:,} messages/s", paced, fast=False),
        Case("idle", idle, fast=False),
    )


def tables(found: Found) -> Iterator[Table]:
    """One for each case."""
    return (table(name, taken) for name, taken in found.items())


def table(name: str, taken: Taken) -> Table:
    """Percentiles of the lateness, and the rate meanwhile."""
    rows = [
        [
            peer,
            str(PEERS[peer].loop),
            *(f"{row[late(percentile)].median:.2f}" for percentile in PERCENTILES),
            row[late("p99")].range(2),
            f"{row[RATE].median:,.0f}",
        ]
        for peer, row in taken.items()
    ]
    shown = [*(f"{percentile} ms" for percentile in PERCENTILES), "p99, lowest to highest"]
    return Table(name, ["producer", "loop", *shown, RATE], rows)


def measure(running: Bench) -> None:
    """Every case that is wanted."""
    with_loop = [peer for peer in running.peers if peer.loop]
    for case in cases(running.options.share):
        every_mode = ["send_nowait", *["await send"] * (case.name == FULL_SPEED)]
        running.measure(case, pick(with_loop, every_mode))


def plot(path: Path, found: Found) -> None:
    """The 99th percentile."""
    if found:
        title = "Lateness of a 5 ms timer in the producer's loop, 99th percentile"
        bars(path, title, "ms", by_case(found, late("p99")))


COMMAND = Command("responsiveness", "Responsiveness", tables, {"responsiveness": plot})


def main() -> None:
    """Measure, print, keep."""
    with bench(COMMAND, Options.parse(__doc__)) as running:
        measure(running)


if __name__ == "__main__":
    main()
