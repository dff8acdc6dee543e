"""What a statsd server gets: lines in UDP packets, under ruby-kafka's names."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from datadog.dogstatsd.base import DogStatsd

import trio_kprod
from trio_kprod.instruments.statsd import StatsdInstrument
from trio_kprod.testing import Broker, MemoryBroker, open_memory_producer


class Server:
    """A UDP socket; its lines as (name, value, type), with Datadog's tags behind."""

    def __init__(self, family: socket.AddressFamily = socket.AF_INET, host: str = "127.0.0.1") -> None:
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.bind((host, 0))
        self.socket.setblocking(False)
        self.port: int = self.socket.getsockname()[1]

    def lines(self) -> list[str]:
        """All that has come. On loopback a packet has come when `send` returns."""
        found: list[str] = []
        while True:
            try:
                found += self.socket.recv(65536).decode().splitlines()
            except BlockingIOError:
                return found

    def metrics(self) -> dict[str, tuple[float, str]]:
        """The value and the type of each name; the last line of a name counts."""
        found: dict[str, tuple[float, str]] = {}
        for line in self.lines():
            name, _, rest = line.partition(":")
            value, _, kind = rest.partition("|")
            found[name] = (float(value), kind)
        return found


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.socket.close()


async def test_plain_statsd(server: Server, kafka_broker: Broker) -> None:
    """Client id, topic, API and broker are parts of the name."""
    watch = StatsdInstrument(client_id="orders", port=server.port)
    async with trio_kprod.open_producer(kafka_broker.bootstrap_servers, instruments=(watch,)) as producer:
        for number in range(4):
            producer.send_nowait("greetings", b"x" * number)
        await producer.flush()
    metrics = server.metrics()
    producer_orders = "ruby_kafka.producer.orders"
    assert metrics[f"{producer_orders}.greetings.produce.messages"] == (4, "c")
    assert metrics[f"{producer_orders}.greetings.produce.message_size"] == (36 + 1.5, "ms")
    assert metrics["ruby_kafka.async_producer.orders.greetings.queue.size"] == (4, "ms")
    assert metrics["ruby_kafka.async_producer.orders.greetings.queue.fill_ratio"] == (4 / 1000, "ms")
    assert metrics[f"{producer_orders}.buffer.size"] == (4, "ms")
    assert metrics[f"{producer_orders}.buffer.fill_ratio"] == (4 / 20_000, "ms")
    assert metrics[f"{producer_orders}.buffer.fill_percentage"] == (4 / 200, "ms")
    assert metrics[f"{producer_orders}.greetings.ack.messages"] == (4, "c")
    assert metrics[f"{producer_orders}.greetings.ack.delay"][1] == "ms"
    assert metrics[f"{producer_orders}.deliver.messages"] == (4, "c")
    assert metrics[f"{producer_orders}.deliver.attempts"] == (1, "ms")
    assert metrics[f"{producer_orders}.deliver.latency"][1] == "ms"
    api = "ruby_kafka.api.orders.produce.127.0.0.1"
    assert metrics[f"{api}.calls"] == (1, "c")
    assert metrics[f"{api}.request_size"][0] > 0
    assert metrics[f"{api}.response_size"][0] > 0
    assert metrics[f"{api}.latency"][0] > 0
    assert not [name for name in metrics if "error" in name]


async def test_datadog(server: Server, autojump_clock: Any) -> None:
    """They are tags, and ruby-kafka's histograms are histograms."""
    watch = StatsdInstrument(
        client_id="orders", port=server.port, namespace="kafka", datadog=True, tags=["env:test"]
    )
    async with open_memory_producer(instruments=(watch,)) as producer:
        producer.send_nowait("greetings", b"1")
        producer.send_nowait("greetings", b"22")
    lines = server.lines()
    tags = "#client:orders,topic:greetings,env:test"
    assert f"kafka.producer.produce.messages:2|c|{tags}" in lines
    assert f"kafka.producer.produce.message_size.sum:75|c|{tags}" in lines
    assert f"kafka.producer.produce.message_size:37.5|h|{tags}" in lines
    assert f"kafka.producer.ack.messages:2|c|{tags}" in lines
    assert "kafka.producer.deliver.messages:2|c|#client:orders,env:test" in lines
    assert all(line.startswith("kafka.") for line in lines)


