"""A broker that reads smaller requests than the producer makes by default: ``socket.request.max.bytes``."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import trio

import trio_kprod
from tests.kafka.cluster import Cluster
from tests.kafka.conftest import own
from tests.kafka.history import Acks, History
from tests.kafka.load import send_some, with_each
from trio_kprod._core import _responses

#: What the broker reads; a batch has up to 512 KiB by default.
LIMIT = 100_000

#: The longest pause in milliseconds before a connection, so that there soon have been many.
PAUSE = 100

#: A message for which there is no place in a request of that size.
BIG = 200_000


@pytest.fixture(scope="module")
def narrow() -> Iterator[Cluster]:
    """One node that closes the connection at a request larger than `LIMIT`."""
    yield from own(socket_request_max_bytes=str(LIMIT))


@pytest.fixture(autouse=True)
def sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a message up after 7 connections instead of 32."""
    monkeypatch.setattr(_responses, "_LOSSES_UNTIL_GIVEN_UP", 7)


async def test_all_but_the_message_that_is_too_large(
    narrow: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests are made smaller until they pass. Only what cannot be made smaller is told, with its cause."""
    await with_each(send_one_that_is_too_large, narrow, "all", 1)
    assert len(warnings_of(caplog, "so requests are kept to")) >= 2
    assert len(warnings_of(caplog)) < 20


async def send_one_that_is_too_large(narrow: Cluster, acks: Acks) -> None:
    """Between twenty thousand others."""
    history = History("socket.request.max.bytes of 100 kB")
    topic = narrow.new_topic(partitions=4)
    async with history.open_producer(
        narrow.bootstrap_servers, acks=acks, reconnect_backoff_max_ms=PAUSE
    ) as producer:
        for number in range(20_001):
            size = BIG if number == 10_000 else 1000
            await history.send(producer, topic, partition=number % 4, size=size)
    [told] = history.told
    assert told.message.value is not None
    assert len(told.message.value) == BIG
    assert isinstance(told.cause, trio_kprod.RetriesExhausted)
    assert "socket.request.max.bytes" in str(told.cause)
    verdict = await trio.to_thread.run_sync(history.check, narrow, topic, acks)
    assert (verdict.sent, verdict.in_log) == (20_001, 20_000)


async def test_with_acks_0_the_loss_ends(narrow: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """The broker closes without a word, again and again; then requests are made smaller, and it does not."""
    history = History("socket.request.max.bytes of 100 kB, without responses")
    topic = narrow.new_topic()
    lost = Lost()
    async with history.open_producer(
        narrow.bootstrap_servers, acks=0, instruments=[lost], reconnect_backoff_max_ms=PAUSE
    ) as producer:
        arrived = False
        while not arrived:
            history.excuse_loss(topic)
            before, lost.connections = narrow.end_offsets(topic)[0], 0
            await send_some(history, producer, topic, 500, size=1000)
            await producer.flush()
            while not arrived and not lost.connections:
                arrived = await trio.to_thread.run_sync(narrow.end_offsets, topic) == {0: before + 500}
    assert warnings_of(caplog, "so requests are kept to")
    verdict = history.check(narrow, topic, 0)
    assert verdict.sent < 20 * 500


class Lost(trio_kprod.Instrument):
    """Counts the connections that have ended."""

    connections = 0

    def disconnected(self, **_: object) -> None:
        self.connections += 1


def warnings_of(caplog: pytest.LogCaptureFixture, text: str = "") -> list[str]:
    told = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    return [one for one in told if text in one]
