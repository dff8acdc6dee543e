"""Spans and metrics as the SDK's own exporters get them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import trio_kprod
from trio_kprod.instruments.opentelemetry import OpenTelemetryInstrument, OpenTelemetryMetrics
from trio_kprod.testing import Broker, MemoryBroker, Record, open_memory_producer


class Telemetry:
    """An SDK that keeps all that it is told."""

    def __init__(self, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider(**options)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self.reader])
        self.tracer = self.tracer_provider.get_tracer("tests")

    def instrument(self, **options: Any) -> OpenTelemetryInstrument:
        return OpenTelemetryInstrument(
            tracer_provider=self.tracer_provider, meter_provider=self.meter_provider, **options
        )

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def points(self, name: str) -> list[Any]:
        """The data points of a metric."""
        data = self.reader.get_metrics_data()
        assert data is not None
        return [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


def context_of(record: Record) -> trace.SpanContext:
    """What a consumer finds in the headers of a message."""
    carrier = {name: (value or b"").decode("ascii", "replace") for name, value in record.headers}
    found = TraceContextTextMapPropagator().extract(carrier)
    return trace.get_current_span(found).get_span_context()


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_a_message(telemetry: Telemetry, kafka_broker: Broker) -> None:
    """From the call to the acknowledgement, below the caller's span; its context is in the headers."""
    watch = telemetry.instrument(client_id="orders")
    async with trio_kprod.open_producer(kafka_broker.bootstrap_servers, instruments=(watch,)) as producer:
        with telemetry.tracer.start_as_current_span("request") as request:
            producer.send_nowait("greetings", b"hello", key=b"en")
        await producer.flush()
    (span,) = telemetry.spans("send greetings")
    assert span.kind is SpanKind.PRODUCER
    assert span.status.status_code is StatusCode.UNSET
    assert span.parent == request.get_span_context()
    assert attributes(span) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "greetings",
        "messaging.destination.partition.id": "0",
        "messaging.client.id": "orders",
        "messaging.kafka.message.key": "en",
        "messaging.kafka.offset": 0,
    }
    (record,) = kafka_broker.records("greetings")
    assert context_of(record).span_id == span.context.span_id
    assert context_of(record).trace_id == request.get_span_context().trace_id
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.name == "trio_kprod"


@pytest.mark.parametrize("way", ["send_nowait", "send", "send_many", "send_and_wait"])
async def test_every_way_to_send(telemetry: Telemetry, autojump_clock: Any, way: str) -> None:
    """Each message has a span of its own."""
    async with open_memory_producer(instruments=(telemetry.instrument(),)) as producer:
        if way == "send_nowait":
            producer.send_nowait("topic", b"one")
        elif way == "send_many":
            await producer.send_many("topic", [b"one"])
        else:
            await getattr(producer, way)("topic", b"one")
    assert len(telemetry.spans("send topic")) == 1


async def test_a_batch(telemetry: Telemetry, autojump_clock: Any) -> None:
    """It has a span: from its oldest message to the acknowledgement. Each is linked with the other."""
    broker = MemoryBroker()
    async with open_memory_producer(broker, instruments=(telemetry.instrument(),)) as producer:
        for number in range(3):
            producer.send_nowait("topic", b"%d" % number)
        await producer.flush()
        await producer.send_and_wait("topic", b"alone")
    batch, alone = telemetry.spans("produce topic")
    messages = telemetry.spans("send topic")
    assert batch.kind is SpanKind.CLIENT
    assert batch.parent is None
    assert attributes(batch) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "produce",
        "messaging.operation.type": "send",
        "messaging.destination.name": "topic",
        "messaging.destination.partition.id": "0",
        "messaging.client.id": "trio_kprod",
        "messaging.batch.message_count": 3,
    }
    assert [link.context for link in batch.links] == [span.context for span in messages[:3]]
    assert [link.context for link in alone.links] == [span.context for span in messages[3:]]
    for span in messages[:3]:
        assert [link.context for link in span.links] == [batch.context]
        assert span.end_time == batch.end_time
    assert [attributes(span)["messaging.kafka.offset"] for span in messages] == [0, 1, 2, 3]


