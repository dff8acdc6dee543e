"""The producer as its users see it: accept, refuse, wait. No batching, no threads, no I/O."""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import AsyncIterable, Callable, Iterable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, overload

import trio
from trio.lowlevel import current_trio_token

from ._client import Client, LoopHost, ThreadHost
from ._delivery import Delivery
from ._errors import BufferOverflow
from ._instruments import Instruments
from ._intake import Intake, check_topic, make_intakes
from ._ledger import Ledger
from ._lifetime import Lifetime
from ._messages import ACCEPTED_AT, Headers, Item, Message, ProducerStatistics, RecordMetadata, Undelivered
from ._receipts import Receipt
from ._room import TopicAccount
from ._settings import make_settings, shown, wrong_type
from ._speedups import compiled
from ._typing import K, V

if TYPE_CHECKING:
    import logging
    from contextlib import AbstractAsyncContextManager

    from typing_extensions import Unpack

    from ._client import Host
    from ._instruments import Instrument
    from ._messages import Entry
    from ._settings import ClientConfig, Settings
    from ._typing import Key, ProducerOptions, Sendable, Serializer, Value


class Producer(Generic[K, V]):
    """Sends messages to Kafka in the background. Made by `open_producer`, never directly.

    All its methods belong to the trio loop in which it was opened; other threads go through
    `trio.from_thread`. When the producer takes no more, they raise `ProducerClosed` (the scope is being left,
    or `abort` was called) or `ProducerCrashed` (a bug; the scope raises it as well).
    """

    def __init__(self, delivery: Delivery, intake: Intake, intake_of_bytes: Intake) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._delivery = delivery
        self._ending = delivery.ending
        self._room = delivery.room
        self._intake = intake
        self._intake_of_bytes = intake_of_bytes
        self._topics = intake.topics
        self._turns = delivery.turns
        self._instruments = delivery.instruments
        self._tracking = delivery.outcomes.tracking
        self._tracking.ask = self._ask_for_receipt
        self._tickets = intake.tickets
        self._state = "opening"
        self._forked = False
        if compiled is not None and intake.is_plain and not self._instruments.on_accept:
            self._speed_up(intake)

    # -- sending -------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def send_nowait(
        self,
        topic: str,
        value: V | None = None,
        *,
        key: K | None = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> None:
        """Accept a message for delivery, or raise; never blocks, never a checkpoint.

        If it returns, the message has exactly one outcome: it is acknowledged, or its failure is reported (by
        `flush`, `on_undelivered` or the end of the scope). If it raises, nothing was queued.

        Topics of which no message has been acknowledged yet, and those that make no progress, together may
        hold half of `max_buffer_size` and of `max_buffer_bytes`. So a first burst that is larger than that
        needs `await send`, which waits for the first acknowledgement, or larger bounds.

        While the block is being left, only `on_undelivered` may call it: see `open_producer`.

        Args:
            topic: 1 to 249 characters out of ``a-z A-Z 0-9 . _ -``.
            value: bytes, or what `value_serializer` takes. None is a tombstone: it deletes the key in a
                compacted topic. It is not given to the serializer.
            key: bytes, or what `key_serializer` takes. Messages with the same key go to the same partition.
            headers: pairs of str and bytes (or None).
            partition: where to send it, from 0; by default the key decides; without a key, the producer.
            timestamp_ms: milliseconds since 1970, by default now.

        Raises:
            BufferOverflow: there is no room, or others wait for it in `send`; the text says which bound was
                reached. This call has also asked for delivery.
            MessageTooLarge: it is larger than `max_request_size`.
            TypeError, ValueError: an argument is wrong; the error names it.
            ProducerClosed, ProducerCrashed: nothing is accepted any more.
            RuntimeError: called in another thread or run than that of the producer, or in a forked child.
        """
        # The same as `_offer`, without a call: this is the hot path.
        try:
            if current_trio_token() is not self._token or self._ending.refusal is not None:
                self._check()
            known = self._topics[topic]
        except (RuntimeError, TypeError):
            self._check_place()
            check_topic(topic)  # says it better than a look-up can
            raise
        message = self._intake.message(known, value, key, headers, partition, timestamp_ms)
        if not self._room.accept(message, known):
            self._overflow(message, known)
        if self._instruments.on_accept:
            self._delivery.tell_accepted(message, known)

    @trio.lowlevel.enable_ki_protection
    async def send(
        self,
        topic: str,
        value: V | None = None,
        *,
        key: K | None = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> None:
        """Accept a message for delivery. Waits while the queue or the buffer is full.

        As `send_nowait`, but never raises `BufferOverflow`. Tasks are served in the order in which they came;
        one that sends to a topic that is new or makes no progress does not hold up the others. Returning
        means accepted, not delivered.

        Always a cancellation point; if it raises `Cancelled`, nothing was queued. It gives way to other tasks
        at least every half millisecond of this producer's sending, and whenever it waits for room.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        message, known, accepted = self._offer(topic, value, key, headers, partition, timestamp_ms)
        if not accepted:
            await self._wait_for_room(message, known)
        elif message[ACCEPTED_AT] >= self._turns.end:
            await self._turns.give_way(message[ACCEPTED_AT])

    async def send_many(
        self, topic: str, values: Iterable[Sendable[K, V]] | AsyncIterable[Sendable[K, V]]
    ) -> int:
        """Send each item of an iterable, sync or async, waiting for room; returns how many there were.

        Each is pulled only when the one before was accepted. So if an error or `Cancelled` leaves, exactly
        the last item pulled was not accepted. Cheaper than `send` in a loop: it is a checkpoint where it has
        to wait for room, and once at the end.

        Args:
            topic: where all of them go.
            values: an item is one of

                - a value, as `send` takes it;
                - a tuple ``(key, value)``. A tuple, also a named one, is always a pair: a value that is a
                  tuple needs an `Item`;
                - an `Item`, which may have headers, a partition and a time stamp as well;
                - a `Message`, as an `Undelivered` has it. It is sent again as it is, but to this topic: its
                  key and value are bytes already, so serializers are not called for it.

        It raises what `send` raises, and what the iterable does.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check()
        self._intake.topic(topic)  # also if there is nothing to send
        _check_iterable(values)
        count = 0
        if isinstance(values, AsyncIterable):
            async for item in values:
                left = self._accept_item(topic, item)
                if left is not None:
                    await self._wait_for_room(*left)
                count += 1
        else:
            for item in values:
                left = self._accept_item(topic, item)
                if left is not None:
                    await self._wait_for_room(*left)
                count += 1
        await trio.lowlevel.cancel_shielded_checkpoint()
        return count

    @trio.lowlevel.enable_ki_protection
    def _accept_item(self, topic: str, item: Any) -> tuple[Entry, TopicAccount] | None:
        """Queue an item; if there is no room for it, return its message, and the topic."""
        if self._ending.refusal is not None:
            self._check()
        known = self._topics[topic]
        if not isinstance(item, (tuple, Item)):
            message = self._intake.message(known, item, None, None, None, None)
        elif type(item) is tuple and len(item) == 2:
            message = self._intake.message(known, item[1], item[0], None, None, None)
        else:
            message = self._message_of(known, item)
        if not self._room.accept(message, known):
            return message, known
        if self._instruments.on_accept:
            self._delivery.tell_accepted(message, known)
        return None

    @trio.lowlevel.enable_ki_protection
    def send_tracked_nowait(
        self,
        topic: str,
        value: V | None = None,
        *,
        key: K | None = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> Receipt:
        """As `send_nowait`, and returns a receipt, which knows the outcome of this message.

        So a loop can send thousands and look at each outcome later: ``for one in receipts: await one``. If
        no task asks the receipt, a failure is told by the next `flush`, or when the block is left: to
        `on_undelivered`, or by `DeliveryFailed`. See `Receipt`.
        """
        ticket = next(self._tickets)
        message, known, accepted = self._offer(topic, value, key, headers, partition, timestamp_ms, ticket)
        if not accepted:
            self._overflow(message, known)
        return self._tracking.begin(ticket)  # no outcome can have come before

    @trio.lowlevel.enable_ki_protection
    async def send_tracked(
        self,
        topic: str,
        value: V | None = None,
        *,
        key: K | None = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> Receipt:
        """As `send`, and returns a receipt, which knows the outcome of this message."""
        await trio.lowlevel.checkpoint_if_cancelled()
        ticket = next(self._tickets)
        receipt = self._tracking.begin(ticket)
        try:
            message, known, accepted = self._offer(
                topic, value, key, headers, partition, timestamp_ms, ticket
            )
            if not accepted:
                await self._wait_for_room(message, known)
            elif message[ACCEPTED_AT] >= self._turns.end:
                await self._turns.give_way(message[ACCEPTED_AT])
        except BaseException:
            self._tracking.forget(ticket)
            raise
        return receipt

    @trio.lowlevel.enable_ki_protection
    async def send_and_wait(
        self,
        topic: str,
        value: V | None = None,
        *,
        key: K | None = None,
        headers: Headers | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> RecordMetadata:
        """Send a message, ask for delivery at once, and wait until Kafka has acknowledged it.

        If it is cancelled while it waits for room, nothing was queued; while it waits for the
        acknowledgement, the message stays accepted, and a failure is reported elsewhere.

        It raises what `send` raises, too.

        Raises:
            DeliveryFailed: the message was not delivered; this is the only report of it.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        ticket = next(self._tickets)
        receipt = self._tracking.begin(ticket)
        try:
            message, known, accepted = self._offer(
                topic, value, key, headers, partition, timestamp_ms, ticket, wake=False
            )
            if not accepted:
                await self._wait_for_room(message, known)
            return await receipt._wait(withdraw=lambda: self._tracking.forget(ticket))
        finally:
            self._tracking.forget(ticket)

    # -- delivering ----------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def deliver_nowait(self) -> None:
        """Ask for delivery of all that was accepted before this call; returns at once.

        Never lost: if the buffer has no room for all of it, the rest follows as room appears.
        """
        self._check()
        self._delivery.deliver_nowait()

    @trio.lowlevel.enable_ki_protection
    async def flush(self) -> None:
        """Ask for delivery, and wait until each message accepted before this call has an outcome.

        Always a checkpoint. Cancelling it changes nothing for the messages. May be called in several tasks at
        once, which are then all told. With `on_undelivered` set, returning means that every message has an
        outcome, not that each was delivered.

        Raises:
            DeliveryFailed: carries each of these messages that was not delivered, also those that failed
                before the call, unless they were reported already.
            ProducerClosed: the scope was left. While it is being left, a flush still works.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check_place()
        if self._state == "closed" or self._ending.crash is not None:
            raise self._ending.refused()
        flush = self._delivery.begin_flush()
        teller = self._delivery.teller
        try:
            await flush.wait(withdraw=lambda: teller.withdraw_flush(flush))
        except BaseException:
            if not flush.ended:
                teller.pass_on()
            raise

    @trio.lowlevel.enable_ki_protection
    def abort(self) -> None:
        """Give up: accept nothing more, and settle each message as soon as its outcome can be known.

        Returns at once and may be called again. While the scope is being left, it ends the delivery. Tasks
        that wait in `send` get `ProducerClosed`, others the outcome of their messages. The body goes on.
        """
        self._check_place()
        if self._state != "closed":
            self._delivery.abort()

    @trio.lowlevel.enable_ki_protection
    async def partitions_for(self, topic: str) -> list[int]:
        """The topic's partitions, ascending from 0. Always a checkpoint.

        Raises:
            UnknownTopic: no broker knew it for `topic_timeout` seconds.
            Refused: a broker would not say.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check()
        known = self._intake.topic(topic)
        if known.partitions:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return list(range(known.partitions))
        asker = self._delivery.ask_partitions(known)
        await asker.wait(withdraw=lambda: known.askers.remove(asker))
        return list(range(known.partitions))

    # -- looking -------------------------------------------------------------------------------------

    def statistics(self) -> ProducerStatistics:
        """A snapshot. Also after the scope.

        Any thread may call it. In another thread than the producer's, the figures may be of slightly
        different moments, so they may not add up.
        """
        return self._delivery.statistics()

    @property
    def undelivered(self) -> tuple[Undelivered, ...]:
        """The failed messages that were not reported yet; after the scope, those that its end reported."""
        return self._delivery.teller.kept

    def __repr__(self) -> str:
        now = self._delivery.statistics()
        return (
            f"<trio_kprod.Producer {self._describe()}: {now.queued} queued, {now.waiting} waiting, "
            f"{now.in_flight} in flight>"
        )

    def _describe(self) -> str:
        if self._ending.crash is not None:
            return "crashed"
        return "closing" if self._state == "open" and self._ending.refusal is not None else self._state

    # -- inside --------------------------------------------------------------------------------------

    def _offer(
        self,
        topic: str,
        value: Any,
        key: Any,
        headers: Any,
        partition: int | None,
        timestamp_ms: int | None,
        ticket: int | None = None,
        *,
        wake: bool = True,
    ) -> tuple[Entry, TopicAccount, bool]:
        """Queue a message, and tell instruments; the last value is False if there is no room for it."""
        try:
            if current_trio_token() is not self._token or self._ending.refusal is not None:
                self._check()
            known = self._topics[topic]
        except (RuntimeError, TypeError):
            self._check_place()
            check_topic(topic)  # says it better than a look-up can
            raise
        message = self._intake.message(known, value, key, headers, partition, timestamp_ms, ticket)
        accepted = self._room.accept(message, known, wake=wake)
        if accepted and self._instruments.on_accept:
            self._delivery.tell_accepted(message, known)
        return message, known, accepted

    def _message_of(self, known: TopicAccount, item: tuple[Any, ...] | Item[Any, Any]) -> Entry:
        if isinstance(item, tuple) and not isinstance(item, Message):
            key, value = _pair(item)
            return self._intake.message(known, value, key, None, None, None)
        intake = self._intake if isinstance(item, Item) else self._intake_of_bytes
        return intake.message(known, item.value, item.key, item.headers, item.partition, item.timestamp_ms)

    def _ask_for_receipt(self) -> None:
        self._check_place()
        self._delivery.deliver_nowait()

    def _overflow(self, message: Entry, known: TopicAccount) -> NoReturn:
        refusal = self._room.refusal(message, known)
        if isinstance(refusal, BufferOverflow) and self._instruments.buffer_overflow:
            self._instruments.tell("buffer_overflow", topic=known.name)
        self._delivery.tell_rejected(message, refusal)
        self._delivery.deliver_nowait()
        raise refusal

    @trio.lowlevel.enable_ki_protection
    async def _wait_for_room(self, message: Entry, known: TopicAccount) -> None:
        """Always a checkpoint. If it raises, the message was not accepted."""
        self._delivery.deliver_nowait()
        try:
            await self._room.wait_for_room(message, known)
        except BaseException as error:
            self._delivery.tell_rejected(message, error)
            raise
        self._delivery.wake()

    def _check(self) -> None:
        self._check_place()
        if self._ending.refusal is not None:
            raise self._ending.refused()

    def _check_place(self) -> None:
        """Check that this is the process and the loop in which the producer was opened."""
        if self._forked:
            raise RuntimeError(
                "this producer belongs to the process that opened it, and this is a forked child: "
                "open another one here"
            )
        if not trio.lowlevel.in_trio_run() or current_trio_token() is not self._token:
            raise RuntimeError(
                "a producer can be used in the trio run that opened it only; from another thread: "
                "trio.from_thread.run_sync(producer.send_nowait, ..., trio_token=token)"
            )

    def _speed_up(self, intake: Intake) -> None:
        """Let C do the usual send. In all other cases it calls the methods here."""
        sender = compiled.Sender(
            room=self._room,
            intake=intake,
            ledger=intake.ledger,
            topics=intake.topics,
            queue=self._room.queue,
            clock=intake.clock,
            read_wall_clock=intake.read_wall_clock,
            token=self._token,
            current_token=current_trio_token,
            send_nowait=self.send_nowait,
            offer=self._offer,
            accept_item=self._accept_item,
        )
        # Not by `vars`: with a dict of its own, an instance is slower in all that it does.
        self.send_nowait = sender.send_nowait  # type: ignore[method-assign]
        self._offer = sender.offer  # type: ignore[method-assign]
        self._accept_item = sender.accept_item  # type: ignore[method-assign]

    def _fork(self) -> None:
        self._forked = True
        self._ending.refusal = (RuntimeError, "in a forked child")  # so that the hot path looks closer
        self._room.shut()


def _check_iterable(values: object) -> None:
    """Text and bytes are iterable too, but to send their characters one by one is surely a mistake."""
    if isinstance(values, (str, bytes)) or not isinstance(values, (Iterable, AsyncIterable)):
        raise wrong_type("values", values, "an iterable or async iterable of values")


def _pair(item: tuple[Any, ...]) -> tuple[Any, Any]:
    if len(item) != 2:
        raise ValueError(f"a tuple among the values must be a pair (key, value), got {shown(item)}")
    return item[0], item[1]


class ProducerScope(Generic[K, V]):
    """What `open_producer` returns: enter it with ``async with``, once."""

    def __init__(self, settings: Settings, client: Client, host: Host) -> None:
        self._settings = settings
        self._client = client
        self._host = host
        self._opened: tuple[Producer[K, V], Lifetime, AbstractAsyncContextManager[None]] | None = None

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Producer[K, V]:
        if self._opened is not None:
            raise RuntimeError("a producer can be opened once: call open_producer() again for another")
        producer, lifetime = self._build()
        running = lifetime.serve()
        self._opened = producer, lifetime, running
        _alive.add(self)
        try:
            await running.__aenter__()
        except BaseException:
            self._close(producer)
            raise
        producer._state = "open"
        producer._instruments.tell("opened", producer=producer)
        return producer

    def _build(self) -> tuple[Producer[K, V], Lifetime]:
        if not trio.lowlevel.in_trio_run():
            raise RuntimeError("trio_kprod needs trio: open the producer inside trio.run()")
        ledger = Ledger()
        instruments = Instruments(self._settings.instruments, self._settings.logger)
        intake, of_bytes = make_intakes(self._settings, self._host.fastest_clock(), ledger, instruments)
        delivery = Delivery(self._settings, self._client, self._host, intake.topics, ledger, instruments)
        self._client.bind(partial(self._host.call, current_trio_token(), delivery.reports_came))
        lifetime = Lifetime(self._settings, delivery, self._client, self._host)
        return Producer(delivery, intake, of_bytes), lifetime

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opened is None:
            raise RuntimeError("this producer was never opened")
        producer, lifetime, running = self._opened
        if producer._state == "closed":
            raise RuntimeError("this producer was left already")
        try:
            await running.__aexit__(kind, error, trace)
        finally:
            self._close(producer)
            producer._instruments.tell("closed", producer=producer)
        leaves = lifetime.leaves()
        if leaves is not None and leaves is not error:
            raise leaves
        if error is not None:
            error.__traceback__ = trace  # without the frames that it went through in here

    def _close(self, producer: Producer[K, V]) -> None:
        producer._state = "closed"
        _alive.discard(self)

    def _fork(self) -> None:
        if self._opened is not None:
            producer, lifetime, _ = self._opened
            producer._fork()
            lifetime.forked = True

    # -- misuse that is worth an answer --------------------------------------------------------------

    def __enter__(self) -> NoReturn:
        raise RuntimeError("use 'async with open_producer(...)' instead of 'with'")

    def __exit__(self, *_: object) -> None: ...  # without it, Python complains about that first

    def __getattr__(self, name: str) -> NoReturn:
        if name in _PUBLIC:
            raise RuntimeError(f"open it first: async with open_producer(...) as producer: producer.{name}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


_PUBLIC = frozenset(name for name in vars(Producer) if not name.startswith("_"))

# A flag that is set in the child costs nothing at each call. To ask for the process id would.
_alive: weakref.WeakSet[ProducerScope[Any, Any]] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for scope in list(_alive):
        scope._fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_after_fork_in_child)


# Which serializers there are decides what the producer takes.


@overload
def open_producer(
    bootstrap_servers: str | Iterable[str] = ...,
    *,
    key_serializer: None = None,
    value_serializer: None = None,
    **options: Unpack[ProducerOptions],
) -> ProducerScope[bytes, bytes]: ...
@overload
def open_producer(
    bootstrap_servers: str | Iterable[str] = ...,
    *,
    key_serializer: None = None,
    value_serializer: Serializer[Value],
    **options: Unpack[ProducerOptions],
) -> ProducerScope[bytes, Value]: ...
@overload
def open_producer(
    bootstrap_servers: str | Iterable[str] = ...,
    *,
    key_serializer: Serializer[Key],
    value_serializer: None = None,
    **options: Unpack[ProducerOptions],
) -> ProducerScope[Key, bytes]: ...
@overload
def open_producer(
    bootstrap_servers: str | Iterable[str] = ...,
    *,
    key_serializer: Serializer[Key],
    value_serializer: Serializer[Value],
    **options: Unpack[ProducerOptions],
) -> ProducerScope[Key, Value]: ...
def open_producer(
    bootstrap_servers: str | Iterable[str] = "localhost:9092",
    *,
    max_queue_size: int = 1000,
    max_buffer_size: int = 20_000,
    max_buffer_bytes: int = 64 * 1024 * 1024,
    delivery_threshold: int = 0,
    delivery_interval: float = 0,
    delivery_timeout: float = math.inf,
    topic_timeout: float = 60,
    max_retries: int = -1,
    retry_backoff: float = 0.1,
    connect_timeout: float = 30,
    shutdown_timeout: float = 20,
    own_thread: bool = True,
    key_serializer: Serializer[Any] | None = None,
    value_serializer: Serializer[Any] | None = None,
    instruments: Iterable[Instrument] = (),
    on_undelivered: Callable[[Undelivered], object] | None = None,
    logger: logging.Logger | logging.LoggerAdapter[Any] | None = None,
    **client_config: Unpack[ClientConfig],
) -> ProducerScope[Any, Any]:
    """Open a producer for the time of an ``async with`` block.

    Entering it connects: a broker has answered when the body begins. Leaving it delivers what was accepted
    and is not delivered yet, for `shutdown_timeout` seconds at most, also if the body was cancelled or has
    raised; what is not acknowledged then is given up. No task, connection or thread is left behind. Like all
    blocks of trio, it may stand in an ``@asynccontextmanager``, but not in an async generator that yields.

    Messages leave when `delivery_threshold` or `delivery_interval` says so, when the buffer is full, on
    `Producer.deliver_nowait`, `flush` and `send_and_wait`, and at the end of the block. By default the first
    two are not set.

    All times are seconds.

    Args:
        bootstrap_servers: ``"host:port"``, several of them separated by commas, or an iterable of them.
            Every one is tried.
        max_queue_size: how many messages the queue may hold. The delivery task takes them out of it.
        max_buffer_size: how many messages may be out of the queue and have no outcome yet.
        max_buffer_bytes: how many bytes all messages without an outcome may have, also those in the queue. At
            least twice `max_request_size`.
        delivery_threshold: deliver when this many messages wait. 1 means at once, 0 means no threshold.
        delivery_interval: deliver this long after the oldest waiting message was accepted. 0 means no
            interval.
        delivery_timeout: give a message up this long after it was accepted.
        topic_timeout: give a topic's messages up when brokers have answered for this long that they do not
            know it. Time during which no broker answers does not count.
        max_retries: how often a batch is sent again before its messages are given up. -1 means no limit.
        retry_backoff: the pause before a batch is sent again; it doubles up to 1 s.
        connect_timeout: how long opening may take. It ends earlier if a broker refuses our credentials or
            certificate, or if we refuse its certificate. It also ends earlier if each bootstrap server has
            failed twice in a row because it speaks another protocol or the token provider raised.
        shutdown_timeout: how long leaving may take. It adds to a timeout that is around the block.
        own_thread: whether the Kafka client runs in a thread of its own. False makes it a task of the
            caller's loop: round trips take two thirds of the time, but what keeps that loop busy delays
            deliveries and timeouts, and the client delays the other tasks.
        key_serializer, value_serializer: turn keys and values into bytes: a function, or an object of
            kafka-python's `Serializer`. None is never given to them. Type checkers learn from them which
            keys and values the producer takes.
        instruments: objects of `Instrument`, whose hooks are called when something happens.
        on_undelivered: called with an `Undelivered` for each message that failed and that no task waits for.
            For a message with a `Receipt` that no task has asked, it is called when the block is left.
            It runs in the loop of the user, must not block, and may call `Producer.send_nowait`, also while
            the block is being left: what it sends then is delivered within the same `shutdown_timeout`. Once
            that has passed, or after `Producer.abort`, it gets `ProducerClosed`. If it raises, the error is
            logged and the message that failed is kept for `flush` and the end of the block.
        logger: by default ``logging.getLogger("trio_kprod")``.
        **client_config: kafka-python's own options, see `ClientConfig`: `acks` (default ``"all"``),
            `compression_type`, `security_protocol`, ``ssl_*``, ``sasl_*`` and so on.

    If the body raises, that exception leaves as it was. Otherwise the ``async with`` raises the first of the
    following that applies. The others are logged, and noted on the exception that leaves.

    Raises:
        TypeError, ValueError: at the call, a setting is wrong.
        ConnectFailed: when entered, no broker could be reached in time.
        KeyboardInterrupt: pressed while it was being left, which cuts the delivery short.
        ProducerCrashed: a bug in here; the body was cancelled.
        DeliveryFailed: some messages were not delivered, and that was not reported yet.
    """
    settings = make_settings(**locals())
    host = ThreadHost() if settings.own_thread else LoopHost()
    return ProducerScope(settings, Client(settings, host), host)
