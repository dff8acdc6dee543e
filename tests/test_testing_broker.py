"""The embedded broker on its port: start and stop, and clients that are not ours."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from typing import Any

import pytest
import trio
import trustme
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from tests._testing_peer import Peer, batch
from trio_kprod.testing import Broker, Record, _serve, open_broker

THREAD = "trio_kprod.testing broker"


def broker_threads() -> int:
    """How many brokers run in this process."""
    return sum(thread.name == THREAD for thread in threading.enumerate())


async def connect(broker: Broker) -> Peer:
    """A bare client."""
    host, port = broker.address
    return Peer(await trio.open_tcp_stream(host, port))


# ---------------------------------------------------------------------------------------------------------
# Start and stop


def test_a_broker_runs_while_its_block_does() -> None:
    before = broker_threads()
    with open_broker() as broker:
        assert broker_threads() == before + 1
        assert repr(broker) == f"<Broker {broker.bootstrap_servers}, running, 0 connections>"
        assert broker.bootstrap_servers == "{}:{}".format(*broker.address)
    assert broker_threads() == before
    assert "not running" in repr(broker)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(broker.address)


async def test_a_broker_in_an_async_block() -> None:
    before = broker_threads()
    async with open_broker() as broker:
        peer = await connect(broker)
        assert (await peer.metadata("t")).topics[0].error_code == 0
        await peer.stream.aclose()
    assert broker_threads() == before


async def test_an_async_block_that_is_cancelled_leaves_nothing() -> None:
    before = broker_threads()
    with trio.CancelScope() as scope:
        async with open_broker():
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert broker_threads() == before


async def test_leaving_ends_the_connections() -> None:
    async with open_broker() as broker:
        peer = await connect(broker)
        await peer.metadata("t")
    assert await peer.stream.receive_some() == b""
    assert broker.connections == 0
    await peer.stream.aclose()


def test_a_broker_is_entered_once() -> None:
    with open_broker() as broker:
        pass
    with pytest.raises(RuntimeError, match="entered once"), broker:
        pass  # pragma: no cover


def test_what_arrived_can_be_read_afterwards() -> None:
    with open_broker(topics={"t": 1}) as broker:
        broker.create_topic("u", 2)
    assert broker.topics == {"t": 1, "u": 2}
    assert broker.records("t") == []


def test_an_address_in_use_is_named() -> None:
    with open_broker() as broker:
        host, port = broker.address
        with (
            pytest.raises(OSError, match=f"cannot listen on {host}:{port}: .*in use"),
            open_broker(port=port),
        ):
            pass  # pragma: no cover
    assert broker_threads() == 0


def test_a_host_that_is_none_is_named() -> None:
    with pytest.raises(OSError, match=r"cannot listen on host\.invalid:0"), open_broker(host="host.invalid"):
        pass  # pragma: no cover


def test_the_address_clients_are_told_can_be_another() -> None:
    with open_broker(advertised=("proxy", 1)) as broker:
        assert broker.bootstrap_servers == "proxy:1"
        assert broker.address[0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"partitions": 0}, "partitions must be 1 or more; got 0"),
        ({"topics": {"a/b": 1}}, "Kafka allows no topic of this name: 'a/b'"),
        ({"topics": {"t": 0}}, "partitions must be 1 or more; got 0"),
        ({"port": 65536}, "port must be from 0 to 65535; got 65536"),
        ({"port": -1}, "port must be from 0 to 65535; got -1"),
        ({"max_message_bytes": 0}, "max_message_bytes must be 1 or more; got 0"),
    ],
)
def test_settings_that_make_no_sense(settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_broker(**settings)


@pytest.mark.parametrize("settings", [{"port": "9092"}, {"host": None}, {"max_request_bytes": "1"}])
def test_settings_of_the_wrong_type(settings: Any) -> None:
    with pytest.raises(TypeError, match=f"{next(iter(settings))} must be"):
        open_broker(**settings)
    assert broker_threads() == 0


# ---------------------------------------------------------------------------------------------------------
# Topics


def test_topics_are_made_changed_and_deleted() -> None:
    with open_broker() as broker:
        broker.create_topic("t")
        with pytest.raises(ValueError, match="'t' exists already"):
            broker.create_topic("t")
        broker.add_partitions("t", 3)
        assert broker.topics == {"t": 3}
        with pytest.raises(ValueError, match="has 3 partitions already; a topic cannot shrink to 2"):
            broker.add_partitions("t", 2)
        broker.delete_topic("t")
        with pytest.raises(KeyError):
            broker.delete_topic("t")


# ---------------------------------------------------------------------------------------------------------
# Down and up


async def test_a_broker_that_is_down_comes_back_on_its_port() -> None:
    async with open_broker() as broker:
        peer = await connect(broker)
        await peer.metadata("t")
        broker.stop_listening()
        broker.stop_listening()
        broker.disconnect_all()
        assert await peer.receive(None, 0) is None
        with pytest.raises(OSError, match="connect"):
            await connect(broker)
        broker.start_listening()
        broker.start_listening()
        again = await connect(broker)
        assert await again.metadata("t")
        for one in (peer, again):
            await one.stream.aclose()


def test_a_broker_that_is_not_running_cannot_listen() -> None:
    broker = open_broker()
    with pytest.raises(RuntimeError, match="not running"):
        broker.start_listening()
    with broker:
        pass
    with pytest.raises(RuntimeError, match="not running"):
        broker.stop_listening()


async def test_bad_bytes_end_their_connection_only(caplog: pytest.LogCaptureFixture) -> None:
    async with open_broker() as broker:
        peer = await connect(broker)
        await peer.metadata("t")
        bad = await connect(broker)
        await bad.stream.send_all(bytes(range(255, -1, -1)) * 256)
        with pytest.raises((trio.BrokenResourceError, AssertionError)):
            assert await bad.stream.receive_some() != b""
        assert await peer.metadata("t")
        for one in (peer, bad):
            await one.stream.aclose()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_bug_of_the_broker_ends_one_connection_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_broker() as broker:
        peer = await connect(broker)
        with monkeypatch.context() as patch:
            patch.setattr(_serve, "handle", lambda *_: 1 / 0)
            assert await peer.metadata("t") is None
        again = await connect(broker)
        assert (await again.metadata("t")).topics[0].error_code == 0
        for one in (peer, again):
            await one.stream.aclose()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == [
        "closing a connection: the broker failed to handle a request"
    ]


# ---------------------------------------------------------------------------------------------------------
# Waiting


def test_waiting_for_records_says_how_many_there_are() -> None:
    with open_broker() as broker:
        with pytest.raises(TimeoutError, match="0 of 1 records in topic 't' after 0 seconds"):
            broker.wait_records("t", timeout=0)
        with pytest.raises(TimeoutError, match="0 of 2 Produce requests after 0 seconds"):
            broker.wait_requests("Produce", 2, timeout=0)


async def test_any_condition_is_waited_for() -> None:
    async with open_broker() as broker:
        rule = broker.answer("Metadata", error=5)
        peer = await connect(broker)
        await broker.until(lambda: broker.connections == 1)
        await peer.metadata("t")
        broker.wait_until(lambda: rule.hits == 1)
        await peer.stream.aclose()
        await broker.until(lambda: broker.connections == 0)
        with pytest.raises(TimeoutError, match=r"not so after 0 seconds: <Broker .*, 0 connections>"):
            broker.wait_until(lambda: broker.connections == 1, timeout=0)


def test_records_are_waited_for_outside_of_a_loop() -> None:
    with open_broker() as broker:
        producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers)
        producer.send("t", b"1")
        assert [record.value for record in broker.wait_records("t")] == [b"1"]
        broker.wait_requests("Produce")
        producer.close()


async def test_records_are_waited_for_in_any_loop() -> None:
    async with open_broker() as broker, trio.open_nursery() as nursery:
        arrived: list[Record] = []

        async def wait() -> None:
            arrived.extend(await broker.records_arrived("t", 2))

        nursery.start_soon(wait)
        peer = await connect(broker)
        await peer.metadata("t")
        await peer.produce("t", batch([b"1"]))
        await peer.produce("t", batch([b"2"]))
        await peer.stream.aclose()
    assert [record.value for record in arrived] == [b"1", b"2"]


# ---------------------------------------------------------------------------------------------------------
# Foreign clients


def produce_and_consume(broker: Broker, **settings: Any) -> list[Any]:
    """Twenty records by kafka-python's producer, read back by its consumer."""
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, **settings)
    for index in range(20):
        producer.send("t", b"value %d" % index, key=b"key %d" % index, headers=[("h", b"1")])
    producer.flush(timeout=10)
    producer.close()
    compression = {"compression_type"}
    settings = {name: value for name, value in settings.items() if name not in compression}
    return consume(broker, 20, **settings)


