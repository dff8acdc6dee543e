"""SIGTERM, for which there is no handler, in the middle of deliveries."""

from __future__ import annotations

import os
import signal
import sys

import trio

from tests.programs.place import open_producer


async def main(servers: str) -> None:
    async with open_producer(servers, delivery_threshold=1) as producer:
        for number in range(100_000):
            await producer.send("t", b"%d" % number, partition=number % 2)
            if number == 1000:
                await producer.flush()
            if number == 5000:
                os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
