"""Producers that send all the time, one with each `acks`, while a test harms the Kafka they send to."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import trio

import trio_kprod
from tests.kafka.cluster import PATIENCE, Cluster
from tests.kafka.helpers import until
from tests.kafka.history import History, MayBe, Verdict

Acks = Literal[0, 1, "all"]
_Excuses = Mapping[Acks, Collection[MayBe]]

#: Partitions of each topic.
PARTITIONS = 6
#: What each producer sends: so many messages, and then nothing for so many seconds.
BURST, PAUSE = 10, 0.02
#: Seconds that leaving may go on delivering, and may take in all (docs/design.md).
SHUTDOWN_TIMEOUT = 5.0
LEAVING = SHUTDOWN_TIMEOUT + 1.0

#: What may happen while leaders change. With 1, what only the old leader had is gone, and what was written
#: but not answered is written again. With 0, it may overtake what still is on its way to the old leader.
_MAY_BE: _Excuses = {"all": (), 1: ("lost", "duplicates"), 0: ("lost", "out_of_order")}
#: And while no leader changes: with 0, what had been written to a connection that ends is gone.
_WITH_SAME_LEADERS: _Excuses = {
    "all": (),
    1: ["duplicates"],
    0: ("lost", "out_of_order"),
}


class Stream:
    """One producer, which sends to a topic of its own until `end`; every other message has a key.

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
        self._name = name
        self._acks: Acks = acks
        self._may_be = may_be
        self._history = History(name)
        self._recovered: list[float] = []
        self._left = 0.0
        self._end = trio.Event()
        self._gone = trio.Event()
        self._producer: trio_kprod.Producer
        self._scope = trio_kprod.open_producer(
            acks=acks,
            delivery_interval=0.01,
            shutdown_timeout=SHUTDOWN_TIMEOUT,
            on_undelivered=self._history.note,
            **settings,
        )

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send until `end`, and leave."""
        async with self._scope as self._producer:
            task_status.started()
            while not self._end.is_set():
                for _ in range(BURST):
                    key = b"%d" % self._history.sent if self._history.sent % 2 else None
                    await self._history.send(self._producer, self.topic, key)
                await trio.sleep(PAUSE)
            leaving = trio.current_time()
        self._left = trio.current_time() - leaving
        self._gone.set()

    async def gets_through(self) -> None:
        """Wait until a message to each partition, sent now, and all before them are delivered.

        With ``acks=0`` "delivered" is what has been written to a connection.
        """
        with trio.fail_after(PATIENCE):
            for partition in range(PARTITIONS):
                await self._history.send(self._producer, self.topic, partition=partition)
            await self._producer.flush()

    async def recovers(self, since: float) -> None:
        """As `gets_through`; notes how long that was after `since`."""
        await self.gets_through()
        self._recovered.append(trio.current_time() - since)

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

    def check(self) -> Verdict:
        """What the history says, and that the producer was left in time."""
        verdict = self._history.check(self._kafka, self.topic, self._acks, self._may_be)
        recovered = " ".join(f"{seconds:.1f}" for seconds in self._recovered) or "-"
        print(f"{self._name}, acks={self._acks}: recovered after {recovered} s, left in {self._left:.1f} s")
        assert self._left <= LEAVING
        return verdict


def _new_topic(kafka: Cluster, order: Sequence[int]) -> str:
    """Make a topic with three replicas, led by the first node of `order`, or by all if it is empty."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    # Those who lead from the start: an election may lose what is sent with acks of 1 and 0.
    where = (
        {"assignments": {partition: list(order) for partition in range(PARTITIONS)}}
        if order
        else {"num_partitions": PARTITIONS, "replication_factor": 3}
    )
    with kafka.admin() as admin:
        topic = {**where, "configs": {"min.insync.replicas": "2"}}
        admin.create_topics({name: topic}, wait_for_metadata=True)
    return name


class Load:
    """The streams of a scenario."""

    def __init__(self, streams: Collection[Stream]) -> None:
        self._streams = streams

    @property
    def topics(self) -> list[str]:
        """Those that are sent to."""
        return [stream.topic for stream in self._streams]

    async def gets_through(self) -> None:
        """Wait until every stream gets through to every partition."""
        async with trio.open_nursery() as nursery:
            for stream in self._streams:
                nursery.start_soon(stream.gets_through)

    async def leaves(self) -> None:
        """Let every stream end, and wait until its producer was left."""
        async with trio.open_nursery() as nursery:
            for stream in self._streams:
                nursery.start_soon(stream.leaves)

    async def is_stuck(self) -> None:
        """Wait until the oldest message with ``acks="all"`` has waited for three seconds."""
        stream = next(iter(self._streams))
        await until(lambda: stream.oldest_age > 3)

    async def recovers(self, since: float | None = None) -> None:
        """Wait until every stream gets through to every partition again; it was harmed now, or at `since`."""
        start = trio.current_time() if since is None else since
        async with trio.open_nursery() as nursery:
            for stream in self._streams:
                nursery.start_soon(stream.recovers, start)


@asynccontextmanager
async def under_load(
    kafka: Cluster,
    name: str,
    *,
    listener: str = "PLAINTEXT",
    order: Sequence[int] = (),
    same_leaders: bool = False,
    **settings: Any,
) -> AsyncIterator[Load]:
    """A block in which producers send, with `acks` of "all", 1 and 0; afterwards all histories are checked.

    Args:
        kafka: three nodes; when the block ends, whatever harmed them must be over.
        name (str): the scenario's.
        listener (str): what the producers connect to.
        order: the nodes that have the replicas, the first of which leads all; spread if it is empty.
        same_leaders (bool): whether all leaders keep their leaderships.
        **settings: more of the producers'.
    """
    settings = {"bootstrap_servers": kafka.servers(listener), **settings}
    may_be = _WITH_SAME_LEADERS if same_leaders else _MAY_BE
    topics = [await trio.to_thread.run_sync(_new_topic, kafka, order) for _ in may_be]
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
