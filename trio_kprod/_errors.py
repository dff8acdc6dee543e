"""Every error of this package.

Two families: what a call raises because of how it was made or where the producer stands, and what became
of a message that is not known to be in the log (`DeliveryFailed`, and the causes it carries).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import trio

if TYPE_CHECKING:
    from ._messages import Undelivered


#: Brokers' texts may be 32 KB long, which is too much for a log.
LONGEST_TEXT = 1000

_E = TypeVar("_E", bound=BaseException)


class ProducerError(Exception):
    """Base of every error that only this package raises."""


class BufferOverflow(ProducerError, trio.WouldBlock):
    """`send_nowait` found no room, and nothing was queued. ``await send`` waits for room instead."""


class ProducerClosed(ProducerError, trio.ClosedResourceError):
    """The producer's ``async with`` block is being left, or `abort` was called: no more messages."""


class ProducerCrashed(ProducerError, trio.BrokenResourceError):
    """A background task of the producer failed; ``__cause__`` says how. Please report it as a bug."""


class ConnectFailed(ProducerError, ConnectionError):
    """When the producer was opened, no broker could be reached, or they refused us, or we refused them.

    The message names each address that was tried with the cause and, where that is known, what to do, on one
    line. It begins with "cannot connect" where waiting would not have helped.

    Attributes:
        causes (dict[str, BaseException]): the reason for each ``"host:port"``.
    """

    def __init__(self, message: str, causes: dict[str, BaseException] | None = None) -> None:
        super().__init__(message)
        self.causes: dict[str, BaseException] = causes or {}


class SettingsError(ProducerError, TypeError, ValueError):
    """Several settings are wrong: the message names each on its own line, with what to write instead.

    It is both a TypeError and a ValueError, so ``except TypeError`` and ``except ValueError`` each catch it.
    One wrong setting is told by a plain TypeError or ValueError: ``except (TypeError, ValueError)`` catches
    all of them.

    Attributes:
        problems (tuple[Exception, ...]): the error for each wrong setting, as it is raised when it is the
            only one: a TypeError, a ValueError, or a ModuleNotFoundError for a package that is missing.
    """

    def __init__(self, problems: Iterable[Exception]) -> None:
        self.problems: tuple[Exception, ...] = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        lines = [f"\n  {problem}" for problem in self.problems]
        return f"{len(lines)} settings are wrong:{''.join(lines)}"


class MessageTooLarge(ProducerError, ValueError):
    """The message is larger than ``max_request_size``; raised by the call, and nothing was queued."""


class DeliveryFailed(ProducerError):
    """Messages that were accepted are not known to be in Kafka's log.

    Attributes:
        undelivered (tuple[Undelivered, ...]): each such message with its cause and whether it may have
            been written, in the order in which their fate became known.
        omitted (int): how many more there were beyond the bounds on what is kept for telling
            (``max_queue_size + max_buffer_size`` messages, ``max_buffer_bytes`` bytes); each was logged.
    """

    def __init__(self, undelivered: Sequence[Undelivered], omitted: int = 0) -> None:
        super().__init__()
        self.omitted: int = omitted
        messages = tuple(undelivered)
        self._find: Callable[[], Sequence[Undelivered]] = lambda: messages

    @classmethod
    def found_by(cls, find: Callable[[], Sequence[Undelivered]], omitted: int) -> DeliveryFailed:
        """One whose messages are looked up when they are asked for. Thousands of flushes that end together
        may cover the same thousands of messages, and most look at none of them.
        """
        failed = cls((), omitted)
        failed._find = find
        return failed

    @cached_property
    def undelivered(self) -> tuple[Undelivered, ...]:
        return tuple(self._find())

    def __reduce__(self) -> tuple[type[DeliveryFailed], tuple[object, ...], dict[str, object]]:
        attributes = {
            name: value for name, value in vars(self).items() if name not in ("_find", "undelivered")
        }
        return type(self), (self.undelivered, self.omitted), attributes

    def __repr__(self) -> str:
        return f"DeliveryFailed({str(self)!r})"  # of the messages there may be thousands

    def __str__(self) -> str:
        count = len(self.undelivered) + self.omitted
        maybe = sum(one.maybe_written for one in self.undelivered)
        text = f"{count} message{'s' * (count != 1)} not delivered"
        if maybe:
            text += f", {maybe} of them perhaps written"
        if self.undelivered:
            first = self.undelivered[0]
            text += f"; the first, to {first.message.topic!r}: {first.cause}"
        return text


# ---------------------------------------------------------------------------------------------------------
# Causes: what `Undelivered.cause` can be


class UnknownTopic(ProducerError):
    """The cluster did not know the topic, or no partition of it, for `topic_timeout` seconds."""


class Refused(ProducerError):
    """A broker refused the message for good.

    Attributes:
        code (int): Kafka's error code.
        name (str): its name, as in Kafka's protocol guide, such as ``"INVALID_RECORD"``.
        detail (str | None): what the broker says, just as it says it. In the error's text it is
            escaped, on one line and cut.
    """

    def __init__(self, code: int, name: str, detail: str | None = None) -> None:
        self.code = code
        self.name = name
        self.detail = detail
        super().__init__(code, name, detail)

    def __str__(self) -> str:
        return f"{self.name} ({self.code})" + (f": {printable(self.detail)}" if self.detail else "")


class ConnectionLost(ProducerError, ConnectionError):
    """The connection to a broker ended, or it did not answer in time; ``__cause__`` may say more."""


class NoResponse(ConnectionLost):
    """A broker did not respond to a request in time, and the connection was given up."""


class DeliveryTimedOut(ProducerError):
    """`delivery_timeout` seconds passed since the message was accepted.

    The text and ``__cause__`` say what kept it, if that is known: the last refusal or connection trouble.
    """


class RetriesExhausted(ProducerError):
    """The message's batch was sent ``1 + max_retries`` times in vain, or it ended thirty connections in a row
    although it travelled alone; ``__cause__`` is the last refusal or lost connection."""


class DeliveryAborted(ProducerError):
    """`abort` was called, or `shutdown_timeout` passed at the end of the scope, before an acknowledgement.

    The text and ``__cause__`` say what kept the message, if that is known.
    """


class PartitioningFailed(ProducerError):
    """The partition does not exist, or the partitioner raised or returned none of the topic's partitions."""


def printable(text: str) -> str:
    """A text of somebody else, for a log or a terminal: one line, and not endless.

    Spaces and ends of lines become one space. Other characters that do not print, such as those that control
    a terminal or turn text around, are escaped as in Python.
    """
    text = " ".join(text[:LONGEST_TEXT].split())
    if not text.isprintable():
        text = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    return text[:LONGEST_TEXT]


def explained(error: _E, cause: BaseException | None) -> _E:
    """The same error with a cause, also in its text."""
    if cause is None:
        return error
    new = type(error)(f"{error}: {cause}")
    new.__cause__ = cause
    return new
