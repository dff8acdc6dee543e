"""What an administrator does to a Kafka that runs: topics, where their replicas are, and who may do what."""

from __future__ import annotations

from collections.abc import Sequence

from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ConfigResource,
    ConfigResourceType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
)
from kafka.structs import TopicPartition

from tests.kafka.cluster import Cluster, Kafka, wait_until
from tests.kafka.listeners import USER, dotted

_PREFERRED = 0  # of Kafka's kinds of elections


def create_partitions(kafka: Kafka, topic: str, total: int) -> None:
    """Let the topic have so many partitions, more than it has."""
    with kafka.admin() as admin:
        admin.create_partitions({topic: total})


def configure_topic(kafka: Kafka, topic: str, **config: str) -> None:
    """Change the topic's settings; in `config`, ``_`` stands for Kafka's ``.``."""
    with kafka.admin() as admin:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=dotted(config))])


def move(kafka: Kafka, topic: str, partition: int, nodes: Sequence[int]) -> None:
    """Let `nodes` have the partition's replicas, the first as preferred leader, and wait until they do."""
    one = TopicPartition(topic, partition)
    with kafka.admin() as admin:
        admin.alter_partition_reassignments({one: list(nodes)})
        wait_until(lambda: not admin.list_partition_reassignments([one]), f"{topic} has moved")


def elect_preferred(kafka: Kafka, topic: str, partition: int = 0) -> None:
    """Let the first of the partition's replicas lead it; no harm if it does."""
    with kafka.admin() as admin:
        admin.elect_leaders(_PREFERRED, {topic: [partition]})


def lead(kafka: Kafka, topics: Sequence[str], nodes: Sequence[int]) -> None:
    """Let `nodes` have the replicas of every partition of `topics`, and the first of them lead it."""
    with kafka.admin() as admin:
        every = [
            TopicPartition(topic["name"], one["partition_index"])
            for topic in admin.describe_topics(list(topics))
            for one in topic["partitions"]
        ]
        admin.alter_partition_reassignments({one: list(nodes) for one in every})
        wait_until(lambda: not admin.list_partition_reassignments(every), f"{topics} have moved")
        admin.elect_leaders(_PREFERRED, list(topics))


def allow(kafka: Kafka, operation: str, topic: str | None = None, user: str = USER) -> None:
    """Let `user` do `operation` (such as ``WRITE``) to the topic, or to the cluster if none is named."""
    with kafka.admin() as admin:
        created = admin.create_acls([_right(operation, topic, user)])
        if created["failed"]:
            raise RuntimeError(f"could not allow {operation}: {created['failed']}")


def forbid(kafka: Kafka, operation: str, topic: str | None = None, user: str = USER) -> None:
    """Take from `user` what `allow` gave."""
    with kafka.admin() as admin:
        admin.delete_acls([_right(operation, topic, user)])


def forbid_all(kafka: Kafka) -> None:
    """Take from everybody what `allow` gave."""
    everything = ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY)
    with kafka.admin() as admin:
        admin.delete_acls([ACLFilter(None, None, ACLOperation.ANY, ACLPermissionType.ANY, everything)])


def limit_client(cluster: Cluster, client_id: str | None, bytes_per_second: int) -> None:
    """Let producers of this client id, or of each if None, write so much, and throttle them (KIP-219)."""
    cluster.nodes[0].java.run(
        "kafka.admin.ConfigCommand",
        *("--bootstrap-server", cluster.bootstrap_servers),
        *("--alter", "--add-config", f"producer_byte_rate={bytes_per_second}"),
        *("--entity-type", "clients"),
        *(("--entity-default",) if client_id is None else ("--entity-name", client_id)),
    )


def _right(operation: str, topic: str | None, user: str) -> ACL:
    resource = (
        ResourcePattern(ResourceType.TOPIC, topic)
        if topic is not None
        else ResourcePattern(ResourceType.CLUSTER, "kafka-cluster")
    )
    return ACL(f"User:{user}", "*", ACLOperation[operation], ACLPermissionType.ALLOW, resource)
