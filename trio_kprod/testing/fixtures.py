"""Fixtures for pytest. To have them in all tests, write in ``conftest.py``::

pytest_plugins = ["trio_kprod.testing.fixtures"]
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ._broker import Broker, open_broker
from ._memory import MemoryBroker
from ._proxy import Proxy, open_proxy


@pytest.fixture
def kafka_broker() -> Iterator[Broker]:
    """An embedded broker on a loopback port, new for each test; for `open_producer` and any other client."""
    with open_broker() as broker:
        yield broker


@pytest.fixture
def kafka_proxy(kafka_broker: Broker) -> Iterator[Proxy]:
    """A fault proxy in front of `kafka_broker`, which tells clients the proxy's address."""
    with open_proxy(kafka_broker) as proxy:
        yield proxy


@pytest.fixture
def memory_broker() -> MemoryBroker:
    """A broker without thread or socket, new for each test; for `open_memory_producer`."""
    return MemoryBroker()
