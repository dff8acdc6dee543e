"""A broker that reads smaller requests than the producer makes by default: ``socket.request.max.bytes``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Literal

import pytest
import trio

import trio_kprod
from tests.kafka.cluster import Cluster
from tests.kafka.conftest import own
from tests.kafka.history import History
from trio_kprod._core import _responses

Acks = Literal[0, 1, "all"]

#: What the broker reads; a batch has up to 512 KiB by default.
LIMIT = 100_000

#: A message for which there is no place in a request of that size.
BIG = 200_000


@pytest.fixture(scope="module")
def narrow() -> Iterator[Cluster]:
    """One node that closes the connection at a request larger than `LIMIT`."""
    yield from own(socket_request_max_bytes=str(LIMIT))


@pytest.fixture(autouse=True)
def sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a message up after 7 connections instead of 32, which takes half a minute."""
    monkeypatch.setattr(_responses, "_LOSSES_UNTIL_GIVEN_UP", 7)


@pytest.mark.parametrize("acks", ["all", 1])
async def test_all_but_the_message_that_is_too_large(
    narrow: Cluster, acks: Acks, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests are made smaller until they pass. Only what cannot be made smaller is told, with its cause."""
    history = History("socket.request.max.bytes of 100 kB")
    topic = narrow.new_topic(partitions=4)
    async with trio_kprod.open_producer(narrow.bootstrap_servers, acks=acks) as producer:
        began = trio.current_time()
        for number in range(20_001):
            size = BIG if number == 10_000 else 1000
            await history.send(producer, topic, partition=number % 4, size=size)
        with pytest.raises(trio_kprod.DeliveryFailed) as caught:
            await producer.flush()
        print(f"{trio.current_time() - began:.1f} s")
    [told] = caught.value.undelivered
    history.note(told)
    assert told.message.value is not None
    assert len(told.message.value) == BIG
    assert isinstance(told.cause, trio_kprod.RetriesExhausted)
    assert "socket.request.max.bytes" in str(told.cause)
    verdict = history.check(narrow, topic, acks)
    assert (verdict.sent, verdict.in_log) == (20_001, 20_000)
    assert warnings_of(caplog, "so requests are kept to")
    assert len(warnings_of(caplog)) < 10


async def test_with_acks_0_the_loss_ends(narrow: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """The broker closes without a word, again and again; then requests are made smaller, and it does not."""
    history = History("socket.request.max.bytes of 100 kB, without responses")
    topic = narrow.new_topic()
    lost = Lost()
    async with trio_kprod.open_producer(narrow.bootstrap_servers, acks=0, instruments=[lost]) as producer:
        arrived = False
        while not arrived:
            history.excuse_loss(topic)
            before, lost.connections = narrow.end_offsets(topic)[0], 0
            for _ in range(500):
                history.send_nowait(producer, topic, size=1000)
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
