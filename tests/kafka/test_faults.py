"""Brokers that die, freeze and come back: everything is delivered once and in order, or told."""

from __future__ import annotations

import pytest
import trio

import trio_kprod
from tests.kafka.cluster import PATIENCE, Cluster
from tests.kafka.helpers import assert_once_in_order, send_numbers, until
from tests.modes import OpenProducer


async def test_a_broker_killed_and_restarted_twice(breakable: Cluster, open_producer: OpenProducer) -> None:
    """It dies with requests in flight, whose answers are lost, while more is sent."""
    topic = breakable.new_topic(partitions=3)
    async with open_producer(
        breakable.bootstrap_servers, delivery_threshold=100, shutdown_timeout=PATIENCE
    ) as producer:
        for round_ in range(2):
            first = round_ * 20_000
            await send_numbers(producer, topic, range(first, first + 10_000))
            await trio.to_thread.run_sync(breakable.kill)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send_numbers, producer, topic, range(first + 10_000, first + 20_000))
                await trio.to_thread.run_sync(breakable.restore)
    assert producer.statistics().delivered == 40_000
    assert_once_in_order(breakable.read(topic), range(40_000))


async def test_a_frozen_broker_pushes_back(breakable: Cluster) -> None:
    """What was accepted until there was no more room is delivered when the broker thaws."""
    topic = breakable.new_topic(partitions=3)
    async with trio_kprod.open_producer(
        breakable.bootstrap_servers, max_buffer_size=2_000, delivery_threshold=100
    ) as producer:
        await send_numbers(producer, topic, range(1_000))
        breakable.pause()
        accepted = await _send_until_overflow(producer, topic, 1_000)
        breakable.resume()
        await send_numbers(producer, topic, range(accepted, 10_000))
    assert_once_in_order(breakable.read(topic), range(10_000))


async def _send_until_overflow(producer: trio_kprod.Producer, topic: str, number: int) -> int:
    """Send numbers from `number` until nothing has moved for a while; return the first not accepted."""
    with trio.fail_after(PATIENCE):
        while True:
            try:
                producer.send_nowait(topic, b"%d" % number)
                number += 1
            except trio_kprod.BufferOverflow:
                if (producer.statistics().oldest_age or 0) > 1.5:
                    return number
                await trio.sleep(0.01)


async def test_a_broker_frozen_beyond_the_request_timeout(
    breakable: Cluster, open_producer: OpenProducer
) -> None:
    """Requests are sent again on new connections, and the frozen ones are found in the log when it thaws."""
    topic = breakable.new_topic(partitions=3)
    async with open_producer(
        breakable.bootstrap_servers, delivery_threshold=100, request_timeout_ms=500, shutdown_timeout=PATIENCE
    ) as producer:
        await send_numbers(producer, topic, range(5_000))
        breakable.pause()
        await send_numbers(producer, topic, range(5_000, 10_000))
        await until(lambda: (producer.statistics().oldest_age or 0) > 2)
        breakable.resume()
    assert_once_in_order(breakable.read(topic), range(10_000))


async def test_leaving_with_the_broker_dead_tells_every_message(breakable: Cluster) -> None:
    """It ends within the time allowed; what is promised to be unwritten is not in the log afterwards."""
    topic = breakable.new_topic()
    with trio.fail_after(PATIENCE), pytest.raises(trio_kprod.DeliveryFailed) as caught:
        await _produce_and_kill(breakable, topic)
    told = caught.value.undelivered
    assert sorted(int(one.message.value or b"") for one in told) == list(range(100, 1_100))
    assert caught.value.omitted == 0
    breakable.restore()
    written = {record.value for record in breakable.read(topic)}
    assert {b"%d" % number for number in range(100)} <= written
    assert not written.intersection(one.message.value for one in told if not one.maybe_written)


async def _produce_and_kill(cluster: Cluster, topic: str) -> None:
    async with trio_kprod.open_producer(cluster.bootstrap_servers, shutdown_timeout=2) as producer:
        await send_numbers(producer, topic, range(100))
        await producer.flush()
        cluster.kill()
        await send_numbers(producer, topic, range(100, 1_100))


async def test_opening_with_the_broker_dead_names_it(breakable: Cluster) -> None:
    breakable.kill()
    with pytest.raises(trio_kprod.ConnectFailed, match=breakable.bootstrap_servers):
        async with trio_kprod.open_producer(breakable.bootstrap_servers, connect_timeout=1):
            raise AssertionError("there is nobody to connect to")