async def test_a_batch_begins_with_its_oldest_message(telemetry: Telemetry) -> None:
    """Whatever the clock of the SDK: its duration is what the metric counts."""
    watch = telemetry.instrument()
    watch.sending(number=1, topic="topic", value=b"", headers=None)
    watch.ack_messages(topic="topic", message_count=1, delay=2.5)
    record = trio_kprod.RecordMetadata("topic", 0, -1, 0)
    message = trio_kprod.Message("topic", b"", None, (), None, 0, 36)
    watch.settled(number=1, message=message, record=record, undelivered=None)
    (batch,) = telemetry.spans("produce topic")
    assert batch.end_time is not None
    assert batch.start_time is not None
    assert batch.end_time - batch.start_time == 2_500_000_000
    (span,) = telemetry.spans("send topic")
    assert "messaging.kafka.offset" not in attributes(span)  # nobody reported it


async def test_a_failure(telemetry: Telemetry, autojump_clock: Any) -> None:
    """The span has the status of the outcome, and Kafka's name for it."""
    broker = MemoryBroker()
    broker.create_topic("topic")
    broker.answer("Produce", "INVALID_RECORD", topic="topic")
    async with open_memory_producer(
        broker, instruments=(telemetry.instrument(),), on_undelivered=lambda _: None
    ) as producer:
        producer.send_nowait("topic", b"")
    (span,) = telemetry.spans("send topic")
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description is not None
    assert "INVALID_RECORD (87)" in span.status.description
    assert attributes(span)["error.type"] == "INVALID_RECORD"
    assert attributes(span)["trio_kprod.maybe_written"] is False
    assert not span.links
    assert not telemetry.spans("produce topic")
    (sent,) = telemetry.points("messaging.client.sent.messages")
    assert sent.value == 1
    assert sent.attributes["error.type"] == "INVALID_RECORD"


async def test_what_is_not_queued(telemetry: Telemetry, autojump_clock: Any) -> None:
    """A span that ends at once, as failed; also of a send that was cancelled while it waited."""
    watch = telemetry.instrument()
    async with open_memory_producer(instruments=(watch,), max_queue_size=1) as producer:
        producer.send_nowait("topic", b"")
        with pytest.raises(trio_kprod.BufferOverflow):
            producer.send_nowait("topic", b"")
        with pytest.raises(TypeError):
            producer.send_nowait("topic", "text")  # type: ignore[arg-type]
        for wrong in ("text", ["text"]):
            with pytest.raises(TypeError):
                producer.send_nowait("topic", b"", headers=wrong)  # type: ignore[arg-type]
    failed = [attributes(span)["error.type"] for span in telemetry.spans("send topic")[:4]]
    assert failed == ["BufferOverflow", "TypeError", "TypeError", "TypeError"]
    (overflows,) = telemetry.points("trio_kprod.overflows")
    assert overflows.value == 1


async def test_a_send_that_is_cancelled(telemetry: Telemetry, autojump_clock: Any) -> None:
    """Its span says so."""
    watch = telemetry.instrument()
    broker = MemoryBroker()
    broker.silence("Produce")
    async with open_memory_producer(
        broker, instruments=(watch,), max_queue_size=1, max_buffer_size=1, delivery_threshold=1,
        on_undelivered=lambda _: None, shutdown_timeout=1,
    ) as producer:  # fmt: skip
        with trio.move_on_after(10):
            for _ in range(4):
                await producer.send("topic", b"")
    assert "Cancelled" in {attributes(span).get("error.type") for span in telemetry.spans("send topic")}


async def test_tombstones_and_keys(telemetry: Telemetry, autojump_clock: Any) -> None:
    """A key that is no text is left out, as the conventions want it."""
    async with open_memory_producer(instruments=(telemetry.instrument(),)) as producer:
        await producer.send_and_wait("topic", None, key=b"\xff")
    async with open_memory_producer(instruments=(telemetry.instrument(message_keys=False),)) as producer:
        await producer.send_and_wait("topic", b"", key=b"secret")
    tombstone, secret = (attributes(span) for span in telemetry.spans("send topic"))
    assert tombstone["messaging.kafka.message.tombstone"] is True
    assert "messaging.kafka.message.key" not in tombstone
    assert "messaging.kafka.message.key" not in secret
    assert "messaging.kafka.message.tombstone" not in secret


