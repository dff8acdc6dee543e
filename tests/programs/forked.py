"""A fork while messages are on their way. The child may do nothing with the producer, and is told so."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from tests.programs.place import open_producer
from trio_kprod import Producer


async def main(servers: str) -> None:
    async with open_producer(servers) as producer:
        await producer.send_and_wait("t", b"before")
        producer.send_nowait("t", b"queued")
        pid = os.fork()
        if not pid:
            await be_the_child(producer)
        # Both have trio's wake-up socket: whoever reads first takes what the other was to get. So this
        # process stands still as long as the child lives.
        _, status = os.waitpid(pid, 0)  # noqa: ASYNC222
        assert status == 0, status
        producer.send_nowait("t", b"after")


async def be_the_child(producer: Producer) -> None:
    send: Callable[[], None] = partial(producer.send_nowait, "t", b"child")
    wait: Callable[[], Awaitable[None]] = partial(producer.send, "t", b"child")
    refused = 0
    try:
        for call in (send, producer.deliver_nowait, producer.abort):
            try:
                call()
            except RuntimeError as error:
                refused += "forked child" in str(error)
        for call_and_wait in (wait, producer.flush):
            try:
                await call_and_wait()
            except RuntimeError as error:
                refused += "forked child" in str(error)
    finally:
        os._exit(0 if refused == 5 else 1)


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
