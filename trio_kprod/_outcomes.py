"""What became of messages: counted, and told to the tasks that wait for them and to instruments."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING

from ._errors import DeliveryAborted
from ._messages import ACCEPTED_AT, RUN, TICKET, TIMESTAMP_MS, Entry, Message, RecordMetadata, Undelivered
from ._receipts import Tracking

if TYPE_CHECKING:
    from ._core import Settled
    from ._instruments import Instruments
    from ._ledger import Ledger
    from ._telling import Teller


class Trigger:
    """One delivery as instruments see it: from a submission to the last outcome of what it held."""

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


class Outcomes:
    """Counts outcomes and tells of them."""

    def __init__(
        self, ledger: Ledger, teller: Teller, instruments: Instruments, clock: Callable[[], float]
    ) -> None:
        self.delivered: int = 0
        self.delivered_bytes: int = 0
        self.undelivered: int = 0
        self.undelivered_bytes: int = 0
        self.tracking: Tracking = Tracking(teller)
        self._ledger = ledger
        self._teller = teller
        self._instruments = instruments
        self._clock = clock
        self._dropped = 0  # messages that were given up, and instruments do not know it yet

    # -- settling ------------------------------------------------------------------------------------

    def settle(self, report: Settled) -> None:
        """Count first, then tell the senders, then instruments: those may ask for the counts, or raise."""
        count = len(report.entries)
        parts = list(self._ledger.settle(report.entries))
        if report.error is None:
            self.delivered += count
            self.delivered_bytes += report.size
            self._acknowledge(report)
        else:
            self.undelivered += count
            self.undelivered_bytes += report.size
            self._fail(report, report.error)
        for run, part in parts:
            if run.delivery is not None:
                self._settle_trigger(run.delivery, part, report)

    def _acknowledge(self, report: Settled) -> None:
        if self.tracking:
            self.tracking.delivered(map(_ticket, report.entries), partial(_metadata, report))
        if self._instruments.ack_messages:
            self._instruments.tell(
                "ack_messages",
                topic=report.topic,
                partition=report.partition,
                base_offset=report.base_offset,
                message_count=len(report.entries),
                delay=self._clock() - report.entries[0][ACCEPTED_AT],
            )
        if self._instruments.settled:
            for index, message in enumerate(report.entries):
                self._tell_settled(message, _metadata(report, index), None)

    def _fail(self, report: Settled, cause: BaseException) -> None:
        if isinstance(cause, DeliveryAborted):
            self._dropped += len(report.entries)
        failures = [Undelivered(Message.of(one), report.maybe_written, cause) for one in report.entries]
        for message, undelivered in zip(report.entries, failures, strict=True):
            self.tracking.failed(message[TICKET], undelivered, message[RUN])
        if self._instruments.undelivered:
            self._instruments.tell(
                "undelivered",
                topic=report.topic,
                partition=report.partition,
                message_count=len(failures),
                cause=cause,
                maybe_written=report.maybe_written,
            )
        if self._instruments.settled:
            for message, undelivered in zip(report.entries, failures, strict=True):
                self._tell_settled(message, None, undelivered)
        if self._instruments.error:
            self._instruments.tell("error", error=cause)

    def _tell_settled(
        self, message: Entry, record: RecordMetadata | None, undelivered: Undelivered | None
    ) -> None:
        self._instruments.tell(
            "settled",
            number=message[TICKET],
            message=Message.of(message),
            record=record,
            undelivered=undelivered,
        )

    def _settle_trigger(self, trigger: Trigger, count: int, report: Settled) -> None:
        trigger.settle(count, report)
        if not trigger.unsettled:
            self._instruments.tell(
                "deliver_messages",
                message_count=trigger.count,
                delivered_message_count=trigger.delivered,
                attempts=trigger.attempts,
                duration=self._clock() - trigger.started,
                error=trigger.error,
            )

    def conclude(self) -> None:
        """Tell those who wait for more than one message."""
        self._teller.end_flushes(self._ledger.settled_before())
        dropped, self._dropped = self._dropped, 0
        if dropped and self._instruments.drop_messages:
            self._instruments.tell("drop_messages", message_count=dropped)


_ticket = itemgetter(TICKET)


def _metadata(report: Settled, index: int) -> RecordMetadata:
    offset = report.base_offset + index if report.base_offset >= 0 else -1
    timestamp_ms = report.timestamp_ms if report.timestamp_ms >= 0 else report.entries[index][TIMESTAMP_MS]
    return RecordMetadata(report.topic, report.partition, offset, timestamp_ms)
