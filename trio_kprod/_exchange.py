"""A request, its answer, and how bytes become answers. No I/O here.

Frames are cut here and each is decoded on its own. kafka-python's ``KafkaProtocol`` does both for a whole
read at once: one bad frame takes the good answers before it along, a length of 100 MB allocates 100 MB
before a byte of them has come, and what cannot be decoded is logged in full.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from typing import Any

from ._errors import ConnectionLost
from ._reasons import LONGEST_REASON

#: kafka-python reads a variable-length integer for as long as the high bits are set, in quadratic time: a
#: megabyte of them takes minutes. No response has that many in a row, not even a text in Chinese.
_ENDLESS_INTEGER = re.compile(rb"[\x80-\xff]{4096}")


def _as_it_is(response: Any) -> Any:
    return response


class Exchange:
    """One request, and whom to tell what became of it.

    All callbacks are called in the connection's loop, get the exchange first, and must not raise: if one
    does, that is a bug, and leaves `Connection.serve`.

    Args:
        request: an `ApiMessage` of kafka-python with its ``API_VERSION`` set.
        timeout (float): seconds from the hand-over until the answer must be here; without an answer
            (``acks=0``), until all is written.
        on_answer: called with what `read` made of the response.
        read: takes the response apart. If it raises, whatever it raises, the answer makes no sense: it
            counts as none, and the connection ends.
        on_handed: called *under the fence's lock* right before the first byte is given to the stream.
        on_sent: called when all of it has been written.
        expect_answer: False if the broker will not answer; by default the request knows.

    Attributes:
        request_bytes, response_bytes (int): the sizes of both on the wire, as far as they are known.
        handed (bool): whether any byte may have reached the wire. Final once `Connection.unanswered` told it.
    """

    __slots__ = (
        "correlation_id",
        "deadline",
        "expects_answer",
        "handed",
        "mark",
        "on_answer",
        "on_handed",
        "on_sent",
        "read",
        "request",
        "request_bytes",
        "response_bytes",
        "timeout",
    )

    def __init__(
        self,
        request: Any,
        timeout: float,
        on_answer: Callable[[Exchange, Any], object],
        *,
        read: Callable[[Any], Any] = _as_it_is,
        on_handed: Callable[[Exchange], object] | None = None,
        on_sent: Callable[[Exchange], object] | None = None,
        expect_answer: bool | None = None,
    ) -> None:
        self.request = request
        self.timeout = timeout
        self.on_answer = on_answer
        self.read = read
        self.on_handed = on_handed
        self.on_sent = on_sent
        self.expects_answer: bool = request.expect_response() if expect_answer is None else expect_answer
        self.handed = False
        self.request_bytes = 0
        self.response_bytes = 0
        self.correlation_id = 0
        self.deadline = float("inf")
        # The transport's count at the hand-over; None where it does not count.
        self.mark: int | None = None

    @property
    def name(self) -> str:
        """Kafka's name for it, such as ``"Produce"``."""
        return type(self.request).__name__.removesuffix("Request")

    def __repr__(self) -> str:
        return f"<Exchange {self.name}{' handed' * self.handed}>"


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


def decode(exchange: Exchange, frame: bytes) -> tuple[Any, Any]:
    """The response in a frame, and what `Exchange.read` made of it.

    kafka-python's decoders stop at the frame's end, whatever counts it claims.
    """
    try:
        if _ENDLESS_INTEGER.search(frame):
            raise ValueError("an integer without end")
        response_class = exchange.request.header.get_response_class()
        data = io.BytesIO(frame)
        correlation_id = response_class.parse_header(data).correlation_id
        response = meaning = None
        if correlation_id == exchange.correlation_id:
            response = response_class.decode(data)
            meaning = exchange.read(response)
    except Exception as error:  # of any kind, and each means that these bytes are no answer to this request
        what = f"{error!r:.{LONGEST_REASON}}"  # what is no text is in it as a whole
        raise ConnectionLost(f"the answer to {exchange.name} cannot be decoded: {what}") from error
    if response is None:
        expected = exchange.correlation_id
        raise ConnectionLost(f"the answer to {exchange.name} is number {correlation_id}, not {expected}")
    return response, meaning
