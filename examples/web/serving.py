"""Runs a web application beside a producer, so that SIGTERM loses nothing.

The order of the blocks is all there is to it. The producer is opened first and left last: when the server has
answered its last request, every order that was answered with 202 is in the producer, and leaving its block
delivers them. Do not open the producer in the application's lifespan instead: Hypercorn swallows what that
raises at the end, `DeliveryFailed` too.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import hypercorn
import hypercorn.trio
import trio
from orders import Orders
from prometheus_client import CollectorRegistry

import trio_kprod
from trio_kprod.instruments.prometheus import PrometheusInstrument
from trio_kprod.testing import open_broker

#: Seconds at the end: up to `orders.PATIENCE` for those that wait for Kafka, then these for writing replies
#: and for delivery. Kubernetes grants 30 in all (``terminationGracePeriodSeconds``): four are left over.
REPLIES_END_WITHIN = 1.0
DELIVERY_ENDS_WITHIN = 20.0


async def run(make_app: Callable[[Orders], Any]) -> None:
    options = _options()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        try:
            await _serve_until_told(make_app, options, signals)
        finally:
            await _ignore(signals)


async def _serve_until_told(
    make_app: Callable[[Orders], Any], options: argparse.Namespace, signals: AsyncIterator[int]
) -> None:
    registry = CollectorRegistry()
    async with (
        _some_kafka(options.bootstrap_servers) as servers,
        trio_kprod.open_producer(
            servers,
            delivery_interval=0.05,
            delivery_threshold=500,
            shutdown_timeout=DELIVERY_ENDS_WITHIN,
            instruments=(PrometheusInstrument(registry=registry),),
        ) as producer,
    ):
        orders = Orders(producer, registry)
        await _serve(make_app(orders), options.port, partial(_wait_for_signal, signals, orders))
    now = producer.statistics()
    print(f"ended: {now.accepted} orders accepted, {now.delivered} delivered", flush=True)


async def _serve(app: Any, port: int, told_to_end: Callable[[], Awaitable[None]]) -> None:
    """Return when no request is left, after `told_to_end` has returned."""
    config = hypercorn.Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.graceful_timeout = REPLIES_END_WITHIN
    async with trio.open_nursery() as nursery:
        serve = partial(hypercorn.trio.serve, app, config, shutdown_trigger=told_to_end)
        binds = await nursery.start(serve)
        print("serving on", *binds, flush=True)


async def _wait_for_signal(signals: AsyncIterator[int], orders: Orders) -> None:
    await anext(signals)
    await orders.close()


async def _ignore(signals: AsyncIterator[int]) -> None:
    """Take the signals that came after the first. trio raises those that nobody has taken once more when its
    receiver ends: the program would be killed by SIGTERM, although all is delivered."""
    with trio.move_on_after(0.01, shield=True):
        async for _ in signals:
            pass


@asynccontextmanager
async def _some_kafka(bootstrap_servers: str | None) -> AsyncIterator[str]:
    if bootstrap_servers is not None:
        yield bootstrap_servers
    else:
        async with open_broker() as broker:
            print("no --bootstrap-servers: with an embedded broker", file=sys.stderr)
            yield broker.bootstrap_servers


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap-servers", metavar="HOST:PORT[,...]", help="default: an embedded broker")
    parser.add_argument("--port", type=int, default=8000, help="0 for any that is free")
    return parser.parse_args()
