"""From the queue to the client and back: the delivery task, the timer task, and `settle`.

A message is *queued*, then *waiting* (taken from the queue, but nobody has asked for delivery yet), then
*in flight* (handed to the client), then settled. The delivery task is the only reader of the queue and the
only owner of the buffer, which is what waits and what is in flight.

One rule says when all that waits is handed over: somebody asked for it (`_deliver_mark` is beyond what was
handed over), or enough of it waits (`delivery_threshold`), or there is no room for more. Asking moves the
mark and nothing else, so it never blocks, never piles up and is never lost: if the buffer has no room for all
of it, the rest follows as room appears. Nor is anything handed over as long as the client has yet to take
what it was given: it would wait there just as well, and each hand-over takes time from the client's thread.

`settle` is the only way out: every accepted message goes through it once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING, Any

import trio

from ._core import Observed, Opened, PartitionCount, Recovered, Report, Settled, Stalled
from ._errors import DeliveryAborted, DeliveryFailed, ProducerClosed, ProducerCrashed
from ._instruments import Instruments
from ._messages import (
    ACCEPTED_AT,
    RUN,
    TICKET,
    TIMESTAMP_MS,
    TOPIC,
    Entry,
    Message,
    ProducerStatistics,
    RecordMetadata,
    Undelivered,
    total_size,
)
from ._room import Asker, Room, TopicAccount
from ._telling import Flush, Teller
from ._waiting import Wait

if TYPE_CHECKING:
    from ._client import Client
    from ._ledger import Ledger
    from ._settings import Settings


class Receipt(Wait):
    """What a `send_and_wait` waits on: `metadata` or an `error`."""

    __slots__ = ("error", "metadata")

    def __init__(self) -> None:
        super().__init__()
        self.metadata: RecordMetadata | None = None
        self.error: BaseException | None = None

    def acknowledge(self, metadata: RecordMetadata) -> None:
        self.metadata = metadata
        self.end()

    def fail(self, error: BaseException) -> None:
        self.error = error
        self.end()


class _Trigger:
    """One delivery as instruments see it: from a hand-over to the last outcome of what it handed over."""

    __slots__ = ("attempts", "count", "delivered", "error", "started", "unsettled")

    def __init__(self, count: int, started: float) -> None:
        self.count = self.unsettled = count
        self.started = started
        self.delivered = 0
        self.attempts = 0
        self.error: BaseException | None = None

    def settle(self, count: int, report: Settled) -> None:
        self.unsettled -= count
        self.attempts = max(self.attempts, report.attempts)
        if report.error is None:
            self.delivered += count
        elif self.error is None:
            self.error = report.error


class Delivery:
    """Everything between `Room` and `Client`. All of it runs in the loop of the user.

    Attributes:
        refusal: None while messages are accepted, else what to raise instead, as (class, text).
        opened (trio.Event): set when the client has connected, or failed to: then `open_error` says how.
        over (trio.Event): set when there is nothing to wait for any more before the client is stopped:
            all is settled and nothing more can come, or something has crashed.
        stopping (trio.Event): set when the client has to be stopped; nothing is handed over any more.
    """

    def __init__(
        self,
        settings: Settings,
        client: Client,
        clock: Callable[[], float],
        topics: dict[str, TopicAccount],
        ledger: Ledger,
    ) -> None:
        self.refusal: tuple[type[Exception], str] | None = None
        self.crash: BaseException | None = None
        self.opened: trio.Event = trio.Event()
        self.open_error: BaseException | None = None
        self.over: trio.Event = trio.Event()
        self.stopping: trio.Event = trio.Event()
        self.reason: str = ""  # why messages are given up, if they are
        self.room: Room = Room(settings, ledger, self.wake)
        self.instruments: Instruments = Instruments(settings.instruments, settings.logger)
        self.teller: Teller = Teller(settings, self.instruments)
        self.delivered: int = 0
        self.undelivered: int = 0
        self._settings = settings
        self._logger = settings.logger
        self._client = client
        self._clock = clock
        self._topics = topics
        self._wake_up = trio.Event()
        self._ledger = ledger
        self._waiting: list[Entry] = []
        self._in_flight = 0
        self._deliver_mark = 0
        self._held_back = False  # it is time to hand over what waits, but the client has enough to do
        self._delivered_bytes = self._undelivered_bytes = 0
        self._dropped = 0
        self._receipts: dict[int | None, Receipt] = {}  # by their tickets
        self._tickets = itertools.count()
        self._deadline: float | None = None  # of the timer, while something waits
        self._armed = trio.Event()

    # -- asking --------------------------------------------------------------------------------------

    def wake(self) -> None:
        self.room.wake_at = inf
        self._wake_up.set()

    def deliver_nowait(self) -> None:
        self._deliver_mark = self.room.accepted
        self.wake()

    def begin_flush(self) -> Flush:
        mark = self.room.accepted
        self._ledger.cut(mark)
        flush = self.teller.begin_flush(mark)
        self.deliver_nowait()
        self.teller.end_flushes(self._ledger.settled_before())
        return flush

    def expect(self, receipt: Receipt) -> int:
        """A ticket, for the message whose outcome this receipt is to get."""
        ticket = next(self._tickets)
        self._receipts[ticket] = receipt
        return ticket

    def forget(self, ticket: int) -> None:
        self._receipts.pop(ticket, None)

    def ask_partitions(self, topic: TopicAccount) -> Asker:
        asker = Asker()
        topic.askers.append(asker)
        self._client.want_partitions(topic.name)
        return asker

    # -- the tasks -----------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """The delivery task."""
        while True:
            self.turn()
            self._wake_up = trio.Event()
            self.room.wake_at = self._next_wake()
            await self._wake_up.wait()

    @trio.lowlevel.enable_ki_protection
    async def run_timer(self) -> None:
        """The timer task: asks for delivery `delivery_interval` after the first message began to wait.

        A hand-over only clears the deadline. So the timer wakes at most once an interval, finds that it has
        been cleared or moved, and goes back to sleep.
        """
        while True:
            if self._deadline is None:
                self._armed = trio.Event()
                await self._armed.wait()
            elif trio.current_time() < self._deadline:
                await trio.sleep_until(self._deadline)
            else:
                self._deadline = None
                self.deliver_nowait()

    def _next_wake(self) -> float:
        """How many queued messages give the task something to do.

        Not each one: that would cost a switch between tasks for each message of a loop of ``await send``.
        """
        if self.room.queued:
            return inf  # the buffer is full; reports will make room, and they wake it as well
        if self._settings.delivery_interval > 0 and not self._waiting:
            return 1
        count = max(1, self._settings.max_queue_size // 2)
        if self._settings.delivery_threshold and not self._held_back:
            count = min(count, self._settings.delivery_threshold - len(self._waiting))
        return count

    def turn(self) -> None:
        """All that can be done now."""
        self.read_reports()
        if self.stopping.is_set():
            self._give_up()
        else:
            self._take_and_submit()
        self._conclude()

    # -- on the way to the client --------------------------------------------------------------------

    def _take_and_submit(self) -> None:
        admitted = True
        while admitted:
            self._take()
            admitted = self.room.admit()  # before it is decided: it finds out if bytes are short
            if self._is_due():
                self._held_back = self._client.is_behind()
                if not self._held_back:
                    self._submit_waiting()
        if self._waiting and self._deadline is None:
            self._arm_timer()

    def _take(self) -> None:
        count = min(self.room.queued, self._settings.max_buffer_size - self._in_flight - len(self._waiting))
        if count > 0:
            self._buffer(self.room.take(count))

    def _buffer(self, messages: list[Entry]) -> None:
        for run, start, _ in self._ledger.parts(messages):
            if run.since is None:
                run.since = messages[start][ACCEPTED_AT]
        self._waiting += messages
        if self.instruments.produce_messages:
            self._tell_produced(messages)

    def _is_due(self) -> bool:
        count = len(self._waiting)
        if not count:
            return False
        threshold = self._settings.delivery_threshold
        asked = self.room.taken - count < self._deliver_mark
        return asked or 0 < threshold <= count or self._is_full()

    def _is_full(self) -> bool:
        held = self._in_flight + len(self._waiting)
        return held >= self._settings.max_buffer_size or self.room.short_of_bytes

    def _submit_waiting(self) -> None:
        if self.instruments.buffer_full and self._is_full():
            self._tell_full()
        messages = self._waiting
        self._client.submit(messages)
        self._waiting = []
        self._in_flight += len(messages)
        self._deadline = None
        self._ledger.cut(self.room.accepted)
        if self.instruments.deliver_messages:
            self._begin_trigger(messages)

    def _begin_trigger(self, messages: list[Entry]) -> None:
        """A run is part of one delivery only, but some of the last one may still be in the queue."""
        position = self.room.taken
        divided = self._ledger.cut(position)
        if divided != position:
            self.room.relabel(divided, position)
        trigger = _Trigger(len(messages), self._clock())
        for run, _, _ in self._ledger.parts(messages):
            run.delivery = trigger

    def _arm_timer(self) -> None:
        if self._settings.delivery_interval > 0:
            self._deadline = trio.current_time() + self._settings.delivery_interval
            self._armed.set()

    # -- on the way back -----------------------------------------------------------------------------

    def read_reports(self) -> None:
        reports = self._client.reports
        while reports:
            self._read(reports.popleft())

    def _read(self, report: Report) -> None:
        if isinstance(report, Settled):
            self.settle(report)
        elif isinstance(report, Observed):
            self.instruments.tell(report.hook, **report.payload)
        elif isinstance(report, Opened):
            self.open_error = report.error
            self.opened.set()
        else:
            topic = self._topics.get(report.topic)
            if topic is not None:
                self._read_about(topic, report)

    def _read_about(self, topic: TopicAccount, report: PartitionCount | Stalled | Recovered) -> None:
        if isinstance(report, Stalled):
            self.room.stalled(topic)
        elif isinstance(report, Recovered):
            self.room.recovered(topic)
        else:
            if report.error is None:
                topic.partitions = report.count
            topic.answer(lambda: report.error)

    def settle(self, report: Settled) -> None:
        """The only way out of the producer, for messages in flight.

        Count first, then tell who sent them, then instruments: those may ask for the counts, or raise.
        """
        count = len(report.entries)
        self._in_flight -= count
        self.room.release(self._topics[report.topic], count, report.size)
        parts = list(self._ledger.settle(report.entries))
        if report.error is None:
            self.delivered += count
            self._delivered_bytes += report.size
            self._acknowledge(report)
        else:
            self.undelivered += count
            self._undelivered_bytes += report.size
            self._fail(report, report.error)
        for run, part in parts:
            if run.delivery is not None:
                self._settle_trigger(run.delivery, part, report)

    def _acknowledge(self, report: Settled) -> None:
        if self._receipts:
            for index, message in enumerate(report.entries):
                receipt = self._receipts.pop(message[TICKET], None)
                if receipt is not None:
                    receipt.acknowledge(_metadata(report, index, message))
        if self.instruments.ack_messages:
            self.instruments.tell(
                "ack_messages",
                topic=report.topic,
                partition=report.partition,
                base_offset=report.base_offset,
                message_count=len(report.entries),
                delay=self._clock() - report.entries[0][ACCEPTED_AT],
            )

    def _fail(self, report: Settled, cause: BaseException) -> None:
        if isinstance(cause, DeliveryAborted):
            self._dropped += len(report.entries)
        for message in report.entries:
            undelivered = Undelivered(Message.of(message), report.maybe_written, cause)
            receipt = self._receipts.pop(message[TICKET], None)
            if receipt is not None:
                receipt.fail(DeliveryFailed([undelivered]))
            else:
                self.teller.tell(undelivered, message[RUN])
        if self.instruments.error:
            self.instruments.tell("error", error=cause)

    def _conclude(self) -> None:
        """After a turn: tell those who waited for what has happened in it."""
        self.teller.end_flushes(self._ledger.settled_before())
        if self._dropped and self.instruments.drop_messages:
            self.instruments.tell("drop_messages", message_count=self._dropped)
        self._dropped = 0
        if self.refusal is not None and not self.unsettled:
            self.over.set()

    @property
    def unsettled(self) -> int:
        return self.room.accepted - self.delivered - self.undelivered

    # -- the end -------------------------------------------------------------------------------------

    def refuse(self, error: type[Exception], text: str) -> None:
        """Accept nothing more; the first reason stays. Whoever waits for room gets it at once."""
        if self.refusal is None:
            self.refusal = (error, text)
        self.room.turn_away(self.refused)
        for topic in self._topics.values():
            topic.answer(self.refused)

    def close(self) -> None:
        """Accept nothing more and deliver what there is; `over` tells when."""
        self.refuse(ProducerClosed, "the producer's scope is being left, or was left")
        self.deliver_nowait()
        if not self.unsettled:
            self.over.set()

    def abort(self) -> None:
        self.refuse(ProducerClosed, "abort() was called")
        self.give_up_because("abort() was called")
        self.stopping.set()
        self.wake()

    def give_up_because(self, reason: str) -> None:
        """What to tell of messages that are given up; the first reason stays."""
        self.reason = self.reason or reason

    def crashed(self, error: BaseException) -> None:
        """Something that must not fail has failed: save what can be saved, and let nobody wait for ever."""
        self.crash = error
        self.refusal = None
        self.refuse(ProducerCrashed, f"a background task of the producer failed: {error!r}")
        self.opened.set()
        self.stopping.set()
        self.over.set()
        self.give_up_because("the producer crashed")
        self._client.stop(self.reason)
        try:
            self.finish()
        except Exception as second:  # the crash may have left anything half done; it was told already
            self._logger.exception("%r, after the producer had crashed", second)
        if self.unsettled:
            self._logger.critical("%d messages are not accounted for", self.unsettled)
        failure = self.refused()
        for receipt in self._receipts.values():
            receipt.fail(failure)
        self._receipts.clear()
        self.teller.fail_flushes(failure)
        self.instruments.tell("error", error=error)

    def finish(self) -> None:
        """Settle everything, now. What the client still holds is taken from it: it cannot write any more."""
        held = self._client.abandon()
        self.read_reports()  # it may have added to them until it was stopped, by the call before
        for report in held:
            self.settle(report)
        self._give_up()
        self._conclude()
        if self._in_flight and self.crash is None:
            raise RuntimeError(f"{self._in_flight} messages are not accounted for")

    def _give_up(self) -> None:
        """What has not been handed over is not going to be."""
        if self.room.queued:
            self._buffer(self.room.take(self.room.queued))
        self._ledger.cut(self.room.accepted)
        messages, self._waiting = self._waiting, []
        self._in_flight += len(messages)
        self._deadline = None
        by_topic: dict[str, list[Entry]] = {}
        for message in messages:
            by_topic.setdefault(message[TOPIC], []).append(message)
        for topic, entries in by_topic.items():
            self.settle(_given_up(topic, entries, self.reason))

    def refused(self) -> Exception:
        """A new exception that says why nothing is accepted."""
        assert self.refusal is not None
        kind, text = self.refusal
        error = kind(text)
        error.__cause__ = self.crash
        return error

    # -- telling -------------------------------------------------------------------------------------

    def statistics(self) -> ProducerStatistics:
        oldest = self._ledger.oldest()
        if oldest is None:
            oldest = self.room.queued_since
        return ProducerStatistics(
            accepted=self.room.accepted,
            queued=self.room.queued,
            waiting=len(self._waiting),
            in_flight=self._in_flight,
            delivered=self.delivered,
            undelivered=self.undelivered,
            unsettled_bytes=self.room.unsettled_bytes,
            delivered_bytes=self._delivered_bytes,
            undelivered_bytes=self._undelivered_bytes,
            tasks_waiting=self.room.tasks_waiting,
            oldest_age=None if oldest is None else max(0.0, self._clock() - oldest),
        )

    def _tell_produced(self, messages: Sequence[Entry]) -> None:
        self.instruments.tell(
            "produce_messages",
            message_count=len(messages),
            message_bytes=total_size(messages),
            buffer_size=self._in_flight + len(self._waiting),
            max_buffer_size=self._settings.max_buffer_size,
        )

    def _tell_full(self) -> None:
        self.instruments.tell(
            "buffer_full",
            buffer_size=self._in_flight + len(self._waiting),
            max_buffer_size=self._settings.max_buffer_size,
        )

    def _settle_trigger(self, trigger: Any, count: int, report: Settled) -> None:
        trigger.settle(count, report)
        if not trigger.unsettled:
            self.instruments.tell(
                "deliver_messages",
                message_count=trigger.count,
                delivered_message_count=trigger.delivered,
                attempts=trigger.attempts,
                duration=self._clock() - trigger.started,
                error=trigger.error,
            )


def _metadata(report: Settled, index: int, message: Entry) -> RecordMetadata:
    offset = report.base_offset + index if report.base_offset >= 0 else -1
    timestamp_ms = report.timestamp_ms if report.timestamp_ms >= 0 else message[TIMESTAMP_MS]
    return RecordMetadata(report.topic, report.partition, offset, timestamp_ms)


def _given_up(topic: str, entries: list[Entry], reason: str) -> Settled:
    cause = DeliveryAborted(f"not sent before {reason}")
    size = total_size(entries)
    return Settled(topic, -1, -1, -1, entries, size, 0, cause, maybe_written=False)
