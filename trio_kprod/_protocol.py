"""Between the produce core's values and kafka-python's messages: our requests, and what answers say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from kafka.protocol.metadata import MetadataRequest
from kafka.protocol.producer import InitProducerIdRequest, ProduceRequest

from ._core._answers import Answer
from ._core._batch import Batch, Request
from ._core._topic import NO_TOPIC_ID, PartitionMetadata, TopicMetadata

#: From this version on produce requests name topics by their ids (KIP-516).
_TOPIC_IDS = 13

#: The lowest version with record batches of format v2, which is all that we write (KIP-98, Kafka 0.11).
LOWEST_PRODUCE_VERSION = 3

#: The lowest version whose empty list of topics means "none", not "all" (Kafka 0.10).
LOWEST_METADATA_VERSION = 1

#: A broker gives up waiting for replicas after this share of the time that we wait for its answer.
_BROKER_SHARE = 0.8


class ClusterMetadata(NamedTuple):
    """A metadata answer: where the brokers are, and what is said of each topic that was asked for."""

    brokers: Mapping[int, tuple[str, int]]
    topics: Sequence[TopicMetadata]


def produce_request(request: Request, *, version: int, acks: int, timeout: float) -> Any:
    """A ProduceRequest with every batch of `request`; `timeout` is how long we wait for the answer."""
    by_topic: dict[Any, list[Batch]] = {}
    for batch in request.batches:
        by_topic.setdefault(batch.partition.topic, []).append(batch)
    if any(topic.id == NO_TOPIC_ID for topic in by_topic):
        version = min(version, _TOPIC_IDS - 1)
    return ProduceRequest(
        version=version,
        transactional_id=None,
        acks=acks,
        timeout_ms=max(1, int(timeout * 1000 * _BROKER_SHARE)),
        topic_data=[_topic_data(topic, batches, version) for topic, batches in by_topic.items()],
    )


def _topic_data(topic: Any, batches: Iterable[Batch], version: int) -> Any:
    name: dict[str, Any] = {"topic_id": topic.id} if version >= _TOPIC_IDS else {"name": topic.name}
    data = ProduceRequest.TopicProduceData
    partitions = [
        data.PartitionProduceData(index=batch.partition.index, records=batch.data) for batch in batches
    ]
    return data(partition_data=partitions, **name)


def produce_answers(request: Request, version: int, response: Any) -> dict[tuple[str, int], Answer]:
    """What a ProduceResponse says of each topic and partition."""
    names = {batch.partition.topic.id: batch.partition.topic.name for batch in request.batches}
    answers: dict[tuple[str, int], Answer] = {}
    for topic in response.responses:
        name = names.get(topic.topic_id) if version >= _TOPIC_IDS else topic.name
        for partition in topic.partition_responses:
            if name is not None:
                answers[name, partition.index] = _answer(partition)
    return answers


def _answer(partition: Any) -> Answer:
    if not partition.error_code:
        return Answer(0, partition.base_offset, partition.log_append_time_ms)
    errors = {error.batch_index: error.batch_index_error_message for error in partition.record_errors or ()}
    leader = partition.current_leader
    return Answer(
        partition.error_code,
        partition.base_offset,
        record_errors=errors,
        message=partition.error_message,
        leader=-1 if leader is None else leader.leader_id,
        leader_epoch=-1 if leader is None else leader.leader_epoch,
    )


def moved_brokers(response: Any) -> dict[int, tuple[str, int]]:
    """Where a ProduceResponse says that new leaders live (KIP-951)."""
    return {one.node_id: (one.host, one.port) for one in response.node_endpoints or ()}


def metadata_request(topics: Sequence[str], version: int, *, auto_create: bool) -> Any:
    """A MetadataRequest for these topics; for none, it asks where the brokers are."""
    return MetadataRequest(
        version=version,
        topics=[MetadataRequest.MetadataRequestTopic(topic_id=NO_TOPIC_ID, name=name) for name in topics],
        allow_auto_topic_creation=auto_create,
        include_cluster_authorized_operations=False,
        include_topic_authorized_operations=False,
    )


def cluster_metadata(response: Any) -> ClusterMetadata:
    """What a MetadataResponse says."""
    brokers = {broker.node_id: (broker.host, broker.port) for broker in response.brokers}
    return ClusterMetadata(brokers, [_topic_metadata(topic) for topic in response.topics])


def _topic_metadata(topic: Any) -> TopicMetadata:
    partitions = [
        PartitionMetadata(
            one.partition_index, one.leader_id, -1 if one.leader_epoch is None else one.leader_epoch
        )
        for one in topic.partitions
    ]
    return TopicMetadata(topic.name, topic.error_code, topic.topic_id or NO_TOPIC_ID, partitions)


def producer_id_request(version: int) -> Any:
    """An InitProducerIdRequest for a producer without transactions."""
    return InitProducerIdRequest(
        version=version,
        transactional_id=None,
        transaction_timeout_ms=60_000,  # means nothing without a transactional id
        producer_id=-1,
        producer_epoch=-1,
    )
