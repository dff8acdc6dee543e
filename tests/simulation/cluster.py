"""A model of the brokers' part: producer state, validation, replication, leadership, topic ids.

A partition has one committed log, and a tail on whoever takes itself for its leader. What is in the
leader's tail may be committed later, or be cut off when another leads. A deposed leader that has not
heard of it appends to a tail of its own, and never acknowledges.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from random import Random
from uuid import UUID

from trio_kprod._core._answers import Answer
from trio_kprod._core._topic import PartitionMetadata, TopicMetadata

_REMEMBERED = 5
_SEQUENCES = 2**31


@dataclass(frozen=True)
class Sealed:
    """What stands for the bytes of a record batch."""

    producer_id: int
    epoch: int
    sequence: int
    values: tuple[bytes, ...]
    size: int

    def __len__(self) -> int:
        return self.size


@dataclass(frozen=True)
class Piece:
    """One batch in a produce request that is under way."""

    topic: str
    topic_id: UUID
    index: int
    sealed: Sealed


@dataclass
class State:
    """What a log remembers of one producer id."""

    epoch: int
    next: int
    ranges: deque[tuple[int, int, int]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))


class Replica:
    """A log as one broker sees it: how long it is, the producers it knows, what is not committed."""

    def __init__(self, committed: Iterable[Sealed]) -> None:
        self.end = 0
        self.states: dict[int, State] = {}
        self.tail: list[Sealed] = []
        for sealed in committed:
            self._count(sealed)

    def check(self, sealed: Sealed, *, strict_start: bool) -> tuple[int, int]:
        """An error code, and the offset of the original if this is a duplicate."""
        first, state = sealed.sequence, self.states.get(sealed.producer_id)
        if sealed.producer_id < 0:
            return 0, -1
        if state is None:  # then any sequence is accepted; by newer brokers not in a new log
            return (45, -1) if strict_start and not self.end and first else (0, -1)
        if sealed.epoch < state.epoch:
            return 47, -1
        if sealed.epoch > state.epoch:
            return (45, -1) if first else (0, -1)
        for known, count, offset in state.ranges:
            if (known, count) == (first, len(sealed.values)):
                return 0, offset
        return (0, -1) if first == state.next else (45, -1)

    def append(self, sealed: Sealed) -> int:
        self.tail.append(sealed)
        return self._count(sealed)

    def _count(self, sealed: Sealed) -> int:
        base, count = self.end, len(sealed.values)
        self.end += count
        state = self.states.get(sealed.producer_id)
        if state is None or state.epoch != sealed.epoch:
            state = self.states[sealed.producer_id] = State(sealed.epoch, 0)
        state.next = (sealed.sequence + count) % _SEQUENCES
        state.ranges.append((sealed.sequence, count, base))
        return base


class SimPartition:
    """The truth about one partition."""

    def __init__(self, leader: int) -> None:
        self.committed: list[Sealed] = []
        self.leader = leader
        self.epoch = 0
        self.replica = Replica(())
        self.deposed: dict[int, Replica] = {}
        self.few_replicas = False

    def values(self) -> list[bytes]:
        return [value for sealed in self.committed for value in sealed.values]

    def commit(self) -> None:
        self.committed += self.replica.tail
        self.replica.tail = []

    def elect(self, leader: int, *, unaware: bool) -> None:
        """The old leader's tail is lost. If it is `unaware`, it goes on as if it led."""
        if unaware:
            self.deposed[self.leader] = deepcopy(self.replica)
        self.leader, self.epoch = leader, self.epoch + 1
        self.deposed.pop(leader, None)
        self.replica = Replica(self.committed)


class SimTopic:
    def __init__(self, topic_id: UUID, leaders: Sequence[int]) -> None:
        self.id = topic_id
        self.partitions = [SimPartition(leader) for leader in leaders]


