"""Three nodes with three replicas of everything, of which two must have it: what one of them may suffer.

Each scenario harms them under the load of three producers, with `acks` of "all", 1 and 0, and ends with the
check of all three histories (`load.py`). With "all" nothing may be lost, doubled or moved. ``-s`` shows the
figures. ``KAFKA_KILLS=12`` kills more leaders than the two of each run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import trio

from tests.kafka.admin import lead
from tests.kafka.cluster import Cluster
from tests.kafka.conftest import own
from tests.kafka.load import Load, under_load

KILLS = int(os.environ.get("KAFKA_KILLS", "2"))

in_thread = trio.to_thread.run_sync


@pytest.fixture(scope="module")
def started_nodes() -> Iterator[Cluster]:
    """Three nodes of this file's own."""
    yield from own(3)


@pytest.fixture
def three_nodes(started_nodes: Cluster) -> Iterator[Cluster]:
    """Three nodes that a test may harm; they are well again before the next one."""
    yield started_nodes
    started_nodes.restore()


async def all_well(nodes: Cluster, load: Load) -> None:
    """Wait until every node runs and every replica is in sync."""
    await in_thread(nodes.restore)
    for topic in load.topics:
        await in_thread(nodes.wait_until_in_sync, topic)


async def test_leaders_are_killed_again_and_again(three_nodes: Cluster) -> None:
    """As kill -9 does; the next one dies when the one before is back."""
    async with under_load(three_nodes, "leaders killed") as load:
        for _ in range(KILLS):
            leader = await in_thread(three_nodes.leader, load.topics[0])
            await in_thread(three_nodes.kill, leader)
            await load.recovers()
            await all_well(three_nodes, load)


async def test_a_rolling_restart(three_nodes: Cluster) -> None:
    """Each node hands its leaderships over and ends, and is started again."""
    async with under_load(three_nodes, "rolling restart") as load:
        for number, node in enumerate(three_nodes.nodes, 1):
            since = trio.current_time()
            await in_thread(node.stop)
            await load.recovers(since)
            await in_thread(three_nodes.start, number)
            await all_well(three_nodes, load)


async def test_the_active_controller_is_killed(three_nodes: Cluster) -> None:
    """Nobody moves the leaderships of the dead node until there is another controller."""
    async with under_load(three_nodes, "controller killed") as load:
        controller = await in_thread(three_nodes.active_controller)
        await in_thread(three_nodes.kill, controller)
        await load.recovers()
        await all_well(three_nodes, load)


async def test_preferred_leaders_are_elected(three_nodes: Cluster) -> None:
    """All leaderships go from one node to the next, and once around, while all of them live."""
    async with under_load(three_nodes, "preferred leaders elected") as load:
        for order in ([1, 2, 3], [2, 3, 1], [3, 1, 2]):
            since = trio.current_time()
            await in_thread(lead, three_nodes, load.topics, order)
            await load.recovers(since)


@pytest.mark.parametrize("role", ["leader", "follower"])
async def test_a_node_frozen_beyond_the_request_timeout(three_nodes: Cluster, role: str) -> None:
    """It thaws when the others have gone on without it, and does not know that at once."""
    frozen = 1
    async with under_load(three_nodes, f"{role} frozen", request_timeout_ms=1_000) as load:
        await in_thread(lead, three_nodes, load.topics, [1, 2, 3] if role == "leader" else [2, 3, 1])
        await load.gets_through()
        three_nodes.pause(frozen)
        await load.recovers()
        three_nodes.resume(frozen)
        await all_well(three_nodes, load)
        await load.gets_through()
