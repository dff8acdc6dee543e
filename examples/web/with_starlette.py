"""The same service with Starlette: ``python examples/web/with_starlette.py``."""

from __future__ import annotations

from collections.abc import Callable

import trio
from orders import Orders, Reply
from serving import run
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def make_app(orders: Orders) -> Starlette:
    async def take(request: Request) -> Response:
        return _response(orders.take(await request.body()))

    async def take_strictly(request: Request) -> Response:
        return _response(await orders.take_strictly(await request.body()))

    def showing(look: Callable[[], Reply]) -> Callable[[Request], object]:
        async def show(_: Request) -> Response:
            return _response(look())

        return show

    return Starlette(
        routes=[
            Route("/orders", take, methods=["POST"]),
            Route("/orders/strict", take_strictly, methods=["POST"]),
            Route("/", showing(orders.page)),
            Route("/figures", showing(orders.figures)),
            Route("/health", showing(orders.health)),
            Route("/ready", showing(orders.ready)),
            Route("/metrics", showing(orders.metrics)),
        ]
    )


def _response(reply: Reply) -> Response:
    return Response(reply.body, reply.status, reply.headers, media_type=reply.media_type)


if __name__ == "__main__":
    trio.run(run, make_app)
