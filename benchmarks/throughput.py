"""Messages a second, from the first send until every message is acknowledged.

    python -m benchmarks.throughput [--rounds N] [--quick] [--cases PATTERN ...] [--peers NAME ...]

Starts from values of 100 bytes, no key, one topic of four partitions, and changes one thing at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness.command import Bench, Options, bench
from benchmarks.harness.figures import by_case, cpu_us, middle, rate, ratio
from benchmarks.harness.plots import bars
from benchmarks.harness.tables import Table
from benchmarks.harness.turns import Case, Found, Rounds, make_job
from benchmarks.peers import PYTHON_LOOPS, REFERENCE

BASE = "100 B"
SIZES = {BASE: 100, "10 B": 10, "1 KB": 1_000, "10 KB": 10_000, "100 KB": 100_000}
PARTITIONS = (1, 32)
TOPICS = 100
CODECS = ("gzip", "snappy", "lz4", "zstd")


def with_key(name: str) -> str:
    """The name of the same case with keys."""
    return f"{name}, with key"


def cases() -> Iterator[Case]:
    """All of them, the base first."""
    for name, size in SIZES.items():
        yield _case(name, size=size)
        yield _case(with_key(name), size=size, keyed=True)
    for count in PARTITIONS:
        yield _case(f"{BASE}, partitions: {count}", partitions=count)
    yield _case(f"{BASE}, topics: {TOPICS}", topics=TOPICS)
    yield _case(f"{BASE}, two headers", headers=True)
    yield _case("JSON", json=True)
    for codec in CODECS:
        yield _case(f"JSON, {codec}", json=True, compression=codec)


def _case(name: str, topics: int = 1, **what: object) -> Case:
    return Case(name, make_job(task="flood", **what), topics=topics, scaled=True)


def table(name: str, taken: Rounds) -> Table:
    """One case: each producer's rate, and how many times the others' that is."""
    against = [other for other in (*PYTHON_LOOPS, REFERENCE) if other in taken]
    rows = [
        [
            peer,
            f"{middle(rounds, rate):,.0f}",
            f"{middle(rounds, cpu_us):.2f}",
            *(f"{ratio(rounds, taken[other]):.2f}" for other in against),
        ]
        for peer, rounds in taken.items()
    ]
    return Table(name, ["producer", "messages/s", "CPU us/msg", *(f"x {other}" for other in against)], rows)


def plot(running: Bench, name: str, title: str, found: Found) -> None:
    """Each case's rates."""
    if found and (path := running.plot(name)):
        bars(path, title, "messages a second", by_case(found, rate))


def measure(running: Bench) -> None:
    """Every case that is wanted."""
    found = running.results.found
    for case in cases():
        running.measure(case, running.peers, table)
    base = {name: taken for name, taken in found.items() if name == BASE}
    plot(running, "throughput", "Messages of 100 bytes", base)
    plot(running, "throughput-all", "Every case", found)


def main() -> None:
    """Measure, print, keep."""
    with bench("throughput", "Throughput", Options.parse(__doc__)) as running:
        measure(running)


if __name__ == "__main__":
    main()
