"""Who is told what: a message that Kafka refuses, no broker at all, and a broker that goes away."""

from __future__ import annotations

import logging
import sys

import trio
from _common import arguments, some_kafka
from kafka import KafkaAdminClient

import trio_kprod
from trio_kprod.testing import open_broker


def create_compacted(servers: str, topic: str) -> None:
    """A topic that takes no message without a key. Blocks."""
    with KafkaAdminClient(bootstrap_servers=servers) as admin:
        admin.create_topics({topic: {"num_partitions": 1, "configs": {"cleanup.policy": "compact"}}})


def tell(error: trio_kprod.DeliveryFailed) -> None:
    """Say what a `DeliveryFailed` carries: each message, whether it may be in the log, and why."""
    print(f"  DeliveryFailed: {error}")
    for one in error.undelivered:
        print(f"    {one.message.value!r} maybe_written={one.maybe_written} {type(one.cause).__name__}")


async def refused(servers: str, topic: str) -> None:
    """The rest of its batch is delivered. Whoever asks first is told, and nobody else."""
    print("Kafka refuses one message of three, for want of a key:")
    await trio.to_thread.run_sync(create_compacted, servers, topic)
    async with trio_kprod.open_producer(servers) as producer:
        await producer.send_many(topic, [(b"a", b"good"), b"bad", (b"b", b"also good")])
        try:
            await producer.flush()
        except trio_kprod.DeliveryFailed as error:
            tell(error)
    print(f"  delivered: {producer.statistics().delivered}; the block ends without an error, as flush() told")


async def unreachable() -> None:
    """The block is never entered."""
    print("Nobody listens at the address:")
    try:
        async with trio_kprod.open_producer("127.0.0.1:1", connect_timeout=0.5):
            raise AssertionError("not reached")
    except trio_kprod.ConnectFailed as error:
        print(f"  ConnectFailed: {error}")


async def goes_away() -> None:
    """The end of the block tells, within `shutdown_timeout`. Always on an embedded broker, which obeys."""
    print("The broker writes the first message, and is gone before it says so:")
    async with open_broker() as broker:
        broker.silence("Produce", after_append=True)
        try:
            async with trio_kprod.open_producer(broker.bootstrap_servers, shutdown_timeout=0.5) as producer:
                producer.send_nowait("events", b"first")
                producer.deliver_nowait()
                await broker.records_arrived("events")
                broker.stop_listening()
                broker.disconnect_all()
                producer.send_nowait("events", b"second")
        except trio_kprod.DeliveryFailed as error:
            tell(error)
        print(f"  in the log: {[record.value for record in broker.records('events')]}")


async def main() -> None:
    options = arguments(__doc__).parse_args()
    logging.basicConfig(format="  logged: %(message)s", stream=sys.stdout)
    async with some_kafka(options.bootstrap_servers) as servers:
        await refused(servers, options.topic)
    await unreachable()
    await goes_away()


if __name__ == "__main__":
    trio.run(main)
