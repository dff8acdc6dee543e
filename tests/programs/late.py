"""The worker has something to tell when the run that it was to tell is over."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import trio

from tests import cycles
from trio_kprod import DeliveryFailed, Producer, open_producer
from trio_kprod.testing import Broker, open_broker

entered = threading.Event()
over = threading.Event()


def stuck(key: bytes | None, partitions: Sequence[int], available: Sequence[int]) -> int:
    entered.set()
    over.wait()
    return 0


async def main(broker: Broker) -> Producer:
    try:
        async with open_producer(
            broker.bootstrap_servers, shutdown_timeout=0.1, partitioner=stuck
        ) as producer:
            producer.send_nowait("t", b"x")
            producer.deliver_nowait()
            await trio.to_thread.run_sync(entered.wait)
    except DeliveryFailed as error:
        print(error)
    return producer


if __name__ == "__main__":
    with open_broker() as broker:
        producer = trio.run(main, broker)
        over.set()
        while cycles.running_clients():
            time.sleep(0.001)
        producer._delivery._client._reporter.wake()  # had the worker been about to do that
        print(len(broker.records("t")), "in the log")