async def test_a_context_that_the_message_brings(telemetry: Telemetry, autojump_clock: Any) -> None:
    """It is not changed, and the span links to it; what is no context does no harm."""
    broker = MemoryBroker()
    given = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with open_memory_producer(broker, instruments=(telemetry.instrument(),)) as producer:
        await producer.send_and_wait("topic", b"", headers=[("traceparent", given)])
        await producer.send_and_wait("topic", b"", headers=[("traceparent", b"\xff"), ("more", b"x")])
        await producer.send_and_wait("topic", b"", headers=[("traceparent", None)])
    first, second, third = broker.records("topic")
    assert list(first.headers) == [("traceparent", given)]
    brought, *others = telemetry.spans("send topic")
    assert brought.links[0].context.span_id == 0xB7AD6B7169203331
    for span, record in zip(others, (second, third), strict=True):
        assert context_of(record).span_id == span.context.span_id
        assert len(span.links) == 1


async def test_baggage_and_other_propagators(telemetry: Telemetry, autojump_clock: Any) -> None:
    """By default the global one, which sends baggage too; or the one that is given."""
    broker = MemoryBroker()
    watch = telemetry.instrument()
    own = telemetry.instrument(propagator=TraceContextTextMapPropagator())
    token = context.attach(baggage.set_baggage("tenant", "seven"))
    try:
        async with open_memory_producer(broker, instruments=(watch,)) as producer:
            await producer.send_and_wait("topic", b"")
        async with open_memory_producer(broker, instruments=(own,)) as producer:
            await producer.send_and_wait("topic", b"")
    finally:
        context.detach(token)
    both, one = broker.records("topic")
    assert dict(both.headers)["baggage"] == b"tenant=seven"
    assert [name for name, _ in one.headers] == ["traceparent"]


async def test_what_is_not_sampled(autojump_clock: Any) -> None:
    """It has no span, but its context is passed on, so that consumers decide likewise."""
    telemetry = Telemetry(sampler=ALWAYS_OFF)
    broker = MemoryBroker()
    watch = telemetry.instrument()
    async with open_memory_producer(broker, instruments=(watch,)) as producer:
        with telemetry.tracer.start_as_current_span("request") as request:
            await producer.send_and_wait("topic", b"")
        with pytest.raises(TypeError):
            producer.send_nowait("topic", "text")  # type: ignore[arg-type]
    (record,) = broker.records("topic")
    assert context_of(record).trace_id == request.get_span_context().trace_id
    assert not context_of(record).trace_flags.sampled
    assert not telemetry.exporter.get_finished_spans()
    (sent,) = telemetry.points("messaging.client.sent.messages")
    assert sent.value == 1


async def test_a_batch_of_sampled_and_others(telemetry: Telemetry, autojump_clock: Any) -> None:
    """The batch links to those that have a span."""
    off = Telemetry(sampler=ALWAYS_OFF)
    watch = telemetry.instrument()
    async with open_memory_producer(instruments=(watch,)) as producer:
        producer.send_nowait("topic", b"one")
        watch._tracer = off.tracer
        producer.send_nowait("topic", b"two")
        await producer.send("other", b"", partition=0)
        watch._tracer = telemetry.tracer
        watch.sending(number=-1, topic="another", value=b"", headers=None)  # which takes longer
        producer.send_nowait("topic", b"three")
    (batch,) = telemetry.spans("produce topic")
    assert not telemetry.spans("produce other")
    assert [link.context for link in batch.links] == [s.context for s in telemetry.spans("send topic")]
    assert len(batch.links) == 2


async def test_without_an_sdk(autojump_clock: Any) -> None:
    """Nothing is added, nothing fails."""
    broker = MemoryBroker()
    async with open_memory_producer(broker, instruments=(OpenTelemetryInstrument(),)) as producer:
        await producer.send_and_wait("topic", b"")
    (record,) = broker.records("topic")
    assert not record.headers


