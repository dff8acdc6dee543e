"""Every Kafka does the same: two years old, eight years old, with ZooKeeper and without.

``KAFKA_VERSIONS=0.11.0.3,1.0.2 python -m pytest tests/kafka/test_versions.py`` tries others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import trio

import trio_kprod
from tests.kafka.cluster import PATIENCE, Cluster
from tests.kafka.conftest import own
from tests.kafka.history import History, number_of
from tests.kafka.jars import KAFKA_VERSION
from tests.kafka.load import send_some, sending

#: A last one with a ZooKeeper, a first one without that is meant for use, the last that could have one, that
#: of all other tests, and the newest.
TESTED = ["2.8.2", "3.3.2", "3.9.1", KAFKA_VERSION, "4.4.0"]

#: The last that is too old.
TOO_OLD = "0.10.2.2"

#: The module each codec needs.
CODECS = {None: "kafka", "gzip": "gzip", "snappy": "snappy", "lz4": "lz4.frame", "zstd": "zstandard"}


@pytest.fixture(scope="module", params=os.environ.get("KAFKA_VERSIONS", ",".join(TESTED)).split(","))
def version(request: pytest.FixtureRequest) -> str:
    """A version of Kafka."""
    return str(request.param)


@pytest.fixture(scope="module")
def cluster(version: str, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """One node of this version."""
    yield from [request.getfixturevalue("own_cluster")] if version == KAFKA_VERSION else own(version=version)


@pytest.mark.parametrize("codec", CODECS)
async def test_each_codec(cluster: Cluster, version: str, codec: Any, history: History) -> None:
    """With keys and without."""
    pytest.importorskip(CODECS[codec])
    if codec == "zstd" and before(version, 2, 1):
        with pytest.raises(trio_kprod.ConnectFailed, match=r"older than Kafka 2\.1"):
            async with trio_kprod.open_producer(cluster.bootstrap_servers, compression_type="zstd"):
                raise AssertionError("it does not know the codec")
        return
    topic = cluster.new_topic(partitions=3)
    async with history.open_producer(
        cluster.bootstrap_servers, compression_type=codec, delivery_threshold=100
    ) as producer:
        await send_some(history, producer, topic, 2_000, size=100)
    assert not history.told
    history.check(cluster, topic)


async def test_a_node_that_is_killed_under_load(cluster: Cluster, history: History) -> None:
    """It dies with requests in flight, whose answers are lost, while more is sent."""
    topic = cluster.new_topic(partitions=3)
    async with history.open_producer(
        cluster.bootstrap_servers, delivery_threshold=100, shutdown_timeout=PATIENCE
    ) as producer:
        await send_some(history, producer, topic, 5_000)
        await producer.flush()
        async with sending(history, producer, topic):
            await send_some(history, producer, topic, 5_000)
            cluster.kill()
            await trio.to_thread.run_sync(cluster.restore)
            await history.recovers(producer, topic, range(3))
    assert not history.told
    history.check(cluster, topic)


async def test_a_refused_message_fails_alone(cluster: Cluster, history: History) -> None:
    """A compacted topic takes no message without a key."""
    topic = cluster.new_topic(cleanup_policy="compact")
    async with history.open_producer(cluster.bootstrap_servers, delivery_threshold=100) as producer:
        await send_some(history, producer, topic, 400, key=lambda _: b"key")
        refused = await history.send(producer, topic)
        await send_some(history, producer, topic, 400, key=lambda _: b"key")
    assert_told(history, refused)
    history.check(cluster, topic)


async def test_a_message_above_the_limit_fails_alone(cluster: Cluster, history: History) -> None:
    """Above that of the topic, and below our own."""
    topic = cluster.new_topic(max_message_bytes="10000")
    async with history.open_producer(cluster.bootstrap_servers, delivery_threshold=100) as producer:
        await send_some(history, producer, topic, 200, size=100)
        refused = await history.send(producer, topic, size=50_000)
        await send_some(history, producer, topic, 200, size=100)
    assert_told(history, refused, "MESSAGE_TOO_LARGE")
    history.check(cluster, topic)


async def test_a_large_message(cluster: Cluster, history: History) -> None:
    """As large as both sides may be told to take."""
    topic = cluster.new_topic(max_message_bytes="5000000")
    async with history.open_producer(cluster.bootstrap_servers, max_request_size=4_000_000) as producer:
        await send_some(history, producer, topic, 10)
        await history.send(producer, topic, size=3_900_000)
        await send_some(history, producer, topic, 10)
    assert not history.told
    history.check(cluster, topic)


async def test_an_older_kafka_is_refused() -> None:
    """At once, and before a message is accepted."""
    for cluster in own(version=TOO_OLD):
        with pytest.raises(trio_kprod.ConnectFailed, match=r"older than Kafka 0\.11, .*; upgrade it"):
            async with trio_kprod.open_producer(cluster.bootstrap_servers, connect_timeout=PATIENCE):
                raise AssertionError("it speaks another format")


def assert_told(history: History, number: int, name: str = "") -> None:
    """Only this one was told undelivered, as not written, and its error has Kafka's `name` for the reason."""
    (told,) = history.told
    assert number_of(told.message.value) == number
    assert not told.maybe_written
    assert name in str(told.cause)


def before(version: str, *other: int) -> bool:
    """Whether a version comes before another."""
    return tuple(map(int, version.split("."))) < other
