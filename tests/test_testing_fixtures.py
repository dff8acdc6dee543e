"""The fixtures that users get."""

from __future__ import annotations

import trio_kprod
from trio_kprod.testing import Broker, MemoryBroker, Proxy, open_memory_producer
from trio_kprod.testing.fixtures import kafka_broker, kafka_proxy, memory_broker

__all__ = ["kafka_broker", "kafka_proxy", "memory_broker"]  # asked for by name


async def test_a_broker_for_each_test(kafka_broker: Broker) -> None:
    async with trio_kprod.open_producer(kafka_broker.bootstrap_servers) as producer:
        await producer.send_and_wait("t", b"x")

    assert [record.value for record in kafka_broker.records("t")] == [b"x"]


async def test_a_proxy_in_front_of_it(kafka_broker: Broker, kafka_proxy: Proxy) -> None:
    async with trio_kprod.open_producer(kafka_broker.bootstrap_servers) as producer:
        await producer.send_and_wait("t", b"x")

    assert kafka_proxy.connections_accepted == kafka_broker.connections_accepted > 0


async def test_a_broker_in_memory(memory_broker: MemoryBroker, autojump_clock: object) -> None:
    async with open_memory_producer(memory_broker) as producer:
        await producer.send_and_wait("t", b"x")

    assert [record.value for record in memory_broker.records("t")] == [b"x"]
