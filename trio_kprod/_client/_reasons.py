"""What to tell about a connection that failed: one line, with the true cause."""

from __future__ import annotations

import ssl
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import trio

from .._errors import ConnectionLost, printable
from ._transport import Fenced

#: The end of the stream.
CLOSED = "the broker closed the connection"

#: What a broken, closed or fenced stream raises.
STREAM_ERRORS = (trio.BrokenResourceError, trio.ClosedResourceError, Fenced)


@contextmanager
def losing() -> Generator[None, None, None]:
    """A block in which an error of the stream becomes `ConnectionLost`."""
    try:
        yield
    except STREAM_ERRORS as error:
        raise ConnectionLost(reason(error)) from error


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, its cause, the cause of that, and so on."""
    while error is not None:
        yield error
        error = error.__cause__


def reason(error: BaseException) -> str:
    """One line. A stream's own error says less than its cause, and over TLS nothing."""
    while isinstance(error, STREAM_ERRORS) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, ssl.SSLEOFError):  # "EOF occurred in violation of protocol"
        return CLOSED
    return printable(str(error)) or type(error).__name__


def has_ended(error: BaseException) -> bool:
    """Whether it says no more than that the stream has ended, in order or not."""
    return str(error) == CLOSED or any(isinstance(one, STREAM_ERRORS) for one in (error, error.__cause__))


def is_mute(error: Exception) -> bool:
    """Whether it only says that the stream had been broken before."""
    return isinstance(error.__cause__, trio.BrokenResourceError) and not (
        error.__cause__.__cause__ or str(error.__cause__)
    )


def tls_error(error: BaseException) -> ssl.SSLError | None:
    """The error of TLS among its causes, if there is one. The end of the stream does not count."""
    for cause in causes(error):
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
            return cause
    return None
