"""Fixtures for pytest. To have them in all tests, in ``conftest.py``::

pytest_plugins = ["trio_kprod.testing.fixtures"]
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ._broker import Broker, open_broker
from ._memory import MemoryBroker


@pytest.fixture
def kafka_broker() -> Iterator[Broker]:
    """An embedded broker on a loopback port, new for each test; for `open_producer` and any other client."""
    with open_broker() as broker:
        yield broker


@pytest.fixture
def memory_broker() -> MemoryBroker:
    """A broker without thread or socket, new for each test; for `open_memory_producer`."""
    return MemoryBroker()
