"""A producer in the lifespan of a web application, as it should not be, and Kafka that takes nothing."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import hypercorn
import hypercorn.trio
import trio
from quart_trio import QuartTrio
from starlette.applications import Starlette

import trio_kprod
from trio_kprod.testing import open_broker

Open = Callable[[], trio_kprod.ProducerScope[Any, Any]]


def while_serving(opened: Open, sent: trio.Event) -> Any:
    app = QuartTrio(__name__)

    @app.while_serving
    async def life() -> Any:
        async with opened() as producer:
            producer.send_nowait("t", b"lost")
            sent.set()
            yield

    return app


def after_serving(opened: Open, sent: trio.Event) -> Any:
    app = QuartTrio(__name__)
    scope = opened()

    @app.before_serving
    async def begin() -> None:
        (await scope.__aenter__()).send_nowait("t", b"lost")
        sent.set()

    @app.after_serving
    async def end() -> None:
        await scope.__aexit__(None, None, None)

    return app


def starlette(opened: Open, sent: trio.Event) -> Any:
    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        async with opened() as producer:
            producer.send_nowait("t", b"lost")
            sent.set()
            yield

    return Starlette(lifespan=life)


async def main(make_app: Callable[[Open, trio.Event], Any]) -> None:
    async with open_broker() as broker:
        broker.answer("Produce", error="INVALID_RECORD", times=None)
        sent = trio.Event()
        app = make_app(lambda: trio_kprod.open_producer(broker.bootstrap_servers), sent)
        config = hypercorn.Config()
        config.bind = ["127.0.0.1:0"]
        await hypercorn.trio.serve(app, config, shutdown_trigger=sent.wait)
        print("ended as if nothing had happened")


if __name__ == "__main__":
    logging.basicConfig()
    trio.run(main, globals()[sys.argv[1]])
