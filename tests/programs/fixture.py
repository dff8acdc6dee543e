"""Tests for pytest-trio, both of which fail: what becomes of a producer that lives in a fixture?"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NoReturn

import pytest
import trio

from tests.modes import OpenProducer
from trio_kprod import Producer
from trio_kprod.testing import open_broker


@pytest.fixture
async def producer(open_producer: OpenProducer) -> AsyncIterator[Producer]:
    with open_broker() as broker:
        try:
            async with open_producer(broker.bootstrap_servers) as producer:
                yield producer
        finally:
            print("after the scope:", len(broker.records("t")), "in the log")


async def test_that_fails(producer: Producer) -> None:
    for _ in range(3):
        producer.send_nowait("t", b"x")
    raise ZeroDivisionError("the test's own")


async def test_whose_producer_crashes(producer: Producer) -> None:
    def broken() -> NoReturn:
        raise KeyError("a bug in the client")

    client = producer._delivery._client
    client._steps._decide = broken
    client._wake()
    await trio.sleep_forever()
