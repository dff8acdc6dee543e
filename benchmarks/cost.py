"""Processor time a message, of all threads of the process; and `send_nowait` beside a bare channel's.

    python -m benchmarks.cost [--rounds N] [--quick] [--cases PATTERN ...] [--peers NAME ...]

At full speed, and at 1,000 messages a second, where waking up is what costs. The channel is
`trio.open_memory_channel`: what handing an object to another task costs at least.
"""

from __future__ import annotations

from benchmarks.harness.command import Bench, Options, bench
from benchmarks.harness.figures import by_case, cpu_us, extra, middle
from benchmarks.harness.job import Round
from benchmarks.harness.plots import bars
from benchmarks.harness.tables import Table
from benchmarks.harness.turns import Case, Rounds, make_job

RATE = 1_000
SECONDS = 3
CALLS = 100_000
FULL_SPEED = "full speed"
CHANNEL = "send_nowait beside a bare channel"


def cases(share: float = 1.0) -> tuple[Case, ...]:
    """As fast as it goes, and at a rate."""
    paced = make_job(task="paced", rate=RATE, messages=int(RATE * SECONDS * share))
    return (
        Case(FULL_SPEED, make_job(task="flood"), scaled=1.0),
        Case(f"{RATE:,} messages/s", paced, fast=False),
    )


def channel_case(share: float = 1.0) -> Case:
    """Without delivery in between: a burst fills the queue, and is delivered while no clock runs."""
    return Case(CHANNEL, make_job(task="calls", messages=int(CALLS * share)))


def table(name: str, taken: Rounds) -> Table:
    """Microseconds a message."""
    rows = [
        [peer, f"{middle(rounds, cpu_us):.2f}", f"{middle(rounds, _peak):.0f}"]
        for peer, rounds in taken.items()
    ]
    return Table(name, ["producer", "CPU us/msg", "peak MiB, messages and all"], rows)


def channel_table(name: str, taken: Rounds) -> Table:
    """Both, and how many times the channel's time ours is."""
    rows = [
        [
            peer,
            f"{middle(rounds, extra('send_nowait', 1e9)):.0f}",
            f"{middle(rounds, extra('channel', 1e9)):.0f}",
            f"{middle(rounds, call_ratio):.2f}",
        ]
        for peer, rounds in taken.items()
    ]
    return Table(name, ["", "ours, ns", "channel, ns", "ratio"], rows)


def call_ratio(done: Round) -> float:
    """How many times a bare channel's `send_nowait` ours takes."""
    return done.extra["ratio"]


def _peak(done: Round) -> float:
    return done.peak_mib


def measure(running: Bench) -> None:
    """Every case that is wanted."""
    share = running.options.share
    for case in cases(share):
        running.measure(case, running.peers, table)
    ours = [peer for peer in running.peers if peer.name == "send_nowait"]
    running.measure(channel_case(share), ours, channel_table)


def plot(running: Bench) -> None:
    """Processor time by producer."""
    found = {case: taken for case, taken in running.results.found.items() if case != CHANNEL}
    if found and (path := running.plot("cost")):
        bars(path, "Processor time a message, all threads", "us", by_case(found, cpu_us))


def main() -> None:
    """Measure, print, keep."""
    with bench("cost", "Cost", Options.parse(__doc__)) as running:
        measure(running)
        plot(running)


if __name__ == "__main__":
    main()
