"""Everything that can happen in a run, one function each, and how often it usually does.

Each draws what it needs from the world's dice, which are loaded anew before it, so that it does the same
(or something as sensible) when events before it are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from tests.simulation.dice import Dice
from tests.simulation.network import Connection
from tests.simulation.setting import FRAME_LIMITS, LARGE, MESSAGE_SIZE, PRODUCER_ID_EXPIRATION, TOPICS
from tests.simulation.world import World
from trio_kprod._messages import Entry

Event = Callable[[World, Dice], None]


# ---- the program ---------------------------------------------------------------------------------------


def submit(world: World, dice: Dice) -> None:
    world.submit(new_messages(world, dice, dice.choice((1, 2, 3, 5, 15))))


def new_messages(world: World, dice: Dice, count: int) -> list[Entry]:
    first = len(world.history.accepted)
    return [_message(world, dice, b"m%d" % number) for number in range(first, first + count)]


def _message(world: World, dice: Dice, value: bytes) -> Entry:
    if dice.random() < 0.05:
        world.cluster.bad.add(value)
    key = dice.choice((None, b"k", b"l", b"m"))
    partition = 0 if dice.random() < 0.2 else None
    topic = TOPICS[int(dice.random() * len(TOPICS))] if dice.random() < 0.1 else TOPICS[0]
    # Tasks that waited for room hand their messages over later than those that did not.
    waited = dice.random() if dice.random() < 0.1 else 0.0
    timestamp = world.now
    if world.setting.forgetful and dice.random() < 0.97:
        timestamp -= 2 * PRODUCER_ID_EXPIRATION
    stamp, accepted_at = int(timestamp * 1000), world.now - waited
    size = LARGE if dice.random() < 0.04 else MESSAGE_SIZE
    return topic, value, key, (), partition, stamp, size, accepted_at, None, 0


def plain_message(world: World, value: bytes, topic: str, partition: int) -> Entry:
    """One that no broker has anything against."""
    return topic, value, None, (), partition, int(world.now * 1000), MESSAGE_SIZE, world.now, None, 0


def warm_up(world: World, dice: Dice) -> None:
    """The producer has been at work for a while."""
    submit(world, dice)
    world.step()
    while world.progress():
        world.step()


# ---- what goes well, and slowly ------------------------------------------------------------------------


def serve(world: World, dice: Dice) -> None:
    """Bytes go over a connection, and its broker goes on."""
    busy = [one for one in world.connections.values() if one.under_way or one.busy]
    if busy:
        connection = dice.choice(busy)
        _transfer(world, connection, dice)
        world.work(connection)


def answer(world: World, dice: Dice) -> None:
    answering = [one for one in world.connections.values() if one.outbox]
    if not answering:
        return
    connection = dice.choice(answering)
    forget = None
    if dice.random() < 0.01:
        forget = dice.choice(list(connection.outbox[0][1]))
    world.answer(connection, forget=forget)


def _transfer(world: World, connection: Connection, dice: Dice) -> None:
    if dice.random() < 0.8:
        world.transfer_all(connection)
    else:
        written = dice.between(connection.written, connection.length)
        world.transfer(connection, written, dice.between(connection.arrived, written))


def _some_connection(world: World, dice: Dice) -> Connection | None:
    return dice.choice(list(world.connections.values())) if world.connections else None


def connect(world: World, dice: Dice) -> None:
    nodes, world.connecting = world.connecting, []
    for node in nodes:
        world.connect(node)


def metadata(world: World, dice: Dice) -> None:
    """An answer: true, old, or none."""
    chance = dice.random()
    world.answer_metadata(old=chance < 0.3, failed=chance > 0.8)


def producer_id(world: World, dice: Dice) -> None:
    """An answer: an id, or "loading" (14, 15), or a refusal (31), or none (13 stands for that)."""
    chance = dice.random()
    world.answer_producer_id(0 if chance < 0.7 else 31 if chance < 0.72 else dice.choice((13, 14, 15)))


def wait(world: World, dice: Dice) -> None:
    deadline = world.core.deadline
    if dice.random() < 0.5 and deadline < inf:
        world.now = max(world.now, min(deadline, world.now + 1.0))
    else:
        world.now += dice.choice((0.001, 0.02, 0.3))
    world.lose_patience()


# ---- the network ---------------------------------------------------------------------------------------


def cut(world: World, dice: Dice) -> None:
    """A connection ends, at any byte."""
    connection = _some_connection(world, dice)
    if connection is None:
        return
    written = dice.between(connection.written, connection.length)
    world.transfer(connection, written, dice.between(connection.arrived, written))
    if dice.random() < 0.5:
        connection.hand_next()
    world.disconnect(connection)


def cut_again_and_again(world: World, dice: Dice) -> None:
    """Each connection to a broker ends, at any byte; perhaps it has processed something before."""
    connection = _some_connection(world, dice)
    for _ in range(dice.choice((3, 5, 8))):
        if connection is None:
            return
        _transfer(world, connection, dice)
        if dice.random() < 0.5:
            world.work(connection)
        if world.connections.get(connection.node) is connection:
            world.disconnect(connection)
        world.step()
        connect(world, dice)
        world.step()
        connection = world.connections.get(connection.node)


def thaw(world: World, dice: Dice) -> None:
    """A broker processes what it had received on a connection that has ended."""
    if world.orphans:
        world.thaw(dice.choice(world.orphans))


def throttle(world: World, dice: Dice) -> None:
    connection = _some_connection(world, dice)
    if connection is not None:
        world.say("node %d throttles", connection.node)
        connection.muted_until = world.now + dice.random()


# ---- leaders -------------------------------------------------------------------------------------------


def elect(world: World, dice: Dice) -> None:
    """A partition gets another leader, which has what was replicated, and perhaps more."""
    _elect(world, dice, dice.choice((0, 0, 1, 2)))


def elect_uncleanly(world: World, dice: Dice) -> None:
    """A partition gets a leader which lacks the end of what was acknowledged."""
    _elect(world, dice, -dice.choice((1, 1, 2, 1000)))


def _elect(world: World, dice: Dice, replicated: int) -> None:
    partitions = world.cluster.partitions()
    if not partitions:
        return
    partition = dice.choice(partitions)
    leader = dice.choice(world.cluster.nodes)
    if leader == partition.leader:
        _restart(world, leader)
    unaware = leader != partition.leader and dice.random() < 0.5
    world.say("node %d leads a partition that node %d led", leader, partition.leader)
    partition.elect(leader, replicated, unaware=unaware)
    world.cluster.changed()


def enlighten(world: World, dice: Dice) -> None:
    """Deposed leaders hear of it."""
    for partition in world.cluster.partitions():
        partition.enlighten()


def crash(world: World, dice: Dice) -> None:
    """A broker goes down, with all its connections, or all come up again."""
    if world.cluster.down or dice.random() < 0.3:
        world.say("all brokers are up")
        world.cluster.down.clear()
        return
    node = dice.choice(world.cluster.nodes)
    world.cluster.down.add(node)
    _restart(world, node)


def _restart(world: World, node: int) -> None:
    """A broker dies, with what it has read and not processed."""
    world.say("node %d dies", node)
    world.orphans = [orphan for orphan in world.orphans if orphan.node != node]
    if node in world.connections:
        world.disconnect(world.connections[node], broker_dies=True)


# ---- rules that change ---------------------------------------------------------------------------------


def trouble(world: World, dice: Dice) -> None:
    """Appends end in errors more or less often."""
    world.cluster.trouble = dice.choice((0.0, 0.1, 0.5))
    world.say("trouble: %s", world.cluster.trouble)


def limit_sizes(world: World, dice: Dice) -> None:
    """``message.max.bytes`` and ``socket.request.max.bytes`` change."""
    if dice.random() < 0.7:
        world.cluster.size_limit = dice.choice((140, 300, 700, 10_000))
    else:
        for node in world.cluster.nodes:
            if dice.random() < 0.7:
                limit = dice.choice((*FRAME_LIMITS, 100_000))
                world.cluster.frame_limits[node] = min(limit, world.cluster.largest_frame)
    world.say("batches to %d, requests to %s bytes", world.cluster.size_limit, world.cluster.frame_limits)


def validate(world: World, dice: Dice) -> None:
    """Bad records are refused, or let through."""
    world.cluster.validating = not world.cluster.validating
    world.say("validating: %s", world.cluster.validating)


def deny(world: World, dice: Dice) -> None:
    world.cluster.denied = {dice.choice(TOPICS)} if dice.random() < 0.3 else set()
    world.say("denied: %s", world.cluster.denied)


def replicas(world: World, dice: Dice) -> None:
    """A partition has too few replicas, or a frozen one, or is well again."""
    partitions = world.cluster.partitions()
    if not partitions:
        return
    partition = dice.choice(partitions)
    partition.few_replicas = dice.random() < 0.3
    partition.frozen_follower = dice.random() < 0.3
    partition.replicate()
    world.say("few replicas: %s, frozen: %s", partition.few_replicas, partition.frozen_follower)


def forget(world: World, dice: Dice) -> None:
    """The brokers look for producers to forget, as they do every ten minutes."""
    for partition in world.cluster.partitions():
        gone = partition.log.expire(world.now - PRODUCER_ID_EXPIRATION)
        world.say("forgotten: %s", gone)


# ---- topics --------------------------------------------------------------------------------------------


def create(world: World, dice: Dice) -> None:
    """A topic that was missing is there."""
    missing = [name for name in TOPICS if name not in world.cluster.topics]
    if missing:
        name = dice.choice(missing)
        world.say("topic %s is created", name)
        world.cluster.create(name)


def delete(world: World, dice: Dice) -> None:
    """A topic is deleted; mostly it is made anew at once."""
    if world.cluster.topics:
        name = dice.choice(list(world.cluster.topics))
        world.say("topic %s is deleted", name)
        world.cluster.delete(name)
        if dice.random() < 0.7:
            world.say("topic %s is created", name)
            world.cluster.create(name)


def grow(world: World, dice: Dice) -> None:
    if world.cluster.topics:
        topic = world.cluster.topics[dice.choice(list(world.cluster.topics))]
        if len(topic.partitions) < 4:
            world.say("topic %s grows", topic.name)
            world.cluster.grow(topic)


USUAL: dict[Event, float] = {
    submit: 12,
    serve: 28,
    answer: 18,
    connect: 6,
    metadata: 5,
    producer_id: 4,
    wait: 5,
    cut: 4,
    cut_again_and_again: 0.5,
    thaw: 3,
    throttle: 0.5,
    elect: 3,
    elect_uncleanly: 2,
    enlighten: 1.5,
    crash: 0.7,
    trouble: 0.7,
    limit_sizes: 1,
    validate: 0.7,
    deny: 0.6,
    replicas: 1,
    forget: 8,
    create: 0.5,
    delete: 0.4,
    grow: 0.3,
}

EVENTS: tuple[Event, ...] = tuple(USUAL)

#: Those after which brokers cannot keep what they promised; they happen in few runs.
AMNESIA: tuple[Event, ...] = (elect_uncleanly, forget)

RULES: tuple[Event, ...] = (trouble, limit_sizes, validate, replicas)
