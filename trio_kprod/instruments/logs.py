"""Events for logs: a short name and fields, for `logging` or `structlog` (extra ``structlog``).

::

    import structlog
    from trio_kprod.instruments.logs import LoggingInstrument

    instruments = (LoggingInstrument(structlog.get_logger()),)

The package's own logger, ``trio_kprod``, tells of troubles in sentences, whether there is an instrument or
not. This is for those who search and count events.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trio_kprod import Instrument

from ._common import error_name

if TYPE_CHECKING:
    from trio_kprod import Producer


class LoggingInstrument(Instrument):
    """Logs what happens to a producer, its connections and its failures; nothing for each message or batch.

    With a logger of `logging`, an event is the message followed by its fields. These are attributes of the
    record too (such as ``record.topic``), for formatters that make JSON. With one of `structlog`, or any
    whose methods are ``info(event, **fields)``, they are its fields.

    Some events could be repeated without end, by a loop of sends or by a broker: ``buffer_overflow``,
    ``topic_error``, ``throttled``, ``connect_failed`` and a ``disconnected`` with an error. Each is logged at
    most once per `interval` for each topic or broker; ``suppressed`` says how many were left out since.

    Args:
        logger: by default ``logging.getLogger("trio_kprod.events")``.
        interval: seconds.
    """

    def __init__(self, logger: Any = None, *, interval: float = 10.0) -> None:
        self._log = _writer(logging.getLogger("trio_kprod.events") if logger is None else logger)
        self._interval = interval
        self._clock: Callable[[], float] = time.monotonic
        self._last: dict[tuple[str, str], tuple[float, int]] = {}  # when, and how many were left out since

    # -- the producer --------------------------------------------------------------------------------

    def opened(self, **_: object) -> None:
        """INFO"""
        self._log("info", "producer_opened", {})

    def closed(self, *, producer: Producer) -> None:
        """INFO, with what it has done"""
        now = producer.statistics()
        counts = {"accepted": now.accepted, "delivered": now.delivered, "undelivered": now.undelivered}
        self._log("info", "producer_closed", counts)

    # -- messages ------------------------------------------------------------------------------------

    def undelivered(
        self, *, topic: str, partition: int, message_count: int, cause: BaseException, maybe_written: bool
    ) -> None:
        """ERROR"""
        fields = {
            "topic": topic,
            "partition": partition,
            "message_count": message_count,
            "maybe_written": maybe_written,
        }
        self._log("error", "undelivered", {**fields, **_of_error(cause)})

    def buffer_overflow(self, *, topic: str) -> None:
        """WARNING"""
        self._seldom("buffer_overflow", topic, {"topic": topic})

    def topic_error(self, *, topic: str, error: BaseException) -> None:
        """WARNING"""
        self._seldom("topic_error", topic, {"topic": topic, **_of_error(error)})

    def error(self, *, error: BaseException) -> None:
        """ERROR"""
        self._log("error", "background_error", _of_error(error))

    # -- brokers -------------------------------------------------------------------------------------

    def throttled(self, *, broker: str, duration: float) -> None:
        """WARNING"""
        self._seldom("throttled", broker, {"broker": broker, "duration": duration})

    def connected(self, *, broker: str) -> None:
        """INFO"""
        self._log("info", "connected", {"broker": broker})

    def connect_failed(self, *, broker: str, error: BaseException) -> None:
        """WARNING"""
        self._seldom("connect_failed", broker, {"broker": broker, **_of_error(error)})

    def disconnected(self, *, broker: str, error: BaseException | None) -> None:
        """WARNING, or INFO if we closed it"""
        if error is None:
            self._log("info", "disconnected", {"broker": broker})
        else:
            self._seldom("disconnected", broker, {"broker": broker, **_of_error(error)})

    def _seldom(self, event: str, about: str, fields: dict[str, object]) -> None:
        """WARNING, unless the last one is not long ago."""
        now = self._clock()
        at, suppressed = self._last.get((event, about), (-self._interval, 0))
        if now - at < self._interval:
            self._last[event, about] = (at, suppressed + 1)
            return
        self._last[event, about] = (now, 0)
        self._log("warning", event, {**fields, "suppressed": suppressed} if suppressed else fields)


class DetailedLoggingInstrument(LoggingInstrument):
    """The same, and at DEBUG what happens for each batch and request; still nothing for each message."""

    def deliver_messages(
        self,
        *,
        message_count: int,
        delivered_message_count: int,
        attempts: int,
        duration: float,
        error: BaseException | None,
    ) -> None:
        """DEBUG"""
        fields: dict[str, object] = {
            "message_count": message_count,
            "delivered_message_count": delivered_message_count,
            "attempts": attempts,
            "duration": duration,
        }
        self._log("debug", "deliver_messages", {**fields, **_of_error(error)})

    def ack_messages(
        self, *, topic: str, partition: int, base_offset: int, message_count: int, delay: float
    ) -> None:
        """DEBUG"""
        fields = {
            "topic": topic,
            "partition": partition,
            "base_offset": base_offset,
            "message_count": message_count,
            "delay": delay,
        }
        self._log("debug", "ack_messages", fields)

    def request(
        self,
        *,
        broker: str,
        api: str,
        request_bytes: int,
        response_bytes: int,
        duration: float,
        error: BaseException | None,
    ) -> None:
        """DEBUG"""
        fields: dict[str, object] = {
            "broker": broker,
            "api": api,
            "request_bytes": request_bytes,
            "response_bytes": response_bytes,
            "duration": duration,
        }
        self._log("debug", "request", {**fields, **_of_error(error)})


_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

_Write = Callable[[str, str, dict[str, Any]], None]


def _writer(logger: Any) -> _Write:
    """A function that logs an event with its level and fields."""
    if isinstance(logger, (logging.Logger, logging.LoggerAdapter)):
        return lambda level, event, fields: _write_to_stdlib(logger, level, event, fields)
    return lambda level, event, fields: getattr(logger, level)(event, **fields)


def _write_to_stdlib(
    logger: logging.Logger | logging.LoggerAdapter[Any], level: str, event: str, fields: dict[str, object]
) -> None:
    number = _LEVELS[level]
    if logger.isEnabledFor(number):
        text = " ".join([event, *(f"{name}={value!r}" for name, value in fields.items())])
        logger.log(number, "%s", text, extra={"event": event, **fields})


def _of_error(error: BaseException | None) -> dict[str, str]:
    return {} if error is None else {"error_type": error_name(error), "error": str(error)}
