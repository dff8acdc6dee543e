"""Between the produce core's values and kafka-python's messages: our requests, and what responses say.

What can be decoded may still make no sense. The functions that read responses then raise an error of any
kind, and the response does not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from kafka.protocol.metadata import MetadataRequest
from kafka.protocol.producer import InitProducerIdRequest, ProduceResponse

from .._core import NO_TOPIC_ID, PartitionMetadata, PartitionResponse, TopicMetadata
from ._exchange import decode_api

#: The lowest version whose empty list of topics means "none", not "all" (Kafka 0.10).
LOWEST_METADATA_VERSION = 1

#: The first version of Produce that names topics by their ids (KIP-516).
TOPIC_IDS = 13

#: No log gets to this offset: offsets are 64 bits wide, and the records of one batch have to fit in.
OFFSET_LIMIT = 2**63 - 2**31

#: More partitions than any topic has. Each costs memory.
_MOST_PARTITIONS = 100_000

#: DNS allows 253 characters; this has a margin.
_LONGEST_HOST = 255

#: UNKNOWN_SERVER_ERROR, for a topic whose partitions are not numbered from 0 without a gap.
_NONSENSE = -1


class ClusterMetadata(NamedTuple):
    """What a MetadataResponse says: where the brokers are, and about each topic that was asked for."""

    brokers: Mapping[int, tuple[str, int]]
    topics: Sequence[TopicMetadata]


class ProduceOutcome(NamedTuple):
    """What a ProduceResponse says: of each topic and partition, and where new leaders live (KIP-951)."""

    responses: Mapping[tuple[str, int], PartitionResponse]
    moved: Mapping[int, tuple[str, int]]


def decode_produce(frame: bytes, version: int, names: Mapping[UUID, str]) -> tuple[int, ProduceOutcome]:
    """The throttle time in milliseconds and the outcome that a ProduceResponse tells.

    `names` are those of the topics that were asked for, by their ids.
    """
    decoded = decode_api(ProduceResponse[version], frame)
    moved = _addresses(decoded.node_endpoints or ())
    responses: dict[tuple[str, int], PartitionResponse] = {}
    for topic in decoded.responses:
        name = names.get(topic.topic_id) if version >= TOPIC_IDS else topic.name
        for partition in topic.partition_responses:
            if (name, partition.index) in responses:
                raise ValueError(f"two responses for partition {partition.index} of one topic")
            if name is not None:
                responses[name, partition.index] = _partition_response(partition, moved)
    return decoded.throttle_time_ms, ProduceOutcome(responses, moved)


def _partition_response(partition: Any, moved: Mapping[int, Any]) -> PartitionResponse:
    if not -1 <= partition.base_offset < OFFSET_LIMIT:
        raise ValueError(f"{partition.base_offset} is not an offset")
    if not partition.error_code:
        return PartitionResponse(0, partition.base_offset, partition.log_append_time_ms)
    errors = {error.batch_index: error.batch_index_error_message for error in partition.record_errors or ()}
    leader, epoch = -1, -1
    if partition.current_leader is not None:
        leader, epoch = _leader(partition.current_leader, moved)
    return PartitionResponse(
        partition.error_code,
        partition.base_offset,
        record_errors=errors,
        message=partition.error_message,
        leader=leader,
        leader_epoch=epoch,
    )


def _leader(partition: Any, brokers: Mapping[int, Any]) -> tuple[int, int]:
    """A leader and its epoch, -1 where there is none.

    A leader without a known address counts as none, and its epoch is dropped, so that later, correct metadata
    does not look stale.
    """
    if partition.leader_id != -1 and partition.leader_id not in brokers:
        return -1, -1
    return partition.leader_id, -1 if partition.leader_epoch is None else partition.leader_epoch


def _addresses(brokers: Iterable[Any]) -> dict[int, tuple[str, int]]:
    """Where the brokers are. A broker whose host has an impossible name is left out, and gets into no log."""
    return {
        one.node_id: (one.host, one.port)
        for one in brokers
        if one.host and len(one.host) <= _LONGEST_HOST and one.host.isprintable()
    }


def metadata_request(topics: Sequence[str], version: int, *, auto_create: bool) -> Any:
    """A MetadataRequest for these topics; without topics, it only asks where the brokers are."""
    return MetadataRequest(
        version=version,
        topics=[MetadataRequest.MetadataRequestTopic(topic_id=NO_TOPIC_ID, name=name) for name in topics],
        allow_auto_topic_creation=auto_create,
        include_cluster_authorized_operations=False,
        include_topic_authorized_operations=False,
    )


def cluster_metadata(response: Any) -> ClusterMetadata:
    """What a MetadataResponse says."""
    if response.error_code:
        raise ValueError(f"error code {response.error_code} for the whole of it")
    brokers = _addresses(response.brokers)
    return ClusterMetadata(brokers, [_topic_metadata(topic, brokers) for topic in response.topics])


def _topic_metadata(topic: Any, brokers: Mapping[int, Any]) -> TopicMetadata:
    topic_id = topic.topic_id or NO_TOPIC_ID
    numbers = sorted(one.partition_index for one in topic.partitions)
    if len(numbers) > _MOST_PARTITIONS or numbers != list(range(len(numbers))):
        # As if it were missing: the other topics are not to blame.
        return TopicMetadata(topic.name, _NONSENSE, topic_id)
    partitions = [PartitionMetadata(one.partition_index, *_leader(one, brokers)) for one in topic.partitions]
    return TopicMetadata(topic.name, topic.error_code, topic_id, partitions)


def producer_id(response: Any) -> tuple[int, int]:
    """The error code and the producer id of an InitProducerIdResponse."""
    if not response.error_code and response.producer_id < 0:
        raise ValueError(f"{response.producer_id} is not a producer id")
    return response.error_code, response.producer_id


def producer_id_request(version: int) -> Any:
    """An InitProducerIdRequest for a producer without transactions."""
    return InitProducerIdRequest(
        version=version,
        transactional_id=None,
        transaction_timeout_ms=60_000,  # means nothing without a transactional id
        producer_id=-1,
        producer_epoch=-1,
    )
