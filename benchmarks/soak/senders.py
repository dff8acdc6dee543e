"""What tasks do with a producer: every way of sending, slow, fast, large, wrong, cancelled in the middle."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from math import inf
from random import Random
from typing import Any, NamedTuple

import trio

from benchmarks.soak.ledger import Kind, Ledger, make_value
from benchmarks.soak.places import PARTITIONS, PICKY_LIMIT, TOPICS
from trio_kprod import (
    BufferOverflow,
    DeliveryFailed,
    MessageTooLarge,
    Producer,
    ProducerClosed,
    Receipt,
)

#: Sizes of values in bytes; most are small.
SIZES = (*(60, 100, 150, 200, 300) * 8, 0, 2_000, 20_000)

#: The largest that producers take is somewhat less than a megabyte.
LARGE = (150_000, 400_000, 900_000)
TOO_LARGE = 1_100_000

#: Seconds of sending that may be caught up with, after nobody could send.
_CATCHING_UP = 5.0


class Pace:
    """Lets all tasks together send `rate` messages a second, on average."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._began = trio.current_time()
        self._spent = 0.0

    async def take(self, count: int) -> None:
        """Wait until the rate is kept, then spend `count` messages."""
        allowed = (trio.current_time() - self._began) * self._rate
        self._spent = max(self._spent, allowed - _CATCHING_UP * self._rate)
        ahead = max(0.0, self._spent - allowed)
        self._spent += count
        await trio.sleep(ahead / self._rate)


class Draft(NamedTuple):
    """A message that may be sent, by its number."""

    number: int
    topic: str
    options: dict[str, Any]


