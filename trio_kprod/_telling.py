"""Who is told of a message that was not delivered: exactly one, and never nobody.

The first of these that there is: the `send_and_wait` that still waits for it (the delivery task sees to
that one), the flushes that wait for it, `on_undelivered`, and else it is kept for the next `flush` or the
end of the scope. A flush has told of a message when it ends; one that is cancelled before passes it on.
What is kept is bounded; what is beyond is logged one by one and counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._errors import DeliveryFailed
from ._waiting import Wait

if TYPE_CHECKING:
    from ._instruments import Instruments
    from ._messages import Undelivered
    from ._settings import Settings


class _Failure:
    """An undelivered message that is kept until somebody is told."""

    __slots__ = ("called_back", "flushes", "undelivered")

    def __init__(self, undelivered: Undelivered, flushes: int) -> None:
        self.undelivered = undelivered
        self.flushes = flushes  # how many wait that will tell of it
        self.called_back = not flushes  # `on_undelivered`, if there is one, had its chance


class Flush(Wait):
    """A wait for the outcome of every message before the position `mark`.

    Attributes:
        failures: the undelivered messages among them, and those before them that nobody was told of.
        failed (Exception | None): what to raise then, a `DeliveryFailed` unless the producer crashed.
    """

    def __init__(self, mark: int, omitted_before: int) -> None:
        super().__init__()
        self.mark = mark
        self.failed: Exception | None = None
        self._omitted_before = omitted_before
        self.failures: list[_Failure] = []

    def conclude(self, omitted: int) -> None:
        omitted -= self._omitted_before
        if self.failures or omitted:
            self.failed = DeliveryFailed([one.undelivered for one in self.failures], omitted)
        self.end()


class Teller:
    """Keeps undelivered messages until they are told."""

    def __init__(self, settings: Settings, instruments: Instruments) -> None:
        self._instruments = instruments
        self._on_undelivered = settings.on_undelivered
        self._logger = settings.logger
        # As many as can be unsettled, so that the end of a scope can tell of them all.
        self._max_count = settings.max_queue_size + settings.max_buffer_size
        self._max_bytes = settings.max_buffer_bytes
        self._kept: dict[_Failure, None] = {}
        self._kept_bytes = 0
        self._flushes: list[Flush] = []
        self._omitted = 0  # how many ever were,
        self._omitted_told = 0  # and how many of these somebody has heard of

    @property
    def kept(self) -> tuple[Undelivered, ...]:
        return tuple(one.undelivered for one in self._kept)

    # -- somebody must be told -----------------------------------------------------------------------

    def tell(self, undelivered: Undelivered, position: int) -> None:
        """`position` is that of the message, or of one before it that no flush sets apart from it."""
        flushes = [flush for flush in self._flushes if position < flush.mark]
        if not flushes and self._called_back(undelivered):
            return
        if self._has_room_for(undelivered):
            failure = _Failure(undelivered, len(flushes))
            self._keep(failure)
            for flush in flushes:
                flush.failures.append(failure)
        elif not flushes or not self._called_back(undelivered):
            self._omit(undelivered)

    def _called_back(self, undelivered: Undelivered) -> bool:
        if self._on_undelivered is None:
            return False
        try:
            self._on_undelivered(undelivered)
        except BaseException as error:
            # Also SystemExit and the like: nobody above us is the program that they are meant to end, and
            # the message must not get lost with them.
            self._instruments.tell("error", error=error)
            self._logger.exception(
                "on_undelivered raised; the message is kept for flush() or the scope's end"
            )
            return False
        return True

    def _has_room_for(self, undelivered: Undelivered) -> bool:
        held = self._kept_bytes + undelivered.message.size
        return len(self._kept) < self._max_count and held <= self._max_bytes

    def _keep(self, failure: _Failure) -> None:
        self._kept[failure] = None
        self._kept_bytes += failure.undelivered.message.size

    def _drop(self, failure: _Failure) -> None:
        if failure in self._kept:
            del self._kept[failure]
            self._kept_bytes -= failure.undelivered.message.size

    def _omit(self, undelivered: Undelivered) -> None:
        self._omitted += 1
        self._logger.error(
            "not delivered, and no room to keep it for telling: %r (maybe written: %s): %s",
            undelivered.message,
            undelivered.maybe_written,
            undelivered.cause,
        )

    # -- somebody asks -------------------------------------------------------------------------------

    def begin_flush(self, mark: int) -> Flush:
        """Everything kept failed before the call, so the flush covers all of it."""
        flush = Flush(mark, self._omitted_told)
        for failure in self._kept:
            failure.flushes += 1
            flush.failures.append(failure)
        self._flushes.append(flush)
        return flush

    def end_flushes(self, settled_before: int) -> None:
        for flush in [one for one in self._flushes if one.mark <= settled_before]:
            self._flushes.remove(flush)
            flush.conclude(self._omitted)
            for failure in flush.failures:
                self._drop(failure)
            self._omitted_told = self._omitted

    def fail_flushes(self, error: Exception) -> None:
        """Nobody may wait for what will not come; the messages stay kept."""
        for flush in self._flushes:
            flush.failed = error
            flush.end()
        self._flushes.clear()

    def withdraw_flush(self, flush: Flush) -> None:
        self._flushes.remove(flush)

    def pass_on(self, flush: Flush) -> None:
        """Tell, after it was withdrawn, what only this flush would have told of."""
        for failure in flush.failures:
            failure.flushes -= 1
            if failure.flushes or failure.called_back or failure not in self._kept:
                continue
            failure.called_back = True
            if self._called_back(failure.undelivered):
                self._drop(failure)

    def last_words(self) -> DeliveryFailed | None:
        """At the end of the scope: everything that nobody was told of."""
        omitted = self._omitted - self._omitted_told
        self._omitted_told = self._omitted
        return DeliveryFailed(self.kept, omitted) if self._kept or omitted else None
