"""Many producers at a time, each of which delivers two messages: what one costs, and that all is freed."""

from __future__ import annotations

import itertools
import sys
import time
from contextlib import AsyncExitStack

import trio

from tests.cycles import SILENT, busy_threads, descriptors, left, resident_bytes
from tests.kafka.cluster import Kafka
from tests.kafka.history import History
from tests.programs.place import open_producer


async def main(servers: str, topic: str, count: int) -> None:
    await run(servers, 1, f"{topic}-first")  # so that is there what is made once
    before = left()
    await run(servers, count, topic)
    with trio.fail_after(30):
        while left() != before:  # noqa: ASYNC110 (a thread is told to end, but not waited for)
            await trio.sleep(0.01)


async def run(servers: str, count: int, topic: str) -> None:
    history = History(f"{count} producers")
    memory, threads, files = resident_bytes(), busy_threads(), len(descriptors())
    times = [time.monotonic()]
    async with AsyncExitStack() as stack:
        producers = [
            await stack.enter_async_context(open_producer(servers, logger=SILENT)) for _ in range(count)
        ]
        times.append(time.monotonic())
        for producer in producers:
            await history.send(producer, topic, b"key")
            await history.send(producer, topic)
        for producer in producers:
            await producer.flush()
        times.append(time.monotonic())
        memory, threads = resident_bytes() - memory, busy_threads() - threads
        files = len(descriptors()) - files
    times.append(time.monotonic())
    history.check(Kafka(servers), topic)
    print(
        f"each: {memory / count / 1024:.0f} KiB, {threads / count:g} threads, {files / count:g} descriptors"
    )
    opened, delivered, ended = (later - earlier for earlier, later in itertools.pairwise(times))
    print(f"opened after {opened:.2f} s, delivered after {delivered:.2f} s, left after {ended:.2f} s")


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]))
