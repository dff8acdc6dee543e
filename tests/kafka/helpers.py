"""What several of these tests say about messages and logs.

Messages are numbered: the value is the running number, so the log itself shows what was lost, doubled or
moved.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import trio
from kafka import KafkaProducer

import trio_kprod
from tests.kafka.cluster import PATIENCE, Record


def value(number: int, size: int = 0) -> bytes:
    """Message `number`, at least `size` bytes long."""
    return b"%0*d" % (size, number)


async def send_numbers(
    producer: trio_kprod.Producer, topic: str, numbers: Iterable[int], size: int = 0
) -> None:
    """Send each of `numbers` as fast as the producer takes them."""
    for number in numbers:
        try:
            producer.send_nowait(topic, value(number, size))
        except trio_kprod.BufferOverflow:
            await producer.send(topic, value(number, size))


async def produce_numbers(
    bootstrap_servers: str, topic: str, numbers: Iterable[int], **settings: Any
) -> trio_kprod.ProducerStatistics:
    """Send each of `numbers` through a producer of its own, and leave it."""
    async with trio_kprod.open_producer(bootstrap_servers, **settings) as producer:
        await send_numbers(producer, topic, numbers)
    return producer.statistics()


def produce_with_kafka_python(bootstrap_servers: str, topic: str, count: int, **config: Any) -> None:
    """Send so many numbers to partition 0, each with a time stamp of its own."""
    producer = KafkaProducer(bootstrap_servers=bootstrap_servers, **config)
    with contextlib.closing(producer):
        for number in range(count):
            producer.send(topic, b"%d" % number, partition=0, timestamp_ms=1_700_000_000_000 + number)
        producer.flush()


def assert_once_in_order(records: Iterable[Record], numbers: Sequence[int]) -> None:
    """Each of `numbers`, which rise, is in the log once, and they rise in each partition."""
    logs = defaultdict(list)
    for record in records:
        assert record.value is not None
        logs[record.partition].append(int(record.value))
    for partition, log in logs.items():
        moved = [pair for pair in itertools.pairwise(log) if pair[0] >= pair[1]]
        assert not moved, f"partition {partition}: {len(moved)} out of order or doubled, first {moved[0]}"
    found = {number for log in logs.values() for number in log}
    lost = sorted(set(numbers) - found)
    assert not lost, f"{len(lost)} of {len(numbers)} are not in the log, first {lost[0]}"
    assert sum(map(len, logs.values())) == len(numbers)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds."""
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 (what is waited for happens in another process)
            await trio.sleep(0.01)
