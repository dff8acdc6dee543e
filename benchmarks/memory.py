"""Does memory grow with the number of messages? Resident memory after 100,000 and after 1,000,000 of them.

    python -m benchmarks.memory [--bootstrap-servers HOST:PORT]

One producer, flat out, to a real Apache Kafka. Both are read when the messages so far have been acknowledged.
The exit status is 1 if the second is more than 10 MiB above the first.
"""

from __future__ import annotations

import argparse
import gc
import os
from pathlib import Path

import trio

import trio_kprod
from benchmarks.producers import DELIVERY_THRESHOLD, VALUE_SIZE
from tests.kafka.cluster import some_kafka
from tests.kafka.jars import Unavailable

MARKS = (100_000, 1_000_000)
ALLOWED_MIB = 10


def resident_mib() -> float:
    """This process's resident memory now, in MiB; from Linux's ``/proc``."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def memory_at_marks(servers: str, topic: str) -> list[float]:
    """Resident memory after each of `MARKS` messages."""
    found, sent = [], 0
    async with trio_kprod.open_producer(servers, delivery_threshold=DELIVERY_THRESHOLD) as producer:
        for mark in MARKS:
            for number in range(sent, mark):
                await _send(producer, topic, b"%0*d" % (VALUE_SIZE, number))
            sent = mark
            await producer.flush()
            gc.collect()
            found.append(resident_mib())
    return found


async def _send(producer: trio_kprod.Producer, topic: str, value: bytes) -> None:
    try:
        producer.send_nowait(topic, value)
    except trio_kprod.BufferOverflow:
        await producer.send(topic, value)


def main() -> None:
    """Measure, print, and judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bootstrap-servers")
    given = parser.parse_args()
    try:
        with some_kafka(given.bootstrap_servers) as kafka:
            topic = kafka.new_topic(partitions=4)
            found = trio.run(memory_at_marks, kafka.bootstrap_servers, topic)
    except Unavailable as error:
        raise SystemExit(f"no Apache Kafka: {error}") from None
    for mark, mib in zip(MARKS, found, strict=True):
        print(f"resident after {mark:9,} messages: {mib:7.1f} MiB")
    grown = found[-1] - found[0]
    print(f"difference: {grown:+.1f} MiB, allowed {ALLOWED_MIB}")
    raise SystemExit(grown > ALLOWED_MIB)


if __name__ == "__main__":
    main()
