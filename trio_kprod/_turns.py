"""How long the sends of a producer may keep the loop to themselves.

A schedule point at each `send` would take longer than all else in it. So a loop of ``await send`` gives way
only when `LONGEST_TURN` is over, as python-trio/trio#1757 wants it for trio itself. Tasks that send at the
same time share that time: beside a thousand of them others wait as long as if each message were a turn.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import trio

#: Seconds after which other tasks get their turn.
LONGEST_TURN = 0.0005


class Turns:
    """When a loop of `send` gives way to other tasks.

    Attributes:
        end (float): when the present turn is over, on the client's clock.
        hurried (bool): the queue fills up, so each message is a turn until the delivery task had its own.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.end: float = -inf
        self.hurried: bool = False
        self._clock = clock
        self._in_line = 0  # how many tasks give way just now

    def hurry(self) -> None:
        """Give way at each message, or a loop of `send` fills the queue before the delivery task runs."""
        self.hurried = True
        self.end = -inf

    async def give_way(self, now: float) -> None:
        """A schedule point, and no cancel point: the message is in the queue."""
        self._in_line += 1
        try:
            await trio.lowlevel.cancel_shielded_checkpoint()
        finally:
            self._in_line -= 1
        then = self._clock()
        if self.hurried or then <= now:  # by a mock clock no time passes, so no turn would ever be over
            self.end = -inf
        else:
            self.end = then + LONGEST_TURN / (1 + self._in_line)
