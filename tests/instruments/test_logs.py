"""Events as log records: of `logging`, and of structlog."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from structlog.testing import CapturingLogger, capture_logs

import trio_kprod
from trio_kprod.instruments.logs import DetailedLoggingInstrument, LoggingInstrument
from trio_kprod.testing import MemoryBroker, open_memory_producer


def events(records: list[logging.LogRecord]) -> list[tuple[str, str]]:
    return [(record.levelname, str(vars(record)["event"])) for record in records if "event" in vars(record)]


@pytest.fixture
def plain(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What the default logger gets, at every level."""
    with caplog.at_level(logging.DEBUG, "trio_kprod.events"):
        yield caplog


async def test_a_life(autojump_clock: Any, plain: pytest.LogCaptureFixture) -> None:
    """Nothing for each message or batch."""
    async with open_memory_producer(instruments=(LoggingInstrument(),)) as producer:
        for number in range(100):
            producer.send_nowait(f"topic{number % 3}", b"")
        await producer.flush()
    told = events(plain.records)
    assert told[0] == ("INFO", "connected")
    assert ("INFO", "producer_opened") in told
    assert told[-1] == ("INFO", "producer_closed")
    assert len(told) < 10
    closed = plain.records[-1]
    assert closed.getMessage() == "producer_closed accepted=100 delivered=100 undelivered=0"
    assert vars(closed)["delivered"] == 100


async def test_details(autojump_clock: Any, plain: pytest.LogCaptureFixture) -> None:
    """Batches and requests, at DEBUG, and not if that is off."""
    async with open_memory_producer(instruments=(DetailedLoggingInstrument(),)) as producer:
        await producer.send_and_wait("topic", b"")
    told = events(plain.records)
    assert {("DEBUG", name) for name in ("ack_messages", "deliver_messages", "request")} <= set(told)
    (acked,) = [record for record in plain.records if vars(record).get("event") == "ack_messages"]
    assert (vars(acked)["topic"], vars(acked)["partition"], vars(acked)["base_offset"]) == ("topic", 0, 0)
    logging.getLogger("trio_kprod.events").setLevel(logging.INFO)
    count = len(plain.records)
    async with open_memory_producer(instruments=(DetailedLoggingInstrument(),)) as producer:
        await producer.send_and_wait("topic", b"")
    assert "DEBUG" not in {record.levelname for record in plain.records[count:]}


async def test_failures(autojump_clock: Any, plain: pytest.LogCaptureFixture) -> None:
    """What is lost is an error, with its cause."""
    broker = MemoryBroker()
    broker.create_topic("topic")
    broker.answer("Produce", "INVALID_RECORD", topic="topic")
    seen: list[trio_kprod.Undelivered] = []
    async with open_memory_producer(
        broker, instruments=(LoggingInstrument(),), on_undelivered=seen.append
    ) as producer:
        producer.send_nowait("topic", b"")
    (record,) = [record for record in plain.records if vars(record).get("event") == "undelivered"]
    assert record.levelname == "ERROR"
    fields = vars(record)
    assert (fields["topic"], fields["message_count"], fields["maybe_written"]) == ("topic", 1, False)
    assert fields["error_type"] == "INVALID_RECORD"
    assert "INVALID_RECORD (87)" in fields["error"]
    assert ("ERROR", "background_error") in events(plain.records)


def test_what_repeats_is_logged_seldom(plain: pytest.LogCaptureFixture) -> None:
    """Once per interval and topic or broker; the next one says how many were left out."""
    watch = LoggingInstrument(interval=10)
    now = 0.0
    watch._clock = lambda: now
    for _ in range(5):
        watch.buffer_overflow(topic="one")
    watch.buffer_overflow(topic="two")
    now = 10.0
    watch.buffer_overflow(topic="one")
    watch.topic_error(topic="one", error=trio_kprod.UnknownTopic("one"))
    watch.disconnected(broker="one:1", error=trio_kprod.ConnectionLost("gone"))
    watch.disconnected(broker="one:1", error=trio_kprod.ConnectionLost("gone"))
    watch.disconnected(broker="one:1", error=None)
    for _ in range(3):
        watch.connect_failed(broker="one:1", error=OSError("refused"))
    for _ in range(3):
        watch.throttled(broker="one:1", duration=0.5)
    assert [record.getMessage() for record in plain.records] == [
        "buffer_overflow topic='one'",
        "buffer_overflow topic='two'",
        "buffer_overflow topic='one' suppressed=4",
        "topic_error topic='one' error_type='UnknownTopic' error='one'",
        "disconnected broker='one:1' error_type='ConnectionLost' error='gone'",
        "disconnected broker='one:1'",
        "connect_failed broker='one:1' error_type='OSError' error='refused'",
        "throttled broker='one:1' duration=0.5",
    ]
    assert [record.levelname for record in plain.records] == ["WARNING"] * 5 + ["INFO"] + ["WARNING"] * 2


def test_a_logger_adapter(plain: pytest.LogCaptureFixture) -> None:
    """As with any logger of `logging`."""
    LoggingInstrument(logging.LoggerAdapter(logging.getLogger("trio_kprod.events"), {})).connected(
        broker="b:1"
    )
    assert [record.getMessage() for record in plain.records] == ["connected broker='b:1'"]


async def test_structlog(autojump_clock: Any) -> None:
    """The event and its fields, with what is bound to the logger."""
    with capture_logs() as told:
        watch = DetailedLoggingInstrument(structlog.get_logger().bind(service="orders"))
        async with open_memory_producer(instruments=(watch,)) as producer:
            await producer.send_and_wait("topic", b"")
    assert all(entry["service"] == "orders" for entry in told)
    closed = told[-1]
    assert (closed["event"], closed["log_level"], closed["delivered"]) == ("producer_closed", "info", 1)
    assert "ack_messages" in [entry["event"] for entry in told]


def test_structlogs_plain_bound_logger() -> None:
    """Whatever has a method for each level will do."""
    logger = CapturingLogger()
    watch = LoggingInstrument(
        structlog.wrap_logger(logger, processors=[], wrapper_class=structlog.BoundLogger)
    )
    watch.error(error=ValueError("wrong"))
    (call,) = logger.calls
    assert (call.method_name, call.kwargs["event"], call.kwargs["error_type"]) == (
        "error",
        "background_error",
        "ValueError",
    )
