"""What the program did and was told, in the order in which it happened."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from trio_kprod import DeliveryFailed, Producer, ProducerStatistics, Receipt, RecordMetadata, Undelivered

NEVER = 10**9


def number_of(value: bytes | None) -> int:
    return int((value or b"").split()[0])


@dataclass
class Sent:
    """One message, from the call on. Moments are running numbers of what the program saw."""

    number: int
    topic: str
    options: dict[str, Any]
    called: int
    accepted_before: int = NEVER  # when it surely was, as the program knows then
    fate: str = "sending"  # then "accepted", "refused" (nothing was queued) or "unsure"
    metadata: RecordMetadata | None = None
    failure: Undelivered | None = None  # what its receipt said that was asked late


@dataclass
class Telling:
    """Somebody who may be told of undelivered messages, and of which it was."""

    who: str
    began: int
    ended: int = NEVER
    completed: bool = False
    told: dict[int, Undelivered] = field(default_factory=dict)
    omitted: int = 0

    def overlaps(self, other: Telling) -> bool:
        return self.began < other.ended and other.began < self.ended


class History(logging.Handler):
    """Notes what happens; also what the producer logs."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self.sent: list[Sent] = []
        self.tellings: list[Telling] = []
        self.omitted: dict[int, Undelivered] = {}
        self.problems: list[str] = []
        self.raised: set[int] = set()  # those for which `on_undelivered` raised
        self.acknowledged = 0
        self._clock = clock  # of any thread: the client logs in its own
        self._moment = 0
        self._lines: list[tuple[float, str, tuple[object, ...]]] = []

    def moment(self) -> int:
        self._moment += 1
        return self._moment

    def say(self, text: str, *args: object) -> None:
        self._lines.append((self._clock(), text, args))

    def lines(self) -> Iterator[str]:
        start = self._lines[0][0] if self._lines else 0.0
        for when, text, args in self._lines:
            yield f"{when - start:9.4f}  {text % args if args else text}"

    def emit(self, record: logging.LogRecord) -> None:
        self.say("log: %s", record.getMessage())
        if record.levelno >= logging.CRITICAL:
            self.problems.append(record.getMessage())
        if "no room to keep it" in record.msg:
            assert isinstance(record.args, tuple)
            outline, maybe_written, cause = record.args
            one = Undelivered(outline.message, maybe_written, cause)  # type: ignore[attr-defined,arg-type]
            self.omitted[number_of(one.message.value)] = one

    # -- sending -------------------------------------------------------------------------------------

    def begin(self, topic: str, options: dict[str, Any]) -> Sent:
        sent = Sent(len(self.sent), topic, options, self.moment())
        options["value"] = b"%d " % sent.number + options["value"]
        self.sent.append(sent)
        return sent

    def accept(self, sent: Sent) -> None:
        sent.fate = "accepted"
        sent.accepted_before = self.moment()
        self.say("%d accepted, to %s", sent.number, sent.topic)

    @contextmanager
    def sending(self, sent: Sent) -> Iterator[None]:
        """A call that accepts the message, or raises and has queued nothing."""
        try:
            yield
        except BaseException as error:
            sent.fate = "refused"
            self.say("%d refused: %r", sent.number, error)
            raise
        self.accept(sent)

    @contextmanager
    def waiting(self, sent: Sent) -> Iterator[None]:
        """A `send_and_wait`: cancelled, nobody knows whether the message was accepted."""
        telling = Telling("send_and_wait", sent.called)
        try:
            yield
        except DeliveryFailed as error:
            self.accept(sent)
            self.end(telling, error)
            self.check(list(telling.told) == [sent.number], "send_and_wait was told of others")
        except trio.Cancelled:
            sent.fate = "unsure"
            self.say("%d cancelled", sent.number)
            raise
        except BaseException as error:
            sent.fate = "refused"
            self.say("%d refused: %r", sent.number, error)
            raise
        else:
            self.accept(sent)

    @contextmanager
    def awaiting(self, sent: Sent) -> Iterator[None]:
        """An await of a receipt of a message that has no outcome yet."""
        telling = Telling("receipt", self.moment())
        try:
            yield
        except DeliveryFailed as error:
            self.end(telling, error)
            self.check(list(telling.told) == [sent.number], "a receipt told of others")

    def look(self, sent: Sent, receipt: Receipt, producer: Producer) -> None:
        """Ask a receipt whose message has its outcome.

        It tells of a failure that is kept, and says once more what others were told.
        """
        kept = sent.number in [number_of(one.message.value) for one in producer.undelivered]
        try:
            sent.metadata = receipt.result()
        except DeliveryFailed as error:
            (sent.failure,) = error.undelivered
            if kept:
                self.tell("look", error.undelivered)
        else:
            self.check(not kept, f"{sent.number} is kept as undelivered, but delivered")
        left = [number_of(one.message.value) for one in producer.undelivered]
        self.check(sent.number not in left, f"{sent.number} is kept although its receipt has told")

    def look_after_the_end(self, sent: Sent, receipt: Receipt) -> None:
        """It knows, and changes nothing."""
        try:
            sent.metadata = receipt.result()
        except DeliveryFailed as error:
            (sent.failure,) = error.undelivered

    # -- telling -------------------------------------------------------------------------------------

    def end(self, telling: Telling, error: DeliveryFailed | None) -> None:
        telling.ended = self.moment()
        telling.completed = True
        for one in error.undelivered if error is not None else ():
            telling.told[number_of(one.message.value)] = one
        telling.omitted = error.omitted if error is not None else 0
        self.tellings.append(telling)
        self.say("%s ended, undelivered: %s", telling.who, [*telling.told])
        if error is not None:
            self.check(len(telling.told) == len(error.undelivered), f"{telling.who} told of one twice")

    @contextmanager
    def flushing(self) -> Iterator[None]:
        telling = Telling("flush", self.moment())
        try:
            yield
        except DeliveryFailed as error:
            self.end(telling, error)
        else:
            self.end(telling, None)

    def tell(self, who: str, undelivered: Iterable[Undelivered]) -> None:
        telling = Telling(who, self.moment(), self.moment())
        telling.told = {number_of(one.message.value): one for one in undelivered}
        self.tellings.append(telling)
        self.say("%s was told of %s", who, [*telling.told])

    # -- what must be true at every look -------------------------------------------------------------

    def check_books(
        self, now: ProducerStatistics, settings: dict[str, Any], *, giving_up: bool = False
    ) -> None:
        """`giving_up`: in the middle of it, the books show what was queued as taken."""
        parts = (now.queued, now.waiting, now.in_flight, now.delivered, now.undelivered)
        queue, buffer = settings["max_queue_size"], settings["max_buffer_size"]
        held = now.queued + now.waiting + now.in_flight
        fine = (
            now.accepted == sum(parts)
            and min(*parts, now.tasks_waiting) >= 0
            and now.queued <= queue
            and held <= queue + buffer
            and (giving_up or now.waiting + now.in_flight <= buffer)
            and 0 <= now.unsettled_bytes <= settings["max_buffer_bytes"]
            and bool(now.unsettled_bytes) == bool(held)
        )
        if not fine:
            self.check(False, f"the books are wrong: {now}")

    def check(self, condition: bool, problem: str) -> None:
        # Kept, not raised: it may be the middle of a callback whose errors the producer logs.
        if not condition:
            self.say("PROBLEM: %s", problem)
            self.problems.append(problem)