async def test_metrics(telemetry: Telemetry, autojump_clock: Any) -> None:
    """By the conventions, and what waits; without traces nothing follows single messages."""
    watch = OpenTelemetryMetrics(client_id="orders", meter_provider=telemetry.meter_provider, max_topics=1)
    async with open_memory_producer(instruments=(watch,)) as producer:
        for _ in range(5):
            producer.send_nowait("topic", b"")
        await producer.flush()
        await producer.send_and_wait("more", b"")
        producer.send_nowait("topic", b"")
        await trio.sleep(3)
        waiting = {
            point.attributes["trio_kprod.state"]: point.value
            for point in telemetry.points("trio_kprod.unsettled.messages")
        }
        (size,) = telemetry.points("trio_kprod.unsettled.size")
        (age,) = telemetry.points("trio_kprod.oldest_message.age")
        assert not producer._instruments.follow_messages
    assert set(waiting) == {"queued", "waiting", "in_flight"}
    assert sum(waiting.values()) == 1
    assert size.value == 36
    assert age.value == pytest.approx(3)
    sent = telemetry.points("messaging.client.sent.messages")
    counts: dict[Any, float] = {}
    for point in sent:
        assert isinstance(point, NumberDataPoint)
        assert point.attributes is not None
        assert point.attributes["messaging.operation.name"] == "send"
        assert point.attributes["messaging.client.id"] == "orders"
        counts[point.attributes["messaging.destination.name"]] = point.value
    assert counts == {"topic": 6, "other": 1}
    durations = telemetry.points("messaging.client.operation.duration")
    for point in durations:
        assert isinstance(point, HistogramDataPoint)
        assert point.attributes is not None
        assert point.attributes["messaging.operation.name"] == "produce"
        assert point.explicit_bounds[0] == 0.005
        assert point.explicit_bounds[-1] == 10
    assert sum(point.count for point in durations) == 3
    watch.throttled(broker="one:1", duration=0.5)
    watch.throttled(broker="one:1", duration=1.0)
    (throttled,) = telemetry.points("trio_kprod.throttled.time")
    assert (throttled.value, throttled.attributes["server.address"]) == (1.5, "one")
    assert throttled.attributes["server.port"] == 1
    (age,) = telemetry.points("trio_kprod.oldest_message.age")
    assert age.value == 0  # the producer is closed


class Broken(SpanExporter, SpanProcessor):
    """Raises whatever it is asked."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        raise OSError("no collector")

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        raise OSError("no processor")


async def test_an_exporter_that_raises(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The SDK logs it; messages and later spans are unharmed."""
    telemetry = Telemetry()
    telemetry.tracer_provider.add_span_processor(SimpleSpanProcessor(Broken()))
    broker = MemoryBroker()
    async with open_memory_producer(broker, instruments=(telemetry.instrument(),)) as producer:
        await producer.send_and_wait("topic", b"")
        await producer.send_and_wait("topic", b"")
    assert len(broker.records("topic")) == 2
    assert len(telemetry.spans("send topic")) == 2
    assert "no collector" in caplog.text
    assert "it is told nothing any more" not in caplog.text


async def test_a_processor_that_raises(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It runs within our hook: the instrument is told nothing any more, and messages are unharmed."""
    telemetry = Telemetry()
    telemetry.tracer_provider.add_span_processor(Broken())
    broker = MemoryBroker()
    async with open_memory_producer(broker, instruments=(telemetry.instrument(),)) as producer:
        await producer.send_and_wait("topic", b"")
        await producer.send_and_wait("topic", b"")
    assert len(broker.records("topic")) == 2
    assert "it is told nothing any more" in caplog.text


async def test_one_for_each_producer(
    telemetry: Telemetry, autojump_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Two at once would take each other's messages; one after the other is fine."""
    watch = telemetry.instrument()
    for _ in range(2):
        async with open_memory_producer(instruments=(watch,)) as one:
            await one.send_and_wait("topic", b"")
    assert "it is told nothing any more" not in caplog.text
    async with (
        open_memory_producer(instruments=(watch,)) as one,
        open_memory_producer(instruments=(watch,)) as two,
    ):
        await two.send_and_wait("topic", b"")
        await one.send_and_wait("topic", b"")
    assert "serves one producer at a time" in caplog.text
    assert len(telemetry.spans("send topic")) == 3
