"""What the service does, whatever web framework is around it: each function makes a reply of a request."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import trio
from prometheus_client import CollectorRegistry, generate_latest

import trio_kprod

TOPIC = "orders"

#: Seconds after which a client shall try again when there is no room.
RETRY_AFTER = 1

#: Seconds that the strict endpoint waits for Kafka.
PATIENCE = 5.0

#: When the oldest message waits for more seconds than this, send new requests to somebody else.
READY_UP_TO = 10.0

PAGE = (Path(__file__).parent / "page.html").read_text("utf-8")


@dataclass(frozen=True)
class Reply:
    status: int
    body: str
    headers: dict[str, str] = field(default_factory=dict)
    media_type: str = "application/json"


def _json(status: int, headers: dict[str, str] | None = None, **values: object) -> Reply:
    return Reply(status, json.dumps(values), headers or {})


class Orders:
    """Takes orders, and tells how it fares.

    Args:
        producer: where orders go. It must be open for longer than the web server runs.
        registry: what ``/metrics`` shows.
    """

    def __init__(self, producer: trio_kprod.Producer, registry: CollectorRegistry) -> None:
        self._producer = producer
        self._registry = registry
        self.closing = False  # the server has been told to end

    def take(self, order: bytes) -> Reply:
        """202: Kafka gets it, or the end of the producer's block tells. 503: it was not taken; try again."""
        try:
            self._producer.send_nowait(TOPIC, order)
        except (trio_kprod.BufferOverflow, trio_kprod.ProducerClosed) as error:
            return _json(503, {"Retry-After": str(RETRY_AFTER)}, error=str(error))
        except trio_kprod.MessageTooLarge as error:
            return _json(413, error=str(error))
        return _json(202, accepted=True)

    async def take_strictly(self, order: bytes) -> Reply:
        """201: it is in Kafka's log, and where. 504: nobody knows yet. 503: not taken, or not delivered."""
        try:
            with trio.fail_after(PATIENCE):
                record = await self._producer.send_and_wait(TOPIC, order)
        except trio.TooSlowError:
            return _json(504, error=f"not acknowledged within {PATIENCE:g} s, but it may be later")
        except trio_kprod.MessageTooLarge as error:
            return _json(413, error=str(error))
        except (trio_kprod.DeliveryFailed, trio_kprod.ProducerClosed) as error:
            return _json(503, {"Retry-After": str(RETRY_AFTER)}, error=str(error))
        return _json(201, partition=record.partition, offset=record.offset)

    def health(self) -> Reply:
        """200: the process runs. Kubernetes kills it otherwise, and that would help Kafka in nothing."""
        return _json(200, healthy=True)

    def ready(self) -> Reply:
        """200: send requests here. 503: a message has waited for Kafka for too long, or we are closing."""
        age = self._producer.statistics().oldest_age or 0.0
        ready = age <= READY_UP_TO and not self.closing
        return _json(200 if ready else 503, ready=ready, closing=self.closing, oldest_age=round(age, 3))

    def figures(self) -> Reply:
        """What the page shows."""
        now = self._producer.statistics()
        return _json(
            200,
            accepted=now.accepted,
            waiting=now.queued + now.waiting,
            in_flight=now.in_flight,
            delivered=now.delivered,
            undelivered=now.undelivered,
            oldest_age=round(now.oldest_age or 0.0, 3),
        )

    def metrics(self) -> Reply:
        text = generate_latest(self._registry).decode()
        return Reply(200, text, media_type="text/plain; version=0.0.4; charset=utf-8")

    def page(self) -> Reply:
        return Reply(200, PAGE, media_type="text/html; charset=utf-8")
