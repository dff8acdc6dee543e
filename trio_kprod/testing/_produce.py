"""Produce and InitProducerId: a broker's checks in a broker's order, then the producer state, then the log.

Structure, checksum, size, codec and keys are checked before duplicates are looked for, as in Apache Kafka:
so a batch that is in the log already can still be refused when it comes again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from kafka.errors import CorruptRecordError, UnsupportedCodecError
from kafka.protocol.producer import InitProducerIdResponse, ProduceResponse
from kafka.record.default_records import DefaultRecordBatch

from ._cluster import Cluster, Topic
from ._codes import Code
from ._faults import Answer, Plan
from ._log import PartitionLog

_TopicAnswer = ProduceResponse.TopicProduceResponse
_PartitionAnswer = _TopicAnswer.PartitionProduceResponse
_RecordError = _PartitionAnswer.BatchIndexAndErrorMessage
_LeaderHint = _PartitionAnswer.LeaderIdAndEpoch

_MAGIC_AT = 16


class Outcome(NamedTuple):
    """What becomes of one batch; `base_offset` is -1 if it was not appended."""

    code: int
    base_offset: int = -1
    append_time_ms: int = -1
    record_errors: Sequence[tuple[int, str | None]] = ()
    message: str | None = None
    leader: tuple[int, int] | None = None


class _Entry(NamedTuple):
    """One partition's part of a request."""

    topic: Topic | None
    name: str | None
    topic_id: Any  # a uuid.UUID; None in versions that go by name, and for the zero id
    partition: int
    data: bytes | None


def entries(cluster: Cluster, body: Any, version: int) -> Iterator[_Entry]:
    """The request partition by partition; of a partition that stands in it twice, only the last."""
    seen: dict[tuple[Any, int], _Entry] = {}
    for group in body.topic_data:
        topic = cluster.topics.get(group.name) if version < 13 else cluster.topic_by_id(group.topic_id)
        name = group.name if version < 13 else (topic.name if topic else None)
        for part in group.partition_data:
            entry = _Entry(topic, name, group.topic_id, part.index, part.records)
            seen[(name or group.topic_id, part.index)] = entry
    return iter(seen.values())


def produce(cluster: Cluster, body: Any, version: int, plan: Plan) -> tuple[Any, bool]:
    """The answer, and whether any batch was refused."""
    missing = Code.UNKNOWN_TOPIC_OR_PARTITION if version < 13 else Code.UNKNOWN_TOPIC_ID
    groups: dict[Any, Any] = {}
    refused = False
    for entry in entries(cluster, body, version):
        outcome = _settle(cluster, entry, body.acks, missing, plan)
        refused |= outcome.code != Code.NONE
        group = groups.setdefault(
            entry.name or entry.topic_id,
            _TopicAnswer(
                version=version, name=entry.name or "", topic_id=entry.topic_id, partition_responses=[]
            ),
        )
        group.partition_responses.append(_partition_answer(entry.partition, outcome, version))
    return ProduceResponse(version=version, responses=list(groups.values())), refused


def _settle(cluster: Cluster, entry: _Entry, acks: int, missing: int, plan: Plan) -> Outcome:
    answer = plan.answer_for(entry.name, entry.partition)
    if answer is None:
        return _append(cluster, entry, acks, missing)
    if not answer.after_append:
        return _scripted(answer, base_offset=-1)
    outcome = _append(cluster, entry, acks, missing)
    return outcome if outcome.code else _scripted(answer, outcome.base_offset)


def _scripted(answer: Answer, base_offset: int) -> Outcome:
    offset = base_offset if answer.base_offset is None else answer.base_offset
    return Outcome(
        answer.code,
        offset,
        record_errors=answer.record_errors,
        message=answer.message,
        leader=answer.leader,
    )


def _append(cluster: Cluster, entry: _Entry, acks: int, missing: int) -> Outcome:
    if entry.topic is None:
        return Outcome(missing)
    log = entry.topic.partition(entry.partition)
    if log is None:
        return Outcome(Code.UNKNOWN_TOPIC_OR_PARTITION)
    if acks not in (-1, 0, 1):
        return Outcome(Code.INVALID_REQUIRED_ACKS)
    return append_batch(cluster, entry.topic, log, entry.data)


