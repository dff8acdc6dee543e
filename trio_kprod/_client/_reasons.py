"""What to tell about a connection that failed: one line, with the true cause."""

from __future__ import annotations

import ssl
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import trio

from .._errors import ConnectionLost
from ._transport import Fenced

#: Brokers' texts may be 32 KB long, which is too much for a log.
LONGEST_REASON = 1000

#: Parts of OpenSSL's reasons that are about a certificate, theirs or ours: another attempt will not help.
_CERTIFICATE_REASONS = ("CERT", "UNKNOWN_CA")

#: What a stream raises that is broken, closed or fenced.
STREAM_ERRORS = (trio.BrokenResourceError, trio.ClosedResourceError, Fenced)


@contextmanager
def losing() -> Generator[None, None, None]:
    """A block in which a stream's error is the loss of the connection."""
    try:
        yield
    except STREAM_ERRORS as error:
        raise ConnectionLost(reason(error)) from error


def causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def reason(error: BaseException) -> str:
    """One line. A stream's own error says less than its cause, and over TLS nothing."""
    while isinstance(error, STREAM_ERRORS) and error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:LONGEST_REASON] or type(error).__name__


def is_mute(error: Exception) -> bool:
    """Whether it only says that the stream had been broken before."""
    return isinstance(error.__cause__, trio.BrokenResourceError) and not (
        error.__cause__.__cause__ or str(error.__cause__)
    )


def is_about_certificate(error: BaseException) -> bool:
    reason = (isinstance(error, ssl.SSLError) and error.reason) or ""
    return any(part in reason for part in _CERTIFICATE_REASONS)
