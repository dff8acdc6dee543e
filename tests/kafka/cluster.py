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
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer
from kafka.structs import TopicPartition

from tests.kafka.jars import Unavailable, kafka_jars
from tests.kafka.node import Node, Ports, free_ports

if TYPE_CHECKING:
    from typing_extensions import Self

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
        settings = {key.replace("_", "."): value for key, value in config.items()}
        self.create_topic(name, partitions, replication_factor, settings)
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
        with self._admin() as admin:
            admin.create_topics({name: wanted}, wait_for_metadata=True)

    def delete_topic(self, name: str) -> None:
        """Remove a topic; its space on the disk is freed a while later."""
        with self._admin() as admin:
            admin.delete_topics([name])

    def end_offsets(self, topic: str) -> dict[int, int]:
        """Each partition's next offset."""
        with self._consumer() as consumer:
            return {one.partition: end for one, end in _ends(consumer, topic).items()}

    def log_size(self, topic: str) -> int:
        """Bytes the topic's log takes on disk, all replicas together."""
        with self._admin() as admin:
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

    def _admin(self) -> contextlib.closing[KafkaAdminClient]:
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
        pem (Path | None): private key (PKCS 8) and certificate for TLS listeners.
        **settings: Kafka's settings, with ``_`` for its ``.``.

    Raises:
        Unavailable: no Java, no Maven, or no network.
    """

    def __init__(self, nodes: int = 1, *, pem: Path | None = None, **settings: str) -> None:
        jars = kafka_jars()
        self._directory = Path(tempfile.mkdtemp(prefix="trio_kprod-kafka-"))
        atexit.register(self.stop)
        dotted = {key.replace("_", "."): value for key, value in settings.items()}
        ports = free_ports(nodes)
        self.nodes = [self._make(jars, number, ports, pem, dotted) for number in range(1, nodes + 1)]
        super().__init__(_addresses(node.ports.plaintext for node in self.nodes))
        self.sasl_servers = _addresses(node.ports.sasl for node in self.nodes)
        self.tls_servers = _addresses(node.ports.tls for node in self.nodes)
        self._start_all()

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
        self.nodes[number - 1].start()

    def restore(self) -> None:
        """Make every node run again, and wait until all are ready."""
        for node in self.nodes:
            if node.running:
                node.resume()
            else:
                node.start()
        self.wait_until_ready()

    def leader(self, topic: str, partition: int = 0) -> int:
        """The number of the node that leads a partition."""
        with self._admin() as admin:
            return wait_until(lambda: _leader(admin, topic, partition), f"{topic} has a leader")

    def limit_client(self, client_id: str, bytes_per_second: int) -> None:
        """Let producers of this client id write so much, and throttle them (KIP-13, KIP-219)."""
        self.nodes[0].configure(
            self.bootstrap_servers,
            *("--alter", "--add-config", f"producer_byte_rate={bytes_per_second}"),
            *("--entity-type", "clients", "--entity-name", client_id),
        )

    def wait_until_ready(self) -> None:
        """Wait until every node says that all nodes are there."""
        try:
            wait_until(self._ready, f"Kafka at {self.bootstrap_servers} answers with all brokers")
        except Exception as error:
            logged = "\n".join(node.tail() for node in self.nodes)
            raise RuntimeError(f"Kafka did not become ready: {error}\n{logged}") from error

    def stop(self) -> None:
        """End all processes and remove their data; no harm if that was done."""
        for node in self.nodes:
            node.kill()
        shutil.rmtree(self._directory, ignore_errors=True)
        atexit.unregister(self.stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _make(
        self, jars: Path, number: int, ports: list[Ports], pem: Path | None, settings: dict[str, str]
    ) -> Node:
        directory = self._directory / str(number)
        directory.mkdir()
        return Node(jars, directory, number, ports, pem, settings)

    def _start_all(self) -> None:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        try:
            for node in self.nodes:
                node.format(cluster_id)
            for node in self.nodes:
                node.start()
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def _ready(self) -> bool:
        if not all(node.running for node in self.nodes):
            raise RuntimeError("a node has ended")
        return all(brokers_seen_by(node.ports.plaintext) == len(self.nodes) for node in self.nodes)


def _leader(admin: KafkaAdminClient, topic: str, partition: int) -> int:
    """The leader's id, or 0 if the node that was asked knows of none."""
    described: list[dict[str, Any]] = admin.describe_topics([topic])
    partitions = (one for each in described for one in each["partitions"])
    return next((max(one["leader_id"], 0) for one in partitions if one["partition_index"] == partition), 0)


def _addresses(ports: Iterable[int]) -> str:
    return ",".join(f"127.0.0.1:{port}" for port in ports)


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
def some_kafka(bootstrap_servers: str | None = None) -> Generator[Kafka, None, None]:
    """The Kafka at `bootstrap_servers`, or at ``KAFKA_BOOTSTRAP_SERVERS``, or else one started here."""
    given = bootstrap_servers or os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if given:
        yield Kafka(given)
        return
    with Cluster() as cluster:
        yield cluster


def main() -> None:
    """Run a Kafka until Ctrl-C and say where it is."""
    try:
        with Cluster() as cluster, contextlib.suppress(KeyboardInterrupt):
            print(cluster.bootstrap_servers, flush=True)
            while True:
                time.sleep(3600)
    except Unavailable as error:
        raise SystemExit(f"cannot start Kafka: {error}") from None


if __name__ == "__main__":
    main()
