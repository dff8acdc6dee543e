"""Metrics as Prometheus gets them: by HTTP, from another thread than the producer's."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
import trio
from prometheus_client import CollectorRegistry, Counter, generate_latest, make_wsgi_app, start_http_server
from prometheus_client.parser import text_string_to_metric_families

import trio_kprod
from trio_kprod.instruments.prometheus import PrometheusInstrument
from trio_kprod.testing import Broker, MemoryBroker, open_memory_producer


class Page:
    """What a registry serves; its series by name and labels."""

    def __init__(self, url: str) -> None:
        self._url = url

    def text(self) -> str:
        with urllib.request.urlopen(self._url, timeout=30) as answer:
            text: str = answer.read().decode()
        return text

    async def read(self) -> Series:
        return Series(await trio.to_thread.run_sync(self.text))


class Series:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self._samples = [sample for family in self.families.values() for sample in family.samples]

    def labels(self, name: str) -> list[dict[str, str]]:
        return [sample.labels for sample in self._samples if sample.name == f"trio_kprod_{name}"]

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of the series of this name that have these labels; fails if there is none."""
        found = [
            sample.value
            for sample in self._samples
            if sample.name == f"trio_kprod_{name}" and labels.items() <= sample.labels.items()
        ]
        assert found, (name, labels)
        return sum(found)


def scraped(registry: CollectorRegistry) -> Series:
    """In this thread: a producer in virtual time can be asked there only."""
    return Series(generate_latest(registry).decode())


