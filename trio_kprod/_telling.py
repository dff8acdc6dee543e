"""Who reports a message that was not delivered. Each is reported once, by the first of these that applies:

1. the receipt, if a task waits for it (`_receipts` sees to that one),
2. the flushes that wait for the message,
3. `on_undelivered`,
4. the next `flush`, or the end of the scope; the message is kept until then.

A flush has reported a message when it ends. If it is cancelled before, it passes the message on. What is kept
is bounded. Messages beyond the bound are logged one by one, and counted.

If no task waits for the receipt of a message, the message is kept, and `on_undelivered` is not called for it
yet: somebody may ask the receipt, which then takes it back. That ends when the scope is left:
`on_undelivered` is called for what is still kept, and messages with a receipt are then like all others.

Flushes do not have lists of their own, which would be one entry for each pair of a message and a flush. A
flush covers a message if the message's position is before its mark. Flushes end in the order of their marks.
When some end, all that is kept before the last of their marks goes to the end of a log, by position; and what
a flush tells of is a piece of that log, from where it ended when the flush began.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING

from ._errors import DeliveryFailed
from ._waiting import Wait

if TYPE_CHECKING:
    from ._instruments import Instruments
    from ._messages import Message, Undelivered
    from ._settings import Settings

#: Position of the message, running number of the failure, and the failure.
Failure = tuple[int, int, "Undelivered"]


class Flush(Wait):
    """A wait for the outcome of every message before the position `mark`.

    Attributes:
        log_from (int): where the log ended when this began.
        omitted_before (int): how many of the omitted ones were told before this began.
    """

    __slots__ = ("log_from", "mark", "omitted_before")

    def __init__(self, mark: int, log_from: int, omitted_before: int) -> None:
        super().__init__()
        self.mark: int = mark
        self.log_from: int = log_from
        self.omitted_before: int = omitted_before


class _Log:
    """The failures that flushes have reported, by running index; forgotten once no flush needs them."""

    def __init__(self) -> None:
        self._failures: list[Failure] = []
        self._start = 0

    @property
    def end(self) -> int:
        return self._start + len(self._failures)

    def append(self, failures: list[Failure]) -> None:
        self._failures += failures

    def piece(self, start: int, end: int) -> Callable[[], list[Undelivered]]:
        """Finds the failures from `start` up to `end`, in the order in which they became known."""
        return partial(_in_order, self._failures, start - self._start, end - self._start)

    def forget_before(self, index: int) -> None:
        """Pieces that were asked for keep the list that they are part of."""
        count = index - self._start
        if 2 * count > len(self._failures):
            self._failures = self._failures[count:]
            self._start = index


def _in_order(failures: list[Failure], start: int, end: int) -> list[Undelivered]:
    return [failure[2] for failure in sorted(failures[start:end], key=itemgetter(1))]


def _contains(kept: list[Failure], failure: Failure) -> bool:
    at = bisect_left(kept, failure[:2])
    return at < len(kept) and kept[at] is failure


class _Outline:
    """A message for the log: where it was to go, and not what it holds."""

    def __init__(self, message: Message) -> None:
        self.message = message

    def __repr__(self) -> str:
        one = self.message
        where = "" if one.partition is None else f", partition {one.partition}"
        return f"a message of {one.size} bytes to {one.topic!r}{where}, with time stamp {one.timestamp_ms}"


class Teller:
    """Keeps undelivered messages until they are told.

    Attributes:
        around_callback: makes the context in which `on_undelivered` is called.
    """

    def __init__(
        self,
        settings: Settings,
        instruments: Instruments,
        around_callback: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self.around_callback = around_callback
        self._instruments = instruments
        self._on_undelivered = settings.on_undelivered
        self._logger = settings.logger
        # As many as can be unsettled, so that the end of a scope can tell of them all.
        self._max_count = settings.max_queue_size + settings.max_buffer_size
        self._max_bytes = settings.max_buffer_bytes
        # What is kept, sorted by position. A receipt or a flush may tell of those in the first two lists, so
        # `on_undelivered` was not called for them. For the third it was called, or there is none.
        self._for_receipts: list[Failure] = []
        self._for_flushes: list[Failure] = []
        self._for_anyone: list[Failure] = []
        self._kept = (self._for_receipts, self._for_flushes, self._for_anyone)
        self._receipts_expected = True
        self._ended = False
        self._kept_bytes = 0
        self._flushes: OrderedDict[Flush, None] = OrderedDict()  # by their marks, which only grow
        self._log = _Log()
        self._failures = 0  # how many ever were
        self._omitted = 0  # how many were ever logged instead of kept,
        self._omitted_told = 0  # and how many of these were counted in a report

    @property
    def kept(self) -> tuple[Undelivered, ...]:
        every = [*chain(*self._kept)]
        return tuple(_in_order(every, 0, len(every)))

    # -- a message has failed ------------------------------------------------------------------------

    def tell(self, undelivered: Undelivered, position: int, *, tracked: bool = False) -> Failure | None:
        """Tell of it, or keep it: then return it, for `take_back`.

        `position` is that of the message, or of an earlier one that the same flushes cover. `tracked`: it has
        a receipt, and no task waits for that.
        """
        tracked = tracked and self._receipts_expected
        covered = position < self._last_mark()
        if not (tracked or covered) and self._called_back(undelivered):
            return None
        held = self._kept_bytes + undelivered.message.size
        if sum(map(len, self._kept)) < self._max_count and held <= self._max_bytes:
            self._kept_bytes = held
            self._failures += 1
            failure = position, self._failures, undelivered
            insort(
                self._for_receipts if tracked else self._for_flushes if covered else self._for_anyone, failure
            )
            return failure
        if not (tracked or covered) or not self._called_back(undelivered):
            self._omitted += 1
            self._logger.error(
                "not delivered, and no room to keep it for telling: %r (maybe written: %s): %s",
                _Outline(undelivered.message),
                undelivered.maybe_written,
                undelivered.cause,
            )
        return None

    def _last_mark(self) -> int:
        """The flush that began last covers each message before its mark; 0 if there is no flush."""
        return next(reversed(self._flushes)).mark if self._flushes else 0

    def _called_back(self, undelivered: Undelivered) -> bool:
        if self._on_undelivered is None:
            return False
        try:
            with self.around_callback():
                self._on_undelivered(undelivered)
        except BaseException as error:
            # Also SystemExit and KeyboardInterrupt, if the callback raises them: in a background task they
            # would not end the program, and the message must not get lost with them. (trio does not raise
            # Ctrl-C in here, see `enable_ki_protection`. And the callback is sync, so it is not cancelled.)
            self._instruments.tell("error", error=error)
            self._logger.exception(
                "on_undelivered raised; the message is kept for flush() or the scope's end"
            )
            return False
        return True

    # -- reporting -----------------------------------------------------------------------------------

    def begin_flush(self, mark: int) -> Flush:
        """Everything kept is of messages before the mark, so the flush covers all of it."""
        flush = Flush(mark, self._log.end, self._omitted_told)
        self._flushes[flush] = None
        return flush

    def end_flushes(self, settled_before: int) -> None:
        ending: list[Flush] = []
        while self._flushes and next(iter(self._flushes)).mark <= settled_before:
            ending.append(self._flushes.popitem(last=False)[0])
        if not ending:
            return
        told = self._take_before(ending[-1].mark)
        start = self._log.end
        self._log.append(told)
        for flush in ending:
            # Besides what is reported now, it covers all that other flushes have reported since it began.
            end = start + bisect_left(told, (flush.mark,))
            omitted = self._omitted - flush.omitted_before
            failed = end > flush.log_from or omitted
            piece = self._log.piece(flush.log_from, end)
            flush.end(DeliveryFailed.found_by(piece, omitted) if failed else None)
            self._omitted_told = self._omitted
        self._log.forget_before(next(iter(self._flushes)).log_from if self._flushes else self._log.end)

    def _take_before(self, mark: int) -> list[Failure]:
        """What is kept of messages before this position, by position; it is not kept any more."""
        taken: list[Failure] = []
        for kept in self._kept:
            count = bisect_left(kept, (mark,))
            taken += kept[:count]
            del kept[:count]
        taken.sort()
        self._kept_bytes -= sum([undelivered.message.size for _, _, undelivered in taken])
        return taken

    def fail_flushes(self, error: Exception) -> None:
        """End them all, as nothing will be settled any more; the messages stay kept."""
        for flush in self._flushes:
            flush.end(error)
        self._flushes.clear()

    def withdraw_flush(self, flush: Flush) -> None:
        del self._flushes[flush]

    def pass_on(self) -> None:
        """After a flush was withdrawn: tell of what no other flush will tell of."""
        first = bisect_left(self._for_flushes, (self._last_mark(),))
        passed = self._for_flushes[first:]
        del self._for_flushes[first:]
        for failure in passed:
            insort(self._for_anyone, failure)
        for failure in sorted(passed, key=itemgetter(1)):
            if self._is_kept(failure) and self._called_back(failure[2]):
                self.take_back(failure)

    def expect_no_receipts(self) -> None:
        """The scope is being left. From now on only tasks that wait already are told by a receipt."""
        self._receipts_expected = False
        for failure in self._for_receipts:
            insort(self._for_flushes, failure)
        self._for_receipts.clear()
        self.pass_on()

    def take_back(self, failure: Failure) -> None:
        """Stop keeping this failure, because it was told. After the end of the scope, what is kept stays."""
        for kept in self._kept:
            if not self._ended and _contains(kept, failure):
                del kept[bisect_left(kept, failure[:2])]
                self._kept_bytes -= failure[2].message.size

    def _is_kept(self, failure: Failure) -> bool:
        """Whether it is still to be told: a callback may have asked the receipt of another failure."""
        return any(_contains(kept, failure) for kept in self._kept)

    def last_words(self) -> DeliveryFailed | None:
        """At the end of the scope: everything that was not told."""
        self._ended = True
        omitted = self._omitted - self._omitted_told
        self._omitted_told = self._omitted
        kept = self.kept
        return DeliveryFailed(kept, omitted) if kept or omitted else None
