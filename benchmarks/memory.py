"""Resident memory: with queue and buffer full, and after many messages.

    python -m benchmarks.memory [--rounds N] [--quick] [--cases PATTERN ...]

Full: the broker is frozen, and messages are sent until nothing more is taken; every value is an object of
its own of 1,000 bytes, held by the producer alone. Over time: after a tenth of a million messages and after
all, each time when they have been acknowledged; the exit status is 1 if it has grown by more than 10 MiB.
"""

from __future__ import annotations

from functools import partial

from benchmarks.harness.command import Bench, Options, bench
from benchmarks.harness.figures import extra, middle
from benchmarks.harness.job import Round
from benchmarks.harness.tables import Table
from benchmarks.harness.turns import Case, Rounds, make_job
from benchmarks.peers import PEERS, Peer

SIZE = 1_000
#: Size of the buffer and partitions. A partition has five batches under way, so with many of them nearly all
#: messages are held twice: as they came, and encoded.
FULL = ((20_000, 4), (20_000, 32), (200_000, 4))
MESSAGES = 1_000_000
ALLOWED_MIB = 10

#: Bytes a message that are granted beside a multiple of its payload.
BESIDE = (350, 250)
OURS = PEERS["send_nowait"]
OVER_TIME = "over time"


def full_cases() -> tuple[Case, ...]:
    """By default, with more partitions, and with ten times the buffer."""
    return tuple(_full(count, partitions) for count, partitions in FULL)


def _full(count: int, partitions: int) -> Case:
    name = f"full, max_buffer_size: {count:,}, partitions: {partitions}"
    # So much that it is messages that fill it, and not bytes.
    bounds = {"max_buffer_size": count, "max_buffer_bytes": count * SIZE * 2}
    return Case(
        name, make_job(task="full", size=SIZE, partitions=partitions, settings=bounds), own_topics=True
    )


def over_time(share: float) -> Case:
    """All of a million messages, or a part."""
    return Case(OVER_TIME, make_job(task="marks", messages=int(MESSAGES * share)))


def of_payload(done: Round, beside: float) -> float:
    """How many times the payload a message takes, if `beside` bytes of it are not counted."""
    return (bytes_each(done) - beside) / SIZE


def bytes_each(done: Round) -> float:
    """Resident memory a message that is held."""
    return done.extra["bytes"] / done.extra["held"]


def full_table(name: str, rounds: Rounds) -> Table:
    """What one message takes."""
    taken = rounds[OURS.name]
    row = [
        f"{middle(taken, extra('held')):,.0f}",
        f"{middle(taken, extra('bytes', 2**-20)):.1f}",
        f"{middle(taken, bytes_each):,.0f}",
        *(
            f"{middle(taken, partial(of_payload, beside=beside)):.2f} x payload + {beside}"
            for beside in BESIDE
        ),
    ]
    return Table(name, ["messages held", "MiB", "bytes a message", "which is", "or"], [row])


def over_time_table(name: str, rounds: Rounds) -> Table:
    """Before and after."""
    taken = rounds[OURS.name]
    marks = {"first": taken[0].messages // 10, "last": taken[0].messages}
    rows = [[f"{count:,}", f"{middle(taken, extra(mark)):.1f}"] for mark, count in marks.items()]
    return Table(name, ["after messages", "MiB"], rows)


def grown(done: Round) -> float:
    """MiB by which it grew over time."""
    return done.extra["last"] - done.extra["first"]


def measure(running: Bench) -> None:
    """Every case that is wanted."""
    for case in full_cases():
        running.measure(case, [OURS], full_table, partial(_frozen, running))
    running.measure(over_time(running.options.share), [OURS], over_time_table)


def _frozen(running: Bench, case: Case, peer: Peer) -> Round:
    kafka = running.cluster
    return running.turns.once(case, peer, before=kafka.pause, after=kafka.resume)


def main() -> None:
    """Measure, print, keep, judge."""
    with bench("memory", "Memory", Options.parse(__doc__)) as running:
        measure(running)
    taken = running.results.found.get(OVER_TIME)
    if taken:
        more = middle(taken[OURS.name], grown)
        print(f"grown by {more:+.1f} MiB over time, {ALLOWED_MIB} allowed")
        raise SystemExit(more > ALLOWED_MIB)


if __name__ == "__main__":
    main()