def append_batch(cluster: Cluster, topic: Topic, log: PartitionLog, data: bytes | None) -> Outcome:
    """Check a batch and write it to a partition's log, unless it is refused or there already."""
    refusal = _malformed(data)
    if refusal or data is None:
        return refusal or Outcome(Code.INVALID_RECORD)
    batch: Any = DefaultRecordBatch(data)
    refusal = _corrupt(batch) or _too_large(cluster, topic, data) or _keyless(topic, batch)
    if refusal:
        return refusal
    verdict = log.judge(batch)
    if verdict.code or verdict.offset is not None:
        return Outcome(verdict.code, -1 if verdict.offset is None else verdict.offset)
    append_time = cluster.options.now_ms() if topic.settings.log_append_time else None
    offset = log.append(batch, data, append_time)
    cluster.changed()
    return Outcome(Code.NONE, offset, -1 if append_time is None else append_time)


def _malformed(data: bytes | None) -> Outcome | None:
    """Anything but exactly one batch of format v2."""
    header = DefaultRecordBatch.HEADER_STRUCT
    if data is None or len(data) < header.size:
        return Outcome(Code.INVALID_RECORD, message="No record batch")
    if data[_MAGIC_AT] != 2:
        return Outcome(Code.INVALID_RECORD, message="Not a record batch of format v2")
    base_offset, length, *_ = header.unpack_from(data)
    if DefaultRecordBatch.AFTER_LEN_OFFSET + length != len(data):
        return Outcome(Code.INVALID_RECORD, message="Not exactly one record batch")
    if base_offset != 0:
        return Outcome(Code.INVALID_RECORD, message="The base offset of a batch to append must be 0")
    return None


def _corrupt(batch: Any) -> Outcome | None:
    if not batch.validate_crc():
        return Outcome(Code.CORRUPT_MESSAGE)
    if batch.records_count != batch.last_offset_delta + 1 or batch.records_count < 1:
        return Outcome(Code.INVALID_RECORD, message="The offsets of the batch do not match its records")
    if batch.producer_id >= 0 and (batch.producer_epoch < 0 or batch.base_sequence < 0):
        return Outcome(
            Code.INVALID_RECORD, message="An idempotent batch needs an epoch and a sequence number"
        )
    return None


def _too_large(cluster: Cluster, topic: Topic, data: bytes) -> Outcome | None:
    own = topic.settings.max_message_bytes
    limit = cluster.options.max_message_bytes if own is None else own
    if len(data) <= limit:
        return None
    return Outcome(Code.MESSAGE_TOO_LARGE, message=f"The batch has {len(data)} bytes, more than {limit}")


def _keyless(topic: Topic, batch: Any) -> Outcome | None:
    """A compacted topic takes no record without key; every one of them is listed."""
    if not topic.settings.compacted:
        return None
    text = "Compacted topic cannot accept message without key"
    try:
        errors = [(index, text) for index, record in enumerate(batch) if record.key is None]
    except UnsupportedCodecError as error:
        return Outcome(Code.UNSUPPORTED_COMPRESSION_TYPE, message=str(error))
    except CorruptRecordError as error:
        return Outcome(Code.INVALID_RECORD, message=str(error))
    if not errors:
        return None
    return Outcome(
        Code.INVALID_RECORD, record_errors=errors, message="One or more records have been rejected"
    )


def _partition_answer(index: int, outcome: Outcome, version: int) -> Any:
    answer = _PartitionAnswer(
        version=version,
        index=index,
        error_code=int(outcome.code),
        base_offset=outcome.base_offset,
        log_append_time_ms=outcome.append_time_ms,
        log_start_offset=0 if outcome.code == Code.NONE else -1,
        record_errors=[
            _RecordError(version=version, batch_index=at, batch_index_error_message=text)
            for at, text in outcome.record_errors
        ],
        error_message=outcome.message,
    )
    if outcome.leader is not None:
        node, epoch = outcome.leader
        # A tagged field is sent only if it was given when its container was made.
        answer.tags = {"current_leader"}
        answer.current_leader = _LeaderHint(version=version, leader_id=node, leader_epoch=epoch)
    return answer


def init_producer_id(cluster: Cluster, body: Any, version: int, plan: Plan) -> Any:
    """A fresh producer id. Transactions are not served."""
    scripted = plan.answer_for()
    code = scripted.code if scripted else Code.NONE
    if not scripted and body.transactional_id is not None:
        code = Code.INVALID_REQUEST
    if code:
        return InitProducerIdResponse(
            version=version, error_code=int(code), producer_id=-1, producer_epoch=-1
        )
    producer_id = cluster.next_producer_id()
    return InitProducerIdResponse(version=version, error_code=0, producer_id=producer_id, producer_epoch=0)
