"""Where a soak takes place: topics, what can go wrong anywhere, and reading the log."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Container, Generator, Iterator, Mapping, Sequence
from typing import NamedTuple

from kafka import KafkaConsumer
from kafka.structs import TopicPartition

from benchmarks.soak.schedule import Fault, Kind
from tests.kafka.cluster import wait_until

#: What producers call themselves, so that a quota can be theirs.
CLIENT_ID = "soak"

#: The largest batch that the topic `picky` takes, in bytes.
PICKY_LIMIT = 100_000


class Topics(NamedTuple):
    """The topics of a run: one for most messages, one that refuses many, one that is deleted now and then."""

    steady: str = "steady"
    picky: str = "picky"
    fleeting: str = "fleeting"


TOPICS = Topics()
PARTITIONS = {TOPICS.steady: 6, TOPICS.picky: 2, TOPICS.fleeting: 2}


class Place(ABC):
    """What faults are made on. Its methods block; each is called in a thread.

    Attributes:
        name: for the summary.
        kinds: of faults that can be made here.
        servers: what producers connect to.
    """

    name: str
    kinds: Mapping[str, Kind]
    servers: str

    def fault(self, fault: Fault) -> contextlib.AbstractContextManager[None]:
        """What makes the fault as it is entered, and ends it as it is left."""
        made: contextlib.AbstractContextManager[None] = getattr(self, fault.kind)(fault)
        return made

    @abstractmethod
    def ports(self) -> Sequence[int]:
        """Where the brokers listen."""

    @abstractmethod
    def create(self, topic: str) -> None:
        """Make one of `TOPICS`."""

    @abstractmethod
    def delete(self, topic: str) -> None:
        """Delete one of `TOPICS`."""

    @abstractmethod
    def add_partition(self, topic: str) -> None:
        """Let one of `TOPICS` have one partition more."""

    @abstractmethod
    def restore(self) -> None:
        """End every fault, after one could not be ended as it should."""

    @contextlib.contextmanager
    def cut(self, _: Fault) -> Generator[None, None, None]:
        """Every connection from this process ends."""
        for connection in own_connections(self.ports()):
            with connection, contextlib.suppress(OSError):  # gone meanwhile
                connection.shutdown(socket.SHUT_RDWR)
        yield

    def connections(self) -> int:
        """How many there are from this process."""
        gc.collect()  # kafka-python's may have been forgotten without being closed
        found = list(own_connections(self.ports()))
        for connection in found:
            connection.close()
        return len(found)

    @contextlib.contextmanager
    def remake(self, _: Fault) -> Generator[None, None, None]:
        """A topic is deleted, and made again under the same name."""
        self.delete(TOPICS.fleeting)
        yield
        self.create(TOPICS.fleeting)

    @contextlib.contextmanager
    def grow(self, _: Fault) -> Generator[None, None, None]:
        """A topic gets one partition more."""
        self.add_partition(TOPICS.fleeting)
        yield

    def read(self, topic: str) -> Iterator[tuple[int, bytes]]:
        """Partition and value of each record, in the order of each partition; only a few are in memory."""
        consumer = KafkaConsumer(
            bootstrap_servers=self.servers, group_id=None, enable_auto_commit=False, max_poll_records=5_000
        )
        with contextlib.closing(consumer):
            numbers = wait_until(lambda: consumer.partitions_for_topic(topic), f"metadata has {topic}")
            ends = consumer.end_offsets([TopicPartition(topic, number) for number in sorted(numbers)])
            consumer.assign(list(ends))
            consumer.seek_to_beginning()
            yield from _to_the_end(consumer, ends)


def _to_the_end(
    consumer: KafkaConsumer, ends: Mapping[TopicPartition, int], patience: float = 120.0
) -> Iterator[tuple[int, bytes]]:
    moved = time.monotonic()
    while any(consumer.position(one) < end for one, end in ends.items()):
        polled = consumer.poll(timeout_ms=500)
        if polled:
            moved = time.monotonic()
        elif time.monotonic() - moved > patience:
            raise TimeoutError(f"nothing was read for {patience:.0f} s, but the log goes on to {ends}")
        for one, records in polled.items():
            for record in records:
                if record.offset < ends[one]:
                    yield record.partition, record.value


def own_connections(ports: Container[int]) -> Iterator[socket.socket]:
    """A copy of each of this process's connections to these ports, which must be closed."""
    copies = [copy for name in os.listdir("/proc/self/fd") for copy in _copy(int(name))]
    for copy in copies:
        if _port(copy) in ports:
            yield copy
        else:
            copy.close()


def _copy(descriptor: int) -> Iterator[socket.socket]:
    with contextlib.suppress(OSError):  # closed meanwhile
        if os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:"):
            # Far from the others, so that it is not taken for one of them.
            yield socket.socket(fileno=fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 500))


def _port(connection: socket.socket) -> int | None:
    with contextlib.suppress(OSError):  # not connected
        if connection.family == socket.AF_INET:
            port: int = connection.getpeername()[1]
            return port
    return None