class QuietHandler(WSGIRequestHandler):
    """Says nothing on standard error."""

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def served(registry: CollectorRegistry) -> Iterator[Page]:
    """By prometheus_client's application, on a loopback port, in a thread of its own."""
    with make_server("127.0.0.1", 0, make_wsgi_app(registry), handler_class=QuietHandler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield Page(f"http://127.0.0.1:{server.server_port}/metrics")
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def page(registry: CollectorRegistry) -> Iterator[Page]:
    with served(registry) as found:
        yield found


async def test_a_life_by_http(registry: CollectorRegistry, page: Page, kafka_broker: Broker) -> None:
    """What waits is polled at the scrape; what is done stays counted when the producer is closed."""
    watch = PrometheusInstrument(client_id="orders", registry=registry)
    async with trio_kprod.open_producer(
        kafka_broker.bootstrap_servers, client_id="orders", instruments=(watch,), compression_type="gzip"
    ) as producer:
        for number in range(10):
            producer.send_nowait("one", b"x" * number)
        await producer.flush()
        await producer.send("two", b"")
        open_now = await page.read()
        size = producer.statistics().delivered_bytes
    closed = await page.read()
    assert open_now("open_producers", client_id="orders") == 1
    assert open_now("accepted_messages_total", client_id="orders") == 11
    assert open_now("delivered_messages_total") == 10
    assert open_now("delivered_bytes_total") == size
    assert open_now("unsettled_messages") == 1
    assert len(open_now.labels("unsettled_messages")) == 3
    assert open_now("unsettled_bytes") > 0
    assert open_now("oldest_message_age_seconds") > 0
    assert open_now("waiting_tasks") == 0
    assert open_now("topic_delivered_messages_total", topic="one") == 10
    assert open_now("limit_messages", place="queue") == 1_000
    assert open_now("limit_messages", place="buffer") == 20_000
    assert open_now("delivery_seconds_count", topic="one") == open_now("batch_messages_count") >= 1
    assert open_now("batch_messages_sum") == 10
    broker = kafka_broker.bootstrap_servers
    assert open_now("request_seconds_count", broker=broker, api="Produce") >= 1
    assert open_now("sent_bytes_total", broker=broker) > 0
    assert open_now("received_bytes_total", broker=broker) > 0
    assert open_now("connections_total", broker=broker) >= 1
    assert open_now("uncompressed_bytes_total") > 0
    assert open_now("compressed_bytes_total") > 0
    assert open_now("throttles_total") == open_now("throttled_seconds_total") == 0
    assert closed("open_producers") == 0
    assert closed("accepted_messages_total") == closed("delivered_messages_total") == 11
    assert closed("unsettled_messages") == closed("oldest_message_age_seconds") == 0
    assert closed("topic_delivered_messages_total", topic="two") == 1


async def test_names_and_units(registry: CollectorRegistry, page: Page) -> None:
    """One prefix, base units, ``_total`` behind counters; each has a help text and a client id."""
    PrometheusInstrument(registry=registry)
    families = (await page.read()).families
    assert len(families) > 20
    for name, family in families.items():
        assert name.startswith("trio_kprod_")
        assert family.type in ("counter", "gauge", "histogram")
        assert family.documentation.endswith(".")
        assert not name.endswith(("_ms", "_kb", "_percent", "_total", "_count"))
        assert all("client_id" in sample.labels for sample in family.samples)
        assert all(sample.name == f"{name}_total" for sample in family.samples if family.type == "counter")


async def test_series_are_there_before_anything_happens(registry: CollectorRegistry, page: Page) -> None:
    """So that the first failure is an increase, not a series that appears."""
    PrometheusInstrument(client_id="orders", registry=registry)
    first = await page.read()
    assert first("undelivered_messages_total", client_id="orders") == 0
    assert first("open_producers", client_id="orders") == 0


async def test_failures(registry: CollectorRegistry, page: Page, kafka_broker: Broker) -> None:
    """By topic and cause, by Kafka's name for it."""
    watch = PrometheusInstrument(registry=registry)
    kafka_broker.create_topic("refused")
    kafka_broker.answer("Produce", "INVALID_RECORD", topic="refused")
    causes: list[trio_kprod.Undelivered] = []
    async with trio_kprod.open_producer(
        kafka_broker.bootstrap_servers,
        instruments=(watch,), max_queue_size=1, max_buffer_size=1, on_undelivered=causes.append,
    ) as producer:  # fmt: skip
        producer.send_nowait("refused", b"")
        with pytest.raises(trio_kprod.BufferOverflow):
            producer.send_nowait("refused", b"")
    series = await page.read()
    assert series("overflows_total", topic="refused") == 1
    assert series("undelivered_messages_total") == len(causes) == 1
    assert (
        series(
            "topic_undelivered_messages_total",
            topic="refused",
            cause="INVALID_RECORD",
            maybe_written="false",
        )
        == 1
    )
    assert series("errors_total", error="INVALID_RECORD") == 1


async def test_connections_that_are_lost(registry: CollectorRegistry, page: Page) -> None:
    """Those that we close are not counted."""
    watch = PrometheusInstrument(registry=registry)
    watch.disconnected(broker="one:1", error=None)
    watch.disconnected(broker="one:1", error=trio_kprod.ConnectionLost("gone"))
    watch.request(
        broker="one:1", api="Produce", request_bytes=1, response_bytes=0, duration=1.0,
        error=trio_kprod.NoResponse("none"),
    )  # fmt: skip
    series = await page.read()
    assert series.labels("connection_errors_total") == [
        {"client_id": "trio_kprod", "broker": "one:1", "error": "ConnectionLost"}
    ]
    assert series("request_errors_total", error="NoResponse") == 1


async def test_attempts_to_connect_that_fail(
    registry: CollectorRegistry, page: Page, autojump_clock: object
) -> None:
    """An outage is seen in the metrics, not in the log only."""
    broker = MemoryBroker()
    watch = PrometheusInstrument(registry=registry)
    async with open_memory_producer(broker, delivery_threshold=1, instruments=(watch,)) as producer:
        broker.stop_listening()
        broker.disconnect_all()
        producer.send_nowait("t", b"1")
        await trio.sleep(10)
        broker.start_listening()
    errors = registry.get_sample_value(
        "trio_kprod_connection_errors_total",
        {"client_id": "trio_kprod", "broker": "memory:9092", "error": "SetupFailed"},
    )
    assert errors is not None
    assert errors > 5


async def test_what_brokers_say_of_a_topic(registry: CollectorRegistry, page: Page) -> None:
    """Is counted whenever it is told, by Kafka's name or ours."""
    watch = PrometheusInstrument(registry=registry)
    watch.topic_error(topic="missing", error=trio_kprod.UnknownTopic("missing"))
    series = await page.read()
    assert series("topic_errors_total", topic="missing", error="UnknownTopic") == 1


async def test_topics_have_a_bound(registry: CollectorRegistry, autojump_clock: Any) -> None:
    """The first ones have a label of their own, all others one together, and nothing is lost."""
    watch = PrometheusInstrument(registry=registry, max_topics=2)
    async with open_memory_producer(instruments=(watch,)) as producer:
        for topic in ("one", "two", "three", "four", "one"):
            await producer.send_and_wait(topic, b"")
    series = scraped(registry)
    topics = {labels["topic"] for labels in series.labels("topic_delivered_messages_total")}
    assert topics == {"one", "two", "other"}
    assert series("topic_delivered_messages_total", topic="one") == 2
    assert series("topic_delivered_messages_total", topic="other") == 2


@pytest.mark.parametrize("wrong", [0, -1])
def test_a_bound_is_positive(registry: CollectorRegistry, wrong: int) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        PrometheusInstrument(registry=registry, max_topics=wrong)


async def test_several_producers_share_a_registry(registry: CollectorRegistry, autojump_clock: Any) -> None:
    """Each client id has its own series; producers with the same one are added up, open and closed."""
    brokers = MemoryBroker(), MemoryBroker()
    orders = PrometheusInstrument(client_id="orders", registry=registry)
    more_orders = PrometheusInstrument(client_id="orders", registry=registry)
    logs = PrometheusInstrument(client_id="logs", registry=registry)
    async with (
        open_memory_producer(brokers[0], instruments=(orders,)) as one,
        open_memory_producer(brokers[1], instruments=(logs,)) as two,
    ):
        await one.send_and_wait("topic", b"")
        two.send_nowait("topic", b"")
        async with open_memory_producer(brokers[0], instruments=(more_orders,)) as three:
            three.send_nowait("topic", b"")
            three.send_nowait("topic", b"")
            both = scraped(registry)
        after = scraped(registry)
    assert both("open_producers", client_id="orders") == 2
    assert both("accepted_messages_total", client_id="orders") == 3
    assert both("accepted_messages_total", client_id="logs") == 1
    assert both("unsettled_messages", client_id="orders") == 2
    assert after("open_producers", client_id="orders") == 1
    assert after("accepted_messages_total", client_id="orders") == 3
    assert after("delivered_messages_total", client_id="orders") == 3
    assert after("delivered_messages_total", client_id="logs") == 0


async def test_the_oldest_of_several_counts(registry: CollectorRegistry, autojump_clock: Any) -> None:
    """Ages are not added up."""
    watch = PrometheusInstrument(registry=registry)
    async with (
        open_memory_producer(instruments=(watch,)) as one,
        open_memory_producer(instruments=(watch,)) as two,
    ):
        one.send_nowait("topic", b"")
        await trio.sleep(30)
        two.send_nowait("topic", b"")
        await trio.sleep(5)
        series = scraped(registry)
    assert series("oldest_message_age_seconds") == pytest.approx(35)


def test_names_that_are_taken(registry: CollectorRegistry) -> None:
    """By somebody else: the error says so where the instrument is made."""
    Counter("trio_kprod_accepted_messages", "Mine.", registry=registry)
    with pytest.raises(ValueError, match="trio_kprod_accepted_messages"):
        PrometheusInstrument(registry=registry)


async def test_the_server_of_prometheus_client(kafka_broker: Broker) -> None:
    """In two lines, with its own registry."""
    registry = CollectorRegistry()
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    async with trio_kprod.open_producer(
        kafka_broker.bootstrap_servers, instruments=(PrometheusInstrument(registry=registry),)
    ) as producer:
        await producer.send_and_wait("topic", b"")
        series = await Page(f"http://127.0.0.1:{server.server_port}/metrics").read()
    server.shutdown()
    server.server_close()
    thread.join()
    assert series("delivered_messages_total") == 1


async def test_scrapes_while_it_works(registry: CollectorRegistry, page: Page, kafka_broker: Broker) -> None:
    """Another thread asks without pause: every answer is whole, no counter goes back, nothing is harmed."""
    watch = PrometheusInstrument(registry=registry)
    done = threading.Event()
    counts: list[float] = []

    def scrape() -> None:
        while not done.is_set():
            counts.append(Series(page.text())("accepted_messages_total"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, scrape)
        async with trio_kprod.open_producer(
            kafka_broker.bootstrap_servers, instruments=(watch,), delivery_threshold=100
        ) as producer:
            for turn in range(50):
                await producer.send_many(f"topic{turn % 5}", [b"x"] * 200)
        done.set()
    assert counts == sorted(counts)
    assert Series(page.text())("delivered_messages_total") == 10_000
