"""Topics by the hundred, used by one round after the other, and how much is in them."""

from __future__ import annotations

import contextlib
import itertools
import uuid
from collections.abc import Sequence
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.structs import TopicPartition

#: So that a deleted topic's space is free before the next rounds need it.
_CONFIG = {"file.delete.delay.ms": "1000"}

#: Topics that hold more than so much are replaced.
_FULL = 1_000_000_000

#: A new partition's first append makes files, and so does the first one after its index's interval of 4 KiB:
#: each takes the broker as long as thousands of messages. Two of these make it a partition like any other.
_PRIMING, _PRIMES = bytes(5_000), 2


class Topics:
    """Those of one Kafka."""

    def __init__(self, servers: str) -> None:
        self._servers = servers

    def make(self, count: int, partitions: int) -> list[str]:
        """New topics, whose partitions have leaders and have been written to."""
        names = [f"bench-{uuid.uuid4().hex[:12]}" for _ in range(count)]
        wanted = {"num_partitions": partitions, "replication_factor": 1, "configs": _CONFIG}
        with self._admin() as admin:
            admin.create_topics(dict.fromkeys(names, wanted), wait_for_metadata=True)
        self._prime(names, partitions)
        return names

    def delete(self, names: Sequence[str]) -> None:
        """Remove them."""
        with self._admin() as admin:
            admin.delete_topics(list(names))

    def written(self, names: Sequence[str]) -> int:
        """How many messages are in their logs, by the end offsets."""
        consumer: Any = KafkaConsumer(
            bootstrap_servers=self._servers, group_id=None, enable_auto_commit=False
        )
        with contextlib.closing(consumer):
            every = [
                TopicPartition(name, one) for name in names for one in consumer.partitions_for_topic(name)
            ]
            return sum(consumer.end_offsets(every).values())

    def _prime(self, names: Sequence[str], partitions: int) -> None:
        with contextlib.closing(KafkaProducer(bootstrap_servers=self._servers, acks="all")) as producer:
            for _ in range(_PRIMES):
                told = [
                    producer.send(name, _PRIMING, partition=partition)
                    for name, partition in itertools.product(names, range(partitions))
                ]
                for each in told:
                    each.get(60)

    def _admin(self) -> contextlib.closing[Any]:
        return contextlib.closing(KafkaAdminClient(bootstrap_servers=self._servers))


class Lent:
    """Topics that rounds use one after the other, as long as they want as many of them."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._kind = (0, 0)
        self._names: list[str] = []
        self._written = self._bytes = 0

    def take(self, count: int, partitions: int, size: int) -> list[str]:
        """Topics to which as many bytes as `size` are going to be written."""
        if self._kind != (count, partitions) or self._bytes + size > _FULL:
            self.give_up()
            self._kind, self._names = (count, partitions), self._topics.make(count, partitions)
            self._written = self._topics.written(self._names)
        self._bytes += size
        return self._names

    def count(self) -> int:
        """How many messages have been written since they were taken."""
        before, self._written = self._written, self._topics.written(self._names)
        return self._written - before

    def give_up(self) -> None:
        """Remove them: nobody knows who may still write to them, or nobody wants them any more."""
        names, self._names = self._names, []
        self._kind, self._bytes = (0, 0), 0
        if names:
            self._topics.delete(names)