class Cluster:
    """All brokers. `calm` ends every fault that hinders."""

    def __init__(self, random: Random, topics: Sequence[str], nodes: int = 3) -> None:
        self.random = random
        self.nodes = range(nodes)
        self.strict_start = random.random() < 0.5
        self.logs: list[tuple[str, SimTopic]] = []  # every topic that ever was
        self.topics: dict[str, SimTopic] = {}
        self.down: set[int] = set()
        self.denied: set[str] = set()
        self.bad: set[bytes] = set()  # records that are refused while `validating`
        self.validating = False
        self.size_limit = 10_000
        self.trouble = 0.0  # how often an append ends in an error
        self._views: list[dict[str, TopicMetadata]] = []
        for name in topics:
            self.create(name)

    def create(self, name: str) -> None:
        """Make a topic, or make it anew."""
        leaders = self.random.choices(self.nodes, k=self.random.randint(1, 3))
        topic = SimTopic(UUID(int=self.random.getrandbits(128) | 1), leaders)
        self.logs.append((name, topic))
        self.topics[name] = topic
        self.changed()

    def partitions(self) -> list[SimPartition]:
        return [partition for topic in self.topics.values() for partition in topic.partitions]

    def calm(self) -> None:
        self.trouble = 0.0
        self.down.clear()
        self.denied.clear()
        for partition in self.partitions():
            partition.few_replicas = False
            partition.commit()
            partition.deposed.clear()
        self._views = self._views[-1:]

    # ---- metadata ----------------------------------------------------------------------------------------

    def changed(self) -> None:
        """Remember how things stand, for those who tell old news."""
        self._views.append({name: _describe(name, topic) for name, topic in self.topics.items()})

    def metadata(self, names: Iterable[str], *, old: bool) -> list[TopicMetadata]:
        view = self.random.choice(self._views) if old else self._views[-1]
        missing = old and self.random.random() < 0.3
        return [view[name] for name in names if name in view and not missing]

    # ---- produce -----------------------------------------------------------------------------------------

    def produce(self, node: int, pieces: Iterable[Piece]) -> dict[tuple[str, int], Answer]:
        """Process a request at one broker."""
        return {(piece.topic, piece.index): self._answer(node, piece) for piece in pieces}

    def _answer(self, node: int, piece: Piece) -> Answer:
        topic = self.topics[piece.topic]
        if topic.id != piece.topic_id:
            return Answer(100)
        if piece.index >= len(topic.partitions):
            return Answer(3)
        partition = topic.partitions[piece.index]
        deposed = partition.deposed.get(node)
        if node != partition.leader and deposed is None:
            return self._not_leader(partition)
        refusal = self._validate(partition, piece)
        if refusal is not None:
            return refusal
        replica = partition.replica if deposed is None else deposed
        code, known = replica.check(piece.sealed, strict_start=self.strict_start)
        if code:
            return Answer(code)
        offset = known if known >= 0 else replica.append(piece.sealed)
        if deposed is not None:
            return Answer(self.random.choice([6, 7]), offset)
        return self._replicate(partition, offset)

    def _not_leader(self, partition: SimPartition) -> Answer:
        if self.random.random() < 0.5:
            return Answer(self.random.choice([3, 6]))
        return Answer(6, leader=partition.leader, leader_epoch=partition.epoch)

    def _validate(self, partition: SimPartition, piece: Piece) -> Answer | None:
        values = piece.sealed.values
        if piece.topic in self.denied:
            return Answer(29)
        if partition.few_replicas:
            return Answer(19)
        if piece.sealed.size > self.size_limit:
            return Answer(10)
        if self.validating:
            bad = {index: "bad" for index, value in enumerate(values) if value in self.bad}
            if bad:
                return Answer(self.random.choice([32, 87]), record_errors=bad)
        if self.random.random() < self.trouble / 10:
            return Answer(2)
        return None

    def _replicate(self, partition: SimPartition, offset: int) -> Answer:
        if self.random.random() < self.trouble:
            if self.random.random() < 0.5:
                partition.commit()
            return Answer(self.random.choice([7, 20, 6, 3, 56, -1, 9999]), offset)
        partition.commit()
        return Answer(0, offset)


def _describe(name: str, topic: SimTopic) -> TopicMetadata:
    partitions = [
        PartitionMetadata(index, one.leader, one.epoch) for index, one in enumerate(topic.partitions)
    ]
    return TopicMetadata(name, 0, topic.id, partitions)
