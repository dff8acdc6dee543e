"""``ENDURANCE.md``: what producers take over time, and what became of every message of each soak."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.endurance import rows as endurance
from benchmarks.endurance.places import EMBEDDED
from benchmarks.endurance.rows import Row
from benchmarks.soak import report as soak

NAME = "ENDURANCE.md"

_HEAD = """\
# Over time, and under faults

Made by `python -m benchmarks --docs` from `{directory}/{endurance}` and `{directory}/{soak}`; by hand only
`NOTES.md`, which explains each missed target.
"""

_ENDURANCE = """\
## Endurance

`python -m benchmarks.endurance`. Each measure has a process of its own, and each client its turn: in a
thread, and in the loop of the program. It has a Kafka of its own: a node of Apache Kafka, or where the table
says `embedded` the broker of `trio_kprod.testing` (`--embedded`). Processor time is that of the producer's
process. `down`: nobody listens where Kafka was; a node is killed, and started again. `frozen`: its
connections stay open, and it does not answer; its process is stopped (SIGSTOP), and goes on. In both the
buffer is full, and a task waits for room. `s to recover`: from the time Kafka answers again until all is
acknowledged. `held` is how many messages the producer had accepted by then. In the end the log is read back:
`lost` is what was accepted and is not there. `furthest ahead`: by how many messages the quickest task was
ahead of the slowest.
"""

_SOAK = """\
## Soaks

`python -m benchmarks.soak`: a random schedule of faults, from a seed, while producers are opened, used in
every way and left. At the end all topics are read back. `in log` includes messages that were told as
perhaps written, and lacks those whose topic was deleted on purpose. The longest silence is the longest time
without any acknowledgement; it lasts as long as the fault where all brokers are away. `left late` is by how
much leaving a block took longer than its `shutdown_timeout` (one second is allowed, and a margin for a busy
machine). MiB: after a quarter of the time, and at the end.
"""


def missed(rows: Iterable[Row]) -> list[str]:
    """What `NOTES.md` has to explain."""
    return [goal for row in rows for goal in row.missed()]


def page(directory: Path) -> str:
    """The whole page."""
    rows, soaks = endurance.kept(directory), soak.kept(directory)
    parts = [_HEAD.format(directory=directory.name, endurance=endurance.NAME, soak=soak.NAME)]
    if rows:
        parts += [_ENDURANCE, endurance.table(rows).markdown(), *_machines(row.machine for row in rows)]
        parts += [_beside(rows), f"Missed: {', '.join(missed(rows)) or 'none'}.\n"]
    if soaks:
        parts += [
            _SOAK,
            soak.table(soaks).markdown(),
            *_of_each(soaks),
            *_machines(one["machine"] for one in soaks),
        ]
    return "\n".join(parts)


def _beside(rows: Sequence[Row]) -> str:
    """Which Kafka it was, and what else the machine was doing."""
    nodes = ", ".join(dict.fromkeys(row.kafka for row in rows if row.kafka != EMBEDDED))
    loads = "; ".join(f"{row.title}: {row.load:g}" for row in rows if row.load is not None)
    return (
        f"Nodes: {nodes}. There was other work beside; processes that wanted to run in the minute before "
        f"each measure, where that was noted: {loads}.\n"
    )


def _of_each(soaks: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for one in soaks:
        faults = ", ".join(f"{count} {kind}" for kind, count in one["faults"].items())
        silence = ", ".join(f"{kind} {seconds}" for kind, seconds in one["longest silence"].items())
        yield (
            f"- Seed {one['seed']}, {one['when']}: {faults}. Longest silence after each, in seconds: "
            f"{silence}. {'; '.join(one['problems']) or 'Nothing was wrong'}.\n"
        )


def _machines(machines: Iterable[Mapping[str, str]]) -> Iterator[str]:
    """Each once."""
    texts = (", ".join(f"{what} {value}" for what, value in machine.items()) for machine in machines)
    yield from (f"Measured on: {text}\n" for text in dict.fromkeys(texts))
