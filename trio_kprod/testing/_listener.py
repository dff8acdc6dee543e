"""A TCP port that stays reserved while the server does not listen on it."""

from __future__ import annotations

import socket
import sys
from collections.abc import Awaitable, Callable

import trio

from ._cluster import Address

_BACKLOG = 128


class Port:
    """Bound from the beginning to the end; it listens after `open` and until `close`. All in one trio loop.

    A broker that is down must refuse connections, and listen on the same port later. The system could give a
    port that is not bound to another program, and a client that tries it again could even connect to itself.
    """

    def __init__(
        self, address: Address, nursery: trio.Nursery, serve: Callable[[trio.SocketStream], Awaitable[None]]
    ) -> None:
        self._nursery = nursery
        self._serve = serve
        self._listener: trio.SocketListener | None = None
        self._accepting = trio.CancelScope()
        self._reserved = _bind(address)
        self.address = Address(*self._reserved.getsockname()[:2])

    def open(self) -> None:
        """Accept connections; they are served in the nursery."""
        if self._listener is None:
            self._reserved.listen(_BACKLOG)
            self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._reserved))
            self._accepting = trio.CancelScope()
            self._nursery.start_soon(self._accept, self._listener, self._accepting)

    def close(self) -> None:
        """Refuse connections, and keep the port."""
        if self._listener is not None:
            self.release()
            self._reserved = _bind(self.address)

    def release(self) -> None:
        """Give the port back."""
        if self._listener is not None:
            # In this order: a socket that is closed under `accept` would end the whole nursery.
            self._accepting.cancel()
            self._listener.socket.close()
            self._listener = None
        self._reserved.close()

    async def _accept(self, listener: trio.SocketListener, accepting: trio.CancelScope) -> None:
        with accepting:
            await trio.serve_listeners(self._serve, [listener], handler_nursery=self._nursery)


def _bind(address: Address) -> socket.socket:
    family, kind, protocol, _, where = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
    sock = socket.socket(family, kind, protocol)
    try:
        if sys.platform != "win32":  # where it would let others take the port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind(where)
    except BaseException:
        sock.close()
        raise
    return sock
