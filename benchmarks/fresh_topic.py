"""How fast are the first 100,000 messages to a topic, beside the next 100,000?

    python -m benchmarks.fresh_topic [--rounds N] [--bootstrap-servers HOST:PORT]

Until its first acknowledgement a topic may hold half of the buffer only. This shows what that costs: the
topic exists and others have written to it, but this producer has never had an acknowledgement for it. Nothing
is kept; compare the ratios of two versions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from itertools import repeat
from statistics import median
from time import perf_counter

import trio

import trio_kprod
from benchmarks.harness.command import NoKafka, Options
from benchmarks.harness.topics import Topics
from tests.kafka.cluster import some_kafka
from tests.kafka.jars import Unavailable

MESSAGES = 100_000
PARTITIONS = 4
VALUE = bytes(100)

Send = Callable[[trio_kprod.Producer, str], Awaitable[object]]


async def send_many(producer: trio_kprod.Producer, topic: str) -> None:
    await producer.send_many(topic, repeat(VALUE, MESSAGES))


async def send_nowait(producer: trio_kprod.Producer, topic: str) -> None:
    for _ in range(MESSAGES):
        try:
            producer.send_nowait(topic, VALUE)
        except trio.WouldBlock:
            await producer.send(topic, VALUE)


async def measure(servers: str, send: Send, topic: str, warm: str) -> tuple[float, float]:
    """Seconds for the first messages and for the next; the connection has been used for another topic."""
    async with trio_kprod.open_producer(servers, delivery_threshold=1) as producer:
        await producer.send_and_wait(warm, VALUE)
        times: list[float] = []
        for _ in range(2):
            began = perf_counter()
            await send(producer, topic)
            await producer.flush()
            times.append(perf_counter() - began)
    return times[0], times[1]


def compare(servers: str, rounds: int) -> None:
    topics = Topics(servers)
    for send in (send_many, send_nowait):
        names = topics.make(rounds + 1, PARTITIONS)
        try:
            found = [trio.run(measure, servers, send, name, names[-1]) for name in names[:-1]]
        finally:
            topics.delete(names)
        first, following = (median(each) for each in zip(*found, strict=True))
        ratio = median(one / other for one, other in found)
        print(
            f"{send.__name__}: first {MESSAGES / first:,.0f} messages/s, then {MESSAGES / following:,.0f}; "
            f"seconds first / then {ratio:.2f} (median of {rounds})"
        )


def main() -> None:
    """Measure and print."""
    options = Options.parse(__doc__)
    with contextlib.ExitStack() as stack:
        try:
            kafka = stack.enter_context(some_kafka(options.bootstrap_servers))
        except Unavailable as error:
            raise NoKafka(f"no Apache Kafka: {error}") from None
        compare(kafka.bootstrap_servers, options.rounds)


if __name__ == "__main__":
    main()
