"""Ctrl-C in the body, in the drain, in both, or while it connects; prints what is in the log then."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable

import trio

from tests.programs.place import open_producer
from trio_kprod.testing import Broker, open_broker


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def press_after(wait: Callable[[], object]) -> None:
    def run() -> None:
        wait()
        press()

    threading.Thread(target=run).start()


async def in_the_body(broker: Broker) -> None:
    async with open_producer(broker.bootstrap_servers) as producer:
        for _ in range(3):
            producer.send_nowait("t", b"x")
        press()
        await trio.sleep_forever()


async def in_the_drain(broker: Broker) -> None:
    async with open_producer(broker.bootstrap_servers, shutdown_timeout=3600) as producer:
        broker.silence("Produce")
        for _ in range(3):
            producer.send_nowait("t", b"x")
        press_after(lambda: broker.wait_requests("Produce"))  # nothing has asked for delivery before


async def twice(broker: Broker) -> None:
    async with open_producer(broker.bootstrap_servers, shutdown_timeout=3600) as producer:
        broker.silence("Produce")
        for _ in range(3):
            producer.send_nowait("t", b"x")
        press_after(lambda: broker.wait_requests("Produce"))
        press()
        await trio.sleep_forever()


async def while_it_connects(broker: Broker) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        accepted: list[socket.socket] = []
        press_after(lambda: accepted.append(listener.accept()[0]))
        try:
            async with open_producer("{}:{}".format(*listener.getsockname()), connect_timeout=3600):
                raise AssertionError("the body must not run")
        finally:
            for sock in accepted:
                sock.close()


if __name__ == "__main__":
    with open_broker() as broker:
        try:
            trio.run(globals()[sys.argv[1]], broker)
        finally:
            print(len(broker.records("t")), "in the log")
