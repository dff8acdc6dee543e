"""Messages a second, from the first send until every message is acknowledged.

    python -m benchmarks.throughput [--rounds N] [--quick] [--cases PATTERN ...] [--peers NAME ...]

Starts from values of 100 bytes, no key, one topic of four partitions, and changes one thing at a time. The
cases that have a target take about a second a round, the others about half a second.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness.command import Bench, Options, bench
from benchmarks.harness.figures import by_case, cpu_us, middle, rate, ratio
from benchmarks.harness.plots import bars, headline
from benchmarks.harness.tables import Table
from benchmarks.harness.turns import Case, Rounds, make_job
from benchmarks.peers import PEERS, PYTHON_LOOPS, REFERENCE

BASE = "100 B"
KILO = "1 KB"
SIZES = {"10 B": 10, "10 KB": 10_000, "100 KB": 100_000}
PARTITIONS = (1, 32)
TOPICS = 100
HEADLINE = "throughput"
_DISTRIBUTIONS = {"kafka": "kafka-python", "confluent_kafka": "confluent-kafka"}
CODECS = ("gzip", "snappy", "lz4", "zstd")


def with_key(name: str) -> str:
    """The name of the same case with keys."""
    return f"{name}, with key"


def cases() -> Iterator[Case]:
    """All of them, those with a target first."""
    yield _case(BASE, scaled=1.0)
    yield _case(KILO, scaled=1.0, size=1_000)
    yield _case(with_key(BASE), scaled=1.0, keyed=True)
    for name, size in SIZES.items():
        yield _case(name, size=size)
    for count in PARTITIONS:
        yield _case(f"{BASE}, partitions: {count}", partitions=count)
    yield _case(f"{BASE}, topics: {TOPICS}", topics=TOPICS)
    yield _case(f"{BASE}, two headers", headers=True)
    yield _case("JSON", json=True)
    for codec in CODECS:
        yield _case(f"JSON, {codec}", json=True, compression=codec)


def _case(name: str, topics: int = 1, scaled: float = 0.4, **what: object) -> Case:
    return Case(name, make_job(task="flood", **what), topics=topics, scaled=scaled)


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


def plot(running: Bench) -> None:
    """The base for a first look, and each case's rates."""
    found = running.results.found
    if found.get(BASE) and (path := running.plot(HEADLINE)):
        figures = {_full_name(peer): middle(rounds, rate) for peer, rounds in found[BASE].items()}
        ours = [_full_name(name) for name, peer in PEERS.items() if peer.family == "ours"]
        headline(
            path, "Messages of 100 bytes a second, all acknowledged, acks=all and idempotent", figures, ours
        )
    if found and (path := running.plot("throughput-all")):
        bars(path, "Every case", "messages a second", by_case(found, rate))


def measure(running: Bench) -> None:
    """Every case that is wanted."""
    for case in cases():
        running.measure(case, running.peers, table)


def _full_name(peer: str) -> str:
    """For those who know none of the names."""
    package = PEERS[peer].package
    return " ".join(dict.fromkeys([_DISTRIBUTIONS.get(package, package), peer]))


def main() -> None:
    """Measure, print, keep."""
    with bench("throughput", "Throughput", Options.parse(__doc__)) as running:
        measure(running)
        plot(running)


if __name__ == "__main__":
    main()