def consume(broker: Broker, count: int, **settings: Any) -> list[Any]:
    consumer = KafkaConsumer(
        bootstrap_servers=broker.bootstrap_servers,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        **settings,
    )
    consumer.assign([TopicPartition("t", index) for index in range(broker.topics["t"])])
    found: list[Any] = []
    while len(found) < count:
        polled = consumer.poll(timeout_ms=10_000)
        assert polled, f"only {len(found)} of {count} records could be read"
        found += [record for records in polled.values() for record in records]
    consumer.close()
    return found


def as_records(consumed: list[Any]) -> list[Record]:
    """kafka-python's records as ours, in the order of ours."""
    records = [
        Record(r.topic, r.partition, r.offset, r.key, r.value, tuple(r.headers), r.timestamp)
        for r in consumed
    ]
    return sorted(records, key=lambda record: (record.partition, record.offset))


@pytest.mark.parametrize("compression", [None, "gzip", "snappy", "lz4", "zstd"])
def test_kafka_python_produces_and_consumes(
    compression: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    if compression not in (None, "gzip"):
        pytest.importorskip({"snappy": "snappy", "lz4": "lz4", "zstd": "zstandard"}[compression])
    with open_broker(partitions=3) as broker:
        consumed = produce_and_consume(broker, compression_type=compression)
        assert as_records(consumed) == broker.records("t")
        assert {record.value for record in broker.records("t")} == {b"value %d" % i for i in range(20)}
        assert {one.producer_id >= 0 for one in broker.batches("t")} == {True}
        producers = broker.requests["InitProducerId"]
        assert producers == 1
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_kafka_python_sees_a_scripted_refusal() -> None:
    with open_broker() as broker:
        producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers)
        broker.answer("Produce", error=29)
        with pytest.raises(KafkaError, match="t"):
            producer.send("t", b"refused").get(timeout=10)
        producer.close()
    assert broker.records("t") == []


