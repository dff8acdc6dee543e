"""Kafka is down for about ten seconds while 20,000 messages a second are sent: when are they delivered?

    python -m benchmarks.recovery [--rounds N] [--quick] [--peers NAME ...]

It is killed and started again five seconds later, and takes some seconds to start. The clock runs from its
first answer after that until everything sent before that answer has had its outcome: the backlog. Every
producer has room for all of it, but aiokafka, which holds a batch for each partition; after that its `send`
waits, and nothing is sent. Of ours there is `send_nowait` only: what recovers is the same for all.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.harness.command import Bench, Command, Options, bench
from benchmarks.harness.figures import Found, Taken
from benchmarks.harness.job import Round
from benchmarks.harness.plots import can_plot, lines
from benchmarks.harness.tables import Table
from benchmarks.harness.turns import Case, Rounds, make_job
from benchmarks.peers import Peer, pick

RATE = 20_000
BEFORE, DOWN, AFTER = 1.0, 5.0, 10.0

#: With ``--quick`` the outage is so much shorter.
QUICK_DOWN = 1.0

#: Room for all that is sent while Kafka is away.
ROOM = {"ours": {"max_buffer_size": 1_000_000, "max_buffer_bytes": 2**30, "delivery_interval": 0.02}}

Timeline = Sequence[tuple[float, int, int]]


def case(down: float) -> Case:
    """Messages at a steady rate, from before the outage until well after it."""
    messages = int(RATE * (BEFORE + down + AFTER))
    job = make_job(task="paced", rate=RATE, messages=messages, timeline=True)
    return Case(f"started again {down:g} s after its end, {RATE:,} messages/s", job, own_topics=True)


def waiting_at(timeline: Timeline, then: float) -> int:
    """How many messages had no outcome at that time."""
    _, sent, settled = _first_from(timeline, then)
    return sent - settled


def recovered_after(timeline: Timeline, back: float) -> float:
    """Seconds from `back` until all that had been sent by then had its outcome."""
    _, backlog, _ = _first_from(timeline, back)
    return max(0.0, next(then for then, _, settled in timeline if settled >= backlog) - back)


def _first_from(timeline: Timeline, since: float) -> tuple[float, int, int]:
    return next((each for each in timeline if each[0] >= since), timeline[-1])


def interrupted(running: Bench, down: float, case: Case, peer: Peer) -> Round:
    """One round, with what it took to recover."""
    times: list[float] = []

    def interrupt() -> None:
        time.sleep(BEFORE)
        running.cluster.kill()
        times.append(time.perf_counter())
        time.sleep(down)
        running.cluster.start()
        running.cluster.wait_until_ready()
        times.append(time.perf_counter())

    roomy = replace(case.job, settings=ROOM.get(peer.family, {}))
    done = running.turns.once(case._replace(job=roomy), peer, during=interrupt)
    return _with_times(done, *times)


def _with_times(done: Round, killed: float, back: float) -> Round:
    assert done.timeline is not None
    since = [(then - killed, sent, settled) for then, sent, settled in done.timeline]
    down = back - killed
    extra = {
        "down": down,
        "backlog": waiting_at(since, down),
        "recovery": recovered_after(since, down),
    }
    return replace(done, timeline=since, extra=extra)


def measure(running: Bench) -> None:
    """The producers in turn."""
    outage = case(QUICK_DOWN if running.options.quick else DOWN)
    once = partial(interrupted, running, QUICK_DOWN if running.options.quick else DOWN)
    peers = [peer for peer in pick(running.peers) if not peer.is_ours or peer.name == "send_nowait"]
    running.measure(outage, peers, once)


def tables(found: Found) -> Iterator[Table]:
    """The only one."""
    return (table(name, taken) for name, taken in found.items())


def table(name: str, taken: Taken) -> Table:
    """Medians, and the most that was told as failed in a round."""
    rows = [
        [
            peer,
            f"{row['down'].median:.1f}",
            f"{row['backlog'].median:,.0f}",
            f"{row['recovery'].median:.2f}",
            row["recovery"].range(2),
            f"{row['failed'].highest:,.0f}",
        ]
        for peer, row in taken.items()
    ]
    shown = ["down, s", "backlog", "until delivered, s", "lowest to highest", "failed messages"]
    return Table(name, ["producer", *shown], rows)


def plot(directory: Path, taken: Rounds) -> None:
    """How a backlog goes away, in the first round; only this is drawn from a round, where it was measured."""
    if can_plot():
        directory.mkdir(parents=True, exist_ok=True)
        series = {peer: waiting(rounds[0]) for peer, rounds in taken.items()}
        title, along = "Backlog of an outage", "s since Kafka was killed"
        lines(directory / f"{PLOT}.svg", title, along, "messages waiting", series)


def waiting(done: Round) -> dict[float, float]:
    """Messages without their outcome, over the time since Kafka was killed."""
    assert done.timeline is not None
    return {then: sent - settled for then, sent, settled in done.timeline}


PLOT = "recovery"
COMMAND = Command("recovery", "Recovery", tables, {PLOT: lambda *_: None})


def main() -> None:
    """Measure, print, keep."""
    with bench(COMMAND, Options.parse(__doc__)) as running:
        measure(running)
        directory = running.options.directory
        if directory is not None:
            for taken in running.taken.values():
                plot(directory, taken)


if __name__ == "__main__":
    main()
