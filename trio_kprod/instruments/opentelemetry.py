"""Traces and metrics for OpenTelemetry; needs the extra ``otel``, and an SDK to send them anywhere.

::

    from trio_kprod.instruments.opentelemetry import OpenTelemetryInstrument

    instruments = (OpenTelemetryInstrument(client_id="orders"),)

Names and attributes are those of OpenTelemetry's semantic conventions for messaging, version 1.44, with those
for Kafka (https://opentelemetry.io/docs/specs/semconv/messaging/kafka/). Their status is "development".

Each message has a span ``send TOPIC`` of kind PRODUCER: from the call to the outcome, also for `send_nowait`.
It is a child of the span that is current at the call, and its context travels in the headers, where a
consumer finds it. A batch has a span ``produce TOPIC`` of kind CLIENT: from the acceptance of its oldest
message to the acknowledgement. Each links to the other.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, propagate, trace
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode, TracerProvider

from trio_kprod import Instrument, __version__

from ._common import BoundedLabels, error_name

if TYPE_CHECKING:
    from trio_kprod import Message, Producer, ProducerStatistics, RecordMetadata, Undelivered

_SCHEMA = "https://opentelemetry.io/schemas/1.44.0"

#: The boundaries that the conventions ask for.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)

_NANOSECONDS = 1_000_000_000


def _attributes(operation: str, topic: str, client_id: str) -> dict[str, Any]:
    """What every span and metric says. `operation` is our word; the conventions call each a "send"."""
    return {
        "messaging.system": "kafka",
        "messaging.operation.name": operation,
        "messaging.operation.type": "send",
        "messaging.destination.name": topic,
        "messaging.client.id": client_id,
    }


class OpenTelemetryMetrics(Instrument):
    """Metrics alone: once a batch, and polled; nothing for each message.

    Args:
        client_id: that of `open_producer`, which has the same default.
        meter_provider: by default the global one.
        max_topics: how many topics metrics name. All topics that come later are ``"other"``.

    Raises:
        ValueError: `max_topics` is not positive.
    """

    def __init__(
        self,
        *,
        client_id: str = "trio_kprod",
        meter_provider: MeterProvider | None = None,
        max_topics: int = 100,
    ) -> None:
        self._producers: list[Producer] = []
        self._client_id = client_id
        self._client = {"messaging.client.id": client_id}
        self._topic = BoundedLabels(max_topics)
        meter = metrics.get_meter("trio_kprod", __version__, meter_provider, _SCHEMA)
        self._duration = meter.create_histogram(
            "messaging.client.operation.duration",
            "s",
            "Duration of messaging operation initiated by a producer or consumer client.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._sent = meter.create_counter(
            "messaging.client.sent.messages",
            "{message}",
            "Number of messages producer attempted to send to the broker.",
        )
        self._overflows = meter.create_counter(
            "trio_kprod.overflows", "{call}", "Sends that raised BufferOverflow."
        )
        self._throttled = meter.create_counter(
            "trio_kprod.throttled.time", "s", "For how long brokers asked us to pause, for quotas."
        )
        meter.create_observable_up_down_counter(
            "trio_kprod.unsettled.messages",
            [self._observe_messages],
            "{message}",
            "Accepted messages without outcome, by where they are.",
        )
        meter.create_observable_up_down_counter(
            "trio_kprod.unsettled.size",
            [self._observe_size],
            "By",
            "Size of the messages without outcome.",
        )
        meter.create_observable_gauge(
            "trio_kprod.oldest_message.age",
            [self._observe_age],
            "s",
            "For how long the oldest message has had no outcome; 0 if all have one.",
        )

    # -- polled, in the thread of the SDK ------------------------------------------------------------

    def opened(self, *, producer: Producer) -> None:
        """Begin to poll it."""
        self._producers.append(producer)

    def closed(self, *, producer: Producer) -> None:
        """Stop polling it."""
        self._producers.remove(producer)

    def _now(self) -> list[ProducerStatistics]:
        return [producer.statistics() for producer in tuple(self._producers)]

    def _observe_messages(self, _: CallbackOptions) -> Iterable[Observation]:
        now = self._now()
        for state in ("queued", "waiting", "in_flight"):
            count = sum(getattr(one, state) for one in now)
            yield Observation(count, {**self._client, "trio_kprod.state": state})

    def _observe_size(self, _: CallbackOptions) -> Iterable[Observation]:
        yield Observation(sum(one.unsettled_bytes for one in self._now()), self._client)

    def _observe_age(self, _: CallbackOptions) -> Iterable[Observation]:
        yield Observation(max((one.oldest_age or 0.0 for one in self._now()), default=0.0), self._client)

    # -- counted -------------------------------------------------------------------------------------

    def buffer_overflow(self, *, topic: str) -> None:
        """Count it."""
        self._overflows.add(1, {**self._client, "messaging.destination.name": self._topic(topic)})

    def ack_messages(self, *, topic: str, message_count: int, delay: float, **_: object) -> None:
        """Count the batch's messages, and the batch as one operation."""
        self._sent.add(message_count, self._labels("send", topic))
        self._duration.record(delay, self._labels("produce", topic))

    def undelivered(self, *, topic: str, message_count: int, cause: BaseException, **_: object) -> None:
        """Count them as failed."""
        self._sent.add(message_count, {**self._labels("send", topic), "error.type": error_name(cause)})

    def throttled(self, *, broker: str, duration: float) -> None:
        """Add it up."""
        host, _, port = broker.rpartition(":")
        attributes: dict[str, Any] = {**self._client, "server.address": host, "server.port": int(port)}
        self._throttled.add(duration, attributes)

    def _labels(self, operation: str, topic: str) -> dict[str, Any]:
        return _attributes(operation, self._topic(topic), self._client_id)


