"""From the queue to the client and back: the delivery task and the parts that it works with.

A message is *queued*, then *waiting* (taken from the queue, but not due yet), then *in flight* (handed to the
client), then settled. The delivery task is the only reader of the queue and the only owner of the buffer,
which is what waits and what is in flight.

=============  =========================================================================================
`_room`        the queue: which messages come in, and which tasks wait
`_buffer`      what waits and what is in flight
`_demand`      when to submit what waits
`_outcomes`    counts, instruments
`_receipts`    the outcome of one message, for any task that asks
`_telling`     failures, flushes and `on_undelivered`
`_ending`      refusing, giving up, crashing
=============  =========================================================================================

The task's work is done in *turns*. Where the client shares our loop, a turn is also made without the task, at
once: when reports come, and when somebody asks for delivery while nothing is in flight.

All that waits is submitted when it is due, or when there is no room for more. While the client has not yet
taken what it was given we submit nothing: the messages would only wait there, and each submission takes
time from the client's thread.

`settle` is the only way out: every accepted message goes through it once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING

import trio

from ._buffer import Buffer
from ._core import Observed, Opened, PartitionCount, Recovered, Report, Settled, Stalled, Throttled
from ._demand import Demand
from ._ending import Ending, Phase
from ._errors import DeliveryAborted, explained
from ._messages import TICKET, TOPIC, Entry, Message, ProducerStatistics, total_size
from ._outcomes import Outcomes
from ._room import Asker, Room, TopicAccount
from ._telling import Flush, Teller
from ._turns import Turns

if TYPE_CHECKING:
    from ._client import Client, Host
    from ._instruments import Instruments
    from ._ledger import Ledger
    from ._settings import Settings


class Delivery:
    """Everything between senders and `Client`. All of it runs in the loop of the user.

    Attributes:
        opened (trio.Event): set when the client has connected, or failed to: then `open_error` says how.
        on_crash: called with what a turn raises, unless the delivery task has made that turn.
    """

    def __init__(
        self,
        settings: Settings,
        client: Client,
        host: Host,
        topics: dict[str, TopicAccount],
        ledger: Ledger,
        instruments: Instruments,
    ) -> None:
        clock = host.clock
        self.opened: trio.Event = trio.Event()
        self.open_error: BaseException | None = None
        self.on_crash: Callable[[BaseException], object] = self.crashed
        self.instruments: Instruments = instruments
        self.room: Room = Room(settings, ledger, self.wake, self._admitted)
        self.ending: Ending = Ending(self.room, topics)
        self.teller: Teller = Teller(settings, self.instruments, self._around_callback)
        self.outcomes: Outcomes = Outcomes(ledger, self.teller, self.instruments, clock)
        self.turns: Turns = Turns(clock)
        self.demand: Demand = Demand(settings, self.deliver_nowait)
        self._buffer = Buffer(settings, self.room, ledger, self.instruments, clock)
        self._max_queue_size = settings.max_queue_size
        self._half_of_queue = max(1, settings.max_queue_size // 2)
        self._logger = settings.logger
        self._client = client
        self._clock = clock
        self._topics = topics
        self._ledger = ledger
        self._shares_loop = host.shares_loop
        self._wake_up = trio.Event()
        self._turning = False
        self._throttles = 0
        self._throttled_time = 0.0
        self._held_back = False  # something is due, but the client has enough to do

    # -- asking --------------------------------------------------------------------------------------

    def wake(self) -> None:
        if self.room.queued < self._half_of_queue:
            self.room.wake_at = self._half_of_queue
        else:
            self.room.wake_at = inf
            self.turns.hurry()
        self._wake_up.set()

    def deliver_nowait(self) -> None:
        self.demand.mark = self.room.accepted
        if self._shares_loop and not self._buffer.in_flight:
            self.turn_now()
        else:  # so that what other tasks are about to send goes with it
            self.wake()

    def reports_came(self) -> None:
        """The client has put something into `reports`."""
        if self._shares_loop:
            self.turn_now()
        else:
            self.wake()

    def begin_flush(self) -> Flush:
        mark = self.room.accepted
        self._ledger.cut(mark)
        flush = self.teller.begin_flush(mark)
        self.deliver_nowait()
        self.teller.end_flushes(self._ledger.settled_before())
        return flush

    def ask_partitions(self, topic: TopicAccount) -> Asker:
        asker = Asker()
        topic.askers.append(asker)
        self._client.want_partitions(topic.name)
        return asker

    @contextmanager
    def _around_callback(self) -> Generator[None, None, None]:
        """What `on_undelivered` sends while the producer drains is delivered as well."""
        accepted = self.room.accepted
        with self.ending.callback():
            yield
        if self.ending.phase is Phase.DRAINING and self.room.accepted > accepted:
            self.deliver_nowait()

    # -- telling of sends ----------------------------------------------------------------------------

    def _admitted(self, message: Entry, topic: TopicAccount) -> None:
        """The message of a task that waited for room is in the queue."""
        if self.instruments.on_accept:
            self.tell_accepted(message, topic)

    def tell_accepted(self, message: Entry, topic: TopicAccount) -> None:
        if self.instruments.enqueue_message:
            self.instruments.tell(
                "enqueue_message",
                topic=topic.name,
                queue_size=self.room.queued,
                max_queue_size=self._max_queue_size,
            )
        if self.instruments.accepted:
            self.instruments.tell("accepted", number=message[TICKET], message=Message.of(message))

    def tell_rejected(self, message: Entry, error: BaseException) -> None:
        if self.instruments.rejected:
            self.instruments.tell("rejected", number=message[TICKET], error=error)

    # -- the delivery task ---------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        while True:
            self._wake_up = trio.Event()  # before the turn: what a hook asks for in it is not lost
            self.turn()
            await self._wake_up.wait()

    def turn_now(self) -> None:
        """Make a turn here, unless this is called in one, by a hook or a callback: then the task makes it."""
        if self._turning:
            self.wake()
            return
        try:
            self.turn()
        except BaseException as error:  # a bug, and none of our caller's
            self.on_crash(error)

    def _next_wake(self) -> float:
        """How many queued messages give the task something to do.

        Not each one: that would cost a switch between tasks for each message of a loop of ``await send``.
        """
        if self._buffer.room_left <= 0:
            return inf  # reports will make room, and they wake it as well
        return self.demand.wake_at(len(self._buffer.waiting), self._half_of_queue, held_back=self._held_back)

    def turn(self) -> None:
        """Do all that can be done now. Hooks and callbacks run in it, and any of them may abort."""
        self._turning = True
        self.turns.hurried = False
        try:
            self.read_reports()
            self._take_and_submit()
            if self.ending.stopping.is_set():
                self._give_up()
            self._conclude()
        finally:
            self._turning = False
        wake_at = self._next_wake()
        if self.room.queued < wake_at:
            self.room.wake_at = wake_at
        else:  # a hook sent these in the turn
            self.wake()

    def _take_and_submit(self) -> None:
        buffer = self._buffer
        admitted = True
        while admitted and not self.ending.stopping.is_set():
            buffer.take(buffer.room_left)
            admitted = self.room.admit()  # before `_is_due`: it finds out if bytes are short
            if not self._is_due(room_is_needed=not admitted and self.room.tasks_waiting > 0):
                continue
            self._held_back = self._client.is_behind()
            if self._held_back:
                continue
            if buffer.is_full:
                buffer.tell_full()
            if not self.ending.stopping.is_set():
                buffer.submit(self._client)
                self.demand.stop_timer()
        if buffer.waiting:
            self.demand.start_timer()

    def _is_due(self, *, room_is_needed: bool) -> bool:
        buffer = self._buffer
        count = len(buffer.waiting)
        needed = room_is_needed or buffer.is_full
        return count > 0 and (needed or self.demand.is_due(buffer.first_waiting, count))

    def _conclude(self) -> None:
        """After a turn: tell those who waited for what has happened in it."""
        self.outcomes.conclude()
        if self.ending.refusal is not None and not self.unsettled:
            self.ending.over.set()

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
        elif isinstance(report, Throttled):
            self._throttles += 1
            self._throttled_time += report.pause
            self.instruments.tell("throttled", broker=report.broker, duration=report.pause)
        elif isinstance(report, Opened):
            self.opening_ended(report.error)
        else:
            topic = self._topics.get(report.topic)
            if topic is not None:
                self._read_about(topic, report)

    def opening_ended(self, error: BaseException | None) -> None:
        """The client has connected, or failed to."""
        self.open_error = error
        self.opened.set()

    def _read_about(self, topic: TopicAccount, report: PartitionCount | Stalled | Recovered) -> None:
        if isinstance(report, Stalled):
            topic.trouble = report.cause
            self.room.stalled(topic)
        elif isinstance(report, Recovered):
            topic.trouble = None
            self.room.recovered(topic)
        else:
            if report.error is None:
                topic.partitions = report.count
            topic.answer(lambda: report.error)

    def settle(self, report: Settled) -> None:
        """The only way out of the producer, for messages in flight."""
        count = len(report.entries)
        topic = self._topics[report.topic]
        self._buffer.in_flight -= count
        self.room.release(topic, count, report.size)
        if report.error is None:
            self.room.acknowledged(topic)
        self.outcomes.settle(report)

    @property
    def unsettled(self) -> int:
        return self.room.accepted - self.outcomes.delivered - self.outcomes.undelivered

    # -- the end -------------------------------------------------------------------------------------

    def close(self) -> None:
        """Accept nothing more and deliver what there is; `ending.over` tells when."""
        self.ending.drain()
        self.teller.expect_no_receipts()  # before delivery is asked for: `on_undelivered` may send
        self.deliver_nowait()
        if not self.unsettled:
            self.ending.over.set()

    def abort(self) -> None:
        self.ending.abort()
        self.wake()

    def crashed(self, error: BaseException) -> None:
        """Something that must not fail has failed: save what can be saved, and end every wait."""
        self.ending.fail(error)
        self.opened.set()
        self._client.stop(self.ending.reason)
        try:
            self.finish()
        except Exception as second:  # the crash, which is reported, may have left things half done
            self._logger.exception("%r, after the producer had crashed", second)
        if self.unsettled:
            self._logger.critical("%d messages are not accounted for", self.unsettled)
        self.outcomes.tracking.crashed(self.ending.refused)
        self.teller.fail_flushes(self.ending.refused())
        self.instruments.tell("error", error=error)

    def finish(self) -> None:
        """Settle everything, now. What the client still holds is taken from it: it cannot write any more."""
        held = self._client.abandon()
        self.read_reports()  # the client may have added to them until `abandon` stopped it
        for report in held:
            self.settle(report)
        self._give_up()
        self._conclude()
        if self._buffer.in_flight and self.ending.crash is None:
            raise RuntimeError(f"{self._buffer.in_flight} messages are not accounted for")

    def _give_up(self) -> None:
        """Give up what was never submitted."""
        self.demand.stop_timer()
        by_topic: dict[str, list[Entry]] = {}
        for message in self._buffer.give_up():
            by_topic.setdefault(message[TOPIC], []).append(message)
        for topic, entries in by_topic.items():
            cause = explained(
                DeliveryAborted(f"not sent before {self.ending.reason}"), self._topics[topic].trouble
            )
            size = total_size(entries)
            self.settle(Settled(topic, -1, -1, -1, entries, size, 0, cause, maybe_written=False))

    # -- looking -------------------------------------------------------------------------------------

    def statistics(self) -> ProducerStatistics:
        oldest = self._ledger.oldest()
        if oldest is None:
            oldest = self.room.queued_since
        return ProducerStatistics(
            accepted=self.room.accepted,
            queued=self.room.queued,
            waiting=len(self._buffer.waiting),
            in_flight=self._buffer.in_flight,
            delivered=self.outcomes.delivered,
            undelivered=self.outcomes.undelivered,
            unsettled_bytes=self.room.unsettled_bytes,
            delivered_bytes=self.outcomes.delivered_bytes,
            undelivered_bytes=self.outcomes.undelivered_bytes,
            tasks_waiting=self.room.tasks_waiting,
            throttles=self._throttles,
            throttled_time=self._throttled_time,
            oldest_age=None if oldest is None else max(0.0, self._clock() - oldest),
        )