def test_kafka_python_does_not_duplicate_when_an_answer_is_lost() -> None:
    with open_broker() as broker:
        producer = KafkaProducer(
            bootstrap_servers=broker.bootstrap_servers, reconnect_backoff_ms=10, retry_backoff_ms=10
        )
        broker.drop_connections("append", "Produce")
        assert producer.send("t", b"once").get(timeout=10).offset == 0
        producer.close()
    assert [record.value for record in broker.records("t")] == [b"once"]
    assert broker.requests["Produce"] == 2


def test_confluent_kafka_produces_and_consumes() -> None:
    confluent: Any = pytest.importorskip("confluent_kafka")
    errors: list[Any] = []
    with open_broker(partitions=2) as broker:
        common = {"bootstrap.servers": broker.bootstrap_servers, "error_cb": errors.append, "log_level": 0}
        producer = confluent.Producer({**common, "enable.idempotence": True, "compression.type": "lz4"})
        for index in range(20):
            producer.produce("t", b"value %d" % index, key=b"key %d" % index)
        assert producer.flush(10) == 0
        consumer = confluent.Consumer({**common, "group.id": "any", "enable.auto.commit": False})
        consumer.assign([confluent.TopicPartition("t", index, 0) for index in range(2)])
        found = {consumer.poll(10).value() for _ in range(20)}
        consumer.close()
        assert found == {record.value for record in broker.records("t")}
        assert len(found) == 20
    assert errors == []


# ---------------------------------------------------------------------------------------------------------
# TLS and SASL


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def test_tls(authority: trustme.CA, server_context: ssl.SSLContext) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with open_broker(ssl_context=server_context) as broker:
        consumed = produce_and_consume(broker, security_protocol="SSL", ssl_context=context)
        assert as_records(consumed) == broker.records("t")


async def test_bytes_that_are_not_tls_end_their_connection_only(
    server_context: ssl.SSLContext, authority: trustme.CA
) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with open_broker(ssl_context=server_context) as broker:
        bad = await connect(broker)
        assert await bad.metadata("t") is None
        await bad.stream.aclose()
        good = Peer(await trio.open_ssl_over_tcp_stream(*broker.address, ssl_context=context))
        assert await good.metadata("t")
        await trio.aclose_forcefully(good.stream)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_sasl(mechanism: str) -> None:
    with open_broker(sasl_users={"ann": "secret"}) as broker:
        consumed = produce_and_consume(
            broker,
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism=mechanism,
            sasl_plain_username="ann",
            sasl_plain_password="secret",
        )
        assert as_records(consumed) == broker.records("t")
