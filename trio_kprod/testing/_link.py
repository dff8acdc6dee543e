"""One connection through the proxy: two sockets, what is carried between them, and how they end."""

from __future__ import annotations

import logging
import socket
import struct

import trio

from ._cluster import Address
from ._framing import Framing, framings
from ._network_faults import Direction
from ._pipe import Pipe
from ._traffic import Traffic

logger = logging.getLogger("trio_kprod.testing")

#: SO_LINGER, on and 0 seconds: closing sends a reset.
_RESET = struct.pack("ii", 1, 0)

#: For this time in seconds we go on reading a connection that ends in order, as web servers do. To close a
#: socket with something unread in it would send a reset.
_LINGER = 1.0


class Link:
    """A client's connection and the one to the upstream that belongs to it."""

    def __init__(self, traffic: Traffic, client: trio.SocketStream) -> None:
        self._traffic = traffic
        self._client = client
        self._upstream: trio.SocketStream | None = None
        self._scope = trio.CancelScope()
        self._to_reset: set[trio.SocketStream] = set()

    def end(self, *, reset: bool) -> None:
        """End it: the client sees a reset or an orderly end, the upstream an orderly end."""
        if reset:
            self._to_reset.add(self._client)
        self._scope.cancel()

    def _break(self) -> None:
        """One side is gone: the other sees a reset, too."""
        self._to_reset.update(self._streams())
        self._scope.cancel()

    def _streams(self) -> list[trio.SocketStream]:
        return [self._client, self._upstream] if self._upstream else [self._client]

    async def run(self, upstream: Address) -> None:
        """Carry bytes until both sides have ended, or something ends it. Both are closed then."""
        try:
            try:
                with self._scope:
                    await self._connect_and_carry(upstream)
            finally:
                self._traffic.close()
            for stream in self._to_reset:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                stream.socket.close()
            await self._see_off([one for one in self._streams() if one not in self._to_reset])
        finally:
            for stream in self._streams():
                stream.socket.close()

    async def _connect_and_carry(self, upstream: Address) -> None:
        rejected = self._traffic.accept()
        if rejected is not None:
            self.end(reset=rejected.reset)
            return
        try:
            self._upstream = await trio.open_tcp_stream(*upstream)
        except OSError as error:
            # A proxy cannot refuse what it has accepted. A reset comes closest.
            logger.info("ending a connection: %s cannot be reached: %s", upstream, error)
            self._break()
            return
        requests, answers = framings()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._carry, "requests", requests, self._client, self._upstream)
            nursery.start_soon(self._carry, "answers", answers, self._upstream, self._client)

    async def _carry(
        self, direction: Direction, framing: Framing, source: trio.SocketStream, sink: trio.SocketStream
    ) -> None:
        pipe = Pipe(self._traffic, direction, framing, source, sink)
        try:
            await pipe.run()
        except trio.BrokenResourceError as error:
            logger.debug("a connection broke: %r", error)
            self._break()
        if pipe.cut is not None:
            self.end(reset=pipe.cut.reset)

    async def _see_off(self, streams: list[trio.SocketStream]) -> None:
        with trio.move_on_after(_LINGER):
            async with trio.open_nursery() as nursery:
                for stream in streams:
                    nursery.start_soon(_end_in_order, stream)


async def _end_in_order(stream: trio.SocketStream) -> None:
    try:
        await stream.send_eof()
        while await stream.receive_some():
            pass
    except trio.BrokenResourceError:
        pass
