"""The whole producer in virtual time: no thread, no socket."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

import trio_kprod
from trio_kprod.testing import MemoryBroker, open_memory_producer


async def test_what_was_sent_is_in_the_log_when_the_scope_has_ended(autojump_clock: MockClock) -> None:
    broker = MemoryBroker(partitions=4)

    async with open_memory_producer(broker) as producer:
        for number in range(2500):
            await producer.send("t", b"%d" % number)

    assert sorted(int(record.value or b"") for record in broker.records("t")) == list(range(2500))
    assert producer.statistics().delivered == 2500


async def test_send_and_wait_tells_where_the_message_is(autojump_clock: MockClock) -> None:
    broker = MemoryBroker()

    async with open_memory_producer(broker) as producer:
        await producer.send_and_wait("t", b"first")
        metadata = await producer.send_and_wait("t", b"second", key=b"k")

    assert (metadata.topic, metadata.partition, metadata.offset) == ("t", 0, 1)


async def test_an_outage_of_an_hour_only_delays(autojump_clock: MockClock) -> None:
    broker = MemoryBroker()
    async with open_memory_producer(broker, delivery_threshold=1) as producer:
        await producer.send_and_wait("t", b"before")
        broker.stop_listening()
        broker.disconnect_all()
        producer.send_nowait("t", b"during")
        await trio.sleep(3600)
        assert producer.statistics().in_flight == 1
        broker.start_listening()
        before = trio.current_time()
        await producer.flush()

        assert trio.current_time() - before <= 2

    assert [record.value for record in broker.records("t")] == [b"before", b"during"]


async def test_a_lost_answer_makes_no_duplicate(autojump_clock: MockClock) -> None:
    broker = MemoryBroker()
    broker.drop_connections("append", "Produce")

    async with open_memory_producer(broker) as producer:
        metadata = await producer.send_and_wait("t", b"once")

    assert metadata.offset == 0
    assert [record.value for record in broker.records("t")] == [b"once"]


async def test_a_refused_record_fails_alone(autojump_clock: MockClock) -> None:
    broker = MemoryBroker()
    broker.answer("Produce", error=87, record_errors=[(3, "no")])

    with pytest.raises(trio_kprod.DeliveryFailed) as caught:
        async with open_memory_producer(broker) as producer:
            for number in range(10):
                producer.send_nowait("t", b"%d" % number)

    (failed,) = caught.value.undelivered
    assert (failed.message.value, failed.maybe_written) == (b"3", False)
    assert [record.value for record in broker.records("t")] == [b"%d" % n for n in range(10) if n != 3]


async def test_a_silent_broker_does_not_hold_up_the_end(autojump_clock: MockClock) -> None:
    broker = MemoryBroker()
    before = trio.current_time()

    with pytest.raises(trio_kprod.DeliveryFailed) as caught:
        async with open_memory_producer(broker, shutdown_timeout=5) as producer:
            await producer.send_and_wait("t", b"a")
            broker.silence("Produce")
            producer.send_nowait("t", b"b")

    assert trio.current_time() - before <= 6
    (failed,) = caught.value.undelivered
    assert (failed.message.value, failed.maybe_written) == (b"b", True)


async def test_nobody_at_the_address(autojump_clock: MockClock) -> None:
    broker = MemoryBroker()
    broker.stop_listening()

    with pytest.raises(trio_kprod.ConnectFailed, match=r"memory:9092: connecting: .*refused"):
        async with open_memory_producer(broker, connect_timeout=3):
            raise AssertionError("must not be entered")


async def test_partitions_for(autojump_clock: MockClock) -> None:
    broker = MemoryBroker(topics={"known": 3}, auto_create_topics=False)

    async with open_memory_producer(broker, topic_timeout=2) as producer:
        assert await producer.partitions_for("known") == [0, 1, 2]
        with pytest.raises(trio_kprod.UnknownTopic):
            await producer.partitions_for("unknown")
