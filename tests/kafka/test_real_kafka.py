"""What Apache Kafka holds after a scope was left: every message, once, in order, as it was given."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest
import trio

import trio_kprod
from tests.kafka.cluster import Kafka, Record
from tests.kafka.helpers import assert_once_in_order, produce_numbers, send_numbers, until

# The module each codec needs.
CODECS = {None: "kafka", "gzip": "gzip", "snappy": "snappy", "lz4": "lz4.frame", "zstd": "zstandard"}

# Kafka's own reference values, from UtilsTest.testMurmur2.
MURMUR2 = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


async def test_every_field_arrives(kafka: Kafka) -> None:
    """Key, value, headers, time stamp and partition, with each of their empty forms."""
    topic = kafka.new_topic(partitions=3)
    headers: list[tuple[str, bytes | None]] = [("a", b"1"), ("a", b""), ("none", None), ("\u00e9", b"\xff")]
    async with trio_kprod.open_producer(kafka.bootstrap_servers) as producer:
        producer.send_nowait(topic, b"value", key=b"key", headers=headers, partition=2, timestamp_ms=1)
        producer.send_nowait(topic, None, key=b"tombstone", partition=2, timestamp_ms=3)
        producer.send_nowait(topic, b"", key=b"", partition=2, timestamp_ms=2)
        producer.send_nowait(topic, b"keyless", partition=0, timestamp_ms=0)
    assert kafka.read(topic) == [
        Record(0, 0, None, b"keyless", [], 0),
        Record(2, 0, b"key", b"value", headers, 1),
        Record(2, 1, b"tombstone", None, [], 3),
        Record(2, 2, b"", b"", [], 2),
    ]


async def test_the_time_stamp_is_that_of_the_call(kafka: Kafka) -> None:
    """Not that of the delivery: the message waits a while before anyone asks for it."""
    topic = kafka.new_topic()
    async with trio_kprod.open_producer(kafka.bootstrap_servers) as producer:
        before = time.time_ns() // 1_000_000
        producer.send_nowait(topic, b"value")
        after = time.time_ns() // 1_000_000
        await until(lambda: time.time_ns() // 1_000_000 > after)
    (record,) = kafka.read(topic)
    assert before <= record.timestamp_ms <= after


async def test_keys_go_where_java_sends_them(kafka: Kafka) -> None:
    """The partition is ``toPositive(murmur2(key)) % partitions``."""
    topic = kafka.new_topic(partitions=12)
    async with trio_kprod.open_producer(kafka.bootstrap_servers) as producer:
        for key in MURMUR2:
            producer.send_nowait(topic, b"value", key=key)
    found = {record.key: record.partition for record in kafka.read(topic)}
    assert found == {key: (number & 0x7FFFFFFF) % 12 for key, number in MURMUR2.items()}


async def test_the_metadata_says_where_the_message_is(kafka: Kafka) -> None:
    topic = kafka.new_topic(partitions=2)
    async with trio_kprod.open_producer(kafka.bootstrap_servers) as producer:
        told = [await producer.send_and_wait(topic, b"value", partition=1, timestamp_ms=7) for _ in range(3)]
        assert await producer.partitions_for(topic) == [0, 1]
    assert told == [trio_kprod.RecordMetadata(topic, 1, offset, 7) for offset in range(3)]


@pytest.mark.parametrize("codec", CODECS)
async def test_each_codec(kafka: Kafka, codec: Any) -> None:
    """A consumer reads it back, and the log is smaller than the messages for all but none."""
    pytest.importorskip(CODECS[codec])
    topic = kafka.new_topic(partitions=2)
    async with trio_kprod.open_producer(kafka.bootstrap_servers, compression_type=codec) as producer:
        await send_numbers(producer, topic, range(2_000), size=100)
    assert_once_in_order(kafka.read(topic), range(2_000))
    assert (kafka.log_size(topic) < 2_000 * 100) == (codec is not None)


@pytest.mark.parametrize("acks", [0, 1, "all"])
async def test_each_kind_of_acknowledgement(kafka: Kafka, acks: Any) -> None:
    topic = kafka.new_topic(partitions=2)
    counted = await produce_numbers(kafka.bootstrap_servers, topic, range(5_000), acks=acks)
    assert counted.delivered == 5_000
    assert_once_in_order(kafka.read(topic, at_least=5_000), range(5_000))


async def test_a_hundred_thousand_through_a_queue_of_a_thousand(kafka: Kafka, own_thread: bool) -> None:
    topic = kafka.new_topic(partitions=4)
    counted = await produce_numbers(
        kafka.bootstrap_servers, topic, range(100_000), max_queue_size=1_000, own_thread=own_thread
    )
    assert counted.accepted == counted.delivered == 100_000
    assert_once_in_order(kafka.read(topic), range(100_000))


async def test_keyed_messages_keep_their_order_per_key(kafka: Kafka) -> None:
    """Seven keys on three partitions; the whole of a partition is in order, as all of it has keys."""
    topic = kafka.new_topic(partitions=3)
    async with trio_kprod.open_producer(kafka.bootstrap_servers, delivery_threshold=100) as producer:
        for number in range(3_000):
            await producer.send(topic, b"%d" % number, key=b"key-%d" % (number % 7))
    records = kafka.read(topic)
    assert_once_in_order(records, range(3_000))
    assert all(int(record.value or b"") % 7 == int((record.key or b"")[4:]) for record in records)


async def test_send_many_sends_pairs_and_values(kafka: Kafka) -> None:
    """Between messages with a key and messages without one no order is promised."""
    topic = kafka.new_topic()
    async with trio_kprod.open_producer(kafka.bootstrap_servers) as producer:
        assert await producer.send_many(topic, [b"alone", (b"key", b"value")]) == 2
    assert {(record.key, record.value) for record in kafka.read(topic)} == {
        (None, b"alone"),
        (b"key", b"value"),
    }


async def test_a_topic_is_made_by_the_first_message(kafka: Kafka) -> None:
    topic = f"auto-{uuid.uuid4().hex[:12]}"
    await produce_numbers(kafka.bootstrap_servers, topic, range(10))
    assert_once_in_order(kafka.read(topic), range(10))


async def test_messages_wait_for_a_topic_that_comes_later(kafka: Kafka) -> None:
    """Meanwhile another topic is not held up."""
    late, early = f"late-{uuid.uuid4().hex[:12]}", kafka.new_topic()
    async with trio_kprod.open_producer(
        kafka.bootstrap_servers, allow_auto_create_topics=False, delivery_threshold=1
    ) as producer:
        await send_numbers(producer, late, range(10))
        await send_numbers(producer, early, range(10))
        await until(lambda: producer.statistics().delivered == 10)
        await trio.to_thread.run_sync(kafka.create_topic, late)
        await producer.flush()
    assert_once_in_order(kafka.read(early), range(10))
    assert_once_in_order(kafka.read(late), range(10))


async def test_a_refused_message_fails_alone(kafka: Kafka) -> None:
    """A compacted topic takes no message without a key; the 799 around it are delivered, in order."""
    topic = kafka.new_topic(cleanup_policy="compact")
    with pytest.raises(trio_kprod.DeliveryFailed) as caught:
        await _produce_with_one_keyless(kafka, topic)
    (undelivered,) = caught.value.undelivered
    assert undelivered.message.value == b"400"
    assert not undelivered.maybe_written
    assert "INVALID_RECORD" in str(undelivered.cause)
    assert_once_in_order(kafka.read(topic), [number for number in range(800) if number != 400])


async def _produce_with_one_keyless(kafka: Kafka, topic: str) -> None:
    async with trio_kprod.open_producer(kafka.bootstrap_servers, delivery_threshold=100) as producer:
        for number in range(800):
            producer.send_nowait(topic, b"%d" % number, key=None if number == 400 else b"key-%d" % number)


async def test_one_too_large_for_the_topic_fails_alone(kafka: Kafka) -> None:
    """The topic's limit is below the producer's own, and below a batch of the small ones."""
    topic = kafka.new_topic(max_message_bytes="10000")
    with pytest.raises(trio_kprod.DeliveryFailed) as caught:
        await _produce_with_one_large(kafka, topic)
    (undelivered,) = caught.value.undelivered
    assert undelivered.message.value == b"%050000d" % 250
    assert not undelivered.maybe_written
    assert "MESSAGE_TOO_LARGE" in str(undelivered.cause)
    assert_once_in_order(kafka.read(topic), [number for number in range(500) if number != 250])


async def _produce_with_one_large(kafka: Kafka, topic: str) -> None:
    async with trio_kprod.open_producer(kafka.bootstrap_servers) as producer:
        for number in range(500):
            producer.send_nowait(topic, b"%0*d" % (50_000 if number == 250 else 100, number))
