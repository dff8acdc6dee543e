"""Sends numbered messages until its standard input ends, and then judges what is in the log.

With "short" timeouts, a process which stands still for half a second has slept through all of them; else it
has those that there are by default.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import Any

import trio

from tests.kafka.cluster import Kafka
from tests.kafka.history import History
from tests.programs.place import open_producer
from trio_kprod import DeliveryFailed, Producer

SHORT: dict[str, Any] = {
    "delivery_timeout": 0.4,
    "request_timeout_ms": 200,
    "socket_connection_setup_timeout_ms": 200,
}


async def main(servers: str, topic: str, timeouts: str) -> None:
    history = History("steady")
    settings = SHORT if timeouts == "short" else {}
    scope = open_producer(servers, delivery_interval=0.005, on_undelivered=history.note, **settings)
    with suppress(DeliveryFailed):  # what it tells was told before
        async with scope as producer:
            await send_until_stdin_ends(history, producer, topic)
            left_at = time.monotonic()
    left = time.monotonic() - left_at
    history.check(Kafka(servers), topic)
    print(f"left after {left:.2f} s")


async def send_until_stdin_ends(history: History, producer: Producer, topic: str) -> None:
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def send() -> None:
            while True:
                await history.send(producer, topic, b"key")
                await history.send(producer, topic)
                await trio.sleep(0.001)

        await trio.to_thread.run_sync(sys.stdin.read)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], sys.argv[3])
