"""Where frames begin and end in a stream of bytes that passes by. No I/O.

Faults apply to frames. A frame is a Kafka request or answer, which begins with its length; over TLS, which
the proxy cannot read, a TLS record; in any other protocol, the bytes that arrived at once.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ._cluster import MAX_REQUEST_BYTES
from ._wire import APIS

_REQUEST_HEAD = struct.Struct(">ihhi")  # length, api, version, correlation id
_ANSWER_HEAD = struct.Struct(">ii")  # length, correlation id
_TLS_HEAD = struct.Struct(">BBBH")  # type, version, length
_TLS_TYPES = range(20, 25)

#: First bytes of the lengths that are allowed: they distinguish Kafka from TLS and from text.
_LENGTHS = range((MAX_REQUEST_BYTES >> 24) + 1)


class Frame(NamedTuple):
    """One frame; `size` counts the length that it begins with."""

    size: int
    api: str | None = None


class Piece(NamedTuple):
    """Some bytes of a frame, from the byte number `start` on."""

    frame: Frame
    start: int
    data: bytes


class Framing:
    """Says of each piece that passes by which frame it belongs to.

    It holds back only the first few bytes of a frame, until they show what it is.
    """

    def __init__(self, head: int, name: Callable[[bytes], str | None]) -> None:
        self._head = head
        self._name = name
        self._held = bytearray()
        self._frame: Frame | None = None
        self._start = 0
        self._unknown = False

    def feed(self, data: bytes | bytearray) -> Iterator[Piece]:
        """The pieces in what was received, in order."""
        self._held += data
        while self._held and (frame := self._frame or self._next()):
            taken = bytes(self._held[: frame.size - self._start])
            del self._held[: len(taken)]
            start, self._start = self._start, self._start + len(taken)
            self._frame = frame
            if self._start == frame.size:
                self._frame, self._start = None, 0
            yield Piece(frame, start, taken)

    def rest(self) -> Iterator[Piece]:
        """What is held back when the stream ends in the first few bytes of a frame."""
        self._unknown = True
        return self.feed(b"")

    def _next(self) -> Frame | None:
        """The frame that begins here; None if that needs more bytes."""
        kind = self._held[0]
        if not self._unknown and kind in _TLS_TYPES:
            return self._tls_record()
        if not self._unknown and kind in _LENGTHS:
            return self._kafka_frame()
        # Not Kafka, and never looked at again: a later part of it might begin like a frame.
        self._unknown = True
        return Frame(len(self._held))

    def _tls_record(self) -> Frame | None:
        if len(self._held) < _TLS_HEAD.size:
            return None
        return Frame(_TLS_HEAD.size + _TLS_HEAD.unpack_from(self._held)[-1])

    def _kafka_frame(self) -> Frame | None:
        size = 4 + int.from_bytes(self._held[:4], "big")
        if len(self._held) < min(size, self._head):
            return None
        return Frame(size, self._name(bytes(self._held[: self._head])) if size >= self._head else None)


def framings() -> tuple[Framing, Framing]:
    """For the requests and for the answers of one connection: an answer has the name of its request."""
    asked: dict[int, str | None] = {}

    def request(head: bytes) -> str | None:
        _, key, _, correlation_id = _REQUEST_HEAD.unpack(head)
        asked[correlation_id] = APIS[key].name if key in APIS else None
        return asked[correlation_id]

    def answer(head: bytes) -> str | None:
        _, correlation_id = _ANSWER_HEAD.unpack(head)
        return asked.pop(correlation_id, None)

    return Framing(_REQUEST_HEAD.size, request), Framing(_ANSWER_HEAD.size, answer)
