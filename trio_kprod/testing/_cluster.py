"""The state of a one-broker cluster: topics, producer ids, scripted faults, counters. No I/O.

The loop that serves connections shares a `Cluster` with the tests that script the broker, in any thread.
Everything that reads or changes it holds `lock`, for as long as one request takes.
"""

from __future__ import annotations

import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ._faults import Fault, Plan, Rule, Rules, Target
from ._log import Batch, PartitionLog, Record
from ._watching import Watched

#: The only broker there is.
NODE_ID = 0

#: Kafka's own defaults: `message.max.bytes` and `socket.request.max.bytes`.
MAX_MESSAGE_BYTES = 1_048_588
MAX_REQUEST_BYTES = 104_857_600

_LEGAL_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def _now_ms() -> int:
    return int(time.time() * 1000)


@dataclass(frozen=True, slots=True)
class Options:
    """What is fixed for the life of a cluster."""

    partitions: int = 1
    auto_create_topics: bool = True
    max_message_bytes: int = MAX_MESSAGE_BYTES
    max_request_bytes: int = MAX_REQUEST_BYTES
    sasl_users: Mapping[str, str] | None = field(default=None, repr=False)  # has passwords
    sasl_session_lifetime: float | None = None
    max_versions: Mapping[str, int] | None = None
    now_ms: Callable[[], int] = _now_ms


@dataclass(frozen=True, slots=True)
class TopicSettings:
    """What a topic may set for itself."""

    log_append_time: bool = False
    compacted: bool = False
    max_message_bytes: int | None = None


@dataclass(slots=True)
class Topic:
    """A topic; one that is deleted and created again is another, with another id."""

    name: str
    settings: TopicSettings
    partitions: list[PartitionLog]
    id: uuid.UUID = field(default_factory=uuid.uuid4)

    def partition(self, index: int) -> PartitionLog | None:
        """The log of a partition, or None if the topic has no such partition."""
        return self.partitions[index] if 0 <= index < len(self.partitions) else None


class Address(NamedTuple):
    """Where clients find the broker."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Cluster(Watched):
    """Topics, producer ids, faults and counters of a one-broker cluster."""

    def __init__(self, options: Options, address: Address) -> None:
        super().__init__()
        self.options = options
        self.cluster_id = "trio-kprod-testing"
        self.advertised = address
        self.topics: dict[str, Topic] = {}
        self._by_id: dict[uuid.UUID | None, Topic] = {}
        self.rules = Rules()
        self.requests: Counter[str] = Counter()
        self.accepted = 0
        self._next_producer_id = 1000

    # -- topics

    def create_topic(self, name: str, partitions: int, settings: TopicSettings | None = None) -> Topic:
        """Add a topic. The caller has checked that the name is free."""
        with self.lock:
            logs = [PartitionLog() for _ in range(partitions)]
            topic = self.topics[name] = Topic(name, settings or TopicSettings(), logs)
            self._by_id[topic.id] = topic
            self.changed()
            return topic

    def auto_create(self, name: str) -> Topic:
        """Add a topic because a client asked for it."""
        return self.create_topic(name, self.options.partitions)

    def delete_topic(self, name: str) -> None:
        """Remove a topic with all it holds. Raises KeyError."""
        with self.lock:
            del self._by_id[self.topics.pop(name).id]
            self.changed()

    def add_partitions(self, name: str, total: int) -> None:
        """Grow a topic to `total` partitions. Raises KeyError, ValueError."""
        with self.lock:
            logs = self.topics[name].partitions
            if total < len(logs):
                raise ValueError(
                    f"topic {name!r} has {len(logs)} partitions already; a topic cannot shrink to {total}"
                )
            logs.extend(PartitionLog() for _ in range(total - len(logs)))
            self.changed()

    def alter_topic(self, name: str, **changes: object) -> None:
        """Change some of a topic's settings. Raises KeyError."""
        with self.lock:
            topic = self.topics[name]
            topic.settings = replace(topic.settings, **changes)  # type: ignore[arg-type]

    def topic_by_id(self, topic_id: uuid.UUID | None) -> Topic | None:
        """The topic with an id, or None."""
        return self._by_id.get(topic_id)

    # -- what arrived

    def records(self, name: str) -> list[Record]:
        """The topic's records by partition and offset; empty if the topic does not exist."""
        with self.lock:
            topic = self.topics.get(name)
            logs = [
                (index, list(log.records())) for index, log in enumerate(topic.partitions if topic else ())
            ]
        return [
            Record(name, index, r.offset, r.key, r.value, tuple(r.headers), r.timestamp)
            for index, records in logs
            for r in records
        ]

    def batches(self, name: str) -> list[Batch]:
        """The topic's batches by partition and offset; empty if the topic does not exist."""
        with self.lock:
            topic = self.topics.get(name)
            logs = [log.headers() for log in topic.partitions] if topic else []
        return [
            Batch(
                name,
                index,
                header.base_offset,
                header.records_count,
                header.size_in_bytes,
                header.compression_type,
                header.producer_id,
                header.producer_epoch,
                header.base_sequence,
            )
            for index, headers in enumerate(logs)
            for header in headers
        ]

    def record_count(self, name: str) -> int:
        """How many records the topic holds."""
        with self.lock:
            topic = self.topics.get(name)
            return sum(log.end_offset for log in topic.partitions) if topic else 0

    # -- requests

    def next_producer_id(self) -> int:
        """A producer id that was not given out before."""
        with self.lock:
            self._next_producer_id += 1
            return self._next_producer_id

    def max_version(self, api: str, served: int) -> int:
        """The highest version of a request that is served here."""
        return min(served, (self.options.max_versions or {}).get(api, served))

    def count_request(self, api: str) -> None:
        """Note that a request was read."""
        with self.lock:
            self.requests[api] += 1
            self.changed()

    def accept(self) -> bool:
        """Note a new connection; False if a fault is to close it at once."""
        with self.lock:
            self.accepted += 1
            stays = self.rules.accept()
            self.changed()
            return stays

    # -- faults

    def script(self, fault: Fault) -> Rule:
        """Add a fault, which applies from now on."""
        with self.lock:
            rule = Rule(fault, self.changed)
            self.rules.add(rule)
            return rule

    def plan(self, api: str, targets: list[Target]) -> Plan:
        """What is to go wrong with a request; counts it as a match."""
        with self.lock:
            return self.rules.plan(api, targets)


def is_legal_name(name: str) -> bool:
    """Whether Kafka allows a topic of this name."""
    return _LEGAL_NAME.fullmatch(name) is not None and name not in (".", "..")
