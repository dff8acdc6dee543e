"""The figures in ``docs/speed.md`` and in the README; ``python -m benchmarks --docs`` puts them there."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.cost import FULL_SPEED
from benchmarks.harness.figures import CPU, RATE, Row, Taken, ack, late, ratio
from benchmarks.harness.tables import Table
from benchmarks.latency import awaited_by, paced_at
from benchmarks.memory import BYTES, full_cases
from benchmarks.peers import MODES, PEERS, PYTHON_LOOPS, REFERENCE, Mode, ours
from benchmarks.targets import Every
from benchmarks.throughput import BASE, JSON_GZIP, JSON_HEADERS, KILO, UNIQUE_KEYS

_PROJECT = Path(__file__).parents[1]
PAGE = _PROJECT / "docs" / "speed.md"
README = _PROJECT / "README.md"

#: Between these lines of a page stands what is made here.
BEGIN, END = "<!-- from here: python -m benchmarks --docs -->", "<!-- to here -->"

#: A package index shows the README without the files beside it.
_PICTURE = "https://raw.githubusercontent.com/trio-kprod/trio_kprod/main/benchmarks/results/throughput.svg"
_WIDTH = 118
_NOTHING = "-"


class Column(NamedTuple):
    """Of one command's case, what one of our ways of sending did there, and what the others did."""

    head: str
    command: str
    case: str
    way: str
    shown: Callable[[Row], str]

    def cell(self, every: Every, name: Callable[[str], str]) -> str:
        """What stands there for a producer, whose name depends on the way of sending if it is ours."""
        row = every[self.command].found.get(self.case, {}).get(name(self.way))
        return _NOTHING if row is None else self.shown(row)


def put(page: Path, figures: str) -> None:
    """Write them into the page, in place of those that are there."""
    before, _, rest = page.read_text("utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n\n{figures}\n\n{END}{after}", "utf-8")


def for_page(every: Every) -> str:
    """Tables of all modes and the others, as Markdown; raises `KeyError` where a command was not run."""
    return "\n".join([_table("messages/s", RATES, every), _table("times", TIMES, every), _memory(every)])


def for_readme(every: Every) -> str:
    """A picture and some lines; raises `KeyError` where the rates were not measured."""
    taken = every["throughput"].found[BASE]
    picture = f"![Messages of 100 bytes a second]({_PICTURE})"
    shown = {"By default": MODES[0], "Compiled (`trio_kprod[speedups]`)": MODES[2]}
    sentences = [
        _sentence(start, taken, ours("send_nowait", mode))
        for start, mode in shown.items()
        if ours("send_nowait", mode) in taken
    ]
    return f"{picture}\n\n{textwrap.fill(' '.join(sentences), _WIDTH)}"


def _sentence(start: str, taken: Taken, name: str) -> str:
    others = [(peer, f"`{peer}`") for peer in PYTHON_LOOPS] + [(REFERENCE, "librdkafka's `Producer` in C")]
    against = ", ".join(
        f"{ratio(taken, name, peer):.2g} x {shown}" for peer, shown in others if peer in taken
    )
    return f"{start}: {taken[name][RATE].median:,.0f} messages of 100 bytes a second; {against}."


def _rate(row: Row) -> str:
    return f"{row[RATE].median / 1000:,.0f} k"


def _milliseconds(*names: str, digits: int = 2) -> Callable[[Row], str]:
    return lambda row: " / ".join(f"{row[name].median:.{digits}f}" for name in names) + " ms"


RATES = (
    Column("100 B", "throughput", BASE, "send_nowait", _rate),
    Column("100 B, `await`", "throughput", BASE, "await send", _rate),
    Column("1 KB", "throughput", KILO, "send_nowait", _rate),
    Column("unique keys", "throughput", UNIQUE_KEYS, "send_nowait", _rate),
    Column("JSON, two headers", "throughput", JSON_HEADERS, "send_nowait", _rate),
    Column("JSON, gzip", "throughput", JSON_GZIP, "send_nowait", _rate),
)
_ACKS = _milliseconds(ack("p50"), ack("p99"))
TIMES = (
    Column("processor", "throughput", BASE, "send_nowait", lambda row: f"{row[CPU].median:.1f} µs"),
    Column("one by one", "latency", awaited_by(1), "send_and_wait", _milliseconds(ack("p50"))),
    Column("at 1,000/s", "latency", paced_at(1_000), "send_nowait", _ACKS),
    Column("at 10,000/s", "latency", paced_at(10_000), "send_nowait", _ACKS),
    Column("timer", "responsiveness", FULL_SPEED, "send_nowait", _milliseconds(late("p99"), digits=1)),
)


def _table(head: str, columns: Sequence[Column], every: Every) -> str:
    rows = [[shown, *(column.cell(every, name) for column in columns)] for shown, name in _producers()]
    measured = [row for row in rows if set(row[1:]) != {_NOTHING}]
    return Table("", [head, *(column.head for column in columns)], measured).markdown()


def _producers() -> Iterator[tuple[str, Callable[[str], str]]]:
    for mode in MODES:
        yield f"trio_kprod, {mode.title}", partial(_ours, mode)
    for peer in (*PYTHON_LOOPS, REFERENCE):
        yield f"`{peer}`", partial(_theirs, peer)


def _ours(mode: Mode, way: str) -> str:
    return ours(way, mode)


def _theirs(peer: str, way: str) -> str:
    """Itself, but where messages are awaited and it has no loop."""
    return peer if PEERS[peer].loop or way != "await send" else ""


def _memory(every: Every) -> str:
    found = (every["memory"].found[case.name]["send_nowait"] for case in full_cases())
    full = max(row[BYTES].median for row in found)
    return f"When queue and buffer are full, each message of 1,000 bytes takes {full:,.0f} bytes of memory."
