"""What every hook is told when a real Kafka takes messages, refuses them, throttles, and dies."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import pytest
import trio

import trio_kprod
from tests.kafka.admin import limit_client
from tests.kafka.cluster import PATIENCE, Cluster, Kafka
from tests.kafka.helpers import until
from trio_kprod._instruments import HOOKS


class Recorder(trio_kprod.Instrument):
    """Overrides every hook."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []
        for name in set(HOOKS) - {"sending"}:
            setattr(self, name, partial(self._note, name))

    def sending(self, **payload: Any) -> list[tuple[str, bytes | None]]:
        self._note("sending", **payload)
        return [("number", b"%d" % payload["number"])]

    def _note(self, name: str, /, **payload: Any) -> None:
        self.told.append((name, payload))

    def of(self, name: str) -> list[dict[str, Any]]:
        return [payload for one, payload in self.told if one == name]

    def total(self, name: str, figure: str) -> int:
        return sum(payload[figure] for payload in self.of(name))


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


async def test_success(kafka: Kafka, recorder: Recorder) -> None:
    """The sums are those of what was sent, the places those of Kafka's log."""
    topic = kafka.new_topic(partitions=2)
    async with trio_kprod.open_producer(
        kafka.bootstrap_servers,
        instruments=(recorder,),
        compression_type="gzip",
        delivery_threshold=100,
        client_id="seen",
    ) as producer:
        for number in range(1000):
            await producer.send(topic, b"%d" % number, key=b"key", partition=number % 2)
        await producer.flush()
    now = producer.statistics()
    log = {(one.partition, one.offset): one for one in kafka.read(topic)}
    assert recorder.of("opened") == [{"producer": producer}]
    assert recorder.told[-1] == ("closed", {"producer": producer})
    counts = Counter(name for name, _ in recorder.told)
    assert counts["opened"] == counts["closed"] == 1
    assert counts["sending"] == counts["accepted"] == counts["enqueue_message"] == counts["settled"] == 1000
    failures = {"rejected", "undelivered", "error", "topic_error", "drop_messages", "buffer_overflow"}
    assert not failures & set(counts)

    for told in recorder.of("settled"):
        record = told["record"]
        written = log[record.partition, record.offset]
        assert written.value == told["message"].value
        assert written.timestamp_ms == record.timestamp_ms
        assert written.headers == [("number", b"%d" % told["number"])]

    acknowledged = {(one["partition"], one["base_offset"]): one for one in recorder.of("ack_messages")}
    assert sum(one["message_count"] for one in acknowledged.values()) == 1000
    ends = {(at[0], at[1] + one["message_count"]) for at, one in acknowledged.items()}
    assert ends - set(acknowledged) == {(0, 500), (1, 500)}  # they follow on each other
    assert all(one["topic"] == topic and one["delay"] > 0 for one in acknowledged.values())

    assert recorder.total("produce_messages", "message_count") == 1000
    assert recorder.total("produce_messages", "message_bytes") == now.delivered_bytes
    assert all(0 <= one["queue_size"] <= one["max_queue_size"] for one in recorder.of("produce_messages"))
    assert recorder.total("send_messages", "message_count") == 1000
    assert recorder.total("send_messages", "sent_message_count") == 1000
    assert {one["broker"] for one in recorder.of("send_messages")} == {kafka.bootstrap_servers}
    deliveries = recorder.of("deliver_messages")
    assert sum(one["delivered_message_count"] for one in deliveries) == 1000
    assert {(one["error"], one["attempts"]) for one in deliveries} == {(None, 1)}
    assert recorder.total("compress", "message_count") == 1000
    uncompressed = recorder.total("compress", "uncompressed_bytes")
    compressed = recorder.total("compress", "compressed_bytes")
    assert uncompressed > compressed > 0
    requests = recorder.of("request")
    assert {"Produce", "Metadata", "InitProducerId"} >= {one["api"] for one in requests} >= {"Produce"}
    assert all(one["error"] is None and one["request_bytes"] > 0 < one["response_bytes"] for one in requests)
    assert {one["broker"] for one in recorder.of("connected")} == {kafka.bootstrap_servers}
    assert {one["error"] for one in recorder.of("disconnected")} <= {None}


