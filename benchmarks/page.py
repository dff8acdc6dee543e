"""``RESULTS.md``: everything that was found, in one page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks import cost, growth, latency, memory, recovery, responsiveness, throughput
from benchmarks.harness.command import Command
from benchmarks.harness.results import SAMPLES, Results
from benchmarks.harness.tables import Table
from benchmarks.peers import DEFAULT, PEERS
from benchmarks.targets import kept_table, missed, table as targets_table

_MODULES = (throughput, latency, responsiveness, cost, memory, recovery, growth)

#: In the order of the page.
COMMANDS: dict[str, Command] = {module.COMMAND.name: module.COMMAND for module in _MODULES}

_HEAD = """\
# Benchmark results

Made by `python -m benchmarks` from `{directory}/*.jsonl`; by hand only `NOTES.md`, if it is there. Every
producer has `acks=all` and is idempotent, runs in a process of its own, and takes its turn in each round (A B
C A B C ...), beside one Apache Kafka on the same machine, which has been warmed up. Figures are medians of
the rounds, ratios those of the medians. Of each figure the median, the lowest and the highest are kept; every
round is in `{directory}/{samples}` where it was measured, which is not in git. A round counts only if the
topic's end offsets say that its messages are in the log. The clock starts when connections, topics and
producer ids are there and each partition has been written to, and stops when every message is acknowledged.

Ours have modes: the client in a thread of its own, which is the default, or in the program's own loop
(`own_thread=False`); pure Python, or with the compiled parts of `trio_kprod[speedups]`.
"""


def page(every: Mapping[str, Results], directory: Path, notes: str = "") -> str:
    """The whole page; `notes` are Markdown written by hand, and follow the targets."""
    parts = [_HEAD.format(directory=directory.name, samples=SAMPLES), "## Targets\n"]
    parts += [targets_table(every).markdown(), _missed(every), kept_table(every).markdown()]
    if notes:
        parts.append(notes)
    parts += [
        "## Machine\n",
        machines(every),
        "## Producers and their settings\n",
        settings_table().markdown(),
    ]
    for name, results in every.items():
        parts += section(COMMANDS[name], results, directory)
    return "\n".join(parts)


def _missed(every: Mapping[str, Results]) -> str:
    """A line for each that `NOTES.md` has to explain."""
    return "".join(["Missed in at least one of its modes:\n\n", *(f"- {name}\n" for name in missed(every))])


def machines(every: Mapping[str, Results]) -> str:
    """Each machine once, with the commands that ran there."""
    by_machine: dict[str, list[str]] = {}
    for name, results in every.items():
        text = ", ".join(f"{what} {value}" for what, value in results.machine.items())
        by_machine.setdefault(text, []).append(name)
    return "".join(f"- {', '.join(names)}: {text}\n" for text, names in by_machine.items())


def settings_table() -> Table:
    """Who is compared, and how each is driven; our modes differ in nothing else."""
    rows = [
        [
            f"`{peer.name}`",
            peer.how,
            _shown(peer.fast),
            peer.tried,
            _shown(peer.prompt),
            _shown(peer.gzip or {}),
        ]
        for peer in PEERS.values()
        if peer.mode == DEFAULT
    ]
    columns = [
        "name",
        "driven by",
        "settings for rates",
        "the best of",
        "settings for acknowledgements",
        "for gzip",
    ]
    return Table("What is compared; all else is as each has it by default", columns, rows, words=True)


def _shown(settings: Mapping[str, object]) -> str:
    return ", ".join(f"`{name}={json.dumps(value)}`" for name, value in settings.items())


def section(command: Command, results: Results, directory: Path) -> Iterator[str]:
    """One command's."""
    yield f"## {command.title}\n"
    yield (
        f"`{results.command}` took {results.seconds:,} s with {results.rounds} rounds "
        f"(load of the machine before: {results.load:.1f})\n"
    )
    for plot in command.plots:
        if (directory / f"{plot}.svg").exists():
            yield f"![{command.title}]({directory.name}/{plot}.svg)\n"
    for note in results.notes:
        yield f"{note}\n"
    for table in command.tables(results.found):
        yield table.markdown()
