"""Processor time a message, of all threads of the process; and `send_nowait` beside a bare channel's.

    python -m benchmarks.cost [--rounds N] [--quick] [--cases PATTERN ...] [--peers NAME ...]

At full speed, and at 1,000 messages a second, where waking up is what costs. The channel is
`trio.open_memory_channel`: what handing an object to another task costs at least. Ours have the default mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness.command import Bench, Command, Options, bench
from benchmarks.harness.figures import CPU, PEAK, Found, Taken, by_case
from benchmarks.harness.plots import bars
from benchmarks.harness.tables import Table
from benchmarks.harness.turns import Case, make_job
from benchmarks.peers import pick

PACE = 1_000
SECONDS = 3
CALLS = 100_000
FULL_SPEED = "full speed"
CHANNEL = "send_nowait beside a bare channel"
CALL_RATIO = "times the channel's"


def cases(share: float = 1.0) -> tuple[Case, ...]:
    """As fast as it goes, and at a rate."""
    paced = make_job(task="paced", rate=PACE, messages=int(PACE * SECONDS * share))
    return (
        Case(FULL_SPEED, make_job(task="flood"), scaled=1.0),
        Case(f"{PACE:,} messages/s", paced, fast=False),
    )


def channel_case(share: float = 1.0) -> Case:
    """Without delivery in between: a burst fills the queue, and is delivered while no clock runs."""
    return Case(CHANNEL, make_job(task="calls", messages=int(CALLS * share)))


def tables(found: Found) -> Iterator[Table]:
    """One for each case."""
    for name, taken in found.items():
        yield channel_table(name, taken) if name == CHANNEL else table(name, taken)


def table(name: str, taken: Taken) -> Table:
    """Microseconds a message."""
    rows = [
        [peer, f"{row[CPU].median:.2f}", row[CPU].range(2), f"{row[PEAK].median:.0f}"]
        for peer, row in taken.items()
    ]
    return Table(name, ["producer", "CPU us/msg", "lowest to highest", "peak MiB, messages and all"], rows)


def channel_table(name: str, taken: Taken) -> Table:
    """Both, and how many times the channel's time ours is."""
    rows = [
        [
            peer,
            f"{row['ours ns'].median:.0f}",
            f"{row['channel ns'].median:.0f}",
            f"{row[CALL_RATIO].median:.2f}",
        ]
        for peer, row in taken.items()
    ]
    return Table(name, ["", "ours, ns", "channel, ns", "ratio"], rows)


def measure(running: Bench) -> None:
    """Every case that is wanted."""
    share, peers = running.options.share, pick(running.peers)
    for case in cases(share):
        running.measure(case, peers)
    running.measure(channel_case(share), [peer for peer in peers if peer.name == "send_nowait"])


def plot(path: Path, found: Found) -> None:
    """Processor time by producer."""
    costs = {case: taken for case, taken in found.items() if case != CHANNEL}
    if costs:
        bars(path, "Processor time a message, all threads", "us", by_case(costs, CPU))


COMMAND = Command("cost", "Cost", tables, {"cost": plot})


def main() -> None:
    """Measure, print, keep."""
    with bench(COMMAND, Options.parse(__doc__)) as running:
        measure(running)


if __name__ == "__main__":
    main()
