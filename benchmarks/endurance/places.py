"""Where producers are measured: with the embedded broker, or a node of Apache Kafka of our own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any, Protocol

from kafka import KafkaConsumer
from kafka.structs import TopicPartition

from benchmarks.harness.remote import RemoteBroker
from tests.kafka.cluster import PATIENCE, Cluster
from tests.kafka.jars import KAFKA_VERSION

EMBEDDED, REAL = "embedded broker", f"Apache Kafka {KAFKA_VERSION}"

#: How many partitions a topic gets that nobody has made before.
PARTITIONS = 4

#: Topics in one request: all of it is one step of Kafka's, which has a bound.
_AT_ONCE = 500


class Place(Protocol):
    """A Kafka that can be away. What it does blocks."""

    @property
    def servers(self) -> str:
        """What to give to a client."""

    def create(self, topics: Sequence[str]) -> None:
        """Make topics with one partition each."""

    def values(self, topics: Sequence[str]) -> dict[str, list[bytes]]:
        """What is in each of them, in the order of each partition."""

    def go_away(self) -> None:
        """End every connection, and refuse others."""

    def come_back(self) -> None:
        """Accept connections again; when this returns, they are answered."""

    def freeze(self) -> None:
        """Answer nothing, and keep the connections open."""

    def thaw(self) -> None:
        """Answer again; when this returns, that is so."""


class Embedded(RemoteBroker):
    """The embedded broker, in a process of its own."""

    def __init__(self) -> None:
        super().__init__(partitions=PARTITIONS)

    def create(self, topics: Sequence[str]) -> None:
        for topic in topics:
            self.do("create_topic", topic, 1)


class Real:
    """A node of our own: to be away it is killed, to be frozen it is stopped (SIGSTOP)."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    @property
    def servers(self) -> str:
        return self._cluster.bootstrap_servers

    def create(self, topics: Sequence[str]) -> None:
        one: dict[str, Any] = {"num_partitions": 1, "replication_factor": 1}
        with self._cluster.admin() as admin:
            for some in _parts(topics):
                admin.create_topics(dict.fromkeys(some, one))
        # Kafka says that they are made long before it knows them: of 10,000 the last after 15 s and more.
        self._cluster.leader(topics[-1])

    def values(self, topics: Sequence[str]) -> dict[str, list[bytes]]:
        found: dict[str, list[bytes]] = {topic: [] for topic in topics}
        consumer = KafkaConsumer(bootstrap_servers=self.servers, group_id=None, enable_auto_commit=False)
        with contextlib.closing(consumer):
            for some in _parts(topics):
                for record in _read(consumer, some):
                    found[record.topic].append(record.value)
        return found

    def go_away(self) -> None:
        self._cluster.kill()

    def freeze(self) -> None:
        self._cluster.pause()

    def come_back(self) -> None:
        self._cluster.restore()

    thaw = come_back


def _parts(topics: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(topics), _AT_ONCE):
        yield topics[first : first + _AT_ONCE]


def _read(consumer: KafkaConsumer, topics: Sequence[str]) -> Iterator[Any]:
    """Every record; nobody writes meanwhile."""
    ends = consumer.end_offsets(
        [TopicPartition(topic, number) for topic in topics for number in consumer.partitions_for_topic(topic)]
    )
    consumer.assign(list(ends))
    consumer.seek_to_beginning()
    left = {one for one, end in ends.items() if end}
    deadline = time.monotonic() + PATIENCE
    while left:
        if time.monotonic() > deadline:
            raise TimeoutError(f"not read to {ends} in {PATIENCE} s")
        for one, records in consumer.poll(timeout_ms=500).items():
            yield from records
            if records[-1].offset + 1 >= ends[one]:
                left.discard(one)


@contextlib.contextmanager
def open_place(kafka: str) -> Generator[Place, None, None]:
    """`EMBEDDED` or `REAL`; may raise `tests.kafka.jars.Unavailable`."""
    if kafka == EMBEDDED:
        with Embedded() as broker:
            yield broker
    else:
        # Ten thousand topics need more than the node's usual memory.
        with Cluster(java_options=["-Xmx3g"], num_partitions=str(PARTITIONS)) as cluster:
            yield Real(cluster)
