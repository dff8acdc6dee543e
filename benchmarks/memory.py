"""Resident memory: with queue and buffer full, and after many messages.

    python -m benchmarks.memory [--rounds N] [--quick] [--cases PATTERN ...]

Full: the broker is frozen, and messages are sent until nothing more is taken; every value is an object of
its own of 1,000 bytes, held by the producer alone. Over time: after a tenth of a million messages and after
all, each time when they have been acknowledged; the exit status is 1 if it has grown by more than 10 MiB.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks.harness.command import Bench, Command, Options, bench
from benchmarks.harness.figures import Found, Row, Taken
from benchmarks.harness.job import Round
from benchmarks.harness.tables import Table
from benchmarks.harness.turns import Case, make_job
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

#: Where resident memory is looked at over time, after how many messages.
MARKS = {"first MiB": MESSAGES // 10, "last MiB": MESSAGES}
BYTES = "bytes a message"


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


def of_payload(row: Row, beside: float) -> float:
    """How many times the payload a message takes, if `beside` bytes of it are not counted."""
    return (row[BYTES].median - beside) / SIZE


def tables(found: Found) -> Iterator[Table]:
    """One for each case."""
    for name, taken in found.items():
        yield over_time_table(name, taken) if name == OVER_TIME else full_table(name, taken)


def full_table(name: str, taken: Taken) -> Table:
    """What one message takes."""
    row = taken[OURS.name]
    cells = [
        f"{row['held'].median:,.0f}",
        f"{row['MiB'].median:.1f}",
        f"{row[BYTES].median:,.0f}",
        *(f"{of_payload(row, beside):.2f} x payload + {beside}" for beside in BESIDE),
    ]
    return Table(name, ["messages held", "MiB", BYTES, "which is", "or"], [cells])


def over_time_table(name: str, taken: Taken) -> Table:
    """Before and after."""
    row = taken[OURS.name]
    rows = [[f"{count:,}", f"{row[mark].median:.1f}"] for mark, count in MARKS.items()]
    return Table(name, ["after messages", "MiB"], rows)


def grown(row: Row) -> float:
    """MiB by which it grew over time."""
    first, last = MARKS
    return row[last].median - row[first].median


def measure(running: Bench) -> None:
    """Every case that is wanted."""
    for case in full_cases():
        running.measure(case, [OURS], partial(_frozen, running))
    running.measure(over_time(running.options.share), [OURS])


def _frozen(running: Bench, case: Case, peer: Peer) -> Round:
    kafka = running.cluster
    return running.turns.once(case, peer, before=kafka.pause, after=kafka.resume)


COMMAND = Command("memory", "Memory", tables)


def main() -> None:
    """Measure, print, keep, judge."""
    with bench(COMMAND, Options.parse(__doc__)) as running:
        measure(running)
    taken = running.results.found.get(OVER_TIME)
    if taken:
        more = grown(taken[OURS.name])
        print(f"grown by {more:+.1f} MiB over time, {ALLOWED_MIB} allowed")
        raise SystemExit(more > ALLOWED_MIB)


if __name__ == "__main__":
    main()
