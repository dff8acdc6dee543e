"""The metrics that all instruments of one Prometheus registry share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from trio_kprod import Producer, ProducerStatistics

#: What every name begins with.
PREFIX = "trio_kprod_"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_MESSAGES = (1, 10, 100, 1_000, 10_000)


class Metrics:
    """One for each registry: a name can be registered once."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(PREFIX + name, text, ("client_id", *labels), registry=registry)

        def histogram(name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(PREFIX + name, text, ("client_id", *labels), registry=registry, buckets=buckets)

        self.statistics = Statistics()
        registry.register(self.statistics)
        self.limit_messages = Gauge(
            PREFIX + "limit_messages",
            "max_queue_size and max_buffer_size: how many messages there is room for.",
            ("client_id", "place"),
            registry=registry,
        )
        self.overflows = counter("overflows", "Sends that raised BufferOverflow.", "topic")
        self.topic_delivered = counter(
            "topic_delivered_messages", "Messages that Kafka has acknowledged.", "topic"
        )
        self.topic_undelivered = counter(
            "topic_undelivered_messages",
            "Accepted messages that were given up, by cause, and whether they may be in the log.",
            "topic", "cause", "maybe_written",
        )  # fmt: skip
        self.topic_errors = counter(
            "topic_errors", "Refusals by brokers; the messages may be sent again.", "topic", "error"
        )
        self.batch_messages = histogram("batch_messages", "Messages of acknowledged batches.", _MESSAGES)
        self.delivery_seconds = histogram(
            "delivery_seconds",
            "From the acceptance of a batch's oldest message to its acknowledgement.",
            _SECONDS, "topic",
        )  # fmt: skip
        self.errors = counter("errors", "What went wrong in the background.", "error")
        self.request_seconds = histogram(
            "request_seconds", "From a request to its response.", _SECONDS, "broker", "api"
        )
        self.request_errors = counter(
            "request_errors", "Requests without a response.", "broker", "api", "error"
        )
        self.sent_bytes = counter("sent_bytes", "Size of the requests, on the wire.", "broker")
        self.received_bytes = counter("received_bytes", "Size of the responses, on the wire.", "broker")
        self.uncompressed_bytes = counter("uncompressed_bytes", "Size of compressed batches, before.")
        self.compressed_bytes = counter("compressed_bytes", "Size of compressed batches, after.")
        self.connections = counter("connections", "Connections that became ready.", "broker")
        self.connection_errors = counter(
            "connection_errors", "Connections that were lost or could not be made.", "broker", "error"
        )


_metrics: WeakKeyDictionary[CollectorRegistry, Metrics] = WeakKeyDictionary()


def metrics_of(registry: CollectorRegistry) -> Metrics:
    """The metrics of this registry, made when first asked for."""
    found = _metrics.get(registry)
    if found is None:
        found = _metrics[registry] = Metrics(registry)
    return found


# ---------------------------------------------------------------------------------------------------------
# What is polled


class _Series(NamedTuple):
    """A series that is read from the statistics of the producers that share a client id."""

    name: str
    text: str
    read: Callable[[Sequence[ProducerStatistics]], float]
    state: str = ""


def _total(field: str) -> Callable[[Sequence[ProducerStatistics]], float]:
    return lambda those: sum(getattr(one, field) for one in those)


def _oldest_age(those: Sequence[ProducerStatistics]) -> float:
    return max((one.oldest_age or 0.0 for one in those), default=0.0)


_COUNTERS = (
    _Series("accepted_messages", "Messages that sends have accepted.", _total("accepted")),
    _Series("delivered_messages", "Messages that Kafka has acknowledged.", _total("delivered")),
    _Series("undelivered_messages", "Accepted messages that were given up.", _total("undelivered")),
    _Series(
        "delivered_bytes",
        "Size of the messages that Kafka has acknowledged, encoded and uncompressed.",
        _total("delivered_bytes"),
    ),
    _Series("throttles", "How often brokers asked us to pause, for quotas.", _total("throttles")),
    _Series("throttled_seconds", "For how long in all they asked us to.", _total("throttled_time")),
)

_WHERE = "Accepted messages without outcome, by where they are."

_GAUGES = (
    _Series("open_producers", "Producers whose block is open.", len),
    _Series("unsettled_messages", _WHERE, _total("queued"), "queued"),
    _Series("unsettled_messages", _WHERE, _total("waiting"), "waiting"),
    _Series("unsettled_messages", _WHERE, _total("in_flight"), "in_flight"),
    _Series("unsettled_bytes", "Size of the messages without outcome.", _total("unsettled_bytes")),
    _Series(
        "oldest_message_age_seconds",
        "For how long the oldest message has had no outcome; 0 if all have one.",
        _oldest_age,
    ),
    _Series("waiting_tasks", "Tasks that wait in send for room.", _total("tasks_waiting")),
)


class Statistics(Collector):
    """Polls producers when the registry is scraped, which happens in another thread than theirs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, list[Producer]] = {}
        self._past: dict[str, list[float]] = {}  # what closed producers have counted, as in _COUNTERS

    def know(self, client: str) -> None:
        """Have series from the start, so that a first increase is seen as one."""
        with self._lock:
            self._open.setdefault(client, [])
            self._past.setdefault(client, [0.0] * len(_COUNTERS))

    def add(self, client: str, producer: Producer) -> None:
        with self._lock:
            self._open[client].append(producer)

    def remove(self, client: str, producer: Producer) -> None:
        with self._lock:
            self._open[client].remove(producer)
            self._past[client] = self._counts(client, [producer.statistics()])

    def _counts(self, client: str, now: Sequence[ProducerStatistics]) -> list[float]:
        past = self._past[client]
        return [before + one.read(now) for before, one in zip(past, _COUNTERS, strict=True)]

    def describe(self) -> Iterable[Metric]:
        """The names that the registry must not have already."""
        return [Metric(PREFIX + one.name, one.text, "counter") for one in _COUNTERS] + [
            Metric(PREFIX + one.name, one.text, "gauge") for one in _GAUGES
        ]

    def collect(self) -> Iterable[Metric]:
        """The figures of this moment."""
        families: dict[str, Metric] = {}

        def add(kind: str, one: _Series, client: str, value: float) -> None:
            name = PREFIX + one.name
            family = families.setdefault(name, Metric(name, one.text, kind))
            sample = f"{name}_total" if kind == "counter" else name
            labels = {"client_id": client, "state": one.state} if one.state else {"client_id": client}
            family.add_sample(sample, labels, value)

        with self._lock:
            for client, producers in self._open.items():
                now = [producer.statistics() for producer in producers]
                for one, value in zip(_COUNTERS, self._counts(client, now), strict=True):
                    add("counter", one, client, value)
                for one in _GAUGES:
                    add("gauge", one, client, one.read(now))
        return families.values()
