"""A usual run, one with a broker that dies, one that is refused, one that is cancelled while it connects.

With every warning an error, and in development mode, nothing may appear on stderr.
"""

from __future__ import annotations

import gc
import logging
import socket

import trio

from tests.programs.place import open_producer
from trio_kprod import ConnectFailed, DeliveryFailed
from trio_kprod.testing import Broker, open_broker


async def usual(broker: Broker) -> None:
    async with open_producer(broker.bootstrap_servers, delivery_interval=0.01) as producer:
        await producer.send_and_wait("t", b"1")
        await producer.send_many("t", [b"2"] * 5000)
        assert await producer.partitions_for("t") == [0]
        await producer.flush()


async def broker_dies(broker: Broker) -> None:
    try:
        async with open_producer(broker.bootstrap_servers, shutdown_timeout=0.1) as producer:
            await producer.send_and_wait("t", b"1")
            broker.stop_listening()
            broker.disconnect_all()
            producer.send_nowait("other", b"2")
    except DeliveryFailed as error:
        assert len(error.undelivered) == 1  # noqa: PT017
    assert producer.statistics().undelivered == 1


async def refused(broker: Broker) -> None:
    try:
        async with open_producer(broker.bootstrap_servers, connect_timeout=0.1):
            raise AssertionError("the body must not run")
    except ConnectFailed:
        pass


async def cancelled() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with trio.move_on_after(0.1) as scope:
            async with open_producer("{}:{}".format(*listener.getsockname())):
                raise AssertionError("the body must not run")
        assert scope.cancelled_caught


async def main() -> None:
    with open_broker() as broker:
        await usual(broker)
        await broker_dies(broker)
        await refused(broker)
        await cancelled()


if __name__ == "__main__":
    quiet = logging.getLogger("trio_kprod")  # what it says of the broker is not what we look for
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    trio.run(main)
    gc.collect()
    print("done")
