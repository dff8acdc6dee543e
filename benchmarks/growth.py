"""Does a message cost more as things grow? Processor time a message, as each grows by powers of ten.

    python -m benchmarks.growth [--rounds N] [--quick] [--cases PATTERN ...]

Partitions and topics (messages go to them in turn), the buffer, the tasks that wait in `send`, and the
length of an outage (the broker is frozen). Only our own: what is looked at is the shape, flat or not.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.harness.command import Bench, Command, Options, bench
from benchmarks.harness.figures import CPU, Found
from benchmarks.harness.job import Round
from benchmarks.harness.plots import panels
from benchmarks.harness.tables import Table
from benchmarks.harness.turns import Case, make_job
from benchmarks.peers import PEERS, Peer

MESSAGES = 100_000


class Axis(NamedTuple):
    """What grows.

    Attributes:
        job: what is special about the job where it is so large.
        topics: how many topics there are then.
        ways: of sending, that are looked at.
    """

    name: str
    sizes: tuple[float, ...]
    job: Callable[[int], dict[str, object]] = lambda _: {}
    topics: Callable[[int], int] = lambda _: 1
    ways: tuple[str, ...] = ("send_nowait", "await send")

    def case(self, size: float, share: float) -> Case:
        """The case where it is so large."""
        job = make_job(task="flood", messages=int(MESSAGES * share), **self.job(int(size)))
        return Case(f"{self.name}: {size:,g}", job, topics=self.topics(int(size)))


def _buffer(size: int) -> dict[str, object]:
    # The bytes are bounded too, so they grow with it.
    return {"settings": {"max_buffer_size": size, "max_buffer_bytes": max(2**26, 500 * size)}}


#: Where a message is on its way already when it makes a difference, how it was sent makes none.
_ONE = ("send_nowait",)

PARTITIONS = Axis(
    "partitions", (1, 10, 100, 1_000), lambda size: {"partitions": size, "keyed": True}, ways=_ONE
)
TOPICS = Axis("topics", (1, 10, 100), lambda _: {"partitions": 1}, lambda size: size, ways=_ONE)
BUFFER = Axis("max_buffer_size", (1_000, 10_000, 100_000), _buffer)
TASKS = Axis("waiting tasks", (1, 10, 100, 1_000), lambda size: {"tasks": size}, ways=("await send",))
OUTAGE = Axis("outage, s", (0.1, 1.0, 10.0), ways=_ONE)
AXES = (PARTITIONS, TOPICS, BUFFER, TASKS, OUTAGE)


def sizes(axis: Axis, *, quick: bool) -> Iterator[float]:
    """Those to look at; the largest takes long."""
    return iter(axis.sizes[:-1] if quick else axis.sizes)


def measure(running: Bench) -> None:
    """Every axis that is wanted."""
    for axis in AXES:
        if running.options.wanted(axis.name):
            for size in sizes(axis, quick=running.options.quick):
                _measure_one(running, axis, size)


def _measure_one(running: Bench, axis: Axis, size: float) -> None:
    def frozen(case: Case, peer: Peer) -> Round:
        return running.turns.once(case, peer, during=partial(_freeze, running, size))

    case = axis.case(size, running.options.share)
    peers = [PEERS[way] for way in axis.ways]
    running.taken[case.name] = running.turns.take(case, peers, frozen if axis is OUTAGE else None)


def _freeze(running: Bench, seconds: float) -> None:
    running.cluster.pause()
    time.sleep(seconds)
    running.cluster.resume()


def tables(found: Found) -> Iterator[Table]:
    """One for each axis."""
    return (table(axis, found) for axis in AXES if any(figures(axis, found).values()))


def figures(axis: Axis, found: Found) -> dict[str, dict[float, float]]:
    """For each way of sending, the cost at each size."""
    cases = {size: found.get(axis.case(size, 1).name, {}) for size in axis.sizes}
    return {
        way: {size: taken[way][CPU].median for size, taken in cases.items() if way in taken}
        for way in axis.ways
    }


def table(axis: Axis, found: Found) -> Table:
    """Cost at each size, and by how much it grows with each power of ten."""
    every = figures(axis, found)
    rows = [
        [way, *(f"{cost:.2f}" for cost in costs.values()), f"{slope(costs):.2f}"]
        for way, costs in every.items()
    ]
    columns = ["CPU us/msg", *(f"{size:,g}" for size in next(iter(every.values()))), "x per power of ten"]
    return Table(axis.name, columns, rows)


def slope(costs: dict[float, float]) -> float:
    """By how many times it grows from one to the next, in the median."""
    grown = list(costs.values())
    return median(after / before for before, after in itertools.pairwise(grown))


def plot(path: Path, found: Found) -> None:
    """A panel for each axis."""
    every = {axis.name: figures(axis, found) for axis in AXES if any(figures(axis, found).values())}
    if every:
        panels(path, "Processor time a message", "us", every)


COMMAND = Command("growth", "Growth", tables, {"growth": plot})


def main() -> None:
    """Measure, print, keep."""
    with bench(COMMAND, Options.parse(__doc__)) as running:
        measure(running)


if __name__ == "__main__":
    main()
