"""When messages that wait are to be delivered: on request, by number, or by time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from ._settings import Settings


#: If nothing asks for delivery, we warn when a message has waited this long, in seconds.
_WARN_AFTER = 5.0


class Demand:
    """What asks for delivery.

    Asking moves `mark` and nothing else, so it never blocks, never piles up and is never lost: if the buffer
    has no room for all that is before the mark, the rest follows as room appears.

    Attributes:
        mark (int): deliver each message before this position.
    """

    # Users of other clients do not expect that they must ask for delivery. So where neither the number nor
    # the time is set, the timer does not ask for delivery, but warns them, once.

    def __init__(self, settings: Settings, deliver_nowait: Callable[[], None]) -> None:
        self.mark = 0
        self._threshold = settings.delivery_threshold
        self._interval = settings.delivery_interval
        self._deliver_nowait = deliver_nowait
        self._logger = settings.logger
        self._warns = self._threshold == 0 and self._interval == 0
        self._deadline: float | None = None
        self._armed = trio.Event()

    def is_due(self, first: int, count: int) -> bool:
        """Whether to submit `count` messages, of which the first is at this position."""
        return first < self.mark or 0 < self._threshold <= count

    def wake_at(self, waiting: int, most: int, *, held_back: bool) -> int:
        """How many queued messages have to be looked at, at most `most`, when `waiting` messages wait
        already."""
        if self.has_timer and not waiting:
            return 1
        if self._threshold and not held_back:
            return min(most, self._threshold - waiting)
        return most

    # -- time ----------------------------------------------------------------------------------------

    @property
    def has_timer(self) -> bool:
        return self._interval > 0 or self._warns

    def start_timer(self) -> None:
        if self.has_timer and self._deadline is None:
            self._deadline = trio.current_time() + (_WARN_AFTER if self._warns else self._interval)
            self._armed.set()

    def stop_timer(self) -> None:
        self._deadline = None

    @trio.lowlevel.enable_ki_protection
    async def run_timer(self) -> None:
        """The timer task: asks for delivery `delivery_interval` after the first message began to wait.

        A submission only clears the deadline. So the timer wakes at most once an interval, finds that it has
        been cleared or moved, and goes back to sleep.
        """
        while self.has_timer:
            if self._deadline is None:
                self._armed = trio.Event()
                await self._armed.wait()
            elif trio.current_time() < self._deadline:
                await trio.sleep_until(self._deadline)
            else:
                self._deadline = None
                self._on_time()

    def _on_time(self) -> None:
        if not self._warns:
            return self._deliver_nowait()
        self._warns = False
        self._logger.warning(
            "messages wait for %g s and nothing asks for their delivery: open_producer has neither "
            "delivery_threshold nor delivery_interval. Set one of them, or call deliver_nowait(), flush() or "
            "send_and_wait(). (This is told once.)",
            _WARN_AFTER,
        )
        return None
