"""A request, its answer, and how bytes become answers. No I/O here.

Frames are cut here and each is decoded on its own. kafka-python's ``KafkaProtocol`` does both for a whole
read at once: one bad frame takes the good answers before it along, a length of 100 MB allocates 100 MB
before a byte of them has come, and what cannot be decoded is logged in full.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from struct import Struct
from typing import Any

from .._errors import ConnectionLost
from ._reasons import LONGEST_REASON

#: kafka-python reads a variable-length integer for as long as the high bits are set, in quadratic time: a
#: megabyte of them takes minutes. No response has that many in a row, not even a text in Chinese.
_ENDLESS = 4096
_ENDLESS_INTEGER = re.compile(rb"[\x80-\xff]{%d}" % _ENDLESS)

_CORRELATION_ID = Struct(">i")


def _as_it_is(response: Any) -> Any:
    return response


class Exchange:
    """One request, and whom to tell what became of it. What it is in bytes, subclasses know.

    All callbacks are called in the connection's loop, get the exchange first, and must not raise: if one
    does, that is a bug, and leaves `Connection.serve`.

    Args:
        timeout (float): seconds from the hand-over until the answer must be here; without an answer
            (``acks=0``), until all is written.
        on_answer: called with the meaning of the answer.
        on_sent: called when all of it has been written.
        expects_answer: False if the broker will not answer.

    Attributes:
        name (str): Kafka's for the request, such as ``"Produce"``.
        request_bytes, response_bytes (int): the sizes of both on the wire, as far as they are known.
        handed (bool): whether any byte may have reached the wire. Final once `Connection.unanswered` told it.
    """

    __slots__ = (
        "correlation_id",
        "deadline",
        "expects_answer",
        "mark",
        "on_answer",
        "on_sent",
        "request_bytes",
        "response_bytes",
        "timeout",
        "write_started",
    )

    name: str

    def __init__(
        self,
        timeout: float,
        on_answer: Callable[[Any, Any], object],
        *,
        on_sent: Callable[[Any], object] | None = None,
        expects_answer: bool = True,
    ) -> None:
        self.timeout = timeout
        self.on_answer = on_answer
        self.on_sent = on_sent
        self.expects_answer = expects_answer
        self.write_started = False
        self.request_bytes = 0
        self.response_bytes = 0
        self.correlation_id = 0
        self.deadline = float("inf")
        # The transport's count at the hand-over; None where it does not count.
        self.mark: int | None = None

    def start_write(self) -> None:
        """Called *under the fence's lock* right before the first byte is given to the stream."""
        self.write_started = True

    def encode(self, client_id: str) -> bytes:
        """The frame of the request."""
        raise NotImplementedError

    def read_number(self, frame: bytes) -> int:
        """The correlation id in a frame."""
        number: int = _CORRELATION_ID.unpack_from(frame)[0]
        return number

    def decode(self, frame: bytes) -> tuple[int, Any]:
        """For how many milliseconds the broker wants to be left alone, and what else the answer means.

        If it raises, whatever it raises, the answer makes no sense: it counts as none, and the connection
        ends.
        """
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<Exchange {self.name}{' handed' * self.write_started}>"


class ApiExchange(Exchange):
    """One with a request of kafka-python's.

    Args:
        request: an `ApiMessage` of kafka-python with its ``API_VERSION`` set.
        read: takes the response apart; `Exchange.on_answer` is called with what it makes of it.
        on_write_started: called by `start_write`.
        expects_answer: by default the request knows.
    """

    __slots__ = ("_on_write_started", "_read", "request")

    def __init__(
        self,
        request: Any,
        timeout: float,
        on_answer: Callable[[Any, Any], object],
        *,
        read: Callable[[Any], Any] = _as_it_is,
        on_write_started: Callable[[Any], object] | None = None,
        on_sent: Callable[[Any], object] | None = None,
        expects_answer: bool | None = None,
    ) -> None:
        expects = request.expect_response() if expects_answer is None else expects_answer
        super().__init__(timeout, on_answer, on_sent=on_sent, expects_answer=expects)
        self.request = request
        self._read = read
        self._on_write_started = on_write_started

    @property
    def name(self) -> str:  # type: ignore[override]
        return type(self.request).__name__.removesuffix("Request")

    def start_write(self) -> None:
        self.write_started = True
        if self._on_write_started is not None:
            self._on_write_started(self)

    def encode(self, client_id: str) -> bytes:
        self.request.with_header(correlation_id=self.correlation_id, client_id=client_id)
        return bytes(self.request.encode(framed=True, header=True))

    def read_number(self, frame: bytes) -> int:
        # Not all responses begin with it: SASL tokens used to be without any header.
        header = self.request.header.get_response_class().parse_header(io.BytesIO(frame))
        return header.correlation_id  # type: ignore[no-any-return]

    def decode(self, frame: bytes) -> tuple[int, Any]:
        response = decode_api(self.request.header.get_response_class(), frame)
        return getattr(response, "throttle_time_ms", 0), self._read(response)


def decode_api(response_class: Any, frame: bytes) -> Any:
    """A response of kafka-python's. Its decoders stop at the frame's end, whatever counts it claims."""
    data = io.BytesIO(frame)
    response_class.parse_header(data)
    return response_class.decode(data)


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
    """What `Exchange.decode` makes of a frame."""
    try:
        if len(frame) >= _ENDLESS and _ENDLESS_INTEGER.search(frame):
            raise ValueError("an integer without end")
        correlation_id = exchange.read_number(frame)
        decoded = exchange.decode(frame) if correlation_id == exchange.correlation_id else None
    except Exception as error:  # of any kind, and each means that these bytes are no answer to this request
        what = f"{error!r:.{LONGEST_REASON}}"  # what is no text is in it as a whole
        raise ConnectionLost(f"the answer to {exchange.name} cannot be decoded: {what}") from error
    if decoded is None:
        expected = exchange.correlation_id
        raise ConnectionLost(f"the answer to {exchange.name} is number {correlation_id}, not {expected}")
    return decoded
