"""ListOffsets and Fetch: enough for a consumer that is assigned its partitions."""

from __future__ import annotations

from typing import Any

from kafka.protocol.consumer import FetchResponse, ListOffsetsResponse

from ._cluster import Cluster, Topic
from ._codes import Code
from ._faults import Plan
from ._log import PartitionLog

_FetchedTopic = FetchResponse.FetchableTopicResponse
_FetchedPartition = _FetchedTopic.PartitionData
_OffsetsTopic = ListOffsetsResponse.ListOffsetsTopicResponse
_OffsetsPartition = _OffsetsTopic.ListOffsetsPartitionResponse

#: What ListOffsets asks for by a negative timestamp.
_LATEST, _EARLIEST, _MAX_TIMESTAMP, _EARLIEST_LOCAL = -1, -2, -3, -4


def list_offsets(cluster: Cluster, body: Any, version: int, plan: Plan) -> Any:
    """For each partition the first or next offset, or the first of a record not older than a timestamp."""
    topics: list[Any] = []
    for asked in body.topics:
        topic = cluster.topics.get(asked.name)
        partitions = [_offset(asked.name, topic, part, version, plan) for part in asked.partitions]
        topics.append(_OffsetsTopic(version=version, name=asked.name, partitions=partitions))
    return ListOffsetsResponse(version=version, topics=topics)


def _offset(name: str, topic: Topic | None, asked: Any, version: int, plan: Plan) -> Any:
    index = asked.partition_index
    log = topic.partition(index) if topic else None
    scripted = plan.answer_for(name, index)
    code, offset, timestamp = Code.NONE.value, -1, -1
    if scripted is not None:
        code = scripted.code
    elif log is None:
        code = Code.UNKNOWN_TOPIC_OR_PARTITION
    else:
        offset, timestamp = _find(log, asked.timestamp)
    return _OffsetsPartition(
        version=version,
        partition_index=index,
        error_code=int(code),
        timestamp=timestamp,
        offset=offset,
        leader_epoch=0,
    )


def _find(log: PartitionLog, timestamp: int) -> tuple[int, int]:
    if timestamp == _LATEST:
        return log.end_offset, -1
    if timestamp in (_EARLIEST, _EARLIEST_LOCAL):
        return 0, -1
    if timestamp == _MAX_TIMESTAMP:
        timestamp = max((batch.max_timestamp for batch in log.batches), default=0)
    return log.first_since(timestamp) or (-1, -1)


def fetch(cluster: Cluster, body: Any, version: int, plan: Plan) -> tuple[Any, bool]:
    """The answer, and whether it says anything. If it does not, it may wait for records to come.

    There are no fetch sessions (KIP-227): a client that uses one gets FETCH_SESSION_ID_NOT_FOUND.
    """
    if body.session_id:
        return _session_unknown(version), True
    left = body.max_bytes
    speaks = not body.topics
    topics: list[Any] = []
    for asked in body.topics:
        topic = cluster.topics.get(asked.topic) if version < 13 else cluster.topic_by_id(asked.topic_id)
        name = topic.name if topic else asked.topic
        partitions: list[Any] = []
        for part in asked.partitions:
            answer = _read(name, topic, part, left, version, plan)
            left -= len(answer.records or b"")
            speaks = speaks or bool(answer.error_code or answer.records)
            partitions.append(answer)
        topics.append(
            _FetchedTopic(version=version, topic=name or "", topic_id=asked.topic_id, partitions=partitions)
        )
    return FetchResponse(version=version, responses=topics), speaks


def _session_unknown(version: int) -> Any:
    return FetchResponse(version=version, error_code=int(Code.FETCH_SESSION_ID_NOT_FOUND), responses=[])


def _read(name: str | None, topic: Topic | None, asked: Any, left: int, version: int, plan: Plan) -> Any:
    index, offset = asked.partition, asked.fetch_offset
    log = topic.partition(index) if topic else None
    scripted = plan.answer_for(name, index)
    if scripted is not None:
        return _fetched(index, scripted.code, log, version)
    if log is None:
        known_by_id = version >= 13 and topic is None
        missing = Code.UNKNOWN_TOPIC_ID if known_by_id else Code.UNKNOWN_TOPIC_OR_PARTITION
        return _fetched(index, missing, None, version)
    if not 0 <= offset <= log.end_offset:
        return _fetched(index, Code.OFFSET_OUT_OF_RANGE, log, version)
    # KIP-74: the first batch of an answer is sent whatever its size; else a consumer could not pass it.
    records = log.read(offset, min(left, asked.partition_max_bytes)) if left > 0 else b""
    return _fetched(index, Code.NONE, log, version, records)


def _fetched(index: int, code: int, log: PartitionLog | None, version: int, records: bytes = b"") -> Any:
    end = log.end_offset if log else -1
    return _FetchedPartition(
        version=version,
        partition_index=index,
        error_code=int(code),
        high_watermark=end,
        last_stable_offset=end,
        log_start_offset=0 if log else -1,
        aborted_transactions=None,
        records=records,
    )
