"""What is wrong just now, and how often it is logged.

Each trouble has a subject, such as a broker or a topic, and a reason, which may change. A new reason is
logged as a WARNING, and again once a minute for as long as it goes on; otherwise at DEBUG. If a trouble was
logged as a WARNING, so is its end, for those who read warnings only. A trouble that comes back within seconds
is still the same: some brokers respond and close, each time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from logging import DEBUG, WARNING
from typing import TYPE_CHECKING, Any

from .._core import look_at
from .._errors import Refused

if TYPE_CHECKING:
    import logging

    from .._core import Troubled

#: A reason that stays the same is a WARNING again after this time, in seconds.
REMIND_AFTER = 60.0

#: Leaders move, topics are created, clusters start: a refusal is no WARNING before it lasts this long, in
#: seconds.
PATIENCE = 1.0

#: What comes back within this time after its end is the same trouble.
_COMES_BACK = 5.0

#: How many reasons of a subject are a WARNING within `REMIND_AFTER`. A final reason always is.
_MOST_REASONS = 10

#: If there are more subjects than this, those whose trouble is over are forgotten.
_MOST_SUBJECTS = 1000

_number = re.compile(r"\d+")


class _Trouble:
    """What is, or was, wrong with one subject."""

    __slots__ = ("ended", "since", "told", "was_told")

    def __init__(self, since: float) -> None:
        self.since = since
        self.ended: float | None = None
        self.was_told = False  # at WARNING, and its end has not been told since
        self.told: dict[str, float] = {}  # reasons, without their numbers, by the time of the last WARNING


class TroubleLog:
    """Logs the troubles of one client.

    Args:
        logger: the user's.
        clock: returns the time in seconds.
        waiting: returns the number of messages that wait for an acknowledgement.
    """

    def __init__(
        self,
        logger: logging.Logger | logging.LoggerAdapter[Any],
        clock: Callable[[], float],
        waiting: Callable[[], int],
    ) -> None:
        self._logger = logger
        self._clock = clock
        self._waiting = waiting
        self._troubles: dict[str, _Trouble] = {}
        self._events: dict[str, float] = {}  # by subject, when one was a WARNING

    def trouble(self, subject: str, reason: str, *, final: bool = False, patience: float = 0.0) -> None:
        """Something is wrong.

        Args:
            final: it will not go away by itself.
            patience: it is nothing unusual before it lasts this many seconds, unless it is final.
        """
        now = self._clock()
        trouble = self._troubles.get(subject)
        if trouble is None or (trouble.ended is not None and now >= trouble.ended + _COMES_BACK):
            trouble = self._begin(subject, now)
        trouble.ended = None
        lasts = now - trouble.since
        kind = _number.sub("#", reason)
        trouble.told = {one: when for one, when in trouble.told.items() if now < when + REMIND_AFTER}
        level = DEBUG
        may_tell = lasts >= patience and len(trouble.told) < _MOST_REASONS
        if kind not in trouble.told and (final or may_tell):
            trouble.told[kind] = now
            trouble.was_told = True
            level = WARNING
        since = f" (for {_span(lasts)} now; {self._waiting()} messages wait)" if lasts >= 1 else ""
        self._logger.log(level, "%s: %s%s", subject, reason, since)

    def event(self, subject: str, what: str) -> None:
        """Something happened that has no end: a WARNING, but once a minute."""
        now = self._clock()
        level = DEBUG
        self._events = {one: when for one, when in self._events.items() if now < when + REMIND_AFTER}
        if subject not in self._events:
            self._events[subject] = now
            level = WARNING
        self._logger.log(level, "%s: %s", subject, what)

    def over(self, subject: str, how: str) -> None:
        """A trouble has ended. `how` says why we think so, for the log; empty, it is not logged."""
        trouble = self._troubles.get(subject)
        if trouble is None or trouble.ended is not None:
            return
        trouble.ended = self._clock()
        if trouble.was_told and how:
            trouble.was_told = False
            self._logger.warning("%s: %s, after %s", subject, how, _span(trouble.ended - trouble.since))

    def _begin(self, subject: str, now: float) -> _Trouble:
        if len(self._troubles) >= _MOST_SUBJECTS:
            self._troubles = {one: it for one, it in self._troubles.items() if it.ended is None}
        trouble = self._troubles[subject] = _Trouble(now)
        return trouble


def topic_subject(topic: str) -> str:
    return f"topic {topic!r}"


def topic_reason(trouble: Troubled) -> str:
    """Which partitions, what a broker says, and what to look at."""
    others = [
        index
        for index, error in list(trouble.all.items())
        if isinstance(error, Refused) and index != trouble.partition
    ]
    where = ""
    if trouble.partition >= 0:
        where = f"partition {trouble.partition}{f' and {len(others)} more' if others else ''}: "
    error = trouble.error
    refusal = error if isinstance(error, Refused) else error.__cause__
    hint = look_at(refusal.code) if isinstance(refusal, Refused) else ""
    given_up = "; messages were given up" if trouble.final else ""
    return f"{where}{error}{hint and f'; {hint}'}{given_up}"


def _span(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
