"""Loses its connections when there is no descriptor for others, gets some later, and delivers.

Whoever started it ends its connections when it says "full".
"""

from __future__ import annotations

import errno
import os
import sys
import time

import pytest
import trio

from tests.cycles import no_more_descriptors
from tests.kafka.cluster import Kafka
from tests.kafka.helpers import until
from tests.kafka.history import History
from tests.programs.place import open_producer
from trio_kprod import ConnectFailed, Instrument

FULL = os.strerror(errno.EMFILE)


class Attempts(Instrument):
    """What was said of each attempt to connect that has failed, and how many connections have ended."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.ended = 0

    def connect_failed(self, *, broker: str, error: BaseException) -> None:
        self.errors.append(str(error))

    def disconnected(self, *, broker: str, error: BaseException | None) -> None:
        self.ended += 1


async def main(servers: str, topic: str) -> None:
    history, attempts = History("few descriptors"), Attempts()
    async with open_producer(
        servers,
        delivery_timeout=0.5,
        reconnect_backoff_max_ms=100,
        instruments=[attempts],
        on_undelivered=history.note,
    ) as producer:
        await history.send(producer, topic, b"key")
        await producer.flush()
        with no_more_descriptors():
            began = time.monotonic()
            print("full", flush=True)
            await until(lambda: attempts.ended == 2)
            await history.send(producer, topic, b"key")
            producer.deliver_nowait()
            await until(lambda: len(history.told) == 1)
            took = time.monotonic() - began
            await another(servers)
            await history.send(producer, topic, b"key")
        again = time.monotonic()
        await producer.flush()
        recovered, leaves_at = time.monotonic() - again, time.monotonic()
    left = time.monotonic() - leaves_at
    (told,) = history.told
    assert FULL in str(told.cause), told.cause
    assert not told.maybe_written
    assert attempts.errors
    assert all(FULL in error for error in attempts.errors), attempts.errors
    assert len(attempts.errors) < 2 * (2 + took / 0.04), "each of two pauses is 40 ms at least"
    history.check(Kafka(servers), topic)
    print(f"{len(attempts.errors)} attempts in {took:.2f} s; {recovered=:.2f} s, {left=:.2f} s")


async def another(servers: str) -> None:
    """One that is to be opened now cannot be, and says why."""
    _, port = servers.split(":")
    with pytest.raises(ConnectFailed, match=FULL):
        async with open_producer([servers, f"localhost:{port}"], connect_timeout=0.2):
            pytest.fail("must not be entered")


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
