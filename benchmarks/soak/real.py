"""The faults of a cluster of our own."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping, Sequence

from kafka import KafkaAdminClient
from kafka.errors import TopicAlreadyExistsError, UnknownTopicOrPartitionError

from benchmarks.soak.places import CLIENT_ID, PARTITIONS, PICKY_LIMIT, TOPICS, Place
from benchmarks.soak.schedule import Fault, Kind
from tests.kafka.cluster import Cluster, wait_until

#: Kafka's number for the election of the first replica.
_PREFERRED = 0

#: Bytes a second that a quota leaves them at each node.
QUOTA = 60_000

#: `picky` wants keys, which are all different here, so nothing of it is ever removed.
CONFIG: dict[str, dict[str, str]] = {
    TOPICS.picky: {
        "cleanup.policy": "compact",
        "min.compaction.lag.ms": str(10**12),
        "max.message.bytes": str(PICKY_LIMIT),
    }
}


class RealCluster(Place):
    """Some nodes of our own.

    Args:
        cluster: with ``auto_create_topics_enable="false"``.
    """

    kinds: Mapping[str, Kind] = {
        "kill": Kind(3, 1, 15),
        "kill_leader": Kind(5, 1, 15),
        "freeze": Kind(4, 0.5, 6),
        "freeze_long": Kind(3, 12, 25),  # longer than a request may take
        "roll": Kind(1),
        "outage": Kind(1, 1, 10),
        "elect": Kind(3),
        "remake": Kind(2, 0.5, 5),
        "grow": Kind(1),
        "quota": Kind(1, 5, 20),
        "cut": Kind(4),
    }

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._count = len(cluster.nodes)
        self.name = f"{self._count} node{'s' * (self._count > 1)}"
        self.servers = cluster.bootstrap_servers

    def ports(self) -> Sequence[int]:
        return [int(address.rpartition(":")[2]) for address in self.servers.split(",")]

    # -- topics

    def create(self, topic: str) -> None:
        replicas = min(3, self._count)
        config = {"min.insync.replicas": str(max(1, replicas - 1)), **CONFIG.get(topic, {})}
        wanted = {
            "num_partitions": PARTITIONS[topic],
            "replication_factor": replicas,
            "configs": config,
        }
        with self._admin() as admin:

            def create() -> bool:
                # As long as its predecessor is being deleted, its name is taken.
                with contextlib.suppress(TopicAlreadyExistsError):
                    admin.create_topics({topic: wanted}, wait_for_metadata=True)
                    return True
                return False

            wait_until(create, f"{topic} is made")

    def delete(self, topic: str) -> None:
        with self._admin() as admin, contextlib.suppress(UnknownTopicOrPartitionError):
            admin.delete_topics([topic])

    def add_partition(self, topic: str) -> None:
        with self._admin() as admin:
            (described,) = admin.describe_topics([topic])
            admin.create_partitions({topic: len(described["partitions"]) + 1})

    def _admin(self) -> contextlib.closing[KafkaAdminClient]:
        return contextlib.closing(KafkaAdminClient(bootstrap_servers=self.servers))

    # -- faults

    def restore(self) -> None:
        self._cluster.restore()

    def _node(self, fault: Fault) -> int:
        return fault.where % self._count + 1

    def _leader(self, fault: Fault) -> int:
        return self._cluster.leader(TOPICS.steady, fault.where % PARTITIONS[TOPICS.steady])

    @contextlib.contextmanager
    def _restored(self) -> Generator[None, None, None]:
        try:
            yield
        finally:
            self._cluster.restore()

    @contextlib.contextmanager
    def kill(self, fault: Fault) -> Generator[None, None, None]:
        """A node is killed, and started again later."""
        with self._restored():
            self._cluster.kill(self._node(fault))
            yield

    @contextlib.contextmanager
    def kill_leader(self, fault: Fault) -> Generator[None, None, None]:
        """The same, of the node that leads a partition."""
        with self._restored():
            self._cluster.kill(self._leader(fault))
            yield

    @contextlib.contextmanager
    def freeze(self, fault: Fault) -> Generator[None, None, None]:
        """The leader of a partition is frozen, and goes on later."""
        with self._restored():
            self._cluster.pause(self._leader(fault))
            yield

    freeze_long = freeze

    @contextlib.contextmanager
    def roll(self, _: Fault) -> Generator[None, None, None]:
        """Every node in turn is asked to end (SIGTERM), and started again."""
        for node in self._cluster.nodes:
            with self._restored():
                node.stop()
        yield

    @contextlib.contextmanager
    def outage(self, _: Fault) -> Generator[None, None, None]:
        """All nodes are killed, and started again later."""
        with self._restored():
            for number in range(1, self._count + 1):
                self._cluster.kill(number)
            yield

    @contextlib.contextmanager
    def elect(self, _: Fault) -> Generator[None, None, None]:
        """Leaderships go back to those who had them at first."""
        with self._admin() as admin:
            admin.elect_leaders(_PREFERRED, raise_errors=False)
        yield

    @contextlib.contextmanager
    def quota(self, _: Fault) -> Generator[None, None, None]:
        """The producers are throttled."""
        self._limit("--add-config", f"producer_byte_rate={QUOTA}")
        try:
            yield
        finally:
            self._limit("--delete-config", "producer_byte_rate")

    def _limit(self, *arguments: str) -> None:
        self._cluster.nodes[0].java.run(
            "kafka.admin.ConfigCommand",
            *("--bootstrap-server", self.servers, "--alter", *arguments),
            *("--entity-type", "clients", "--entity-name", CLIENT_ID),
        )
