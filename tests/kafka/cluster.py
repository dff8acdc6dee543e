"""A real Apache Kafka for tests and benchmarks: started here, or given by ``KAFKA_BOOTSTRAP_SERVERS``.

`Kafka` is what can be done with any of them: make topics, and read back what is in the log by kafka-python's
consumer. `Cluster` is one of our own, whose nodes can be killed, frozen and started again.
``python -m tests.kafka.cluster`` runs one until Ctrl-C.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import os
import shutil
import socket
import struct
import tempfile
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer
from kafka.structs import TopicPartition

from tests.kafka.jars import KAFKA_VERSION, Unavailable, kafka_jars
from tests.kafka.java import QUICK_START, Java
from tests.kafka.listeners import Listener, dotted, free_ports
from tests.kafka.node import CONTROLLER, Node, ZooKeeper
from tests.kafka.process import Process

if TYPE_CHECKING:
    from typing_extensions import Self

    from tests.kafka.network import Network

#: Seconds until a start, a topic or a read that has not succeeded is an error; a noisy machine is slow.
PATIENCE = 90.0

T = TypeVar("T")


class Record(NamedTuple):
    """What a consumer sees of one record; `timestamp_ms` is in milliseconds since 1970."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    timestamp_ms: int


class Kafka:
    """A Kafka that someone runs, by its bootstrap servers."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers

    def new_topic(self, partitions: int = 1, replication_factor: int = 1, **config: str) -> str:
        """Make a topic under a name nobody has; in `config`, ``_`` stands for Kafka's ``.``."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        self.create_topic(name, partitions, replication_factor, dotted(config))
        return name

    def create_topic(
        self,
        name: str,
        partitions: int = 1,
        replication_factor: int = 1,
        config: Mapping[str, str] | None = None,
    ) -> None:
        """Make a topic, and wait until every partition has a leader."""
        wanted = {
            "num_partitions": partitions,
            "replication_factor": replication_factor,
            "configs": config or {},
        }
        with self.admin() as admin:
            admin.create_topics({name: wanted}, wait_for_metadata=True)

    def delete_topic(self, name: str) -> None:
        """Remove a topic; its space on the disk is freed a while later."""
        with self.admin() as admin:
            admin.delete_topics([name])

    def end_offsets(self, topic: str) -> dict[int, int]:
        """Each partition's next offset."""
        with self._consumer() as consumer:
            return {one.partition: end for one, end in _ends(consumer, topic).items()}

    def first_offset(self, topic: str, partition: int = 0) -> int:
        """Of the first record that a partition still has; the next one's if it has none."""
        one = TopicPartition(topic, partition)
        with self._consumer() as consumer:
            return int(consumer.beginning_offsets([one])[one])

    def log_size(self, topic: str) -> int:
        """Bytes the topic's log takes on disk, all replicas together."""
        with self.admin() as admin:
            brokers = admin.describe_log_dirs()
        directories = (directory for broker in brokers for directory in broker["log_dirs"])
        topics = (one for directory in directories for one in directory["topics"] if one["name"] == topic)
        return sum(partition["partition_size"] for one in topics for partition in one["partitions"])

    def read(self, topic: str, at_least: int = 0) -> list[Record]:
        """All records of `topic`, partition by partition, each in the order of its log.

        Waits until there are `at_least` that many: with ``acks=0`` nobody says when a message is written.
        """
        with self._consumer() as consumer:
            wait_until(lambda: sum(_ends(consumer, topic).values()) >= at_least, f"{at_least} in {topic}")
            ends = _ends(consumer, topic)
            consumer.assign(list(ends))
            consumer.seek_to_beginning()
            return sorted(_read_to(consumer, ends), key=lambda record: record[:2])

    def admin(self) -> contextlib.closing[KafkaAdminClient]:
        """kafka-python's administrator of it, for a ``with``."""
        return contextlib.closing(KafkaAdminClient(bootstrap_servers=self.bootstrap_servers))

    def _consumer(self) -> contextlib.closing[KafkaConsumer]:
        consumer = KafkaConsumer(
            bootstrap_servers=self.bootstrap_servers,
            group_id=None,
            enable_auto_commit=False,
            max_poll_records=20_000,
            fetch_max_wait_ms=50,
        )
        return contextlib.closing(consumer)


def _ends(consumer: KafkaConsumer, topic: str) -> dict[TopicPartition, int]:
    # A node may hear of a new topic a little later than the one that was asked to make it.
    partitions = wait_until(lambda: consumer.partitions_for_topic(topic), f"metadata has {topic}")
    return dict(consumer.end_offsets([TopicPartition(topic, number) for number in sorted(partitions)]))