class _Batch:
    """An acknowledged batch, while `settled` is called for its messages."""

    def __init__(self, message_count: int, started: int, ended: int) -> None:
        self.untold = message_count
        self.started = started
        self.ended = ended
        self.span: Span | None = None  # begun for the first of its messages that has one


class OpenTelemetryInstrument(OpenTelemetryMetrics):
    """Traces and metrics of one producer: each needs an instrument of its own.

    A message whose headers have a context already, such as a ``traceparent``, keeps it, and its span links to
    it. What a sampler leaves out has no span, but its context is passed on in the headers all the same.

    Args:
        client_id: that of `open_producer`, which has the same default.
        tracer_provider, meter_provider: by default the global ones.
        propagator: writes the context into headers; by default the global one.
        message_keys: whether spans show keys. Switch it off if keys are personal data.
    """

    def __init__(
        self,
        *,
        client_id: str = "trio_kprod",
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        propagator: TextMapPropagator | None = None,
        message_keys: bool = True,
        max_topics: int = 100,
    ) -> None:
        super().__init__(client_id=client_id, meter_provider=meter_provider, max_topics=max_topics)
        self._tracer = trace.get_tracer("trio_kprod", __version__, tracer_provider, _SCHEMA)
        self._propagator = propagator or propagate.get_global_textmap()
        self._message_keys = message_keys
        self._spans: dict[int, Span] = {}  # by the numbers of their messages
        self._batch: _Batch | None = None

    def opened(self, *, producer: Producer) -> None:
        """Refuse a second producer: the numbers of messages are unique for one producer only."""
        if self._producers:
            raise RuntimeError("an OpenTelemetryInstrument serves one producer at a time; give each its own")
        super().opened(producer=producer)

    # -- messages ------------------------------------------------------------------------------------

    def sending(
        self, *, number: int, topic: str, value: Any, headers: Any, **_: object
    ) -> list[tuple[str, bytes | None]]:
        """Begin a message's span; returns the headers that carry its context."""
        attributes = _attributes("send", topic, self._client_id)
        if value is None:
            attributes["messaging.kafka.message.tombstone"] = True
        given = self._given_context(headers)
        span = self._tracer.start_span(
            f"send {topic}",
            kind=SpanKind.PRODUCER,
            attributes=attributes,
            links=[] if given is None else [Link(given)],
        )
        if span.is_recording():
            self._spans[number] = span
        carrier: dict[str, str] = {}
        if given is None:
            context = trace.set_span_in_context(span)
            self._propagator.inject(carrier, context)  # pyright: ignore[reportArgumentType]  # its default
        return [(name, text.encode()) for name, text in carrier.items()]

    def rejected(self, *, number: int, error: BaseException) -> None:
        """End its span: nothing was queued."""
        span = self._spans.pop(number, None)
        if span is not None:
            _fail(span, error)
            span.end()

    def ack_messages(self, *, topic: str, message_count: int, delay: float, **_: object) -> None:
        """Count it, and remember it: `settled` is called for its messages next."""
        super().ack_messages(topic=topic, message_count=message_count, delay=delay)
        if self._spans:
            ended = time.time_ns()
            self._batch = _Batch(message_count, ended - int(delay * _NANOSECONDS), ended)

    def settled(
        self, *, number: int, message: Message, record: RecordMetadata | None, undelivered: Undelivered | None
    ) -> None:
        """End a message's span, and after the last message of a batch that of the batch."""
        span = self._spans.pop(number, None)
        if span is not None:
            key = self._shown_key(message)
            if key is not None:
                span.set_attribute("messaging.kafka.message.key", key)
            if undelivered is None:
                assert record is not None
                self._succeed(span, record)
            else:
                _fail(span, undelivered.cause)
                span.set_attribute("trio_kprod.maybe_written", undelivered.maybe_written)
                span.end()
        batch = self._batch
        if batch is not None and record is not None:
            batch.untold -= 1
            if not batch.untold:
                self._batch = None
                if batch.span is not None:
                    batch.span.end(batch.ended)

    def _succeed(self, span: Span, record: RecordMetadata) -> None:
        span.set_attribute("messaging.destination.partition.id", str(record.partition))
        if record.offset >= 0:
            span.set_attribute("messaging.kafka.offset", record.offset)
        batch = self._batch
        assert batch is not None  # there was a span when `ack_messages` was called
        if batch.span is None:
            batch.span = self._begin_batch(batch, record)
        batch.span.add_link(span.get_span_context())
        span.add_link(batch.span.get_span_context())
        span.end(batch.ended)

    def _begin_batch(self, batch: _Batch, record: RecordMetadata) -> Span:
        return self._tracer.start_span(
            f"produce {record.topic}",
            Context(),  # of no one's trace: its messages belong to several
            SpanKind.CLIENT,
            {
                **_attributes("produce", record.topic, self._client_id),
                "messaging.destination.partition.id": str(record.partition),
                "messaging.batch.message_count": batch.untold,
            },
            start_time=batch.started,
        )

    # -- contexts and keys ---------------------------------------------------------------------------

    def _given_context(self, headers: Any) -> SpanContext | None:
        """The context in the message's own headers, if there is one. The send refuses wrong headers."""
        if not headers or not isinstance(headers, (list, tuple)):
            return None
        carrier: dict[str, str] = {}
        for header in headers:
            if isinstance(header, (list, tuple)) and len(header) == 2:
                name, text = header
                if name in self._propagator.fields and isinstance(text, bytes):
                    carrier[name] = text.decode("ascii", "replace")
        context = self._propagator.extract(carrier, Context())
        given = trace.get_current_span(context).get_span_context()
        return given if given.is_valid else None

    def _shown_key(self, message: Message) -> str | None:
        """The key as text. None if it is not text, as the conventions want it."""
        if message.key is None or not self._message_keys:
            return None
        try:
            return message.key.decode()
        except UnicodeDecodeError:
            return None


def _fail(span: Span, error: BaseException) -> None:
    span.set_attribute("error.type", error_name(error))
    span.set_status(StatusCode.ERROR, str(error))
