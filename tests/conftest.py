"""Fixtures for every test: a real Kafka, started once a session for those that ask for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NoReturn

import pytest

from tests.kafka.cluster import Kafka, some_kafka
from tests.kafka.jars import Unavailable


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark whatever uses the real Kafka, so that ``-m "not kafka"`` leaves it out."""
    if "kafka" in getattr(item, "fixturenames", ()):
        item.add_marker("kafka")


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """A real Apache Kafka with one node; skips, saying why, where there is none to be had."""
    try:
        with some_kafka() as running:
            yield running
    except Unavailable as error:
        without_kafka(str(error))


def without_kafka(reason: str) -> NoReturn:
    """Skip because there is no Kafka, but in CI fail: there it is a fault of the machine's set-up."""
    if os.environ.get("CI"):
        pytest.fail(f"no Apache Kafka: {reason}", pytrace=False)
    pytest.skip(f"no Apache Kafka: {reason}")
