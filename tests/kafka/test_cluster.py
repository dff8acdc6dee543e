"""The tests' own Kafka does what it says, tried with kafka-python's producer."""

from __future__ import annotations

from kafka.admin import ConfigResource, ConfigResourceType

from tests.kafka.admin import configure_topic, create_partitions, elect_preferred, move
from tests.kafka.cluster import Cluster, Kafka, Record, wait_until
from tests.kafka.helpers import produce_with_kafka_python


def test_read_returns_what_was_produced(kafka: Kafka) -> None:
    topic = kafka.new_topic(partitions=2)
    produce_with_kafka_python(kafka.bootstrap_servers, topic, 3)
    assert kafka.read(topic) == [
        Record(0, number, None, b"%d" % number, [], 1_700_000_000_000 + number) for number in range(3)
    ]
    assert kafka.end_offsets(topic) == {0: 3, 1: 0}
    assert kafka.log_size(topic) > 0


def test_a_killed_node_comes_back_with_its_data(breakable: Cluster) -> None:
    topic = breakable.new_topic()
    produce_with_kafka_python(breakable.bootstrap_servers, topic, 5)
    breakable.kill()
    assert not breakable.nodes[0].running
    breakable.restore()
    assert breakable.end_offsets(topic) == {0: 5}


def test_a_frozen_node_goes_on(breakable: Cluster) -> None:
    breakable.pause()
    breakable.restore()
    produce_with_kafka_python(breakable.bootstrap_servers, breakable.new_topic(), 1)


def test_topics_are_changed(own_cluster: Cluster) -> None:
    topic = own_cluster.new_topic()
    create_partitions(own_cluster, topic, 2)
    wait_until(lambda: own_cluster.end_offsets(topic) == {0: 0, 1: 0}, "there are two partitions")
    configure_topic(own_cluster, topic, max_message_bytes="12345")
    resource = ConfigResource(ConfigResourceType.TOPIC, topic)
    with own_cluster.admin() as admin:
        told = admin.describe_configs([resource])["topic"][topic]
    assert told["max.message.bytes"]["value"] == "12345"
    own_cluster.delete_topic(topic)
    with own_cluster.admin() as admin:
        wait_until(lambda: topic not in admin.list_topics(), "the topic is gone")


def test_partitions_are_moved(three_nodes: Cluster) -> None:
    topic = three_nodes.new_topic()
    produce_with_kafka_python(three_nodes.bootstrap_servers, topic, 5)
    move(three_nodes, topic, 0, [2, 3])
    elect_preferred(three_nodes, topic)
    wait_until(lambda: three_nodes.leader(topic) == 2, "the first of the two leads")
    move(three_nodes, topic, 0, [3])
    wait_until(lambda: three_nodes.leader(topic) == 3, "the only one leads")
    assert three_nodes.end_offsets(topic) == {0: 5}
