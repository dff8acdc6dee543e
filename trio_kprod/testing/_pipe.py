"""One direction of a connection through the proxy: here faults happen to the bytes that pass."""

from __future__ import annotations

import trio

from ._framing import Frame, Framing, Piece
from ._network_faults import Blackhole, Cut, Direction, Latency, Overwrite, Plan, Replace, Trickle
from ._traffic import Traffic

_RECEIVE_SIZE = 65536


class Pipe:
    """Carries bytes from the source to the sink."""

    def __init__(
        self,
        traffic: Traffic,
        direction: Direction,
        framing: Framing,
        source: trio.SocketStream,
        sink: trio.SocketStream,
    ) -> None:
        self._traffic = traffic
        self._direction: Direction = direction
        self._framing = framing
        self._source = source
        self._sink = sink
        self._plan = Plan()
        # What ends this direction, and how many bytes still go through before it does.
        self._end: Cut | None = None
        self._left = 0
        self.cut: Cut | None = None

    async def run(self) -> None:
        """Carry bytes until the source ends, or the connection is to be `cut`."""
        while self.cut is None and (data := await self._receive()):
            for piece in self._framing.feed(data):
                await self._take(piece)
        for piece in self._framing.rest():
            await self._take(piece)
        if self.cut is None:
            await self._sink.send_eof()

    async def _receive(self) -> bytes | bytearray:
        try:
            data = await self._source.receive_some(_RECEIVE_SIZE)
        except trio.BrokenResourceError:
            await self._hold_end()
            raise
        if not data:
            await self._hold_end()
        return data

    async def _hold_end(self) -> None:
        traffic, direction = self._traffic, self._direction
        await traffic.until(lambda: not traffic.is_silent(direction))

    async def _take(self, piece: Piece) -> None:
        if self._end is not None and not self._left:
            return  # this direction has ended: swallow the rest, or the source would block
        if piece.start == 0:
            await self._begin(piece.frame)
        data = _changed(self._plan, piece)
        if self._end is not None:
            data = data[: self._left]
            self._left -= len(data)
        await self._send(data)
        if self._end is not None and not self._left:
            await self._finish(self._end)

    async def _begin(self, frame: Frame) -> None:
        """Look up what happens to a frame, and hold it if that is to be."""
        ending = self._end is not None
        plan = self._plan = self._traffic.plan(self._direction, frame, ending=ending)
        latency, cut = plan.fault(Latency), plan.fault(Cut)
        if latency is not None:
            await trio.sleep(latency.seconds)
        if plan.fault(Blackhole) is not None:
            rule = plan.rules[Blackhole]
            await self._traffic.until(lambda: not rule.active)
        if cut is not None:
            self._end = cut
            self._left = frame.size if cut.forward is None else cut.forward

    async def _send(self, data: bytes) -> None:
        trickle = self._plan.fault(Trickle)
        step = trickle.size if trickle else max(1, len(data))
        for start in range(0, len(data), step):
            part = data[start : start + step]
            await self._sink.send_all(part)
            self._traffic.forward(self._direction, len(part))
            if trickle:
                await trio.sleep(trickle.seconds)

    async def _finish(self, cut: Cut) -> None:
        if cut.half:
            await self._sink.send_eof()
        else:
            self.cut = cut


def _changed(plan: Plan, piece: Piece) -> bytes:
    """The piece as it goes on."""
    replace, overwrite = plan.fault(Replace), plan.fault(Overwrite)
    if replace is not None:
        return replace.data if piece.start == 0 else b""
    if overwrite is None:
        return piece.data
    data, size = bytearray(piece.data), piece.frame.size
    at = overwrite.at if overwrite.at >= 0 else size + overwrite.at
    first = min(max(at, 0), size - 1) - piece.start
    for place, byte in enumerate(overwrite.data or b"-", first):
        if 0 <= place < len(data):
            data[place] = byte if overwrite.data else data[place] ^ 0xFF
    return bytes(data)
