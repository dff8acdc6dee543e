"""Metrics for statsd and for Datadog's agent, under the names of ruby-kafka; needs the extra ``statsd``.

::

    from trio_kprod.instruments.statsd import StatsdInstrument

    instruments = (StatsdInstrument(host="statsd.example.com", client_id="orders"),)

Names, types and units are those of ruby-kafka 1.5 (``lib/kafka/statsd.rb``, ``lib/kafka/datadog.rb``), so
that dashboards go on working. Where ruby-kafka sends a packet for each message, this one adds up, and sends
once for all messages that were taken from the queue together, or once a batch.

The client is Datadog's own, which also speaks plain statsd. The `statsd` package had its last release in
2022, and its socket blocks; this one never waits, knows tags, and is annotated. Packets that the system has
no room for are dropped.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING

from datadog.dogstatsd.base import DogStatsd

from trio_kprod import Instrument

if TYPE_CHECKING:
    from trio_kprod import Message

_MS = 1000.0

#: The characters that have a meaning in a line of the protocol.
_SPECIAL = re.compile(r"[:|@#,\s]")


class StatsdInstrument(Instrument):
    """Sends what happens as UDP packets, and never waits.

    Plain statsd gets names such as ``ruby_kafka.producer.orders.greetings.ack.messages``. With `datadog` the
    client id, topic, API and broker are tags instead: ``ruby_kafka.producer.ack.messages``,
    ``client:orders``.

    Args:
        client_id: that of `open_producer`, which has the same default.
        host: the agent's name or address. A name is looked up here, once: not in your loop later.
        port: the agent's UDP port.
        namespace: what every name begins with.
        datadog: send Datadog's tags and histograms; a plain statsd server does not know them.
        tags: more tags for every metric, such as ``"env:prod"``.
        client: a `DogStatsd` of your own, such as one with a socket path, in the place of `host`, `port`,
            `namespace` and `tags`. You close it.

    Raises:
        OSError: `host` has no address.
        ValueError: `tags` without `datadog`.
    """

    def __init__(
        self,
        *,
        client_id: str = "trio_kprod",
        host: str = "127.0.0.1",
        port: int = 8125,
        namespace: str = "ruby_kafka",
        datadog: bool = False,
        tags: Iterable[str] = (),
        client: DogStatsd | None = None,
    ) -> None:
        self._tags = list(tags)
        if self._tags and not datadog:
            raise ValueError("tags need datadog=True: plain statsd has none")
        self._client_id = _clean(client_id)
        self._datadog = datadog
        self._owns_client = client is None
        self._statsd = client or self._make_client(host, port, namespace)
        self._accepted: dict[str, list[int]] = {}  # number and bytes of the messages by topic, not sent yet

    def _make_client(self, host: str, port: int, namespace: str) -> DogStatsd:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0][4][0]
        client = DogStatsd(
            host=str(address),
            port=port,
            namespace=namespace,
            disable_telemetry=True,  # it is about the client, and in no format of plain statsd
            origin_detection_enabled=self._datadog,
        )
        if self._datadog:
            client.constant_tags += self._tags
        else:
            client.constant_tags = []  # also those of the environment
        return client

    # -- the producer --------------------------------------------------------------------------------

    def closed(self, **_: object) -> None:
        """Send what is left."""
        with self._statsd:
            self._send_accepted()
        if self._owns_client:
            self._statsd.close_socket()

    # -- messages ------------------------------------------------------------------------------------

    def accepted(self, *, message: Message, **_: object) -> None:
        """Add it up."""
        sums = self._accepted.setdefault(message.topic, [0, 0])
        sums[0] += 1
        sums[1] += message.size

    def produce_messages(
        self,
        *,
        message_count: int,
        buffer_size: int,
        max_buffer_size: int,
        queue_size: int,
        max_queue_size: int,
        **_: object,
    ) -> None:
        """Send what was accepted, and how full queue and buffer are."""
        queued = queue_size + message_count  # before these were taken
        with self._statsd:
            for topic in self._send_accepted():
                labels = {"client": self._client_id, "topic": topic}
                self._sample("async_producer", "queue.size", queued, labels)
                self._sample("async_producer", "queue.fill_ratio", queued / max_queue_size, labels)
            labels = {"client": self._client_id}
            self._sample("producer", "buffer.size", buffer_size, labels)
            self._sample("producer", "buffer.fill_ratio", buffer_size / max_buffer_size, labels)
            self._sample("producer", "buffer.fill_percentage", 100 * buffer_size / max_buffer_size, labels)

    def _send_accepted(self) -> Iterable[str]:
        """Send what was added up; returns the topics."""
        accepted, self._accepted = self._accepted, {}
        for topic, (count, size) in accepted.items():
            labels = {"client": self._client_id, "topic": topic}
            self._count("producer", "produce.messages", count, labels)
            self._sample("producer", "produce.message_size", size / count, labels)
            if self._datadog:
                self._count("producer", "produce.message_size.sum", size, labels)
        return accepted

    def buffer_overflow(self, *, topic: str) -> None:
        """Count it."""
        self._count("async_producer", "produce.errors", 1, {"client": self._client_id, "topic": topic})

    def drop_messages(self, *, message_count: int) -> None:
        """Count them."""
        self._count("async_producer", "dropped_messages", message_count, {"client": self._client_id})

    def deliver_messages(
        self, *, delivered_message_count: int, attempts: int, duration: float, error: object, **_: object
    ) -> None:
        """Send how it went."""
        labels = {"client": self._client_id}
        with self._statsd:
            if error is not None:
                self._count("producer", "deliver.errors", 1, labels)
            self._time("producer", "deliver.latency", duration * _MS, labels)
            self._count("producer", "deliver.messages", delivered_message_count, labels)
            self._sample("producer", "deliver.attempts", attempts, labels)

    def ack_messages(self, *, topic: str, message_count: int, delay: float, **_: object) -> None:
        """Count them. The delay is in seconds, as ruby-kafka's is."""
        labels = {"client": self._client_id, "topic": topic}
        with self._statsd:
            self._count("producer", "ack.messages", message_count, labels)
            self._sample("producer", "ack.delay", delay, labels)

    def topic_error(self, *, topic: str, **_: object) -> None:
        """Count it."""
        self._count("producer", "ack.errors", 1, {"client": self._client_id, "topic": topic})

    # -- brokers -------------------------------------------------------------------------------------

    def request(
        self,
        *,
        broker: str,
        api: str,
        request_bytes: int,
        response_bytes: int,
        duration: float,
        error: object,
    ) -> None:
        """Send how it went. As in ruby-kafka, a broker is its host."""
        host = _clean(broker.rpartition(":")[0])
        labels = {"client": self._client_id, "api": api.lower(), "broker": host}
        with self._statsd:
            self._time("api", "latency", duration * _MS, labels)
            self._count("api", "calls", 1, labels)
            self._sample("api", "request_size", request_bytes, labels)
            self._sample("api", "response_size", response_bytes, labels)
            if error is not None:
                self._count("api", "errors", 1, labels)

    # -- sending -------------------------------------------------------------------------------------

    def _count(self, scope: str, name: str, value: int, labels: dict[str, str]) -> None:
        self._statsd.increment(self._name(scope, name, labels), value, tags=self._tags_of(labels))

    def _time(self, scope: str, name: str, milliseconds: float, labels: dict[str, str]) -> None:
        self._statsd.timing(self._name(scope, name, labels), milliseconds, tags=self._tags_of(labels))

    def _sample(self, scope: str, name: str, value: float, labels: dict[str, str]) -> None:
        """A distribution: ruby-kafka's timings are Datadog's histograms."""
        send = self._statsd.histogram if self._datadog else self._statsd.timing
        send(self._name(scope, name, labels), value, tags=self._tags_of(labels))

    def _name(self, scope: str, name: str, labels: dict[str, str]) -> str:
        return f"{scope}.{name}" if self._datadog else ".".join((scope, *labels.values(), name))

    def _tags_of(self, labels: dict[str, str]) -> list[str] | None:
        return [f"{name}:{value}" for name, value in labels.items()] if self._datadog else None


def _clean(text: str) -> str:
    return _SPECIAL.sub("_", text)
