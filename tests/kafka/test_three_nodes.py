"""Three nodes with three replicas of everything, of which two must have it: what one of them may suffer.

Each scenario harms them under the load of three producers, with `acks` of "all", 1 and 0, and ends with the
check of all three histories (`load.py`). With "all" nothing may be lost, doubled or moved. ``-s`` shows the
figures. ``KAFKA_KILLS=12`` kills more leaders than the one of each run.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.kafka.admin import lead
from tests.kafka.cluster import Cluster
from tests.kafka.helpers import until
from tests.kafka.history import History
from tests.kafka.load import KILLS, LEADERS_STAY, PARTITIONS, Load, new_topic, sending, under_load
from tests.kafka.network import CLIENTS, Network

#: Less than a node that does not answer is taken to live.
REQUEST_TIMEOUT_MS = 1_000

#: What the log tells when a message needs more replicas than are in sync.
TOO_FEW = "min.insync.replicas: are all brokers up?"

#: Why a leader acknowledges nothing while a follower that it needs is dead: it waits for it as long as the
#: request may take, which it may tell too late; then it notices the death, and refuses.
STUCK = ("REQUEST_TIMED_OUT", "no response to Produce", "NOT_ENOUGH_REPLICAS")

in_thread = trio.to_thread.run_sync


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


async def test_moved_between_brokers(three_nodes: Cluster) -> None:
    """Partitions with one replica go from node to node."""
    async with under_load(three_nodes, "moved between brokers", order=[1], min_insync=1) as load:
        for node in (2, 3, 1):
            since = trio.current_time()
            await in_thread(lead, three_nodes, load.topics, [node])
            await load.recovers(since)


async def test_too_few_replicas_and_enough_again(
    three_nodes: Cluster, history: History, caplog: pytest.LogCaptureFixture
) -> None:
    """With ``acks="all"`` messages wait for the third node; others need only the leader.

    What waits for too long is told with the reason, and later messages are delivered.
    """
    order, min_insync = [1, 2, 3], 3
    topic = await in_thread(new_topic, three_nodes, order, min_insync)
    async with (
        under_load(
            three_nodes,
            "too few replicas",
            order=order,
            min_insync=min_insync,
            may_be=LEADERS_STAY,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
        ) as load,
        history.open_producer(
            three_nodes.bootstrap_servers,
            delivery_threshold=50,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            delivery_timeout=3,
        ) as impatient,
        sending(history, impatient, topic),
    ):
        await history.gets_through(impatient, topic, range(PARTITIONS))
        before = len(history.told)
        await in_thread(three_nodes.kill, 2)
        await until(lambda: any("NOT_ENOUGH_REPLICAS" in str(one.cause) for one in history.told[before:]))
        told = history.told[before:]
        await in_thread(three_nodes.restore)
        since = trio.current_time()
        await load.recovers(since)
        await history.recovers(impatient, topic, range(PARTITIONS), since=since)
    assert TOO_FEW in caplog.text
    # Of those without a key, some get a partition only when those before them are given up: too late for a
    # reason of their own.
    reasons = {str(one.cause) for one in told if one.message.key is not None}
    assert not {reason for reason in reasons if not any(true in reason for true in STUCK)}
    history.check(three_nodes, topic)


async def test_a_node_frozen_beyond_the_request_timeout(three_nodes: Cluster) -> None:
    """A leader thaws when the others have gone on without it, and does not know that at once.

    For a follower leaders wait, with ``acks="all"``, until the controller takes it for dead.
    """
    async with (
        under_load(
            three_nodes, "leader frozen", order=[1, 2, 3], request_timeout_ms=REQUEST_TIMEOUT_MS
        ) as led,
        under_load(
            three_nodes,
            "follower frozen",
            order=[2, 3, 1],
            may_be=LEADERS_STAY,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
        ) as followed,
    ):
        load = Load([*led.streams, *followed.streams])
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
    """The other nodes still reach it, so nobody takes over: its partitions wait, until it is back.

    Those who leave meanwhile are told in time what is left. What is told as not written does not turn up.
    """
    settings: Any = {
        "listener": CLIENTS,
        "order": [1, 2, 3],
        "may_be": LEADERS_STAY,
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
    }
    async with (
        under_load(three_nodes, "cut off from clients", **settings) as staying,
        under_load(three_nodes, "left while cut off", **settings) as leaving,
    ):
        await in_thread(network.hide, 1)
        await staying.is_stuck()
        await leaving.is_stuck()
        await leaving.leaves()
        since = trio.current_time()
        await in_thread(network.heal)
        await staying.recovers(since)
