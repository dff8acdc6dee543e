"""Topics by the hundred, and how much is in them."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Sequence
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer
from kafka.structs import TopicPartition

#: So that a deleted topic's space is free before the next rounds need it.
_CONFIG = {"file.delete.delay.ms": "1000"}


class Topics:
    """Those of one Kafka."""

    def __init__(self, servers: str) -> None:
        self._servers = servers

    def make(self, count: int, partitions: int) -> list[str]:
        """New topics, whose partitions have leaders."""
        names = [f"bench-{uuid.uuid4().hex[:12]}" for _ in range(count)]
        wanted = {"num_partitions": partitions, "replication_factor": 1, "configs": _CONFIG}
        with self._admin() as admin:
            admin.create_topics(dict.fromkeys(names, wanted), wait_for_metadata=True)
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

    def _admin(self) -> contextlib.closing[Any]:
        return contextlib.closing(KafkaAdminClient(bootstrap_servers=self._servers))