async def test_failures(server: Server, autojump_clock: Any) -> None:
    """Overflows, refusals, what is dropped at the end, and deliveries that failed."""
    broker = MemoryBroker(auto_create_topics=False)
    watch = StatsdInstrument(port=server.port)
    failed = False
    try:
        async with open_memory_producer(
            broker, instruments=(watch,), max_queue_size=1, topic_timeout=1, shutdown_timeout=5
        ) as producer:
            producer.send_nowait("missing", b"")
            with pytest.raises(trio_kprod.BufferOverflow):
                producer.send_nowait("missing", b"")
    except trio_kprod.DeliveryFailed:
        failed = True
    assert failed
    metrics = server.metrics()
    assert metrics["ruby_kafka.async_producer.trio_kprod.missing.produce.errors"] == (1, "c")
    assert metrics["ruby_kafka.producer.trio_kprod.missing.ack.errors"] == (1, "c")
    assert metrics["ruby_kafka.producer.trio_kprod.deliver.errors"] == (1, "c")
    assert metrics["ruby_kafka.producer.trio_kprod.deliver.messages"] == (0, "c")


async def test_what_is_given_up_is_told(server: Server, autojump_clock: Any) -> None:
    """Also what was never taken from the queue: it was accepted, and dropped."""
    watch = StatsdInstrument(port=server.port)
    with pytest.raises(trio_kprod.DeliveryFailed):
        async with open_memory_producer(instruments=(watch,)) as producer:
            producer.send_nowait("topic", b"")
            producer.abort()
    metrics = server.metrics()
    assert metrics["ruby_kafka.async_producer.trio_kprod.dropped_messages"] == (1, "c")
    assert metrics["ruby_kafka.producer.trio_kprod.topic.produce.messages"] == (1, "c")


def test_a_request_without_response(server: Server) -> None:
    """Is a call, and an error."""
    watch = StatsdInstrument(port=server.port)
    error = trio_kprod.NoResponse("none")
    watch.request(
        broker="[::1]:9092", api="Produce", request_bytes=1, response_bytes=0, duration=0.5, error=error
    )
    watch.closed()
    metrics = server.metrics()
    assert metrics["ruby_kafka.api.trio_kprod.produce.[__1].errors"] == (1, "c")
    assert metrics["ruby_kafka.api.trio_kprod.produce.[__1].latency"] == (500, "ms")


def test_names_cannot_break_a_line(server: Server) -> None:
    """A client id may hold what the protocol uses."""
    watch = StatsdInstrument(client_id="a:b|c d#e", port=server.port)
    watch.buffer_overflow(topic="topic")
    watch.closed()
    assert server.lines() == ["ruby_kafka.async_producer.a_b_c_d_e.topic.produce.errors:1|c"]


@pytest.mark.parametrize("datadog", [False, True])
def test_tags_of_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch, datadog: bool) -> None:
    """Datadog's agent gets them; a plain statsd server would not understand the line."""
    monkeypatch.setenv("DD_ENV", "prod")
    watch = StatsdInstrument(port=server.port, datadog=datadog)
    watch.drop_messages(message_count=3)
    watch.closed()
    (line,) = server.lines()
    assert line.endswith("|#client:trio_kprod,env:prod" if datadog else ".dropped_messages:3|c")


def test_tags_need_datadog() -> None:
    with pytest.raises(ValueError, match="datadog=True"):
        StatsdInstrument(tags=["env:test"])


def test_an_unknown_host_is_told_at_once() -> None:
    """It is looked up where the instrument is made, and never in the loop."""
    with pytest.raises(OSError, match=r"."):
        StatsdInstrument(host="no such host")


def test_a_client_of_ones_own(server: Server) -> None:
    """Keeps its settings, and stays open."""
    mine = DogStatsd(host="127.0.0.1", port=server.port, namespace="mine", disable_telemetry=True)
    watch = StatsdInstrument(client=mine, datadog=True)
    watch.drop_messages(message_count=1)
    watch.closed()
    mine.increment("more")
    assert server.lines() == [
        "mine.async_producer.dropped_messages:1|c|#client:trio_kprod",
        "mine.more:1|c",
    ]
    mine.close_socket()


async def test_nobody_listens(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A dead agent costs its packets, and no message."""
    gone = Server()
    gone.socket.close()
    broker = MemoryBroker()
    watch = StatsdInstrument(port=gone.port)
    async with open_memory_producer(broker, instruments=(watch,)) as producer:
        for _ in range(20):
            await producer.send_and_wait("topic", b"")
    assert len(broker.records("topic")) == 20
    assert "it is told nothing any more" not in caplog.text


async def test_the_socket_is_full(server: Server, autojump_clock: Any) -> None:
    """It never waits: what the system takes no more is dropped."""
    broker = MemoryBroker()
    watch = StatsdInstrument(port=server.port)
    watch._statsd.get_socket().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    assert not watch._statsd.get_socket().getblocking()
    async with open_memory_producer(broker, instruments=(watch,)) as producer:
        for _ in range(20):
            await producer.send_and_wait("topic", b"")
    assert len(broker.records("topic")) == 20
