"""A model of the brokers: topics and who leads them, what is replicated, what is refused, what is told.

A partition has one log, its leader's, of which the first `committed` batches are replicated. The rest may be
replicated later, or be cut off when another leads. A leader that was deposed and has not heard of it
appends to a log of its own, of which nothing is ever replicated.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple
from uuid import UUID

from tests.simulation.dice import Dice
from tests.simulation.log import Appended, Lapse, Log, Sealed
from tests.simulation.setting import Setting
from trio_kprod._core._error_codes import PartitionResponse
from trio_kprod._core._metadata import NO_TOPIC_ID, PartitionMetadata, TopicMetadata


class Place(NamedTuple):
    """A partition by name, as answers speak of it."""

    topic: str
    partition: int


@dataclass(eq=False, slots=True)
class Piece:
    """One batch in a produce request, which names its topics (before v13), or gives their ids."""

    place: Place
    topic_id: UUID
    by_name: bool
    sealed: Sealed


@dataclass(eq=False, slots=True)
class Waiting:
    """A batch that a leader has appended; its answer waits for the replicas."""

    partition: Partition
    log: Log
    offset: int
    epoch: int


class Partition:
    """The truth about one partition."""

    def __init__(self, leader: int, log: Log) -> None:
        self.leader = leader
        self.epoch = 0
        self.log = log
        self.committed = 0
        self.deposed: dict[int, Log] = {}
        self.few_replicas = False  # fewer than min.insync.replicas: nothing is accepted
        self.frozen_follower = False  # what is accepted is not replicated
        self.cut: set[bytes] = set()  # replicated once, and lost in an unclean election
        self.dropped: set[bytes] = set()  # written to a leader, and never replicated

    def replicate(self) -> None:
        if not self.frozen_follower:
            self.committed = len(self.log.batches)

    def elect(self, leader: int, replicated: int, *, unaware: bool) -> None:
        """Another leads, with what is committed and so many batches more (or fewer: an unclean election).

        The old leader's other batches are lost. If it is `unaware`, it goes on as if it led.
        """
        count = max(0, min(self.committed + replicated, len(self.log.batches)))
        lost = self.log.batches[count:]
        self.cut.update(_values(self.log.batches[count : self.committed]))
        self.dropped.update(_values(lost))
        if unaware:
            self.deposed[self.leader] = self.log
        if leader in self.deposed:
            self._truncate(leader)
        lapse = Lapse.UNCLEAN if count < self.committed else None
        if lost or unaware:
            self.log = self.log.remainder(count, lapse)
        self.leader, self.epoch = leader, self.epoch + 1
        self.committed = min(self.committed, count)
        self.frozen_follower = False
        self.replicate()

    def enlighten(self) -> None:
        """Deposed leaders hear of it, and throw away what only they have."""
        for node in list(self.deposed):
            self._truncate(node)

    def _truncate(self, node: int) -> None:
        log = self.deposed.pop(node)
        self.dropped.update(_values(log.batches))


class Topic:
    """A topic from its creation to its deletion; one made anew is another.

    Requests by name that were meant for the `former` one land here.
    """

    def __init__(self, name: str, topic_id: UUID, former: Topic | None) -> None:
        self.name = name
        self.id = topic_id
        self.former = former
        self.partitions: list[Partition] = []

    def add_partition(self, leader: int) -> None:
        index, former = len(self.partitions), self.former
        while former is not None and index >= len(former.partitions):
            former = former.former
        log = former.partitions[index].log.successor() if former else Log()
        self.partitions.append(Partition(leader, log))


class Cluster:
    """All brokers; `dice` is loaded anew for each event."""

    def __init__(self, setting: Setting, dice: Dice) -> None:
        self.setting = setting
        self.dice = dice
        self.nodes = range(setting.brokers)
        self.topics: dict[str, Topic] = {}
        self.history: list[Topic] = []  # every topic that ever was
        self.down: set[int] = set()
        self.denied: set[str] = set()
        self.bad: set[bytes] = set()  # records that are refused while `validating`
        self.validating = False
        self.size_limit = 10_000  # message.max.bytes
        self.frame_limits = dict.fromkeys(self.nodes, self.largest_frame)  # socket.request.max.bytes
        self.trouble = 0.0  # how often an append ends in an error
        self._views: list[dict[str, TopicMetadata]] = [{}]

    @property
    def largest_frame(self) -> int:
        return self.setting.lasting_limit or 100_000

    # ---- topics ------------------------------------------------------------------------------------------

    def create(self, name: str) -> None:
        """Make a topic, or make it anew."""
        leaders = [self.dice.choice(self.nodes) for _ in range(self.dice.between(1, 3))]
        topic_id = UUID(int=len(self.history) + 1) if self.setting.topic_ids else NO_TOPIC_ID
        former = [topic for topic in self.history if topic.name == name][-1:]
        topic = Topic(name, topic_id, former[0] if former and self.setting.by_name else None)
        for leader in leaders:
            topic.add_partition(leader)
        self.topics[name] = topic
        self.history.append(topic)
        self.changed()

    def delete(self, name: str) -> None:
        topic = self.topics.pop(name, None)
        if topic is not None:
            for partition in topic.partitions:
                partition.enlighten()
            self.changed()

    def grow(self, topic: Topic) -> None:
        topic.add_partition(self.dice.choice(self.nodes))
        self.changed()

    def partitions(self) -> list[Partition]:
        return [partition for topic in self.topics.values() for partition in topic.partitions]

    def calm(self) -> None:
        """End every fault that hinders."""
        self.trouble = 0.0
        self.down.clear()
        self.denied.clear()
        self.size_limit = 100_000
        self.frame_limits = dict.fromkeys(self.nodes, self.largest_frame)
        for partition in self.partitions():
            partition.few_replicas = partition.frozen_follower = False
            partition.replicate()
            partition.enlighten()
        self.changed()
        del self._views[:-1]

    # ---- metadata ----------------------------------------------------------------------------------------

    def changed(self) -> None:
        """Remember how things stand, for those who tell old news."""
        self._views.append({name: _describe(topic) for name, topic in self.topics.items()})

    def description(self, name: str) -> TopicMetadata | None:
        """How things stand."""
        return self._views[-1].get(name)

    def metadata(self, names: Iterable[str], *, old: bool) -> list[TopicMetadata]:
        """What a broker says: how things stand or, if it has not heard the news, how they once stood."""
        view = self.dice.choice(self._views) if old else self._views[-1]
        return [self._tell(view[name], old=old) for name in names if name in view]

    def _tell(self, topic: TopicMetadata, *, old: bool) -> TopicMetadata:
        if topic.name in self.denied and self.setting.denied_are_hidden:
            return TopicMetadata(topic.name, 29)
        if old and self.dice.random() < 0.2:
            return TopicMetadata(topic.name, self.dice.choice([3, 5, -1]))
        if old and self.dice.random() < 0.2:
            leaderless = [replace(one, leader=-1) for one in topic.partitions]
            return topic._replace(partitions=leaderless)
        return topic

    # ---- produce -----------------------------------------------------------------------------------------

    def produce(self, node: int, pieces: Iterable[Piece]) -> dict[Place, PartitionResponse | Waiting]:
        """Process a request at one broker. Of two batches for one partition, it sees the last only."""
        seen = {piece.place: piece for piece in pieces}
        return {place: self._append(node, piece) for place, piece in seen.items()}

    def _append(self, node: int, piece: Piece) -> PartitionResponse | Waiting:
        topic = self.topics.get(piece.place.topic)
        if not piece.by_name and (topic is None or topic.id != piece.topic_id):
            return PartitionResponse(100)
        if topic is None or piece.place.partition >= len(topic.partitions):
            return PartitionResponse(3)
        partition = topic.partitions[piece.place.partition]
        log = partition.log if node == partition.leader else partition.deposed.get(node)
        if log is None:
            return self._not_leader(partition)
        # All of this comes before the look for duplicates: what is in the log already can be refused.
        refusal = self._validate(partition, piece)
        if refusal is not None:
            return refusal
        code, known = log.check(piece.sealed, strict_start=self.setting.strict_start)
        if code:
            return PartitionResponse(code)
        offset = known if known >= 0 else log.append(piece.sealed, stray=topic.id != piece.topic_id)
        if self.dice.random() >= self.trouble:
            partition.replicate()
        elif log is partition.log:
            return self._fail(partition, offset)
        return Waiting(partition, log, offset, partition.epoch)

    def _not_leader(self, partition: Partition) -> PartitionResponse:
        if self.dice.random() < 0.5:
            return PartitionResponse(self.dice.choice([3, 6]))
        return PartitionResponse(6, leader=partition.leader, leader_epoch=partition.epoch)

    def _validate(self, partition: Partition, piece: Piece) -> PartitionResponse | None:
        values = piece.sealed.values
        if piece.place.topic in self.denied:
            return PartitionResponse(29)
        if partition.few_replicas and self.setting.acks == -1:
            return PartitionResponse(19)
        if piece.sealed.size > self.size_limit:
            return PartitionResponse(10)
        if self.validating:
            bad = {index: "bad" for index, value in enumerate(values) if value in self.bad}
            if bad:
                return PartitionResponse(self.dice.choice([32, 87]), record_errors=bad)
        if self.trouble and self.dice.random() < self.trouble / 10:
            return PartitionResponse(self.dice.choice([2, 89]))
        return None

    def _fail(self, partition: Partition, offset: int) -> PartitionResponse:
        """Appended, and yet an error: the answer bears the offset, but for an error nobody foresaw."""
        if self.dice.random() < 0.5:
            partition.replicate()
        code = self.dice.choice([7, 20, 6, 3, 56, -1, 9999])
        return PartitionResponse(code, -1 if code in (56, -1, 9999) and self.dice.random() < 0.5 else offset)

    def outcome(self, node: int, waiting: Waiting, *, timed_out: bool) -> PartitionResponse | None:
        """The answer to what was appended, once there is one. A duplicate waits as the original does."""
        partition = waiting.partition
        if self.setting.acks != -1:
            return PartitionResponse(0, waiting.offset)
        if node not in partition.deposed and (node, waiting.log) != (partition.leader, partition.log):
            return PartitionResponse(6, waiting.offset)
        if waiting.log is partition.log and waiting.offset < _end(partition):
            return PartitionResponse(0, waiting.offset)
        return PartitionResponse(self.dice.choice([7, 20]), waiting.offset) if timed_out else None


def _end(partition: Partition) -> int:
    """The high watermark."""
    log = partition.log
    if partition.committed == len(log.batches):
        return log.end
    return sum(len(sealed.values) for sealed, _ in log.batches[: partition.committed])


def _values(batches: Collection[Appended]) -> list[bytes]:
    return [value for sealed, _ in batches for value in sealed.values]


def _describe(topic: Topic) -> TopicMetadata:
    partitions = [
        PartitionMetadata(index, one.leader, one.epoch) for index, one in enumerate(topic.partitions)
    ]
    return TopicMetadata(topic.name, 0, topic.id, partitions)
