"""``RESULTS.md``: everything that was found, in one page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from benchmarks.harness.results import Results
from benchmarks.harness.tables import Table
from benchmarks.peers import PEERS
from benchmarks.targets import other_idiom, table as targets_table

_HEAD = """\
# Benchmark results

Made by `python -m benchmarks` from `{directory}/*.json`; by hand only `NOTES.md`, if it is there. Every
producer has `acks=all` and is idempotent, runs in a process of its own, and takes its turn in each round (A B
C A B C ...), beside one Apache Kafka on the same machine, which has been warmed up. Figures are medians of
the rounds, ratios the medians of each round's ratio. A round counts only if the topic's end offsets say that
its messages are in the log. The clock starts when connections, topics and producer ids are there and each
partition has been written to, and stops when every message is acknowledged.
"""


def page(every: Mapping[str, Results], directory: str, notes: str = "") -> str:
    """The whole page; `notes` are Markdown written by hand, and follow the targets."""
    parts = [_HEAD.format(directory=directory), "## Targets\n"]
    parts += [targets_table(every).markdown(), other_idiom(every).markdown()]
    if notes:
        parts.append(notes)
    parts += [
        "## Machine\n",
        machines(every),
        "## Producers and their settings\n",
        settings_table().markdown(),
    ]
    for results in every.values():
        parts += section(results, directory)
    return "\n".join(parts)


def machines(every: Mapping[str, Results]) -> str:
    """Each machine once, with the commands that ran there."""
    by_machine: dict[str, list[str]] = {}
    for name, results in every.items():
        text = ", ".join(f"{what} {value}" for what, value in results.machine.items())
        by_machine.setdefault(text, []).append(name)
    return "".join(f"- {', '.join(names)}: {text}\n" for text, names in by_machine.items())


def settings_table() -> Table:
    """Who is compared, and how each is driven."""
    rows = [
        [f"`{peer.name}`", peer.how, _shown(peer.fast), peer.tried, _shown(peer.prompt)]
        for peer in PEERS.values()
    ]
    columns = ["name", "driven by", "settings for rates", "the best of", "settings for acknowledgements"]
    return Table("What is compared; all else is as each has it by default", columns, rows, words=True)


def _shown(settings: Mapping[str, object]) -> str:
    return ", ".join(f"`{name}={json.dumps(value)}`" for name, value in settings.items())


def section(results: Results, directory: str) -> Iterator[str]:
    """One command's."""
    yield f"## {results.title}\n"
    yield f"`{results.command}` took {results.seconds:,} s (load of the machine before: {results.load:.1f})\n"
    for plot in results.plots:
        yield f"![{results.title}]({directory}/{plot})\n"
    for note in results.notes:
        yield f"{note}\n"
    for table in results.tables:
        yield table.markdown()
