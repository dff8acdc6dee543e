"""One producer, one broker, one seed: from the settings to the verdict."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable
from math import inf
from random import Random
from typing import Any

import trio

from tests.chaos.history import History
from tests.chaos.senders import Senders, Watcher
from tests.chaos.verdict import Verdict, readable
from tests.chaos.weather import Weather
from trio_kprod import DeliveryAborted, DeliveryFailed, Producer, Undelivered
from trio_kprod._producer import ProducerScope
from trio_kprod.testing import Broker, MemoryBroker

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

USERS = {"ada": "secret"}
SASL = {
    "security_protocol": "SASL_PLAINTEXT",
    "sasl_mechanism": "PLAIN",
    "sasl_plain_username": "ada",
    "sasl_plain_password": "secret",
}

#: How the body ends: half of the time as if nothing was.
ENDS = (*("return",) * 4, "raise", "interrupt", "group", "cancel", "cancel late", "abort")


class Storm:
    """What happens in one run.

    Attributes:
        pace (float): the length of what would be a second.
        broker_options: what to make the broker with.
        settings: what to open the producer with.
    """

    def __init__(self, seed: int, pace: float = 1.0, clock: Callable[[], float] = trio.current_time) -> None:
        self.random = Random(seed)
        self.pace = pace
        self.history = History(clock)
        self.calm_at_the_end = self.random.random() < 0.6
        self.seconds = pace * self.random.choice([0.1, 1, 10, 60])
        self.end = self.random.choice(ENDS)
        self.broker_options = self._choose_broker()
        self.settings = self._choose_settings(seed)
        self.senders = Senders(self.random, self.history, self.settings, pace)
        self._add_callbacks()
        self._error = self._make_error()
        self._outer = trio.CancelScope()
        self.left_after = 0.0
        self.weather: Weather | None = None

    # -- choices

    def _choose_broker(self) -> dict[str, Any]:
        pick = self.random.choice
        sasl = self.random.random() < 0.1
        return {
            "partitions": 2,
            "auto_create_topics": pick([True, False]),
            "topics": {"a": 3},
            "sasl_users": USERS if sasl else None,
            "sasl_session_lifetime": pick([None, 1, 4]) if sasl else None,
            "max_versions": pick([None, None, {"Produce": 12}, {"Produce": 9, "Metadata": 9}]),
        }

    def _choose_settings(self, seed: int) -> dict[str, Any]:
        pick, pace = self.random.choice, self.pace
        buffer = pick([2, 10, 200])
        settings: dict[str, Any] = {
            "max_queue_size": pick([1, 3, 50]),
            "max_buffer_size": buffer,
            "max_request_size": 2000,
            "max_buffer_bytes": pick([4000, 8000, 10**6]),
            "batch_size": pick([200, 500, 2000]),
            "compression_type": pick([None, None, "gzip"]),
            "delivery_threshold": pick([0, 1, buffer]),
            "delivery_interval": pace * pick([0, 0.01, 1]),
            "delivery_timeout": pace * pick([inf, inf, 3, 30]),
            "max_retries": pick([-1, -1, 0, 3]),
            "retry_backoff": pace * pick([0.01, 0.1]),
            "connect_timeout": 30 * max(pace, 0.1),
            "topic_timeout": pace * pick([1, 20]),
            "shutdown_timeout": 120 if self.calm_at_the_end else pace * pick([0, 1, 20]),
            "request_timeout_ms": int(pace * pick([1000, 10_000])),
            "connections_max_idle_ms": pick([500, 540_000]),
            "metadata_max_age_ms": pick([1000, 300_000]),
            "reconnect_backoff_ms": max(1, int(pace * 50)),
            "reconnect_backoff_max_ms": max(1, int(pace * 1000)),
            "acks": pick(["all", 1, 0]),
            "logger": logging.Logger(f"storm {seed}"),
        }
        settings["logger"].addHandler(self.history)
        return settings

    def _add_callbacks(self) -> None:
        if self.random.random() < 0.5:
            self.settings["on_undelivered"] = self.senders.on_undelivered
        if self.random.random() < 0.3:
            self.settings["instruments"] = (Watcher(self.senders),)
        else:
            self.history.acknowledged = -1
        if self.random.random() < 0.1:
            self.settings["partitioner"] = self.senders.partitioner

    def _make_error(self) -> BaseException | None:
        errors: dict[str, Callable[[], BaseException]] = {
            "raise": lambda: ValueError("the body's own"),
            "interrupt": lambda: KeyboardInterrupt("the body's own"),
            "group": lambda: BaseExceptionGroup("the body's own", [ValueError(), SystemExit()]),
        }
        return errors[self.end]() if self.end in errors else None

    @property
    def options(self) -> dict[str, Any]:
        """All that the producer is opened with."""
        return self.settings | (SASL if self.broker_options["sasl_users"] else {})

    # -- the run

    async def rage(self, opened: ProducerScope, broker: Broker | MemoryBroker) -> None:
        """Everything until the last task has ended."""
        topic_ids = self.broker_options["max_versions"] is None
        self.weather = weather = Weather(self.random, broker, self.history, self.pace, topic_ids=topic_ids)
        weather.create_topics()
        self.history.say("%s; broker: %s; end: %s", self.settings, self.broker_options, self.end)
        if self.random.random() < 0.05:
            weather.strike()
        async with trio.open_nursery() as outside:
            await self._live(opened, outside, weather)
        await weather.blow_over()
        if self.senders.producer is not None:
            self._check_end(self.senders.producer, weather)

    async def _live(self, opened: ProducerScope, outside: trio.Nursery, weather: Weather) -> None:
        left: BaseException | None = None
        with self._outer:
            try:
                await self._enter_and_leave(opened, outside, weather)
            except BaseException as error:
                left = error
                self.history.say("left: %r", error)
                if isinstance(error, trio.Cancelled):
                    raise
        if self.senders.producer is not None:
            self._check_what_left(self.senders.producer, left)

    async def _enter_and_leave(self, opened: ProducerScope, outside: trio.Nursery, weather: Weather) -> None:
        ended = inf
        try:
            async with opened as self.senders.producer:
                try:
                    await self._body(outside, weather)
                finally:
                    ended = trio.current_time()
                    self.history.say("the body ends")
        finally:
            self.left_after = trio.current_time() - ended

    async def _body(self, outside: trio.Nursery, weather: Weather) -> None:
        async with trio.open_nursery() as storm:
            storm.start_soon(weather.rage)
            with trio.move_on_after(self.seconds):
                async with trio.open_nursery() as inside:
                    for _ in range(self.random.randrange(1, 5)):
                        self.random.choice([inside, inside, outside]).start_soon(self.senders.work)
            storm.cancel_scope.cancel()
        if self.calm_at_the_end:
            weather.calm_down()
        await self._end_body(outside)

    async def _end_body(self, outside: trio.Nursery) -> None:
        if self._error is not None:
            raise self._error
        if self.end == "cancel":
            self._outer.cancel()
            await trio.sleep_forever()
        if self.end == "abort":
            await self.senders.abort()
        if self.end == "cancel late":
            outside.start_soon(self._cancel_late, self.random.choice([0, 0.5, 5]))

    async def _cancel_late(self, seconds: float) -> None:
        await trio.sleep(self.pace * seconds)
        self._outer.cancel()

    # -- to be read

    def story(self) -> str:
        """Everything that happened, a line each."""
        logs = readable(self.weather.logs()) if self.weather is not None else ()
        return "\n".join([*self.history.lines(), *logs])

    def counts(self) -> Counter[str]:
        """What happened how often."""
        counts = Counter(sent.fate for sent in self.history.sent)
        for telling in self.history.tellings:
            counts.update({f"told by {telling.who}": len(telling.told)})
            counts.update(_kind(one) for one in telling.told.values())
        counts["omitted"] = len(self.history.omitted)
        counts["not opened"] = int(self.senders.producer is None)
        counts[f"end by {self.end}"] += 1
        return counts

    # -- what must be true

    def _check_what_left(self, producer: Producer, left: BaseException | None) -> None:
        """The body's exception as it was; else what nobody was told of."""
        self.history.say("left after %g s: %r; %s", self.left_after, left, producer.statistics())
        if isinstance(left, DeliveryFailed):
            assert self._error is None
            assert left.undelivered == producer.undelivered
        elif self._error is not None:
            assert left is self._error
            told = not producer.undelivered or any("not delivered" in one for one in notes_of(left))
            assert told
        else:
            assert isinstance(left, trio.Cancelled) == (self.end == "cancel"), repr(left)
            assert left is None or isinstance(left, trio.Cancelled), repr(left)
            assert left is not None or not producer.undelivered
        self.history.tell("the end", producer.undelivered)
        for sent, receipt in self.senders.receipts:
            self.history.look_after_the_end(sent, receipt)

    def _check_end(self, producer: Producer, weather: Weather) -> None:
        assert "crashed" not in repr(producer), repr(producer)
        self.senders.look()
        verdict = Verdict(self.history, producer.statistics(), self.settings, weather.logs())
        verdict.check()
        patient = self.settings["max_retries"] == -1 and self.settings["delivery_timeout"] == inf
        if self.calm_at_the_end and patient and not self.senders.aborted:
            given_up = [n for n, one in verdict.verdicts.items() if isinstance(one.cause, DeliveryAborted)]
            assert not given_up, (
                f"given up although the broker was well again, and there was time: {given_up}"
            )


def notes_of(error: BaseException | None) -> list[str]:
    if sys.version_info < (3, 11):
        return ["not delivered"]  # there are no notes
    return getattr(error, "__notes__", [])


def _kind(undelivered: Undelivered) -> str:
    return f"{type(undelivered.cause).__name__}{', maybe written' * undelivered.maybe_written}"
