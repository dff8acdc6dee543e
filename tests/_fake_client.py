"""A client that settles what it is told to, when it is told to; no thread, no network, no Kafka.

It stands behind the same seam as the real one, in the loop of the test, so that `autojump_clock` works and
each test decides when which message has which outcome.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Any

import trio

from trio_kprod._client import LoopHost
from trio_kprod._core._reports import Opened, Report, Settled
from trio_kprod._errors import DeliveryAborted
from trio_kprod._messages import SIZE, TOPIC, Entry
from trio_kprod._producer import Producer, ProducerScope
from trio_kprod._settings._config import make_settings


class FakeClient:
    """Attributes for the test to look at or to set:

    submitted (list[list[Entry]]): every hand-over.
    held (list[Entry]): what was handed over and is not settled, in that order.
    automatic (bool): acknowledge each hand-over at once.
    opening: what `Opened` carries: None, an exception, or "never" for a broker that does not answer.
    deaf (bool): do not react to `stop`, as a client whose loop is blocked.
    handed_over (bool): whether what is given up counts as perhaps written.
    behind (bool): what `is_behind` says; who sets it to False calls `catch_up` instead.
    """

    def __init__(self, *, automatic: bool = False, opening: Any = None, deaf: bool = False) -> None:
        self.reports: deque[Report] = deque()
        self.submitted: list[list[Entry]] = []
        self.held: list[Entry] = []
        self.asked: list[str] = []
        self.automatic = automatic
        self.opening = opening
        self.deaf = deaf
        self.handed_over = False
        self.behind = False
        self.stops = 0
        self.why = ""
        self.abandoned = 0
        self.running = False
        self.on_submit: Callable[[], object] = lambda: None
        self._offsets: dict[str, int] = defaultdict(int)
        self._over = trio.Event()
        self._crash: BaseException | None = None
        self._wake: Callable[[], None] = lambda: None

    # -- the seam ------------------------------------------------------------------------------------

    def bind(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def submit(self, entries: list[Entry]) -> None:
        self.on_submit()
        self.submitted.append(list(entries))
        self.held += entries
        if self.automatic:
            self.acknowledge()

    def is_behind(self) -> bool:
        return self.behind

    def catch_up(self) -> None:
        """It has taken all that was submitted."""
        self.behind = False
        self._wake()

    def want_partitions(self, topic: str) -> None:
        self.asked.append(topic)

    def stop(self, why: str) -> None:
        self.stops += 1
        self.why = why
        if not self.deaf:
            self._over.set()

    def abandon(self) -> list[Settled]:
        self.abandoned += 1
        return self._settle_held(self.held, DeliveryAborted("abandoned"), self.handed_over)

    async def main(self) -> None:
        self.running = True
        try:
            if self.opening != "never":
                self.report(Opened(self.opening))
            if self.opening is None or self.opening == "never":
                await self._over.wait()
            if self._crash is not None:
                raise self._crash
            self.fail(DeliveryAborted("stopped"), maybe_written=self.handed_over)
        finally:
            self.running = False

    # -- for tests -----------------------------------------------------------------------------------

    def report(self, *reports: Report) -> None:
        self.reports.extend(reports)
        self._wake()

    def acknowledge(self, count: int | None = None) -> None:
        """Deliver the first `count` messages held."""
        self.report(*self._settle_held(self.held[:count], None, False))

    def fail(
        self, cause: BaseException, *, maybe_written: bool = False, messages: Iterable[Entry] | None = None
    ) -> None:
        """Fail these messages, by default all that are held."""
        chosen = self.held if messages is None else messages
        self.report(*self._settle_held(chosen, cause, maybe_written))

    def crash(self, error: BaseException) -> None:
        self._crash = error
        self._over.set()

    def end(self) -> None:
        """End as if told to, without having been told."""
        self._over.set()

    def _settle_held(
        self, messages: Iterable[Entry], cause: BaseException | None, maybe_written: bool
    ) -> list[Settled]:
        by_topic: dict[str, list[Entry]] = defaultdict(list)
        for message in messages:
            by_topic[message[TOPIC]].append(message)
        settled = {id(message) for messages in by_topic.values() for message in messages}
        self.held = [message for message in self.held if id(message) not in settled]
        return [self._settled(topic, entries, cause, maybe_written) for topic, entries in by_topic.items()]

    def _settled(
        self, topic: str, entries: list[Entry], cause: BaseException | None, maybe_written: bool
    ) -> Settled:
        size = sum(message[SIZE] for message in entries)
        if cause is not None:
            return Settled(topic, 0, -1, -1, entries, size, 1, cause, maybe_written)
        offset = self._offsets[topic]
        self._offsets[topic] += len(entries)
        return Settled(topic, 0, offset, -1, entries, size, 1)


class _FakeScope(ProducerScope[Any, Any]):
    def __init__(self, *args: Any, acknowledged: Iterable[str]) -> None:
        super().__init__(*args)
        self._acknowledged = acknowledged

    async def __aenter__(self) -> Producer[Any, Any]:
        producer = await super().__aenter__()
        for name in self._acknowledged:
            producer._room.acknowledged(producer._intake.topic(name))
        return producer


def open_fake(
    client: FakeClient, *, acknowledged: Iterable[str] = ("topic", "good", "bad"), **settings: Any
) -> ProducerScope[Any, Any]:
    """`open_producer`, but over a fake client, and these topics have been used before."""
    named = set(inspect.signature(make_settings).parameters)
    config = {name: settings.pop(name) for name in set(settings) - named}
    settings.setdefault("logger", logging.getLogger("tests"))
    made = make_settings(client_config=config, **settings)
    return _FakeScope(made, client, LoopHost(), acknowledged=acknowledged)


def check_sums(producer: Producer, client: FakeClient | None = None) -> None:
    """What must be true of the statistics at every moment."""
    now = producer.statistics()
    assert now.accepted == now.queued + now.waiting + now.in_flight + now.delivered + now.undelivered
    assert all(count >= 0 for count in dataclasses.astuple(now) if count is not None)
    unsettled = now.queued + now.waiting + now.in_flight
    assert (now.unsettled_bytes > 0) == (unsettled > 0)
    assert (now.oldest_age is not None) == (unsettled > 0)
    if client is not None and not client.reports:
        assert now.in_flight == len(client.held)


async def settle_down() -> None:
    """Let every task do what it can do without time passing."""
    await trio.testing.wait_all_tasks_blocked()
