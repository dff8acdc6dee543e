"""The program ends while its worker is stuck in a partitioner, which it never leaves."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import trio

from tests import cycles
from trio_kprod import DeliveryFailed, open_producer
from trio_kprod.testing import open_broker

entered = threading.Event()


def stuck(key: bytes | None, partitions: Sequence[int], available: Sequence[int]) -> int:
    entered.set()
    time.sleep(3600)
    return 0


async def main() -> None:
    with open_broker() as broker:
        try:
            async with open_producer(
                broker.bootstrap_servers, shutdown_timeout=0.1, partitioner=stuck
            ) as producer:
                producer.send_nowait("t", b"x")
                producer.deliver_nowait()
                await trio.to_thread.run_sync(entered.wait)
        except DeliveryFailed as error:
            print(error)


if __name__ == "__main__":
    trio.run(main)
    print(cycles.running_clients(), "client still runs")
