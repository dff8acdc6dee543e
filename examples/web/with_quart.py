"""The service with Quart-Trio: ``python examples/web/with_quart.py``."""

from __future__ import annotations

from typing import Any

import trio
from orders import Orders, Reply
from quart import Response, request
from quart_trio import QuartTrio
from serving import run


def make_app(orders: Orders) -> QuartTrio:
    app = QuartTrio(__name__)

    @app.post("/orders")
    async def take() -> Response:
        return _response(orders.take(await _body()))

    @app.post("/orders/strict")
    async def take_strictly() -> Response:
        return _response(await orders.take_strictly(await _body()))

    for path, look in (
        ("/", orders.page),
        ("/figures", orders.figures),
        ("/health", orders.health),
        ("/ready", orders.ready),
        ("/metrics", orders.metrics),
    ):

        async def show(look: object = look) -> Response:
            assert callable(look)
            return _response(look())

        app.add_url_rule(path, endpoint=path, view_func=show)
    app.asgi_app = _finishing(app.asgi_app)  # type: ignore[method-assign]
    return app


def _finishing(app: Any) -> Any:
    """Let Hypercorn finish each `send`: Quart-Trio cancels the last one of a response.

    Hypercorn then forgets that the connection is idle: it would never time out, and at SIGTERM the
    server would wait for it until `graceful_timeout`.
    """

    async def finishing(scope: Any, receive: Any, send: Any) -> None:
        async def send_all(message: Any) -> None:
            with trio.CancelScope(shield=True):
                await send(message)

        await app(scope, receive, send_all)

    return finishing


async def _body() -> bytes:
    return await request.get_data(cache=False, as_text=False, parse_form_data=False)


def _response(reply: Reply) -> Response:
    return Response(reply.body, reply.status, reply.headers, content_type=reply.media_type)


if __name__ == "__main__":
    trio.run(run, make_app)
