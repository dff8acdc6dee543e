"""A request, its response, and how bytes become responses. No I/O here.

Frames are cut here and each is decoded on its own. kafka-python's ``KafkaProtocol`` does both for a whole
read at once: one bad frame spoils the good responses before it, a length of 100 MB allocates 100 MB before a
byte of them has come, and what cannot be decoded is logged in full.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from struct import Struct
from typing import Any

from .._errors import LONGEST_TEXT, ConnectionLost

#: kafka-python reads a variable-length integer for as long as the high bits are set, in quadratic time: a
#: megabyte of them takes minutes. No response has that many in a row, not even a text in Chinese.
_ENDLESS = 4096
_ENDLESS_INTEGER = re.compile(rb"[\x80-\xff]{%d}" % _ENDLESS)

#: kafka-python's fast decoder copies the rest of the frame for each group of tagged fields (KIP-482). There
#: can be one in every ten bytes, which takes hours for a frame of 100 MB. So frames larger than this, in
#: bytes, go through its other decoder, which takes three times as long for each field and copies nothing.
_COPIED_AT_MOST = 100_000

_CORRELATION_ID = Struct(">i")


class Exchange:
    """One request and its response. Subclasses know what both are in bytes.

    The callbacks are called in the connection's loop, get the exchange first, and must not raise: if one
    does, that is a bug, and `Connection.serve` raises it.

    Args:
        timeout (float): seconds from the start of the write until the response must be here; without a
            response (``acks=0``), until all is written.
        on_response: called with what the response means.
        on_sent: called when all of it has been written.
        expects_response: False if the broker will not respond.

    Attributes:
        name (str): Kafka's name for the request, such as ``"Produce"``.
        request_bytes, response_bytes (int): the sizes of both on the wire, as far as they are known.
        unwritten (memoryview | None): the bytes that are still to be written, from the start of the write
            to its end.
        bytes_before (int | None): what the transport had counted when the write started; None if it does
            not count.
    """

    __slots__ = (
        "_write_started",
        "bytes_before",
        "correlation_id",
        "deadline",
        "expects_response",
        "on_response",
        "on_sent",
        "request_bytes",
        "response_bytes",
        "timeout",
        "unwritten",
    )

    name: str

    def __init__(
        self,
        timeout: float,
        on_response: Callable[[Any, Any], object],
        *,
        on_sent: Callable[[Any], object] | None = None,
        expects_response: bool = True,
    ) -> None:
        self.timeout = timeout
        self.on_response = on_response
        self.on_sent = on_sent
        self.expects_response = expects_response
        self.request_bytes = 0
        self.response_bytes = 0
        self.correlation_id = 0
        self.deadline = float("inf")
        self.unwritten: memoryview | None = None
        self.bytes_before: int | None = None
        self._write_started = False

    @property
    def write_started(self) -> bool:
        """Whether any byte may have reached the wire. Final once `Connection.unanswered` has returned it.

        Set *under the fence's lock* right before the first byte is given to the stream.
        """
        return self._write_started

    @write_started.setter
    def write_started(self, started: bool) -> None:
        self._write_started = started

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left to send, so that the request is skipped."""
        return False

    def encode(self, client_id: str) -> bytes:
        """The frame of the request. Called when its write starts, not before."""
        raise NotImplementedError

    def read_number(self, frame: bytes) -> int:
        """The correlation id in a frame."""
        number: int = _CORRELATION_ID.unpack_from(frame)[0]
        return number

    def decode(self, frame: bytes) -> tuple[int, Any]:
        """Return for how many milliseconds the broker throttles us, and what else the response means.

        If this raises anything, the response makes no sense: it does not count, and the connection ends.
        """
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<Exchange {self.name}{' begun' * self.write_started}>"


class ApiExchange(Exchange):
    """One with a request of kafka-python's.

    Args:
        request: an `ApiMessage` of kafka-python with its ``API_VERSION`` set.
        read: takes the response apart; `Exchange.on_response` is called with what it returns.
        expects_response: by default the request knows.
    """

    __slots__ = ("_read", "request")

    def __init__(
        self,
        request: Any,
        timeout: float,
        on_response: Callable[[Any, Any], object],
        *,
        read: Callable[[Any], Any] | None = None,
        on_sent: Callable[[Any], object] | None = None,
        expects_response: bool | None = None,
    ) -> None:
        expects = request.expect_response() if expects_response is None else expects_response
        super().__init__(timeout, on_response, on_sent=on_sent, expects_response=expects)
        self.request = request
        self._read = read

    @property
    def name(self) -> str:  # type: ignore[override]
        return type(self.request).__name__.removesuffix("Request")

    def encode(self, client_id: str) -> bytes:
        self.request.with_header(correlation_id=self.correlation_id, client_id=client_id)
        return bytes(self.request.encode(framed=True, header=True))

    def read_number(self, frame: bytes) -> int:
        # Not all responses begin with it: SASL tokens used to be without any header.
        header = self.request.header.get_response_class().parse_header(io.BytesIO(frame))
        return header.correlation_id  # type: ignore[no-any-return]

    def decode(self, frame: bytes) -> tuple[int, Any]:
        response = decode_api(self.request.header.get_response_class(), frame)
        meaning = response if self._read is None else self._read(response)
        return getattr(response, "throttle_time_ms", 0), meaning


def decode_api(response_class: Any, frame: bytes) -> Any:
    """A response of kafka-python's. Its decoders stop at the frame's end, even if a count claims more."""
    data = io.BytesIO(frame)
    response_class.parse_header(data)
    if len(frame) <= _COPIED_AT_MOST:
        return response_class.decode(data)
    version = response_class._class_version
    flexible = response_class.flexible_version_q(version)
    whole_class = response_class[None]
    return whole_class._struct.decode(
        data, version=version, compact=flexible, tagged=flexible, data_class=whole_class
    )


class Frames:
    """Cuts what was received into frames. Holds no more than what has come."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray) -> Iterator[bytes]:
        self._buffer += data
        while len(self._buffer) >= 4:
            size = int.from_bytes(self._buffer[:4], "big", signed=True)
            if not 0 <= size <= self.limit:
                raise ConnectionLost(f"not Kafka's protocol: a frame of {size} bytes ({self.limit} allowed)")
            if len(self._buffer) < 4 + size:
                return
            frame = bytes(self._buffer[4 : 4 + size])
            del self._buffer[: 4 + size]
            yield frame


def decode(exchange: Exchange, frame: bytes) -> tuple[int, Any]:
    """What `Exchange.decode` returns for a frame; raises `ConnectionLost` if it is not the response."""
    decoded = correlation_id = problem = None
    try:
        if len(frame) >= _ENDLESS and _ENDLESS_INTEGER.search(frame):
            raise ValueError("an integer without end")
        correlation_id = exchange.read_number(frame)
        decoded = exchange.decode(frame) if correlation_id == exchange.correlation_id else None
    except Exception as error:  # of any kind: each means that these bytes do not answer this request
        problem = f"{error!r:.{LONGEST_TEXT}}"  # a UnicodeDecodeError's repr holds the whole frame
    # Not raised inside the `except`: with such a context, it would keep the frame and all made of it.
    if problem is not None:
        raise ConnectionLost(f"the response to {exchange.name} cannot be decoded: {problem}")
    if decoded is None:
        expected = exchange.correlation_id
        raise ConnectionLost(f"the response to {exchange.name} is number {correlation_id}, not {expected}")
    return decoded
