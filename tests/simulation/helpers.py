"""A quiet cluster, and batches, messages and outcomes made by hand."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from tests.simulation.cluster import Cluster, Partition, Piece, Place
from tests.simulation.dice import Dice
from tests.simulation.faults import USUAL
from tests.simulation.history import History
from tests.simulation.log import Sealed
from tests.simulation.setting import MESSAGE_SIZE, Setting
from trio_kprod._core._reports import Settled
from trio_kprod._core._shared import Rules
from trio_kprod._messages import BATCH_OVERHEAD, Entry

PRODUCER = 7


def a_setting(**changes: Any) -> Setting:
    quiet: dict[str, Any] = {
        "acks": -1,
        "brokers": 3,
        "topics": 1,
        "topic_ids": True,
        "by_name": False,
        "strict_start": False,
        "rules": Rules(),
    }
    return replace(Setting.draw(0, Random(0), USUAL.values()), **{**quiet, **changes})


def sealed(values: str, sequence: int = 0, epoch: int = 0, timestamp: float = 0.0) -> Sealed:
    """A batch of one record for each letter."""
    records = tuple(value.encode() for value in values)
    size = BATCH_OVERHEAD + MESSAGE_SIZE * len(records)
    return Sealed(PRODUCER, epoch, sequence, records, size, timestamp)


def message(value: str, partition: int | None = 0) -> Entry:
    return ("a", value.encode(), None, (), partition, 0, MESSAGE_SIZE, 0.0, None, 0)


class Table:
    """A cluster with the topic "a" of one partition, led by node 0, and the history of one producer."""

    def __init__(self, **changes: Any) -> None:
        self.setting = a_setting(**changes)
        self.cluster = Cluster(self.setting, Dice(1))
        self.create()
        self.history = History(self.setting, self.cluster)

    def create(self) -> None:
        self.cluster.create("a")
        topic = self.cluster.topics["a"]
        del topic.partitions[1:]
        topic.partitions[0].leader = 0
        self.cluster.changed()

    @property
    def partition(self) -> Partition:
        return self.cluster.topics["a"].partitions[0]

    def piece(self, batch: Sealed) -> Piece:
        return Piece(Place("a", 0), self.cluster.topics["a"].id, self.setting.by_name, batch)

    def append(self, *batches: Sealed) -> None:
        for batch in batches:
            self.partition.log.append(batch)
        self.partition.replicate()

    def accept(self, values: str, partition: int | None = 0) -> None:
        self.history.accept([message(value, partition) for value in values], 0.0)

    def tell(
        self, values: str, offset: int = -1, error: BaseException | None = None, *, maybe: bool = False
    ) -> None:
        entries = [self.history.accepted.get(value.encode(), message(value)) for value in values]
        size = MESSAGE_SIZE * len(entries)
        self.history.tell(Settled("a", 0, offset, -1, entries, size, 1, error, maybe), 0.0)