async def test_a_refusal_that_is_tried_again(
    three_nodes: Cluster, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    """``min.insync.replicas`` is not met: nothing counts as sent, each refusal is told, the cause stays."""
    topic = three_nodes.new_topic(replication_factor=3, min_insync_replicas="3")
    leader = three_nodes.leader(topic)
    async with trio_kprod.open_producer(
        three_nodes.bootstrap_servers,
        instruments=(recorder,),
        delivery_threshold=1,
        request_timeout_ms=2000,
    ) as producer:
        await trio.to_thread.run_sync(three_nodes.kill, leader % 3 + 1)
        receipt = producer.send_tracked_nowait(topic, b"value")
        # Until the leader has noticed the death, requests only time out.
        await until(lambda: any("NOT_ENOUGH_REPLICAS" in one for one in caplog.messages))
        producer.abort()
        with pytest.raises(trio_kprod.DeliveryFailed, match="NOT_ENOUGH_REPLICAS"):
            await receipt
    assert recorder.total("send_messages", "sent_message_count") == 0
    assert recorder.total("send_messages", "message_count") > 1
    assert (topic, "NOT_ENOUGH_REPLICAS") in {
        (one["topic"], one["error"].name) for one in recorder.of("topic_error")
    }
    (told,) = recorder.of("undelivered")
    assert (told["topic"], told["partition"], told["message_count"]) == (topic, 0, 1)
    assert isinstance(told["cause"], trio_kprod.DeliveryAborted)
    assert isinstance(told["cause"].__cause__, trio_kprod.Refused)
    (settled,) = recorder.of("settled")
    assert settled["undelivered"].cause is told["cause"] is recorder.of("error")[0]["error"]
    assert recorder.of("drop_messages") == [{"message_count": 1}]
    (delivery,) = recorder.of("deliver_messages")
    assert (delivery["delivered_message_count"], delivery["error"]) == (0, told["cause"])
    assert recorder.of("ack_messages") == []


async def test_a_refusal_that_is_final(kafka: Kafka, recorder: Recorder) -> None:
    """One message is larger than the topic takes; those around it are delivered."""
    topic = kafka.new_topic(max_message_bytes="1000")
    async with trio_kprod.open_producer(kafka.bootstrap_servers, instruments=(recorder,)) as producer:
        producer.send_nowait(topic, b"first")
        producer.send_nowait(topic, bytes(2000))
        producer.send_nowait(topic, b"last")
        with pytest.raises(trio_kprod.DeliveryFailed, match="MESSAGE_TOO_LARGE"):
            await producer.flush()
    (told,) = recorder.of("undelivered")
    assert told["cause"].name == "MESSAGE_TOO_LARGE"
    assert (told["message_count"], told["maybe_written"]) == (1, False)
    assert recorder.total("ack_messages", "message_count") == 2
    assert recorder.total("send_messages", "sent_message_count") == 2
    assert [one["undelivered"] is None for one in recorder.of("settled")].count(False) == 1
    assert "MESSAGE_TOO_LARGE" in {one["error"].name for one in recorder.of("topic_error")}


async def test_a_topic_that_does_not_exist(kafka: Kafka, recorder: Recorder) -> None:
    """The messages never had a partition."""
    async with trio_kprod.open_producer(
        kafka.bootstrap_servers, instruments=(recorder,), allow_auto_create_topics=False, topic_timeout=0.5
    ) as producer:
        with pytest.raises(trio_kprod.DeliveryFailed):
            await producer.send_and_wait("missing", b"value")
    assert all(isinstance(one["error"], trio_kprod.UnknownTopic) for one in recorder.of("topic_error"))
    (told,) = recorder.of("undelivered")
    assert (told["topic"], told["partition"], told["maybe_written"]) == ("missing", -1, False)
    assert isinstance(told["cause"], trio_kprod.UnknownTopic)
    assert recorder.of("send_messages") == []


async def test_a_broker_that_freezes_dies_and_comes_back(breakable: Cluster, recorder: Recorder) -> None:
    """Frozen, the buffer and the queue fill; dead, the connection and its requests are told as lost."""
    topic = breakable.new_topic()
    async with trio_kprod.open_producer(
        breakable.bootstrap_servers,
        instruments=(recorder,),
        delivery_threshold=1,
        max_buffer_size=10,
        max_queue_size=10,
        shutdown_timeout=PATIENCE,
    ) as producer:
        await producer.send_and_wait(topic, b"first")
        breakable.pause()
        with pytest.raises(trio_kprod.BufferOverflow):
            while True:
                producer.send_nowait(topic, b"value")
                await trio.lowlevel.checkpoint()
        await trio.to_thread.run_sync(breakable.kill)
        await until(lambda: bool(recorder.of("disconnected")))
        await trio.to_thread.run_sync(breakable.restore)
        await producer.flush()
    assert recorder.of("buffer_overflow") == [{"topic": topic}]
    assert [type(one["error"]) for one in recorder.of("rejected")] == [trio_kprod.BufferOverflow]
    assert recorder.of("buffer_full")[0]["max_buffer_size"] == 10
    assert all(isinstance(one["error"], Exception) for one in recorder.of("disconnected")[:1])
    lost = [one for one in recorder.of("request") if one["api"] == "Produce" and one["error"] is not None]
    assert lost
    assert all(isinstance(one["error"], trio_kprod.ConnectionLost) for one in lost)
    accepted = len(recorder.of("accepted"))
    assert recorder.total("send_messages", "message_count") > accepted
    assert recorder.total("send_messages", "sent_message_count") <= accepted
    assert len(recorder.of("settled")) == accepted == producer.statistics().delivered


async def test_a_quota(own_cluster: Cluster, recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """Obeyed, told, counted and logged."""
    limit_client(own_cluster, "greedy", 20_000)
    topic = own_cluster.new_topic()
    async with trio_kprod.open_producer(
        own_cluster.bootstrap_servers, instruments=(recorder,), client_id="greedy", delivery_threshold=1
    ) as producer:
        await producer.send_and_wait(topic, bytes(300_000))  # that is allowed, and paid for afterwards
        await until(lambda: bool(recorder.of("throttled")))
    (told, *_) = recorder.of("throttled")
    assert told["broker"] == own_cluster.bootstrap_servers
    assert told["duration"] > 0
    now = producer.statistics()
    assert now.throttles == len(recorder.of("throttled"))
    assert now.throttled_time == sum(one["duration"] for one in recorder.of("throttled"))
    assert [one for one in caplog.messages if one.startswith(f"quota at {told['broker']}: ")]
