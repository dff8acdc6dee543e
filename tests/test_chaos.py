"""Whatever goes wrong: each accepted message has one outcome, it is told once, and it is true."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.chaos.run import run_in_memory, run_on_sockets
from trio_kprod import DeliveryFailed
from trio_kprod.testing import MemoryBroker, open_memory_producer

LEADER_NOT_AVAILABLE = 5


@pytest.mark.parametrize("seed", range(150))
def test_every_promise_holds_in_virtual_time(seed: int) -> None:
    run_in_memory(seed)


@pytest.mark.parametrize("seed", range(10))
def test_every_promise_holds_with_sockets(seed: int, own_thread: bool) -> None:
    run_on_sockets(seed, own_thread=own_thread)


# ---------------------------------------------------------------------------------------------------------
# What the storms have found


async def test_a_partition_that_had_no_leader_is_asked_about_when_a_message_comes(
    autojump_clock: MockClock,
) -> None:
    broker = MemoryBroker(topics={"a": 2})
    broker.answer("Metadata", LEADER_NOT_AVAILABLE, topic="a", partition=0)
    async with open_memory_producer(broker) as producer:
        await producer.send_and_wait("a", b"1", partition=1)
        with trio.fail_after(10):
            await producer.send_and_wait("a", b"2", partition=0)


async def test_a_topic_that_had_no_leader_is_asked_about_when_a_message_comes(
    autojump_clock: MockClock,
) -> None:
    broker = MemoryBroker(topics={"a": 1})
    broker.answer("Metadata", LEADER_NOT_AVAILABLE, topic="a", partition=0)
    async with open_memory_producer(broker) as producer:
        assert await producer.partitions_for("a") == [0]
        with trio.fail_after(10):
            await producer.send_and_wait("a", b"1")


async def test_leaving_takes_no_time_when_all_is_settled(autojump_clock: MockClock) -> None:
    async with open_memory_producer() as producer:
        await producer.send_and_wait("a", b"1")
        begun = trio.current_time()
    assert trio.current_time() == begun


async def test_giving_up_takes_no_time(autojump_clock: MockClock) -> None:
    broker = MemoryBroker()
    broker.silence("Produce")
    with pytest.raises(DeliveryFailed):
        async with open_memory_producer(broker) as producer:
            producer.send_nowait("a", b"1")
            producer.deliver_nowait()
            await broker.requests_arrived("Produce")
            producer.abort()
            begun = trio.current_time()
    assert trio.current_time() == begun
