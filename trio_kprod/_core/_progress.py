"""Whether a topic makes progress, so that one which makes none cannot take the room of the others.

A topic has several *parts*: each of its partitions, and the messages that have no partition yet. A part is
stalled while messages of it wait and either there is no connection to its leader, or none of its messages
was acknowledged for `STALL_AFTER` seconds. A topic is stalled from the moment in which one of its parts is,
until a message of it is acknowledged while none of them is. (Messages that fail are no progress: more of the
same would take their place.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ._reports import Recovered, Stalled

if TYPE_CHECKING:
    from ._outbox import Outbox

#: A part is stalled when its messages wait this long and none of them is acknowledged meanwhile.
STALL_AFTER = 1.0


class Part:
    """One partition of a topic, or its messages without partition."""

    __slots__ = ("is_blocked", "waits_since")

    def __init__(self) -> None:
        self.waits_since: float | None = None  # since when messages wait, and none was acknowledged
        self.is_blocked = False  # there is no connection to its leader

    def begin_to_wait(self, now: float) -> None:
        if self.waits_since is None:
            self.waits_since = now

    def move_on(self, now: float, *, still_waits: bool) -> None:
        """Some of its messages were acknowledged, or got their partition, or none waits any more."""
        self.waits_since = now if still_waits else None
        self.is_blocked = self.is_blocked and still_waits

    def is_stalled(self, now: float) -> bool:
        if self.waits_since is None:
            return False
        return self.is_blocked or now >= self.waits_since + STALL_AFTER


class Progress:
    """Reports when a topic stalls and when it has recovered.

    Args:
        name: of the topic.
        parts: returns all parts that the topic has now.
        cause: returns what holds up the topic's messages.

    Attributes:
        is_watched (bool): a timer is set for the next look.
    """

    def __init__(
        self,
        name: str,
        outbox: Outbox,
        parts: Callable[[], Iterable[Part]],
        cause: Callable[[], BaseException | None],
    ) -> None:
        self._name = name
        self._outbox = outbox
        self._parts = parts
        self._cause = cause
        self._is_stalled = False
        self.is_watched = False  # a timer is set

    def watch(self) -> None:
        """Look again when the part that waits longest would be stalled."""
        if self._is_stalled or self.is_watched:
            return
        waiting = [part.waits_since for part in self._parts() if part.waits_since is not None]
        if waiting:
            self.is_watched = True
            self._outbox.call_at(min(waiting) + STALL_AFTER, self._look_again)

    def _look_again(self) -> None:
        self.is_watched = False
        self.look()
        self.watch()

    def look(self) -> None:
        """Report a stall, if there is one."""
        if not self._is_stalled and self._some_part_is_stalled():
            self._is_stalled = True
            self._outbox.actions.append(Stalled(self._name, self._cause()))

    def acknowledged(self) -> None:
        """A message of the topic was acknowledged."""
        if self._is_stalled and not self._some_part_is_stalled():
            self._is_stalled = False
            self._outbox.actions.append(Recovered(self._name))
            self.watch()

    def _some_part_is_stalled(self) -> bool:
        now = self._outbox.now
        return any(part.is_stalled(now) for part in self._parts())