def _read_to(consumer: KafkaConsumer, ends: Mapping[TopicPartition, int]) -> Iterator[Record]:
    deadline = time.monotonic() + PATIENCE
    while any(consumer.position(one) < end for one, end in ends.items()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not read to {ends} in {PATIENCE} s")
        for one, records in consumer.poll(timeout_ms=100).items():
            for record in records:
                # What came after the ends were asked for is not part of the answer.
                if record.offset < ends[one]:
                    yield Record(
                        record.partition,
                        record.offset,
                        record.key,
                        record.value,
                        list(record.headers),
                        record.timestamp,
                    )


def wait_until(condition: Callable[[], T], what: str) -> T:
    """Ask until `condition` gives something true, and return that; a `TimeoutError` that says `what`."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not in {PATIENCE} s: {what}")
        time.sleep(0.05)
    return found


class Cluster(Kafka):
    """A Kafka of our own: `nodes` processes on loopback, each broker and controller, until `stop`.

    Args:
        nodes (int): how many.
        version (str): of Kafka. Before 3.3 there is a ZooKeeper beside the nodes.
        listeners: more than the plain one, by the names that `servers` knows them by.
        data: where nodes keep their topics, by their number; others keep them with the rest of their files.
        java_options: those of the Java machines.
        network: what stands between the nodes, and between them and clients; None for nothing.
        **settings: Kafka's settings, with ``_`` for its ``.``, or with its own names.

    Raises:
        Unavailable: no Java, no Maven, or no network.
    """

    def __init__(
        self,
        nodes: int = 1,
        *,
        version: str = KAFKA_VERSION,
        listeners: Mapping[str, Listener] = MappingProxyType({}),
        data: Mapping[int, Path] = MappingProxyType({}),
        java_options: Sequence[str] = QUICK_START,
        network: Network | None = None,
        **settings: str,
    ) -> None:
        self._jars = kafka_jars(version)
        self._java_options = java_options
        self._directory = Path(tempfile.mkdtemp(prefix="trio_kprod-kafka-"))
        atexit.register(self.stop)
        self._listeners = {"PLAINTEXT": Listener(), **listeners}
        self._zookeeper = self._make_zookeeper() if _needs_zookeeper(version) else None
        own = free_ports([*self._listeners, CONTROLLER], nodes)
        ports = [network.before(number, each) for number, each in enumerate(own, 1)] if network else own
        self.nodes = [
            self._make(number, each, ports, data.get(number), dotted(settings))
            for number, each in enumerate(own, 1)
        ]
        super().__init__(self.servers("PLAINTEXT"))
        self._start_all()

    def servers(self, listener: str) -> str:
        """The bootstrap servers of the listener of this name."""
        return ",".join(f"127.0.0.1:{node.ports[listener]}" for node in self.nodes)

    def kill(self, number: int = 1) -> None:
        """End node `number` at once, as kill -9 does."""
        self.nodes[number - 1].kill()

    def pause(self, number: int = 1) -> None:
        """Freeze node `number`."""
        self.nodes[number - 1].pause()

    def resume(self, number: int = 1) -> None:
        """Let the frozen node `number` go on."""
        self.nodes[number - 1].resume()

    def start(self, number: int = 1) -> None:
        """Start node `number` again where it was, with the data it had; it is not ready yet."""
        node = self.nodes[number - 1]
        wait_until(lambda: not node.believed_alive, f"the death of node {number} is noticed")
        node.start()

    def restore(self) -> None:
        """Make every node run again, and wait until all are ready."""
        for number, node in enumerate(self.nodes, 1):
            if node.running:
                node.resume()
            else:
                self.start(number)
        self.wait_until_ready()

    def leader(self, topic: str, partition: int = 0) -> int:
        """The number of the node that leads a partition."""
        with self.admin() as admin:
            return wait_until(lambda: _leader(admin, topic, partition), f"{topic} has a leader")

    def active_controller(self) -> int:
        """The number of the node that decides who leads."""
        with self.admin() as admin:
            return wait_until(lambda: _controller(admin), "there is an active controller")

    def wait_until_in_sync(self, topics: Sequence[str]) -> None:
        """Wait until every replica of every partition of `topics` is in sync."""
        with self.admin() as admin:
            wait_until(lambda: _in_sync(admin, topics), f"all replicas of {topics} are in sync")

    def wait_until_ready(self) -> None:
        """Wait until every node says that all nodes are there."""
        try:
            wait_until(self._ready, f"Kafka at {self.bootstrap_servers} answers with all brokers")
        except Exception as error:
            logged = "\n".join(node.java.tail() for node in self.nodes)
            raise RuntimeError(f"Kafka did not become ready: {error}\n{logged}") from error

    def stop(self) -> None:
        """End all processes and remove their data; no harm if that was done."""
        for process in self._processes():
            process.kill()
        shutil.rmtree(self._directory, ignore_errors=True)
        atexit.unregister(self.stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _make_zookeeper(self) -> ZooKeeper:
        java = self._java("zookeeper")
        ((port,),) = [ports.values() for ports in free_ports(["zookeeper"], 1)]
        return ZooKeeper(java, port)

    def _make(
        self,
        number: int,
        own_ports: dict[str, int],
        ports: list[dict[str, int]],
        data: Path | None,
        settings: dict[str, str],
    ) -> Node:
        java = self._java(str(number))
        data = data or java.directory / "data"
        return Node(java, data, number, self._listeners, own_ports, ports, self._zookeeper, settings)

    def _java(self, name: str) -> Java:
        directory = self._directory / name
        directory.mkdir()
        return Java(self._jars, directory, self._java_options)

    def _processes(self) -> list[Process]:
        return [*self.nodes, *([self._zookeeper] if self._zookeeper else [])]

    def _start_all(self) -> None:
        try:
            if self._zookeeper is None:
                self._format_all()
            for process in reversed(self._processes()):
                process.start()
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def _format_all(self) -> None:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        with ThreadPoolExecutor() as at_once:
            for formatted in [at_once.submit(node.format, cluster_id) for node in self.nodes]:
                formatted.result()

    def _ready(self) -> bool:
        if not all(node.running for node in self.nodes):
            raise RuntimeError("a node has ended")
        return all(brokers_seen_by(node.ports["PLAINTEXT"]) == len(self.nodes) for node in self.nodes)


def _leader(admin: KafkaAdminClient, topic: str, partition: int) -> int:
    """The leader's id, or 0 if the node that was asked knows of none."""
    described: list[dict[str, Any]] = admin.describe_topics([topic])
    partitions = (one for each in described for one in each["partitions"])
    return next((max(one["leader_id"], 0) for one in partitions if one["partition_index"] == partition), 0)


def _controller(admin: KafkaAdminClient) -> int:
    """The active controller's id, or 0 if there is none."""
    (topic,) = admin.describe_metadata_quorum()["topics"]
    (quorum,) = topic["partitions"]
    return max(int(quorum["leader_id"]), 0)


def _in_sync(admin: KafkaAdminClient, topics: Sequence[str]) -> bool:
    described: list[dict[str, Any]] = admin.describe_topics(list(topics))
    return all(
        set(one["isr_nodes"]) == set(one["replica_nodes"]) for each in described for one in each["partitions"]
    )


def _needs_zookeeper(version: str) -> bool:
    return tuple(map(int, version.split(".")))[:2] < (3, 3)


def brokers_seen_by(port: int) -> int:
    """How many brokers the one at `port` believes alive; 0 if it does not answer.

    Asked by hand, with Metadata v1 for no topic: kafka-python's clients leave sockets and threads behind
    where they find no broker, and waiting for one to start is nothing but that.
    """
    request = struct.pack(">hhihi", 3, 1, 0, -1, 0)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            with connection.makefile("rb") as answers:
                answer = answers.read(12)
    except OSError:
        return 0
    # Size, correlation id, and then the length of the list of brokers.
    return int(struct.unpack(">iii", answer)[2]) if len(answer) == 12 else 0


@contextlib.contextmanager
def some_kafka(
    bootstrap_servers: str | None = None, java_options: Sequence[str] = ()
) -> Generator[Kafka, None, None]:
    """The Kafka at `bootstrap_servers`, or at ``KAFKA_BOOTSTRAP_SERVERS``, or else one started here."""
    given = bootstrap_servers or os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if given:
        yield Kafka(given)
        return
    with Cluster(java_options=java_options) as cluster:
        yield cluster


def main() -> None:
    """Run a Kafka until Ctrl-C and say where it is."""
    try:
        with Cluster(java_options=()) as cluster, contextlib.suppress(KeyboardInterrupt):
            print(cluster.bootstrap_servers, flush=True)
            while True:
                time.sleep(3600)
    except Unavailable as error:
        raise SystemExit(f"cannot start Kafka: {error}") from None


if __name__ == "__main__":
    main()
