"""Metrics for Prometheus; needs the extra ``prometheus``.

::

    from prometheus_client import start_http_server
    from trio_kprod.instruments.prometheus import PrometheusInstrument

    start_http_server(9100)
    async with trio_kprod.open_producer(..., client_id="orders",
                                        instruments=(PrometheusInstrument(client_id="orders"),)):
        ...

What a producer counts anyway is read from `Producer.statistics` when Prometheus asks, and costs nothing
before. The rest is counted once for each batch, request or failure. Nothing is done for each message.

Names and units follow https://prometheus.io/docs/practices/naming/, so times are seconds and sizes bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import REGISTRY, CollectorRegistry

from trio_kprod import Instrument

from ._common import BoundedLabels, error_name
from ._prometheus_metrics import metrics_of

if TYPE_CHECKING:
    from trio_kprod import Producer

#: A producer talks to few brokers; but a cluster that replaces them for ever must not fill the registry.
_MAX_BROKERS = 100


class PrometheusInstrument(Instrument):
    """Counts for a Prometheus registry. Several may share one, and one may serve several producers.

    Args:
        client_id: the label ``client_id``: that of `open_producer`, which has the same default. Producers
            with the same one are shown as one: their figures are added up.
        registry: where the metrics appear; by default prometheus_client's own, which is what its
            `start_http_server` serves.
        max_topics: how many topics get a label of their own. All topics that come later share the label
            ``"other"``.

    Raises:
        ValueError: `max_topics` is not positive, or the registry has metrics with these names already.
    """

    def __init__(
        self,
        *,
        client_id: str = "trio_kprod",
        registry: CollectorRegistry = REGISTRY,
        max_topics: int = 100,
    ) -> None:
        self._client = client_id
        self._topic = BoundedLabels(max_topics)
        self._broker = BoundedLabels(_MAX_BROKERS)
        self._metrics = metrics_of(registry)
        self._metrics.statistics.know(client_id)

    # -- the producer --------------------------------------------------------------------------------

    def opened(self, *, producer: Producer) -> None:
        """Begin to poll it."""
        self._metrics.statistics.add(self._client, producer)

    def closed(self, *, producer: Producer) -> None:
        """Keep what it has counted."""
        self._metrics.statistics.remove(self._client, producer)

    # -- messages ------------------------------------------------------------------------------------

    def produce_messages(self, *, max_buffer_size: int, max_queue_size: int, **_: object) -> None:
        """Set the bounds, with which fill levels are compared."""
        limit = self._metrics.limit_messages
        limit.labels(self._client, "queue").set(max_queue_size)
        limit.labels(self._client, "buffer").set(max_buffer_size)

    def buffer_overflow(self, *, topic: str) -> None:
        """Count it."""
        self._metrics.overflows.labels(self._client, self._topic(topic)).inc()

    def ack_messages(self, *, topic: str, message_count: int, delay: float, **_: object) -> None:
        """Count the batch and its messages."""
        metrics, label = self._metrics, self._topic(topic)
        metrics.topic_delivered.labels(self._client, label).inc(message_count)
        metrics.batch_messages.labels(self._client).observe(message_count)
        metrics.delivery_seconds.labels(self._client, label).observe(delay)

    def undelivered(
        self, *, topic: str, message_count: int, cause: BaseException, maybe_written: bool, **_: object
    ) -> None:
        """Count them, by cause."""
        labels = (self._client, self._topic(topic), error_name(cause), str(maybe_written).lower())
        self._metrics.topic_undelivered.labels(*labels).inc(message_count)

    def topic_error(self, *, topic: str, error: BaseException) -> None:
        """Count it, by Kafka's name for it."""
        self._metrics.topic_errors.labels(self._client, self._topic(topic), error_name(error)).inc()

    def error(self, *, error: BaseException) -> None:
        """Count it, by its class."""
        self._metrics.errors.labels(self._client, error_name(error)).inc()

    # -- brokers -------------------------------------------------------------------------------------

    def request(
        self,
        *,
        broker: str,
        api: str,
        request_bytes: int,
        response_bytes: int,
        duration: float,
        error: BaseException | None,
    ) -> None:
        """Count its time and size."""
        metrics, label = self._metrics, self._broker(broker)
        metrics.request_seconds.labels(self._client, label, api).observe(duration)
        metrics.sent_bytes.labels(self._client, label).inc(request_bytes)
        metrics.received_bytes.labels(self._client, label).inc(response_bytes)
        if error is not None:
            metrics.request_errors.labels(self._client, label, api, error_name(error)).inc()

    def compress(self, *, uncompressed_bytes: int, compressed_bytes: int, **_: object) -> None:
        """Count both sizes: their ratio is what compression achieves."""
        self._metrics.uncompressed_bytes.labels(self._client).inc(uncompressed_bytes)
        self._metrics.compressed_bytes.labels(self._client).inc(compressed_bytes)

    def connected(self, *, broker: str) -> None:
        """Count it."""
        self._metrics.connections.labels(self._client, self._broker(broker)).inc()

    def connect_failed(self, *, broker: str, error: BaseException) -> None:
        """Count it."""
        labels = (self._client, self._broker(broker), error_name(error))
        self._metrics.connection_errors.labels(*labels).inc()

    def disconnected(self, *, broker: str, error: BaseException | None) -> None:
        """Count it, unless we closed the connection."""
        if error is not None:
            self.connect_failed(broker=broker, error=error)
