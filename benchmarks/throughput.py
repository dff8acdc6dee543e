"""Messages a second beside a real Apache Kafka: trio_kprod from a trio task against `kafka.KafkaProducer`.

    python -m benchmarks.throughput [--rounds 5] [--messages N] [--bootstrap-servers HOST:PORT]

acks=all, idempotent, distinct 100-byte values without key, a new topic of four partitions each round,
whose end offsets must add up. The producers take turns, so that what else the machine does falls on all
alike; each is judged by its median round. Without ``--bootstrap-servers`` a Kafka of one node is started
here.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median

from benchmarks.producers import PRODUCERS, Round, measure
from tests.kafka.cluster import Kafka, some_kafka
from tests.kafka.jars import Unavailable

BASELINE = "kafka-python"
PARTITIONS = 4


def run(kafka: Kafka, names: Iterable[str], rounds: int, messages: int | None) -> dict[str, list[Round]]:
    """Let the producers take turns, and say what each round took."""
    taken: dict[str, list[Round]] = {name: [] for name in names}
    for number in range(1, rounds + 1):
        for name, before in taken.items():
            before.append(_one_round(kafka, name, messages or PRODUCERS[name][1]))
            print(f"round {number}  {_line(name, before[-1:])}", flush=True)
    return taken


def _one_round(kafka: Kafka, name: str, messages: int) -> Round:
    topic = kafka.new_topic(partitions=PARTITIONS)
    taken = measure(name, kafka.bootstrap_servers, topic, messages)
    written = sum(kafka.end_offsets(topic).values())
    if written != messages:
        raise SystemExit(f"{name}: {messages} messages sent, but {written} in the log")
    kafka.delete_topic(topic)
    return taken


def report(taken: Mapping[str, list[Round]]) -> None:
    """Medians, and how many times the baseline's rate each has."""
    baseline = taken.get(BASELINE)
    for name, rounds in taken.items():
        times = f"  {_rate(rounds) / _rate(baseline):5.2f} x" if baseline else ""
        print(f"median   {_line(name, rounds)}{times}")


def _line(name: str, rounds: list[Round]) -> str:
    cpu, peak = median(one.cpu_us for one in rounds), median(one.peak_mib for one in rounds)
    return f"{name:14}{_rate(rounds):10,.0f} msg/s {cpu:7.2f} us/msg {peak:6.0f} MiB"


def _rate(rounds: list[Round]) -> float:
    return median(one.rate for one in rounds)


def machine() -> str:
    """What the figures were measured on, in one line."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):  # only Linux has it
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), model)
    versions = " ".join(f"{name} {importlib.metadata.version(name)}" for name in ("trio", "kafka-python"))
    return (
        f"{os.cpu_count()} x {model}, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, {versions}"
    )


def main() -> None:
    """Measure, round by round, and print the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, help="per round; default: what takes two to four seconds")
    parser.add_argument("--bootstrap-servers")
    parser.add_argument("--only", nargs="+", choices=PRODUCERS, default=list(PRODUCERS), metavar="NAME")
    given = parser.parse_args()
    print(machine(), flush=True)
    try:
        with some_kafka(given.bootstrap_servers) as kafka:
            report(run(kafka, given.only, given.rounds, given.messages))
    except Unavailable as error:
        raise SystemExit(f"no Apache Kafka: {error}") from None


if __name__ == "__main__":
    main()
