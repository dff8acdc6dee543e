"""What several of these tests say about messages and logs.

Messages are numbered: the value is the running number, so the log itself shows what was lost, doubled or
moved.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

import trio_kprod
from tests.kafka.cluster import PATIENCE, Record
from tests.kafka.history import History


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


def alternately(number: int) -> bytes | None:
    """Five keys, and none."""
    return b"key-%d" % (number % 5) if number % 2 else None


class Load:
    """What goes on while something is done to a topic; see `load`."""

    def __init__(self, history: History) -> None:
        self._history = history
        self.stopped = False

    async def more(self, count: int = 300) -> None:
        """Wait until so many more messages were accepted."""
        wanted = self._history.sent + count
        await until(lambda: self._history.sent >= wanted)


@asynccontextmanager
async def load(
    history: History,
    producer: trio_kprod.Producer,
    topic: str,
    key: Callable[[int], bytes | None] = alternately,
    size: int = 0,
) -> AsyncIterator[Load]:
    """Send a thousand messages a second at most, until the block ends."""
    going_on = Load(history)

    async def send() -> None:
        for number in itertools.count():
            if going_on.stopped:
                return
            await history.send(producer, topic, key(number), size=size)
            await trio.sleep(0.001)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        yield going_on
        going_on.stopped = True
