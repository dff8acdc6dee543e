"""The faults of the embedded broker, which runs in a process of its own: its memory is not ours."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.harness.remote import RemoteBroker
from benchmarks.soak.places import PARTITIONS, PICKY_LIMIT, TOPICS, Place
from benchmarks.soak.schedule import Fault, Kind

if TYPE_CHECKING:
    from typing_extensions import Self

#: Each refuses before it appends.
ERRORS = ("NOT_ENOUGH_REPLICAS", "NOT_LEADER_OR_FOLLOWER", "COORDINATOR_LOAD_IN_PROGRESS")


class Embedded(Place):
    """The embedded broker; it ends with its ``with``."""

    name = "embedded broker"
    kinds: Mapping[str, Kind] = {
        "away": Kind(5, 0.5, 15),
        "freeze": Kind(4, 0.5, 6),
        "freeze_long": Kind(2, 12, 25),  # longer than a request may take
        "refuse": Kind(4, 0.5, 5),
        "lose_responses": Kind(4, 0.5, 5),
        "slow": Kind(2, 1, 10),
        "remake": Kind(2, 0.5, 5),
        "grow": Kind(1),
        "cut": Kind(6),
    }

    def __init__(self) -> None:
        self._broker = RemoteBroker(auto_create_topics=False)
        self.servers = self._broker.servers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._broker.__exit__()

    def ports(self) -> Sequence[int]:
        return [int(self.servers.rpartition(":")[2])]

    # -- topics

    def create(self, topic: str) -> None:
        limit = {"compacted": True, "max_message_bytes": PICKY_LIMIT} if topic == TOPICS.picky else {}
        self._broker.do("create_topic", topic, PARTITIONS[topic], **limit)

    def delete(self, topic: str) -> None:
        self._broker.do("delete_topic", topic)

    def add_partition(self, topic: str) -> None:
        self._broker.do("add_partitions", topic, self._broker.topics[topic] + 1)

    # -- faults

    def restore(self) -> None:
        self._broker.thaw()
        self._broker.do("clear_faults")
        self._broker.come_back()

    @contextlib.contextmanager
    def away(self, _: Fault) -> Generator[None, None, None]:
        """It ends every connection, and nobody listens any more."""
        self._broker.go_away()
        yield
        self._broker.come_back()

    @contextlib.contextmanager
    def freeze(self, _: Fault) -> Generator[None, None, None]:
        """Its process is frozen."""
        self._broker.freeze()
        try:
            yield
        finally:
            self._broker.thaw()

    freeze_long = freeze

    @contextlib.contextmanager
    def refuse(self, fault: Fault) -> Generator[None, None, None]:
        """Produce requests are refused with an error that passes."""
        with self._scripted("answer", "Produce", ERRORS[fault.where % len(ERRORS)], times=None):
            yield

    @contextlib.contextmanager
    def lose_responses(self, _: Fault) -> Generator[None, None, None]:
        """Batches are written, and the connection ends instead of a response."""
        with self._scripted("drop_connections", "append", "Produce", times=None):
            yield

    @contextlib.contextmanager
    def slow(self, _: Fault) -> Generator[None, None, None]:
        """Each produce request is handled a second later."""
        with self._scripted("delay", "Produce", 1.0, times=None):
            yield

    @contextlib.contextmanager
    def _scripted(self, name: str, *arguments: Any, **options: Any) -> Generator[None, None, None]:
        self._broker.do(name, *arguments, **options)
        try:
            yield
        finally:
            self._broker.do("clear_faults")
