"""For every test: Ctrl-C as in a terminal, both places of the client, and a real Kafka, started once.

What asks for `open_producer` or `own_thread` runs twice: with the client in a thread of its own, and in the
loop of the test.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Generator, Iterator
from contextlib import nullcontext
from functools import partial
from typing import NoReturn

import pytest

import trio_kprod
from tests.kafka.classes import keep_classes
from tests.kafka.cluster import Kafka, some_kafka
from tests.kafka.jars import Unavailable
from tests.kafka.java import QUICK_START
from tests.modes import OpenProducer, as_with_a_thread

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Shells start what runs in the background like this, and no test of Ctrl-C would end.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=[True, False], ids=["thread", "loop"])
def own_thread(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Whether the client has a thread of its own; in memory, where it has none, it does as if it had."""
    with as_with_a_thread() if request.param else nullcontext():
        yield request.param


@pytest.fixture
def open_producer(own_thread: bool) -> OpenProducer:
    """`trio_kprod.open_producer`, with the client in one place and then in the other."""
    return partial(trio_kprod.open_producer, own_thread=own_thread)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark whatever uses the real Kafka, so that ``-m "not kafka"`` leaves it out."""
    if "kafka" in getattr(item, "fixturenames", ()) or item.get_closest_marker("kafka"):
        mark_kafka(item)


def mark_kafka(item: pytest.Item) -> None:
    """Mark a test of the real Kafka, and forgive it the sockets that kafka-python's clients leave open.

    Now and then, on a busy machine, one of them closes without closing all of its sockets. That the producer
    under test leaves none is what the tests without a real Kafka show.
    """
    item.add_marker("kafka")
    left_open = "Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
    item.add_marker(pytest.mark.filterwarnings(f"ignore:{left_open}"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None]:
    """Let coverage go on measuring after a test that has set a trace function of its own."""
    measuring = sys.gettrace()
    try:
        return (yield)
    finally:
        sys.settrace(measuring)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Find what kafka-python left open while it is forgiven, lest a later test be blamed."""
    if item.get_closest_marker("kafka"):
        gc.collect()


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """A real Apache Kafka with one node; skips, saying why, where there is none to be had."""
    try:
        if not os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
            keep_classes()
        with some_kafka(java_options=QUICK_START) as running:
            yield running
    except Unavailable as error:
        without_kafka(str(error))


def without_kafka(reason: str) -> NoReturn:
    """Skip because there is no Kafka, but in CI fail: there it is a fault of the machine's set-up."""
    if os.environ.get("CI"):
        pytest.fail(f"no Apache Kafka: {reason}", pytrace=False)
    pytest.skip(f"no Apache Kafka: {reason}")
