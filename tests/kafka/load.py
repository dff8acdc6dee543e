"""Messages that are sent all the time, while a test harms the Kafka they are sent to."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any

import trio

import trio_kprod
from tests.kafka.cluster import PATIENCE, Cluster
from tests.kafka.helpers import until
from tests.kafka.history import Acks, History, MayBe

_Excuses = Mapping[Acks, Collection[MayBe]]

#: How often nodes are killed one after the other.
KILLS = int(os.environ.get("KAFKA_KILLS", "1"))
#: Partitions of each topic of `under_load`.
PARTITIONS = 6
#: What is sent: so many messages, and then nothing for so many seconds.
BURST, PAUSE = 10, 0.02
#: Seconds that leaving may go on delivering.
SHUTDOWN_TIMEOUT = 3.0

#: What may happen while leaders change. With 1, what only the old leader had is gone, and what was written
#: but not answered is written again. With 0, it may overtake what still is on its way to the old leader.
LEADERS_CHANGE: _Excuses = MappingProxyType(
    {"all": (), 1: ("lost", "duplicates"), 0: ("lost", "out_of_order")}
)
#: And while no leader changes: with 0, what had been written to a connection that ends is gone.
LEADERS_STAY: _Excuses = MappingProxyType({"all": (), 1: ["duplicates"], 0: ("lost", "out_of_order")})


def alternately(number: int) -> bytes | None:
    """Five keys, and none."""
    return b"key-%d" % (number % 5) if number % 2 else None


class Sending:
    """What goes on while something is done to a topic; see `sending`."""

    def __init__(self, history: History) -> None:
        self._history = history
        self.stopped = False

    async def more(self, count: int = 300) -> None:
        """Wait until so many more messages were accepted."""
        wanted = self._history.sent + count
        await until(lambda: self._history.sent >= wanted)


async def send_some(
    history: History,
    producer: trio_kprod.Producer,
    topic: str,
    count: int,
    key: Callable[[int], bytes | None] = alternately,
    size: int = 0,
) -> None:
    """Send so many messages as fast as the producer takes them, each with a `key` by its number, from 0."""
    for number in range(count):
        await history.send(producer, topic, key(number), size=size)


@asynccontextmanager
async def sending(
    history: History, producer: trio_kprod.Producer, topic: str, size: int = 0
) -> AsyncIterator[Sending]:
    """Send five hundred messages a second at most, until the block ends."""
    going_on = Sending(history)

    async def send() -> None:
        while not going_on.stopped:
            await send_some(history, producer, topic, BURST, size=size)
            await trio.sleep(PAUSE)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        yield going_on
        going_on.stopped = True


async def with_each(what: Callable[[Cluster, Acks], Awaitable[None]], kafka: Cluster, *every: Acks) -> None:
    """Do it with each of these `acks`, all at the same time."""
    async with trio.open_nursery() as nursery:
        for acks in every:
            nursery.start_soon(what, kafka, acks)


class Stream:
    """One producer, which sends to a topic of its own until `end`.

    Args:
        kafka: where the topic is read back.
        topic (str): its name.
        name (str): the scenario's, for what is printed.
        acks: the producer's.
        may_be: what may have happened to its messages.
        **settings: more of the producer's.
    """

    def __init__(
        self,
        kafka: Cluster,
        topic: str,
        name: str,
        acks: Acks,
        may_be: Collection[MayBe],
        **settings: Any,
    ) -> None:
        self.topic = topic
        self._kafka = kafka
        self._acks: Acks = acks
        self._may_be = may_be
        self._settings = settings
        self._history = History(name)
        self._end = trio.Event()
        self._gone = trio.Event()
        self._producer: trio_kprod.Producer

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send until `end`, and leave."""
        async with (
            self._history.open_producer(
                acks=self._acks, delivery_interval=0.01, shutdown_timeout=SHUTDOWN_TIMEOUT, **self._settings
            ) as self._producer,
            sending(self._history, self._producer, self.topic),
        ):
            task_status.started()
            await self._end.wait()
        self._gone.set()

    async def gets_through(self) -> None:
        """Wait until a message to each partition, sent now, and all before them are delivered."""
        await self._history.gets_through(self._producer, self.topic, range(PARTITIONS))

    async def recovers(self, since: float) -> None:
        """As `gets_through`; notes how long that was after `since`."""
        await self._history.recovers(self._producer, self.topic, range(PARTITIONS), since=since)

    @property
    def oldest_age(self) -> float:
        """How many seconds the oldest message that has no outcome has waited."""
        return self._producer.statistics().oldest_age or 0.0

    def end(self) -> None:
        """Send no more."""
        self._end.set()

    async def leaves(self) -> None:
        """Send no more, and wait until the producer was left."""
        self.end()
        await self._gone.wait()

    def check(self) -> None:
        """Check the history, and that leaving the producer did not hang."""
        self._history.check(self._kafka, self.topic, self._acks, self._may_be)
        assert max(self._history.left) < PATIENCE


