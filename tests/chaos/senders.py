"""What a program does with a producer, and how it is cancelled in the middle of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, suppress
from math import inf
from random import Random
from typing import Any

import pytest
import trio

from tests.chaos.history import History, Sent, number_of
from tests.chaos.weather import TOPICS
from trio_kprod import (
    BufferOverflow,
    Instrument,
    MessageTooLarge,
    Producer,
    ProducerClosed,
    Receipt,
    Refused,
    Undelivered,
    UnknownTopic,
)


class Senders:
    """Tasks that use one producer; `pace` is the length of what would be a second."""

    def __init__(self, random: Random, history: History, settings: dict[str, Any], pace: float) -> None:
        self.random = random
        self.history = history
        self.settings = settings
        self.pace = pace
        self.aborted = False
        self.producer: Producer | None = None  # until it is open
        self.receipts: list[tuple[Sent, Receipt]] = []  # those that have not been asked
        self._resent = 0
        self._deeds: Sequence[Callable[[], Awaitable[None]]] = (
            *(self.send_nowait, self.send_nowait, self.send, self.send, self.send, self.send_many),
            *(self.send_and_wait, self.send_and_wait, self.flush, self.flush, self.deliver),
            *(self.partitions_for, self.send_nonsense, self.abort_perhaps),
            *(self.send_tracked_nowait, self.send_tracked, self.ask, self.ask),
        )

    async def work(self) -> None:
        """Some deeds, each of which may be cancelled, until they are done or the producer is closed."""
        with suppress(ProducerClosed):
            for _ in range(self.random.choice([1, 5, 20, 40])):
                with trio.move_on_after(self.pace * self.random.choice([0, 0.001, 0.2, 3, inf])):
                    await self.random.choice(self._deeds)()
                self.look()
                await trio.sleep(self.pace * self.random.choice([0, 0, 0.01, 0.1, 1]))

    @property
    def open_producer(self) -> Producer:
        assert self.producer is not None
        return self.producer

    def look(self, *, giving_up: bool = False) -> None:
        if self.producer is not None:
            self.history.check_books(self.producer.statistics(), self.settings, giving_up=giving_up)

    # -- deeds

    async def send_nowait(self) -> None:
        for _ in range(self.random.randrange(1, 6)):
            sent = self.next_message()
            with suppress(BufferOverflow), self.history.sending(sent):
                self.open_producer.send_nowait(sent.topic, **sent.options)

    async def send(self) -> None:
        sent = self.next_message()
        with self.history.sending(sent):
            await self.open_producer.send(sent.topic, **sent.options)

    async def send_many(self) -> None:
        topic = self.random.choice(TOPICS)
        pulled: list[Sent] = []

        def pull() -> Iterator[Any]:
            for _ in range(self.random.randrange(10)):
                sent = self.next_message(topic, kinds=("keyless", "key"))
                pulled.append(sent)
                value, key = sent.options["value"], sent.options.get("key")
                yield value if key is None else (key, value)
                self.history.accept(sent)  # as the next one is asked for

        async def pull_slowly() -> AsyncGenerator[Any, None]:
            for value in pull():
                if self.random.random() < 0.3:
                    await trio.sleep(self.pace * 0.01)
                pulled[-1].called = self.history.moment()
                yield value

        slow = self.random.random() < 0.5
        try:
            async with aclosing(pull_slowly()) as slow_values:
                count = await self.open_producer.send_many(topic, slow_values if slow else pull())
        except BaseException as error:
            if pulled and pulled[-1].fate == "sending":
                pulled[-1].fate = "refused"
                self.history.say("%d refused: %r", pulled[-1].number, error)
            raise
        assert count == len(pulled)

    async def send_and_wait(self) -> None:
        sent = self.next_message()
        with self.history.waiting(sent):
            sent.metadata = await self.open_producer.send_and_wait(sent.topic, **sent.options)

    async def send_tracked_nowait(self) -> None:
        for _ in range(self.random.randrange(1, 6)):
            sent = self.next_message()
            with suppress(BufferOverflow), self.history.sending(sent):
                receipt = self.open_producer.send_tracked_nowait(sent.topic, **sent.options)
                self.receipts.append((sent, receipt))

    async def send_tracked(self) -> None:
        sent = self.next_message()
        with self.history.sending(sent):
            receipt = await self.open_producer.send_tracked(sent.topic, **sent.options)
            self.receipts.append((sent, receipt))

    async def ask(self) -> None:
        """Await a receipt, or look at it if the message has its outcome."""
        if not self.receipts:
            return
        sent, receipt = self.receipts.pop(self.random.randrange(len(self.receipts)))
        if "closed" in repr(self.open_producer):
            self.history.look_after_the_end(sent, receipt)
            return
        if receipt.done:
            self.history.look(sent, receipt, self.open_producer)
            return
        try:
            with self.history.awaiting(sent):
                sent.metadata = await receipt
        except trio.Cancelled:
            self.receipts.append((sent, receipt))
            raise

    async def flush(self) -> None:
        with self.history.flushing():
            await self.open_producer.flush()

    async def deliver(self) -> None:
        self.open_producer.deliver_nowait()

    async def partitions_for(self) -> None:
        with suppress(UnknownTopic, Refused):
            found = await self.open_producer.partitions_for(self.random.choice(TOPICS))
            assert found
            assert found == [*range(len(found))]

    async def send_nonsense(self) -> None:
        """Nothing of it is queued."""
        before = self.open_producer.statistics().accepted
        nonsense: list[Any] = [("no topic", b"0 "), ("a", b"0 " * 5000), ("a", "text"), ("a",), ("", b"0 ")]
        with pytest.raises((ValueError, TypeError, MessageTooLarge, ProducerClosed)):
            self.open_producer.send_nowait(*self.random.choice(nonsense))
        assert self.open_producer.statistics().accepted == before

    async def abort_perhaps(self) -> None:
        if self.random.random() < 0.03:
            await self.abort()

    async def abort(self) -> None:
        self.history.say("abort")
        self.aborted = True
        self.open_producer.abort()

    # -- callbacks

    def on_undelivered(self, undelivered: Undelivered) -> None:
        self.look(giving_up=True)
        number = number_of(undelivered.message.value)
        if self.random.random() < 0.1:
            self.history.say("on_undelivered raises for %d", number)
            self.history.raised.add(number)
            raise self.random.choice([ZeroDivisionError, SystemExit])("a bug of the user's")
        self.history.tell("on_undelivered", [undelivered])
        if self._resent < 20 and self.random.random() < 0.3:
            self._resent += 1
            sent = self.next_message()
            with suppress(BufferOverflow, ProducerClosed), self.history.sending(sent):
                self.open_producer.send_nowait(sent.topic, **sent.options)

    def partitioner(self, key: bytes | None, partitions: list[int], available: list[int]) -> Any:
        """Runs in the client's loop, so it decides by what it is given."""
        nonsense: dict[bytes | None, Any] = {b"m": "zero", b"l": len(partitions)}
        if key in nonsense and len(available) % 2:
            return nonsense[key]
        return partitions[0] if key is None else partitions[-1]

    # -- messages

    def next_message(
        self, topic: str | None = None, kinds: Sequence[str] = ("keyless", "key", "partition")
    ) -> Sent:
        options: dict[str, Any] = {"value": b"x" * self.random.choice([0, 10, 100, 500])}
        kind = self.random.choice(kinds)
        if kind == "key":
            options["key"] = self.random.choice([b"k", b"l", b"m"])
        elif kind == "partition":
            options["partition"] = self.random.choice([0, 0, 0, 1, 1, 3])
        return self.history.begin(topic or self.random.choice(TOPICS), options)


class Watcher(Instrument):
    """Looks at the books in the middle of everything, and counts."""

    def __init__(self, senders: Senders) -> None:
        self._senders = senders
        self._history = senders.history
        self._history.acknowledged = 0

    def ack_messages(self, *, message_count: int, **_: Any) -> None:
        self._history.acknowledged += message_count
        self._senders.look(giving_up=True)

    def _look(self, **_: Any) -> None:
        self._senders.look(giving_up=True)

    enqueue_message = produce_messages = buffer_overflow = buffer_full = deliver_messages = drop_messages = (
        _look
    )
    send_messages = request = topic_error = connected = disconnected = _look

    def error(self, *, error: BaseException) -> None:
        self._history.say("hook error: %r", error)
