"""A broker that throttles for longer than requests may take (KIP-219): healthy, so nothing is sent twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest

import trio_kprod
from tests.kafka.admin import limit_client
from tests.kafka.cluster import Cluster
from tests.kafka.conftest import own
from tests.kafka.helpers import until
from tests.kafka.history import History

Acks = Literal[0, 1, "all"]

#: What producers with the client id "greedy" may write, in bytes a second.
QUOTA = 100_000

#: Shorter than the throttles, in seconds.
TIMEOUT = 0.5


@pytest.fixture(scope="module")
def thrifty() -> Iterator[Cluster]:
    """One node with a quota, which remembers for a few seconds only, and reads little ahead."""
    for cluster in own(
        quota_window_num="3", quota_window_size_seconds="1", socket_receive_buffer_bytes="16384"
    ):
        limit_client(cluster, "greedy", QUOTA)
        yield cluster


@pytest.mark.parametrize("acks", ["all", 1])
async def test_a_throttle_longer_than_requests_may_take(thrifty: Cluster, acks: Acks) -> None:
    """Several requests are in flight when the first response tells of it, and the block is left meanwhile."""
    history = History("throttled")
    topic = thrifty.new_topic(partitions=3)
    async with trio_kprod.open_producer(
        thrifty.bootstrap_servers,
        acks=acks,
        client_id="greedy",
        request_timeout_ms=round(TIMEOUT * 1000),
        batch_size=30_000,
        delivery_threshold=1,
    ) as producer:
        for _ in range(800):
            await history.send(producer, topic, size=1000)
        await until(lambda: producer.statistics().throttles > 0)
    now = producer.statistics()
    assert now.throttled_time > 2 * TIMEOUT
    verdict = history.check(thrifty, topic, acks)
    assert (verdict.sent, verdict.in_log) == (800, 800)


async def test_without_responses_nobody_tells_of_a_throttle(thrifty: Cluster) -> None:
    """With ``acks=0`` the broker reads no further, so writes stop."""
    history = History("throttled, without responses")
    topic = thrifty.new_topic()
    async with trio_kprod.open_producer(
        thrifty.bootstrap_servers,
        acks=0,
        client_id="greedy",
        request_timeout_ms=round(TIMEOUT * 1000),
        batch_size=30_000,
        send_buffer_bytes=16_384,
        delivery_threshold=1,
    ) as producer:
        for _ in range(800):
            await history.send(producer, topic, size=1000)
    history.check(thrifty, topic, 0)
