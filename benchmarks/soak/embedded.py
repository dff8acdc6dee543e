"""The faults of the embedded broker, which runs in a process of its own: its memory is not ours."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Generator, Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.managers import BaseManager
from typing import TYPE_CHECKING, Any

from benchmarks.soak.places import PARTITIONS, PICKY_LIMIT, TOPICS, Place
from benchmarks.soak.schedule import Fault, Kind
from trio_kprod.testing import open_broker

if TYPE_CHECKING:
    from typing_extensions import Self

#: Each refuses before it appends.
ERRORS = ("NOT_ENOUGH_REPLICAS", "NOT_LEADER_OR_FOLLOWER", "COORDINATOR_LOAD_IN_PROGRESS")


class Host:
    """Lives in the broker's process, and does there what it is told."""

    def __init__(self) -> None:
        self._broker = open_broker(auto_create_topics=False)
        self._broker.__enter__()

    def look(self) -> tuple[int, str]:
        """Process id, and where the broker listens."""
        return os.getpid(), self._broker.bootstrap_servers

    def topics(self) -> dict[str, int]:
        """How many partitions each topic has."""
        return self._broker.topics

    def do(self, name: str, *arguments: Any, **options: Any) -> None:
        """Call a method of the broker."""
        getattr(self._broker, name)(*arguments, **options)


class _Manager(BaseManager):
    """Starts the process, and passes calls on."""


_Manager.register("Host", Host)


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
        self._manager = _Manager(ctx=get_context("spawn"))
        self._manager.start()
        self._host: Any = self._manager.Host()  # type: ignore[attr-defined]
        self._pid, self.servers = self._host.look()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.shutdown()

    def ports(self) -> Sequence[int]:
        return [int(self.servers.rpartition(":")[2])]

    # -- topics

    def create(self, topic: str) -> None:
        limit = {"compacted": True, "max_message_bytes": PICKY_LIMIT} if topic == TOPICS.picky else {}
        self._host.do("create_topic", topic, PARTITIONS[topic], **limit)

    def delete(self, topic: str) -> None:
        self._host.do("delete_topic", topic)

    def add_partition(self, topic: str) -> None:
        self._host.do("add_partitions", topic, self._host.topics()[topic] + 1)

    # -- faults

    def restore(self) -> None:
        os.kill(self._pid, signal.SIGCONT)
        self._host.do("clear_faults")
        self._host.do("start_listening")

    @contextlib.contextmanager
    def away(self, _: Fault) -> Generator[None, None, None]:
        """It ends every connection, and nobody listens any more."""
        self._host.do("stop_listening")
        self._host.do("disconnect_all")
        yield
        self._host.do("start_listening")

    @contextlib.contextmanager
    def freeze(self, _: Fault) -> Generator[None, None, None]:
        """Its process is frozen."""
        os.kill(self._pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._pid, signal.SIGCONT)

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
        self._host.do(name, *arguments, **options)
        try:
            yield
        finally:
            self._host.do("clear_faults")
