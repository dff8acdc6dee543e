"""A broker that throttles for longer than requests may take (KIP-219): healthy, so nothing is sent twice."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from tests.kafka.admin import limit_client
from tests.kafka.cluster import Cluster
from tests.kafka.conftest import own
from tests.kafka.helpers import until
from tests.kafka.history import Acks, History
from tests.kafka.load import send_some, with_each

#: What each client id may write, in bytes a second.
QUOTA = 100_000

#: Shorter than the throttles, in seconds.
TIMEOUT = 0.5

#: How many messages of a kilobyte each producer sends.
MESSAGES = 500


@pytest.fixture(scope="module")
def thrifty() -> Iterator[Cluster]:
    """One node with a quota, which remembers for a few seconds only, and reads little ahead."""
    for cluster in own(
        quota_window_num="3", quota_window_size_seconds="1", socket_receive_buffer_bytes="16384"
    ):
        limit_client(cluster, None, QUOTA)
        yield cluster


async def test_a_throttle_longer_than_requests_may_take(thrifty: Cluster) -> None:
    """Several requests are in flight when the first response tells of it, and the block is left meanwhile."""
    await with_each(send_too_much, thrifty, "all", 1, 0)


async def send_too_much(thrifty: Cluster, acks: Acks) -> None:
    """With ``acks=0`` nobody tells of a throttle: the broker reads no further, so writes stop."""
    history = History("throttled")
    topic = thrifty.new_topic(partitions=3)
    async with history.open_producer(
        thrifty.bootstrap_servers,
        acks=acks,
        client_id=f"greedy-{acks}",
        request_timeout_ms=round(TIMEOUT * 1000),
        batch_size=30_000,
        send_buffer_bytes=16_384,
        delivery_threshold=1,
    ) as producer:
        await send_some(history, producer, topic, MESSAGES, size=1000)
        if acks != 0:
            await until(lambda: producer.statistics().throttles > 0)
    if acks != 0:
        assert producer.statistics().throttled_time > 2 * TIMEOUT
    verdict = await trio.to_thread.run_sync(history.check, thrifty, topic, acks)
    assert (verdict.sent, verdict.in_log) == (MESSAGES, MESSAGES)
