"""Messages a second, from the first send until every message is acknowledged.

    python -m benchmarks.throughput [--rounds N] [--quick] [--cases PATTERN ...] [--peers NAME ...]

Starts from values of 100 bytes, no key, one topic of four partitions, and changes one thing at a time; then
JSON documents of about 300 bytes. The cases that have a target take about a second a round, the others about
half a second. `send_nowait` is there in every mode, and the other ways of sending in the first case only;
elsewhere they have the default mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness.command import Bench, Command, Options, bench
from benchmarks.harness.figures import CPU, RATE, Found, Taken, by_case, ratio
from benchmarks.harness.plots import bars, headline
from benchmarks.harness.tables import Table
from benchmarks.harness.turns import Case, make_job
from benchmarks.peers import (
    FIXED_GZIP_LEVEL,
    GZIP_LEVEL,
    MODES,
    PEERS,
    PYTHON_LOOPS,
    REFERENCE,
    Mode,
    ours,
    pick,
)

BASE = "100 B"
KILO = "1 KB"
KEYED = f"{BASE}, with key"
UNIQUE_KEYS = f"{BASE}, unique keys"
HEADERS = f"{BASE}, two headers"
JSON = "JSON 300 B"
JSON_HEADERS = f"{JSON}, two headers"
JSON_GZIP = f"{JSON}, gzip"
SIZES = {"10 B": 10, "10 KB": 10_000, "100 KB": 100_000}
PARTITIONS = (1, 32)
TOPICS = 100
_JSON: dict[str, Any] = {"json": True, "size": 300}
CODECS = ("snappy", "lz4", "zstd")
_DISTRIBUTIONS = {"kafka": "kafka-python", "confluent_kafka": "confluent-kafka"}

_PLOTTED = (BASE, KILO, KEYED, UNIQUE_KEYS, JSON_HEADERS, JSON_GZIP)


def cases() -> Iterator[Case]:
    """All of them, those with a target first."""
    yield _case(BASE, scaled=1.0)
    yield _case(KILO, scaled=1.0, size=1_000)
    yield _case(UNIQUE_KEYS, scaled=0.5, unique_keys=True)
    yield _case(HEADERS, scaled=0.5, headers=True)
    yield _case(JSON_HEADERS, scaled=0.5, **_JSON, headers=True)
    yield _case(JSON_GZIP, scaled=0.5, **_JSON, compression="gzip")
    yield _case(KEYED, keyed=True)
    for name, size in SIZES.items():
        yield _case(name, size=size)
    for count in PARTITIONS:
        yield _case(f"{BASE}, partitions: {count}", partitions=count)
    yield _case(f"{BASE}, topics: {TOPICS}", topics=TOPICS)
    yield _case(JSON, **_JSON)
    for codec in CODECS:
        yield _case(f"{JSON}, {codec}", **_JSON, compression=codec)


def _case(name: str, topics: int = 1, scaled: float = 0.3, **what: object) -> Case:
    return Case(name, make_job(task="flood", **what), topics=topics, scaled=scaled)


def tables(found: Found) -> Iterator[Table]:
    """One for each case."""
    return (table(name, taken) for name, taken in found.items())


def table(name: str, taken: Taken) -> Table:
    """Each producer's rate, and how many times the others' that is."""
    against = [other for other in (*PYTHON_LOOPS, REFERENCE) if other in taken]
    rows = [
        [
            peer,
            f"{row[RATE].median:,.0f}",
            row[RATE].range(),
            f"{row[CPU].median:.2f}",
            *(f"{ratio(taken, peer, other):.2f}" for other in against),
        ]
        for peer, row in taken.items()
    ]
    columns = ["producer", RATE, "lowest to highest", "CPU us/msg", *(f"x {other}" for other in against)]
    return Table(_title(name, taken), columns, rows)


def _title(name: str, taken: Taken) -> str:
    if name != JSON_GZIP:
        return name
    fixed = [peer for peer in taken if PEERS[peer].gzip is None]
    others = f"; {FIXED_GZIP_LEVEL} for {' and '.join(fixed)}, which cannot be told" if fixed else ""
    return f"{name} (level {GZIP_LEVEL}{others})"


def plot_base(path: Path, found: Found) -> None:
    """For a first look: `send_nowait` in every mode and `await send`, beside the others."""
    taken = found.get(BASE, {})
    names = {
        **{ours("send_nowait", mode): _mode_name(mode) for mode in MODES},
        "await send": "trio_kprod, await send",
        **{other: _full_name(other) for other in (*PYTHON_LOOPS, REFERENCE)},
    }
    figures = {shown: taken[name][RATE].median for name, shown in names.items() if name in taken}
    kinds = {shown: _kind(name) for name, shown in names.items()}
    title = "Messages of 100 bytes a second, all acknowledged, acks=all and idempotent"
    if figures:
        headline(path, title, figures, kinds)


def plot_some(path: Path, found: Found) -> None:
    """The cases that differ most."""
    rates = by_case({case: found[case] for case in _PLOTTED if case in found}, RATE)
    if rates:
        bars(path, "Messages a second", RATE, rates)


def measure(running: Bench) -> None:
    """Every case that is wanted."""
    for case in cases():
        every_mode = ["send_nowait", *(["await send", "send_many"] if case.name == BASE else [])]
        running.measure(case, pick(running.peers, every_mode))


def _kind(peer: str) -> str:
    if not PEERS[peer].is_ours:
        return "theirs"
    return "compiled" if PEERS[peer].mode.compiled else "ours"


def _mode_name(mode: Mode) -> str:
    return f"trio_kprod, {mode.name}" if mode.name else "trio_kprod"


def _full_name(peer: str) -> str:
    """For those who know none of the names."""
    package = PEERS[peer].package
    return " ".join(dict.fromkeys([_DISTRIBUTIONS.get(package, package), peer]))


COMMAND = Command("throughput", "Throughput", tables, {"throughput": plot_base, "throughput-some": plot_some})


def main() -> None:
    """Measure, print, keep."""
    with bench(COMMAND, Options.parse(__doc__)) as running:
        measure(running)


if __name__ == "__main__":
    main()
