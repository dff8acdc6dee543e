"""Brokers that die, freeze and come back: everything is delivered once and in order, or told."""

from __future__ import annotations

import pytest
import trio

import trio_kprod
from tests.kafka.cluster import PATIENCE, Cluster
from tests.kafka.helpers import until
from tests.kafka.history import History
from tests.kafka.load import KILLS, send_some


async def test_a_broker_killed_and_restarted(breakable: Cluster, history: History, own_thread: bool) -> None:
    """It dies with requests in flight, whose answers are lost, while more is sent."""
    topic = breakable.new_topic(partitions=3)
    async with history.open_producer(
        breakable.bootstrap_servers,
        delivery_threshold=100,
        shutdown_timeout=PATIENCE,
        own_thread=own_thread,
    ) as producer:
        for _ in range(KILLS):
            await send_some(history, producer, topic, 5_000)
            await trio.to_thread.run_sync(breakable.kill)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send_some, history, producer, topic, 5_000)
                await trio.to_thread.run_sync(breakable.restore)
                await history.recovers(producer, topic, range(3))
    assert not history.told
    history.check(breakable, topic)


async def test_a_frozen_broker_pushes_back(breakable: Cluster, history: History) -> None:
    """What was accepted until there was no more room is delivered when the broker thaws."""
    topic = breakable.new_topic(partitions=3)
    async with history.open_producer(
        breakable.bootstrap_servers, max_buffer_size=2_000, delivery_threshold=100
    ) as producer:
        await send_some(history, producer, topic, 1_000)
        breakable.pause()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_some, history, producer, topic, 9_000)
            await until(lambda: producer.statistics().tasks_waiting == 1 and oldest_age(producer) > 1.5)
            with pytest.raises(trio_kprod.BufferOverflow):
                producer.send_nowait(topic, b"no room")
            breakable.resume()
            await history.recovers(producer, topic, range(3))
    assert not history.told
    history.check(breakable, topic)


def oldest_age(producer: trio_kprod.Producer) -> float:
    """How many seconds the oldest message that has no outcome has waited."""
    return producer.statistics().oldest_age or 0.0


async def test_a_broker_frozen_beyond_the_request_timeout(
    breakable: Cluster, history: History, own_thread: bool
) -> None:
    """Requests are sent again on new connections, and the frozen ones are found in the log when it thaws."""
    topic = breakable.new_topic(partitions=3)
    async with history.open_producer(
        breakable.bootstrap_servers,
        delivery_threshold=100,
        request_timeout_ms=500,
        shutdown_timeout=PATIENCE,
        own_thread=own_thread,
    ) as producer:
        await send_some(history, producer, topic, 5_000)
        breakable.pause()
        await send_some(history, producer, topic, 5_000)
        await until(lambda: oldest_age(producer) > 2)
        breakable.resume()
        await history.recovers(producer, topic, range(3))
    assert not history.told
    history.check(breakable, topic)


async def test_leaving_with_the_broker_dead_tells_every_message(breakable: Cluster, history: History) -> None:
    """It ends within the time allowed; what is promised to be unwritten is not in the log afterwards.

    Opening names it meanwhile.
    """
    topic = breakable.new_topic()
    with trio.fail_after(PATIENCE):
        async with history.open_producer(breakable.bootstrap_servers, shutdown_timeout=1) as producer:
            await send_some(history, producer, topic, 100)
            await producer.flush()
            breakable.kill()
            await send_some(history, producer, topic, 1_000)
    assert len(history.told) == 1_000
    with pytest.raises(trio_kprod.ConnectFailed, match=breakable.bootstrap_servers):
        async with trio_kprod.open_producer(breakable.bootstrap_servers, connect_timeout=1):
            raise AssertionError("there is nobody to connect to")
    breakable.restore()
    verdict = history.check(breakable, topic)
    assert verdict.in_log >= 100
