"""What only these tests need: a Kafka that may be broken, and one with three nodes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import mark_kafka, without_kafka
from tests.kafka.classes import keep_classes
from tests.kafka.cluster import Cluster
from tests.kafka.history import History
from tests.kafka.jars import Unavailable
from tests.kafka.listeners import Listener
from tests.kafka.network import CLIENTS, INSIDE, THROUGH_NETWORK, Network


def pytest_itemcollected(item: pytest.Item) -> None:
    """Everything in this directory is about a real Kafka."""
    mark_kafka(item)


@pytest.fixture(scope="package")
def own_cluster() -> Iterator[Cluster]:
    """One node of our own, apart from the one all other tests share. It looks often for what to remove."""
    yield from own(
        log_cleaner_backoff_ms="500",
        log_retention_check_interval_ms="500",
        log_initial_task_delay_ms="500",
        log_segment_delete_delay_ms="100",
    )


@pytest.fixture
def breakable(own_cluster: Cluster) -> Iterator[Cluster]:
    """A node that a test may kill or freeze; it runs again before the next one."""
    yield own_cluster
    own_cluster.restore()


@pytest.fixture(scope="package")
def network() -> Iterator[Network]:
    """What stands between three nodes, and between them and clients that come to the listener `CLIENTS`."""
    with Network() as network:
        yield network


@pytest.fixture(scope="package")
def started_nodes(network: Network) -> Iterator[Cluster]:
    """Three nodes."""
    listeners = {INSIDE: Listener(), CLIENTS: Listener()}
    yield from own(3, listeners=listeners, network=network, **THROUGH_NETWORK)


@pytest.fixture
def three_nodes(started_nodes: Cluster, network: Network) -> Iterator[Cluster]:
    """Three nodes that a test may harm; they are well again before the next one."""
    yield started_nodes
    network.heal()
    started_nodes.restore()


@pytest.fixture
def history(request: pytest.FixtureRequest) -> History:
    """Under the name of the test."""
    return History(request.node.name)


def own(nodes: int = 1, **options: Any) -> Iterator[Cluster]:
    """A `Cluster` with these options, for a fixture; skips, saying why, where there is none to be had."""
    if os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        pytest.skip("KAFKA_BOOTSTRAP_SERVERS names someone else's Kafka, which is not ours to break")
    try:
        keep_classes()
        cluster = Cluster(nodes, **options)
    except Unavailable as error:
        without_kafka(str(error))
    with cluster:
        yield cluster
