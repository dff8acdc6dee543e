"""Metadata, CreateTopics and DeleteTopics."""

from __future__ import annotations

from typing import Any

from kafka.protocol.admin import CreateTopicsResponse, DeleteTopicsResponse
from kafka.protocol.metadata import MetadataResponse

from ._cluster import NODE_ID, Cluster, Topic, TopicSettings, is_legal_name
from ._codes import Code
from ._faults import Plan

_MetadataTopic = MetadataResponse.MetadataResponseTopic
_MetadataPartition = _MetadataTopic.MetadataResponsePartition


def metadata(cluster: Cluster, body: Any, version: int, plan: Plan) -> Any:
    """The broker, and the topics asked for: all for null (version 0: for an empty list)."""
    if body.topics is None or (version == 0 and not body.topics):
        topics = [_describe(topic, version, plan) for topic in cluster.topics.values()]
    else:
        create = cluster.options.auto_create_topics and (version < 4 or body.allow_auto_topic_creation)
        topics = [_answer_topic(cluster, asked, version, plan, create) for asked in body.topics]
    host, port = cluster.advertised
    broker = MetadataResponse.MetadataResponseBroker(version=version, node_id=NODE_ID, host=host, port=port)
    return MetadataResponse(
        version=version,
        brokers=[broker],
        cluster_id=cluster.cluster_id,
        controller_id=NODE_ID,
        topics=topics,
    )


def _answer_topic(cluster: Cluster, asked: Any, version: int, plan: Plan, create: bool) -> Any:
    if asked.name is None:
        topic = cluster.topic_by_id(asked.topic_id)
        name = None if version >= 12 else ""
        missing = _MetadataTopic(
            version=version,
            error_code=int(Code.UNKNOWN_TOPIC_ID),
            name=name,
            topic_id=asked.topic_id,
            partitions=[],
        )
        return missing if topic is None else _describe(topic, version, plan)
    scripted = plan.answer_for(asked.name)
    if scripted is not None:
        return _refused(asked.name, scripted.code, version)
    if not is_legal_name(asked.name):
        return _refused(asked.name, Code.INVALID_TOPIC_EXCEPTION, version)
    topic = cluster.topics.get(asked.name) or (cluster.auto_create(asked.name) if create else None)
    if topic is None:
        return _refused(asked.name, Code.UNKNOWN_TOPIC_OR_PARTITION, version)
    return _describe(topic, version, plan)


def _refused(name: str, code: int, version: int) -> Any:
    return _MetadataTopic(version=version, error_code=int(code), name=name, partitions=[])


def _describe(topic: Topic, version: int, plan: Plan) -> Any:
    scripted = plan.answer_for(topic.name)
    if scripted is not None:
        return _refused(topic.name, scripted.code, version)
    partitions = [_describe_partition(topic, index, version, plan) for index in range(len(topic.partitions))]
    return _MetadataTopic(
        version=version,
        error_code=0,
        name=topic.name,
        topic_id=topic.id,
        is_internal=False,
        partitions=partitions,
    )


def _describe_partition(topic: Topic, index: int, version: int, plan: Plan) -> Any:
    scripted = plan.answer_for(topic.name, index)
    return _MetadataPartition(
        version=version,
        error_code=scripted.code if scripted else 0,
        partition_index=index,
        leader_id=-1 if scripted else NODE_ID,
        leader_epoch=0,
        replica_nodes=[NODE_ID],
        isr_nodes=[NODE_ID],
        offline_replicas=[],
    )


def create_topics(cluster: Cluster, body: Any, version: int, plan: Plan) -> Any:
    """Each topic that can be created is."""
    results = [_create_topic(cluster, asked, body.validate_only, version, plan) for asked in body.topics]
    return CreateTopicsResponse(version=version, topics=results)


def _create_topic(cluster: Cluster, asked: Any, validate_only: bool, version: int, plan: Plan) -> Any:
    count = _partition_count(cluster, asked)
    settings, unknown = _settings(asked.configs)
    code = _refusal(cluster, asked.name, count, unknown, plan)
    result = CreateTopicsResponse.CreatableTopicResult(
        version=version, name=asked.name, error_code=int(code), error_message=None
    )
    if code == Code.NONE:
        result.num_partitions, result.replication_factor = count, 1
        if not validate_only:
            result.topic_id = cluster.create_topic(asked.name, count, settings).id
    elif unknown:
        result.error_message = f"Not known to this broker: {', '.join(unknown)}"
    return result


def _partition_count(cluster: Cluster, asked: Any) -> int:
    if asked.assignments:
        return len(asked.assignments)
    return cluster.options.partitions if asked.num_partitions == -1 else int(asked.num_partitions)


def _refusal(cluster: Cluster, name: str, count: int, unknown: list[str], plan: Plan) -> int:
    scripted = plan.answer_for(name)
    if scripted is not None:
        return scripted.code
    if not is_legal_name(name):
        return Code.INVALID_TOPIC_EXCEPTION
    if name in cluster.topics:
        return Code.TOPIC_ALREADY_EXISTS
    if count < 1:
        return Code.INVALID_PARTITIONS
    return Code.INVALID_CONFIG if unknown else Code.NONE


def _settings(configs: Any) -> tuple[TopicSettings, list[str]]:
    """What a topic's configuration means here, and the names that mean nothing here."""
    given = {config.name: config.value or "" for config in configs}
    append_time = given.pop("message.timestamp.type", "CreateTime") == "LogAppendTime"
    compacted = "compact" in given.pop("cleanup.policy", "delete").split(",")
    limit = given.pop("max.message.bytes", None)
    max_bytes = int(limit) if limit is not None and limit.isdecimal() else None
    return TopicSettings(append_time, compacted, max_bytes), sorted(given)


def delete_topics(cluster: Cluster, body: Any, version: int, plan: Plan) -> Any:
    """Each topic named, or (version 6) given by its id, is deleted."""
    asked = (
        [(t.name, t.topic_id) for t in body.topics] if version >= 6 else [(n, None) for n in body.topic_names]
    )
    results = [_delete_topic(cluster, name, topic_id, version, plan) for name, topic_id in asked]
    return DeleteTopicsResponse(version=version, responses=results)


def _delete_topic(cluster: Cluster, name: str | None, topic_id: Any, version: int, plan: Plan) -> Any:
    topic = cluster.topic_by_id(topic_id) if name is None else cluster.topics.get(name)
    scripted = plan.answer_for(topic.name if topic else name)
    if scripted is not None:
        code = scripted.code
    elif topic is None:
        code = Code.UNKNOWN_TOPIC_ID if name is None else Code.UNKNOWN_TOPIC_OR_PARTITION
    else:
        code = Code.NONE
        cluster.delete_topic(topic.name)
    return DeleteTopicsResponse.DeletableTopicResult(
        version=version,
        name=topic.name if topic else name,
        topic_id=topic.id if topic else topic_id,
        error_code=int(code),
    )