class Sender:
    """One task that uses a producer.

    Args:
        number (int): the producer's.
    """

    def __init__(
        self, producer: Producer[bytes, bytes], number: int, ledger: Ledger, pace: Pace, random: Random
    ) -> None:
        self._producer = producer
        self._number = number
        self._ledger = ledger
        self._pace = pace
        self._random = random
        self._deeds: dict[Callable[[], Awaitable[None]], int] = {
            self.send_nowait: 5,
            self.send: 5,
            self.send_many: 4,
            self.send_and_wait: 3,
            self.send_tracked: 3,
            self.burst: 1,
            self.be_slow: 1,
            self.be_idle: 1,
            self.send_large: 1,
            self.be_picky: 2,
            self.send_nonsense: 1,
            self.send_fleeting: 2,
            self.deliver: 1,
        }

    async def work(self) -> None:
        """Use it until nothing is accepted any more; each deed may be cancelled."""
        deeds, weights = list(self._deeds), list(self._deeds.values())
        with suppress(ProducerClosed):
            while True:
                (deed,) = self._random.choices(deeds, weights)
                with trio.move_on_after(self._random.choice([inf, inf, inf, 10, 1, 0.01])):
                    await deed()
                await trio.lowlevel.checkpoint()

    # -- deeds

    async def send_nowait(self) -> None:
        for _ in range(self._random.randrange(10, 300)):
            await self._pace.take(1)
            await self._offer(self._draft())

    async def burst(self) -> None:
        """Faster than Kafka may be."""
        count = self._random.randrange(500, 3_000)
        await self._pace.take(count)
        for _ in range(count):
            await self._offer(self._draft(size=100))

    async def send(self) -> None:
        for _ in range(self._random.randrange(10, 300)):
            await self._pace.take(1)
            await self._send(self._draft())

    async def be_slow(self) -> None:
        for _ in range(self._random.randrange(2, 8)):
            await self._pace.take(1)
            await self._send(self._draft())
            await trio.sleep(self._random.uniform(0, 2))

    async def be_idle(self) -> None:
        await trio.sleep(self._random.uniform(0, 5))

    async def send_many(self) -> None:
        pulled: list[int] = []
        count = self._random.randrange(10, 300)
        await self._pace.take(count)

        def pull() -> Iterator[Any]:
            for _ in range(count):
                draft = self._draft()
                pulled.append(draft.number)
                value, key = draft.options["value"], draft.options.get("key")
                yield value if key is None else (key, value)
                self._ledger.accept(pulled.pop(), self._number)  # the next one is asked for

        try:
            await self._producer.send_many(TOPICS.steady, pull())
        except BaseException:
            # It raises at its first or last checkpoint, or while an item waits.
            for number in pulled:
                self._ledger.refuse(number)
            raise

    async def send_and_wait(self) -> None:
        for _ in range(self._random.randrange(1, 20)):
            await self._pace.take(1)
            draft = self._draft()
            try:
                await self._producer.send_and_wait(draft.topic, **draft.options)
            except DeliveryFailed as error:
                self._accept(draft)
                self._tell(error)
            except trio.Cancelled:
                self._ledger.unsure(draft.number, self._number)
                raise
            except BaseException:
                self._ledger.refuse(draft.number)
                raise
            else:
                self._accept(draft)
                self._ledger.acknowledge(draft.number)

    async def send_tracked(self) -> None:
        """Some receipts are asked, others are not."""
        receipts: list[tuple[Draft, Receipt]] = []
        for _ in range(self._random.randrange(1, 50)):
            await self._pace.take(1)
            draft = self._draft()
            try:
                receipt = await self._producer.send_tracked(draft.topic, **draft.options)
            except BaseException:
                self._ledger.refuse(draft.number)
                raise
            self._accept(draft)
            receipts.append((draft, receipt))
        for draft, receipt in self._random.sample(receipts, len(receipts) // 2):
            try:
                await receipt
            except DeliveryFailed as error:
                self._ledger.tell_again(error.undelivered[0])
            else:
                self._ledger.acknowledge(draft.number)

    async def send_large(self) -> None:
        for _ in range(self._random.randrange(1, 3)):
            await self._pace.take(100)
            await self._send(self._draft(size=self._random.choice(LARGE)))

    async def be_picky(self) -> None:
        """The topic refuses what has no key, and what is too large for it; the rest is to be delivered."""
        for _ in range(self._random.randrange(1, 50)):
            await self._pace.take(1)
            bad = self._random.random() < 0.1
            kind: Kind = b"free" if bad and self._random.random() < 0.7 else b"placed"
            number = self._ledger.begin()
            size = PICKY_LIMIT * 2 if bad and kind == b"placed" else self._random.choice(SIZES)
            options: dict[str, Any] = {"value": make_value(number, self._number, kind, size)}
            if kind == b"placed":
                options["key"] = b"%d" % number
            await self._send(Draft(number, TOPICS.picky, options))

    async def send_fleeting(self) -> None:
        for _ in range(self._random.randrange(1, 50)):
            await self._pace.take(1)
            await self._send(self._draft(TOPICS.fleeting))

    async def send_nonsense(self) -> None:
        """Nothing of it is queued."""
        draft = self._draft(size=TOO_LARGE)
        self._ledger.refuse(draft.number)
        with suppress(MessageTooLarge):
            self._producer.send_nowait(draft.topic, **draft.options)
        wrong: Any = 17
        with suppress(TypeError, ValueError):
            self._producer.send_nowait("no topic", make_value(draft.number, self._number, b"free"))
        with suppress(TypeError):
            self._producer.send_nowait(TOPICS.steady, wrong)

    async def deliver(self) -> None:
        self._producer.deliver_nowait()

    # -- messages

    def _draft(self, topic: str = TOPICS.steady, size: int | None = None) -> Draft:
        number = self._ledger.begin(fleeting=topic == TOPICS.fleeting)
        kind: Kind = b"free" if self._random.random() < 0.5 else b"placed"
        value = make_value(number, self._number, kind, self._random.choice(SIZES) if size is None else size)
        options: dict[str, Any] = {"value": value}
        if kind == b"placed":
            options["key"] = b"%d" % self._random.randrange(1_000)
        return Draft(number, topic, options)

    async def _send(self, draft: Draft) -> None:
        try:
            await self._producer.send(draft.topic, **draft.options)
        except BaseException:
            self._ledger.refuse(draft.number)
            raise
        self._accept(draft)

    async def _offer(self, draft: Draft) -> None:
        """By `send_nowait`; where there is no room, wait a little."""
        if draft.options.get("key") and self._random.random() < 0.1:
            del draft.options["key"]
            draft.options["partition"] = self._random.randrange(PARTITIONS[draft.topic])
        try:
            self._producer.send_nowait(draft.topic, **draft.options)
        except BufferOverflow:
            self._ledger.refuse(draft.number)
            await trio.sleep(0.05)
        except BaseException:
            self._ledger.refuse(draft.number)
            raise
        else:
            self._accept(draft)

    def _accept(self, draft: Draft) -> None:
        self._ledger.accept(draft.number, self._number)

    def _tell(self, error: DeliveryFailed) -> None:
        for one in error.undelivered:
            self._ledger.tell(one)
