"""Producers that are opened and left, after and beside each other, in every way in which a block can end."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

import trio

import trio_kprod
from benchmarks.soak.ledger import Ledger
from benchmarks.soak.places import CLIENT_ID
from benchmarks.soak.senders import Pace, Sender
from trio_kprod import ConnectFailed, DeliveryFailed, Producer, ProducerCrashed

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

LOGGER = logging.getLogger("trio_kprod.soak")

#: Less than freezes of the kind `freeze_long` last.
REQUEST_TIMEOUT_MS = 10_000

#: What leaving may take longer than it is allowed, on a machine that does other things too, in seconds.
MARGIN = 30.0

#: Shortest and longest life of a producer in seconds, by who comes after whom. One lives as long as the run.
SPANS: Mapping[str, tuple[float, float]] = {
    "long": (1e9, 1e9),
    "middle": (30, 300),
    "short": (1, 30),
}

#: How a body ends.
ENDS = (*("return",) * 3, "raise", "cancel", "abort")


class Oops(Exception):
    """What a body raises."""


@dataclass
class Lives:
    """All producers of a run.

    Attributes:
        over: set when no more producers shall be opened, and all be left.
        now: those that are open, by number.
        settled: delivered and undelivered messages of those that were left.
        ends: how often blocks ended in which way.
        slowest: seconds by which leaving took longer than its `shutdown_timeout`, at the worst.
        problems: what must not happen.
    """

    servers: str
    ledger: Ledger
    pace: Pace
    acks: Any
    own_thread: bool | None
    over: trio.Event = field(default_factory=trio.Event)
    now: dict[int, Producer[bytes, bytes]] = field(default_factory=dict)
    settled: tuple[int, int] = (0, 0)
    ends: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    problems: list[str] = field(default_factory=list)
    _count: int = 0

    @property
    def count(self) -> int:
        """How many there were."""
        return self._count

    def totals(self) -> tuple[int, int]:
        """Messages delivered and undelivered so far."""
        every = [producer.statistics() for producer in self.now.values()]
        delivered, undelivered = self.settled
        return (
            delivered + sum(one.delivered for one in every),
            undelivered + sum(one.undelivered for one in every),
        )

    def oldest_age(self) -> float:
        """How long the oldest message waits, in seconds."""
        return max((one.statistics().oldest_age or 0.0 for one in self.now.values()), default=0.0)

    async def succeed(self, span: str, random: Random) -> None:
        """One producer after the other, until it is over."""
        while not self.over.is_set():
            self._count += 1
            await self._live(self._count, random.uniform(*SPANS[span]), random)

    async def _live(self, number: int, seconds: float, random: Random) -> None:
        settings = self._settings(random, for_long=seconds > 1_000)
        end = random.choice(ENDS)
        scope = trio.CancelScope()
        began: list[tuple[float, Producer[bytes, bytes]]] = []
        try:
            with scope:
                async with trio_kprod.open_producer(self.servers, **settings) as producer:
                    self.now[number] = producer
                    try:
                        await self._body(producer, number, seconds, random, end, scope)
                    finally:
                        began.append((trio.current_time(), producer))
        except ConnectFailed:
            self.ends["not opened"] += 1
            await trio.sleep(1)
            return
        except (Oops, DeliveryFailed):
            pass  # what was not delivered is asked of the producer
        except ProducerCrashed as error:
            self.problems.append(f"producer {number} crashed: {error.__cause__!r}")
        except BaseExceptionGroup as group:
            self.problems.append(f"tasks of producer {number} failed: {group.exceptions!r}")
        self._bury(number, began[0], settings["shutdown_timeout"])
        self.ends[end] += 1

    def _bury(self, number: int, left: tuple[float, Producer[bytes, bytes]], timeout: float) -> None:
        """Look at a producer whose block was left."""
        when, producer = left
        late = trio.current_time() - when - timeout
        self.slowest = max(self.slowest, late)
        if late > 1 + MARGIN:
            self.problems.append(f"producer {number} left {late:.1f} s later than it may")
        for one in producer.undelivered:
            self.ledger.tell(one)
        del self.now[number]
        now = producer.statistics()
        self.ledger.close(number, now)
        delivered, undelivered = self.settled
        self.settled = delivered + now.delivered, undelivered + now.undelivered

    async def _body(
        self,
        producer: Producer[bytes, bytes],
        number: int,
        seconds: float,
        random: Random,
        end: str,
        scope: trio.CancelScope,
    ) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(random.randrange(1, 6)):
                sender = Sender(producer, number, self.ledger, self.pace, Random(random.random()))
                nursery.start_soon(sender.work)
            nursery.start_soon(self._flush_now_and_then, producer, Random(random.random()))
            with trio.move_on_after(seconds):
                await self.over.wait()
            if end == "cancel":
                scope.cancel()
            elif end == "abort":
                producer.abort()
            nursery.cancel_scope.cancel()
        if end == "raise":
            raise Oops

    async def _flush_now_and_then(self, producer: Producer[bytes, bytes], random: Random) -> None:
        """In one task: flushes at the same time would all be told of the same messages."""
        while True:
            await trio.sleep(random.uniform(0, 20))
            try:
                await producer.flush()
            except DeliveryFailed as error:
                for one in error.undelivered:
                    self.ledger.tell(one)

    def _settings(self, random: Random, *, for_long: bool) -> dict[str, Any]:
        pick = random.choice
        settings: dict[str, Any] = {
            "client_id": CLIENT_ID,
            "acks": self.acks,
            "request_timeout_ms": REQUEST_TIMEOUT_MS,
            "shutdown_timeout": 120.0 if for_long else pick([0.5, 5.0, 60.0]),
            "delivery_interval": pick([0.05, 0.5]),
            "delivery_threshold": pick([0, 1, 100]),
            "delivery_timeout": pick([float("inf"), float("inf"), 5.0, 30.0]),
            "max_retries": pick([-1, -1, -1, 3]),
            "max_buffer_size": pick([500, 5_000, 20_000]),
            "compression_type": pick([None, None, "gzip"]),
            "own_thread": pick([True, False]) if self.own_thread is None else self.own_thread,
            "logger": LOGGER,
        }
        if for_long:
            settings |= {"delivery_timeout": float("inf"), "max_retries": -1}
        if pick([True, False]):
            settings["on_undelivered"] = self.ledger.tell
        return settings