def new_topic(kafka: Cluster, order: Sequence[int], min_insync: int) -> str:
    """Make a topic, led by the first node of `order`; with three replicas that are spread if it is empty."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    # Those who lead from the start: an election may lose what is sent with acks of 1 and 0.
    where = (
        {"assignments": {partition: list(order) for partition in range(PARTITIONS)}}
        if order
        else {"num_partitions": PARTITIONS, "replication_factor": 3}
    )
    with kafka.admin() as admin:
        topic = {**where, "configs": {"min.insync.replicas": str(min_insync)}}
        admin.create_topics({name: topic}, wait_for_metadata=True)
    return name


class Load:
    """The streams of a scenario."""

    def __init__(self, streams: Collection[Stream]) -> None:
        self.streams = streams

    @property
    def topics(self) -> list[str]:
        """Those that are sent to."""
        return [stream.topic for stream in self.streams]

    async def gets_through(self) -> None:
        """Wait until every stream gets through to every partition."""
        async with trio.open_nursery() as nursery:
            for stream in self.streams:
                nursery.start_soon(stream.gets_through)

    async def leaves(self) -> None:
        """Let every stream end, and wait until its producer was left."""
        async with trio.open_nursery() as nursery:
            for stream in self.streams:
                nursery.start_soon(stream.leaves)

    async def is_stuck(self) -> None:
        """Wait until the oldest message with ``acks="all"`` has waited for two seconds."""
        stream = next(iter(self.streams))
        await until(lambda: stream.oldest_age > 2)

    async def recovers(self, since: float | None = None) -> None:
        """Wait until every stream gets through to every partition again; it was harmed now, or at `since`."""
        start = trio.current_time() if since is None else since
        async with trio.open_nursery() as nursery:
            for stream in self.streams:
                nursery.start_soon(stream.recovers, start)


@asynccontextmanager
async def under_load(
    kafka: Cluster,
    name: str,
    *,
    listener: str = "PLAINTEXT",
    order: Sequence[int] = (),
    min_insync: int = 2,
    may_be: _Excuses = LEADERS_CHANGE,
    **settings: Any,
) -> AsyncIterator[Load]:
    """A block in which producers send, with `acks` of "all", 1 and 0; afterwards all histories are checked.

    Args:
        kafka: three nodes; when the block ends, whatever harmed them must be over.
        name (str): the scenario's.
        listener (str): what the producers connect to.
        order: the nodes that have the replicas, the first of which leads all; spread if it is empty.
        min_insync (int): how many replicas a message with ``acks="all"`` needs.
        may_be: what may happen to messages with each `acks`.
        **settings: more of the producers'.
    """
    settings = {"bootstrap_servers": kafka.servers(listener), **settings}
    topics = [await trio.to_thread.run_sync(new_topic, kafka, order, min_insync) for _ in may_be]
    streams = [
        Stream(kafka, topic, name, acks, may_be[acks], **settings)
        for topic, acks in zip(topics, may_be, strict=True)
    ]
    async with trio.open_nursery() as nursery:
        for stream in streams:
            await nursery.start(stream.run)
        load = Load(streams)
        await load.gets_through()
        yield load
        for stream in streams:
            stream.end()
    for stream in streams:
        await trio.to_thread.run_sync(stream.check)
