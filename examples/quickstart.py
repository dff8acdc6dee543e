"""Send some messages, read them back, and print what is in Kafka's log."""

from __future__ import annotations

from typing import Any

import trio
from _common import arguments, some_kafka
from kafka import KafkaConsumer, TopicPartition

import trio_kprod


async def produce(bootstrap_servers: str, topic: str) -> tuple[trio_kprod.RecordMetadata, ...]:
    """Five messages with the same key, so in the same partition; returns where the first and last are."""
    async with trio_kprod.open_producer(bootstrap_servers, delivery_interval=0.5) as producer:
        # Returns when Kafka has it, so it knows where it is.
        first = await producer.send_and_wait(topic, b"message 0", key=b"quickstart")
        for number in range(1, 4):
            # Returns at once; delivered in the background, at the latest when the block ends.
            producer.send_nowait(topic, b"message %d" % number, key=b"quickstart")
        last = await producer.send_and_wait(topic, b"message 4", key=b"quickstart")
    print(f"{producer.statistics().delivered} messages delivered to {topic}")
    return first, last


def read_back(bootstrap_servers: str, first: trio_kprod.RecordMetadata, last: int) -> list[Any]:
    """What a consumer finds from `first` to the offset `last`. Blocks."""
    partition = TopicPartition(first.topic, first.partition)
    records = []
    with KafkaConsumer(
        bootstrap_servers=bootstrap_servers,
        group_id=None,
        enable_auto_commit=False,
        consumer_timeout_ms=10_000,  # then the loop below ends
    ) as consumer:
        consumer.assign([partition])
        consumer.seek(partition, first.offset)
        for record in consumer:
            if record.offset <= last:
                records.append(record)
            if record.offset >= last:
                break
    return records


async def main() -> None:
    options = arguments(__doc__).parse_args()
    async with some_kafka(options.bootstrap_servers) as servers:
        first, last = await produce(servers, options.topic)
        records = await trio.to_thread.run_sync(read_back, servers, first, last.offset)
    print("in the log:")
    for record in records:
        print(f"  partition {record.partition}, offset {record.offset}: {record.key!r} {record.value!r}")


if __name__ == "__main__":
    trio.run(main)
