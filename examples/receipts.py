"""Send a burst without waiting, and say of each message what became of it."""

from __future__ import annotations

import trio
from _common import arguments, some_kafka
from kafka import KafkaAdminClient

import trio_kprod

ORDERS = [("ada", b"a lamp"), (None, b"a chair"), ("bob", b"a desk"), ("cy", b"a shelf")]


def create_compacted(servers: str, topic: str) -> None:
    """A topic that takes no message without a key. Blocks."""
    with KafkaAdminClient(bootstrap_servers=servers) as admin:
        admin.create_topics({topic: {"num_partitions": 1, "configs": {"cleanup.policy": "compact"}}})


async def show(order: bytes, receipt: trio_kprod.Receipt) -> None:
    """`await receipt` asks for delivery, so that neither threshold nor interval is needed."""
    try:
        record = await receipt
    except trio_kprod.DeliveryFailed as error:
        (undelivered,) = error.undelivered
        print(f"{order.decode():>8}: not in Kafka, {undelivered.cause}")
    else:
        print(f"{order.decode():>8}: partition {record.partition}, offset {record.offset}")


async def main() -> None:
    options = arguments(__doc__).parse_args()
    async with some_kafka(options.bootstrap_servers) as servers:
        await trio.to_thread.run_sync(create_compacted, servers, options.topic)
        async with trio_kprod.open_producer(servers, key_serializer=str.encode) as producer:
            receipts = [
                producer.send_tracked_nowait(options.topic, order, key=customer) for customer, order in ORDERS
            ]
            print(f"{len(receipts)} orders sent, {sum(one.done for one in receipts)} of them have an outcome")
            for (_, order), receipt in zip(ORDERS, receipts, strict=True):
                await show(order, receipt)
        # The block ends without an error: each failure was told by its receipt.


if __name__ == "__main__":
    trio.run(main)
