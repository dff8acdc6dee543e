"""The ways of producing that are compared, each driven as fast as it takes messages.

Each runs in a process of its own (``python -m benchmarks.producers``), so that processor time and memory
are its own, and prints one JSON object. The clock runs from the first send, with connection and metadata
warm, until every message is acknowledged: for trio_kprod until the scope is left, for `KafkaProducer` until
`flush` returns.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Generator
from typing import Any, NamedTuple

import trio
from kafka import KafkaProducer

import trio_kprod

VALUE_SIZE = 100

#: What its documentation and our own trials give as the fastest durable settings.
TUNED: dict[str, Any] = {"linger_ms": 20, "batch_size": 131072, "acks": "all", "enable_idempotence": True}

#: As in the README's first example. By default nothing leaves before the queue is full or someone asks.
DELIVERY_THRESHOLD = 500


class Round(NamedTuple):
    """What one run took: seconds on the wall and on the processors, and the most memory in MiB."""

    messages: int
    seconds: float
    cpu_seconds: float
    peak_mib: float

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds

    @property
    def cpu_us(self) -> float:
        """Microseconds of processor time a message, all threads together."""
        return self.cpu_seconds / self.messages * 1e6


class _Watch:
    def __init__(self) -> None:
        self.seconds = self.cpu_seconds = 0.0

    @contextlib.contextmanager
    def running(self) -> Generator[None, None, None]:
        began, cpu = time.perf_counter(), time.process_time()
        yield
        self.seconds, self.cpu_seconds = time.perf_counter() - began, time.process_time() - cpu


def distinct_values(count: int) -> list[bytes]:
    """Values of 100 bytes, no two alike."""
    return [b"%0*d" % (VALUE_SIZE, number) for number in range(count)]


def kafka_producer(watch: _Watch, servers: str, topic: str, values: list[bytes]) -> None:
    """`kafka.KafkaProducer` from a plain loop."""
    producer = KafkaProducer(bootstrap_servers=servers, **TUNED)
    with contextlib.closing(producer):
        producer.partitions_for(topic)
        with watch.running():
            for value in values:
                producer.send(topic, value)
            producer.flush()


def trio_send_nowait(watch: _Watch, servers: str, topic: str, values: list[bytes]) -> None:
    """trio_kprod from a trio task: `send_nowait`, and `await send` where there is no room."""

    async def send_all(producer: trio_kprod.Producer) -> None:
        for value in values:
            try:
                producer.send_nowait(topic, value)
            except trio_kprod.BufferOverflow:
                await producer.send(topic, value)

    trio.run(_in_scope, watch, servers, topic, send_all)


def trio_send(watch: _Watch, servers: str, topic: str, values: list[bytes]) -> None:
    """trio_kprod from a trio task: `await send` for each."""

    async def send_all(producer: trio_kprod.Producer) -> None:
        for value in values:
            await producer.send(topic, value)

    trio.run(_in_scope, watch, servers, topic, send_all)


def trio_send_many(watch: _Watch, servers: str, topic: str, values: list[bytes]) -> None:
    """trio_kprod from a trio task: one `send_many`."""

    async def send_all(producer: trio_kprod.Producer) -> None:
        await producer.send_many(topic, values)

    trio.run(_in_scope, watch, servers, topic, send_all)


async def _in_scope(
    watch: _Watch, servers: str, topic: str, send_all: Callable[[trio_kprod.Producer], Awaitable[None]]
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        opening = trio_kprod.open_producer(servers, delivery_threshold=DELIVERY_THRESHOLD)
        producer = await stack.enter_async_context(opening)
        await producer.partitions_for(topic)
        with watch.running():
            await send_all(producer)
            await stack.aclose()


#: Name on the command line: the function, and how many messages make a round of two to four seconds.
PRODUCERS: dict[str, tuple[Callable[[_Watch, str, str, list[bytes]], None], int]] = {
    "kafka-python": (kafka_producer, 200_000),
    "send_nowait": (trio_send_nowait, 1_000_000),
    "await send": (trio_send, 400_000),
    "send_many": (trio_send_many, 1_000_000),
}


def measure(name: str, servers: str, topic: str, messages: int) -> Round:
    """Run one producer in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.producers", name, servers, topic, str(messages)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Round(**json.loads(done.stdout))


def main() -> None:
    """Run one producer here and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=PRODUCERS)
    parser.add_argument("servers")
    parser.add_argument("topic")
    parser.add_argument("messages", type=int)
    given = parser.parse_args()
    watch = _Watch()
    PRODUCERS[given.name][0](watch, given.servers, given.topic, distinct_values(given.messages))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(Round(given.messages, watch.seconds, watch.cpu_seconds, peak)._asdict()))


if __name__ == "__main__":
    main()
