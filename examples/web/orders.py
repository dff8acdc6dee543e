"""What the service does, whatever web framework is around it: each function makes a reply of a request."""

from __future__ import annotations

import json
import math
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

#: Not ready: an order has waited for Kafka for more seconds than that, more of them are queued than that, or
#: one was refused less than so many seconds ago. Then new requests had better go to another process.
MAX_AGE, MAX_QUEUED, REFUSED_LATELY = 10.0, 500, 5.0

CLOSING = "the server has been told to end"

PAGE = (Path(__file__).parent / "page.html").read_text("utf-8")


@dataclass(frozen=True)
class Reply:
    status: int
    body: str
    headers: dict[str, str] = field(default_factory=dict)
    media_type: str = "application/json"


def _json(status: int, headers: dict[str, str] | None = None, **values: object) -> Reply:
    return Reply(status, json.dumps(values), headers or {})


def _refusal(reason: object) -> Reply:
    return _json(503, {"Retry-After": str(RETRY_AFTER)}, error=str(reason))


class Orders:
    """Takes orders, and tells how it fares.

    Args:
        producer: where orders go. It must be open for longer than the web server runs.
        registry: what ``/metrics`` shows.
    """

    def __init__(self, producer: trio_kprod.Producer, registry: CollectorRegistry) -> None:
        self._producer = producer
        self._registry = registry
        self._refused_at = -math.inf  # on trio's clock
        self._strict = 0  # how many wait for Kafka
        self._none_waits = trio.Event()
        self.closing = False

    async def close(self) -> None:
        """Take no more orders, and wait until each that was taken strictly has its reply.

        After that, the server may be told to end: whatever connection it closes just as a request comes in,
        that order was not taken.
        """
        self.closing = True
        if self._strict:
            await self._none_waits.wait()

    def take(self, order: bytes) -> Reply:
        """202: Kafka gets it, or the end of the producer's block tells. 503: it was not taken; try again."""
        if self.closing:
            return _refusal(CLOSING)
        try:
            self._producer.send_nowait(TOPIC, order)
        except (trio_kprod.BufferOverflow, trio_kprod.ProducerClosed) as error:
            self._refused_at = trio.current_time()
            return _refusal(error)
        except trio_kprod.MessageTooLarge as error:
            return _json(413, error=str(error))
        return _json(202, accepted=True)

    async def take_strictly(self, order: bytes) -> Reply:
        """201: it is in the log, and where. 503: it is not; try again. 504: nobody knows; perhaps it is."""
        if self.closing:
            return _refusal(CLOSING)
        self._strict += 1
        try:
            with trio.fail_after(PATIENCE):
                record = await self._producer.send_and_wait(TOPIC, order)
        except trio.TooSlowError:
            return _json(504, error=f"not acknowledged within {PATIENCE:g} s, but it may be later")
        except trio_kprod.MessageTooLarge as error:
            return _json(413, error=str(error))
        except trio_kprod.DeliveryFailed as error:
            if error.undelivered[0].maybe_written:
                return _json(504, error=str(error))
            return _refusal(error)
        except trio_kprod.ProducerClosed as error:
            return _refusal(error)
        finally:
            self._strict -= 1
            if self.closing and not self._strict:
                self._none_waits.set()
        return _json(201, partition=record.partition, offset=record.offset)

    def health(self) -> Reply:
        """200: the process runs. Kubernetes kills it otherwise, and that would help Kafka in nothing."""
        return _json(200, healthy=True)

    def ready(self) -> Reply:
        """200: send requests here. 503: rather not, and why. Any answer says that the producer is open."""
        now = self._producer.statistics()
        reasons = {
            CLOSING: self.closing,
            f"an order has waited for Kafka for more than {MAX_AGE:g} s": (now.oldest_age or 0) > MAX_AGE,
            f"more than {MAX_QUEUED} orders are queued": now.queued > MAX_QUEUED,
            "orders were refused lately": trio.current_time() - self._refused_at < REFUSED_LATELY,
        }
        why_not = [reason for reason, holds in reasons.items() if holds]
        return _json(503 if why_not else 200, ready=not why_not, why_not=why_not)

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
