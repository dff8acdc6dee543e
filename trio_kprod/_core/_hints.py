"""What to look at when a broker refuses, by Kafka's error code."""

from __future__ import annotations

from collections.abc import Mapping

_HINTS: Mapping[int, str] = {
    -1: "the broker's own log says what went wrong",
    2: "the batch arrived damaged: look at the network between here and the broker",
    3: "is the name right? create the topic, or have the cluster create it (auto.create.topics.enable)",
    5: "the partition has no leader: are the brokers that hold its replicas up?",
    6: "leadership is moving; if that goes on, do the brokers agree on who leads?",
    7: "followers are too slow to confirm within request_timeout_ms",
    10: "the topic's max.message.bytes is smaller than the message",
    17: "the cluster does not allow this name",
    18: "the topic's segment.bytes is smaller than the batch",
    19: "fewer replicas are in sync than min.insync.replicas: are all brokers up?",
    20: "written, but fewer replicas are in sync than min.insync.replicas: are all brokers up?",
    29: "grant the operation Write on the topic",
    31: "grant the operation IdempotentWrite on the cluster, or open the producer with acks=1",
    32: "the time stamp is too far from the broker's clock (message.timestamp.before.max.ms, .after.max.ms)",
    42: "the broker does not take such a request; its log says why",
    44: "a policy of the broker forbids it; its log says why",
    56: "a disk of the broker has failed",
    76: "the broker does not take this compression_type",
    87: "the broker's checks refuse the record; a compacted topic wants a key",
    89: "a quota of the cluster is used up",
}


def look_at(code: int) -> str:
    """What to look at; empty if nothing is known."""
    return _HINTS.get(code, "")
