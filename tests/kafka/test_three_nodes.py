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
from tests.kafka.listeners import Listener
from tests.kafka.load import Load, under_load
from tests.kafka.network import CLIENTS, INSIDE, THROUGH_NETWORK, Network

KILLS = int(os.environ.get("KAFKA_KILLS", "2"))
#: Less than a node that does not answer is taken to live.
REQUEST_TIMEOUT_MS = 1_000

in_thread = trio.to_thread.run_sync


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """What stands between the nodes, and between them and clients that come to the listener `CLIENTS`."""
    with Network() as network:
        yield network


@pytest.fixture(scope="module")
def started_nodes(network: Network) -> Iterator[Cluster]:
    """Three nodes of this file's own."""
    listeners = {INSIDE: Listener(), CLIENTS: Listener()}
    yield from own(3, listeners=listeners, network=network, **THROUGH_NETWORK)


@pytest.fixture
def three_nodes(started_nodes: Cluster, network: Network) -> Iterator[Cluster]:
    """Three nodes that a test may harm; they are well again before the next one."""
    yield started_nodes
    network.heal()
    started_nodes.restore()


async def all_well(nodes: Cluster, load: Load) -> None:
    """Wait until every node runs and every replica is in sync."""
    await in_thread(nodes.restore)
    await in_thread(nodes.wait_until_in_sync, load.topics)


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


async def test_a_leader_frozen_beyond_the_request_timeout(three_nodes: Cluster) -> None:
    """It thaws when the others have gone on without it, and does not know that at once."""
    async with under_load(
        three_nodes, "leader frozen", order=[1, 2, 3], request_timeout_ms=REQUEST_TIMEOUT_MS
    ) as load:
        three_nodes.pause(1)
        await load.recovers()
        three_nodes.resume(1)
        await all_well(three_nodes, load)
        await load.gets_through()


async def test_a_follower_frozen_beyond_the_request_timeout(three_nodes: Cluster) -> None:
    """Leaders wait for it with ``acks="all"``, until the controller takes it for dead."""
    async with under_load(
        three_nodes,
        "follower frozen",
        order=[2, 3, 1],
        same_leaders=True,
        request_timeout_ms=REQUEST_TIMEOUT_MS,
    ) as load:
        three_nodes.pause(1)
        await load.recovers()
        three_nodes.resume(1)
        await all_well(three_nodes, load)
        await load.gets_through()


async def test_a_leader_cut_off_from_the_other_nodes(three_nodes: Cluster, network: Network) -> None:
    """Clients still reach it, and it still takes itself for the leader, while the others have another."""
    async with under_load(
        three_nodes,
        "cut off from nodes",
        listener=CLIENTS,
        order=[1, 2, 3],
        request_timeout_ms=REQUEST_TIMEOUT_MS,
    ) as load:
        await in_thread(network.isolate, 1)
        await load.recovers()
        await in_thread(network.heal)
        await all_well(three_nodes, load)
        await load.gets_through()


async def test_a_leader_cut_off_from_clients(three_nodes: Cluster, network: Network) -> None:
    """The other nodes still reach it, so nobody takes over: its partitions wait, until it is back."""
    async with under_load(
        three_nodes,
        "cut off from clients",
        listener=CLIENTS,
        order=[1, 2, 3],
        same_leaders=True,
        request_timeout_ms=REQUEST_TIMEOUT_MS,
    ) as load:
        await in_thread(network.hide, 1)
        await load.is_stuck()
        since = trio.current_time()
        await in_thread(network.heal)
        await load.recovers(since)


async def test_leaving_while_a_leader_is_cut_off_from_clients(three_nodes: Cluster, network: Network) -> None:
    """What is left is told in time, and what is told as not written does not turn up later."""
    async with under_load(
        three_nodes,
        "left while cut off",
        listener=CLIENTS,
        order=[1, 2, 3],
        same_leaders=True,
        request_timeout_ms=REQUEST_TIMEOUT_MS,
    ) as load:
        await in_thread(network.hide, 1)
        await load.is_stuck()
        await load.leaves()
        await in_thread(network.heal)
