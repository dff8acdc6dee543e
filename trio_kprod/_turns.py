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
    """
    Attributes:
        end (float): when the present turn is over, on the client's clock.
        hurried (bool): the delivery task has to have its turn, as the queue fills up: each message is a turn.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.end: float = -inf
        self.hurried: bool = False
        self._clock = clock
        self._in_line = 0  # how many tasks give way just now

    def hurry(self) -> None:
        """Else a loop of `send` would fill the queue, and wait, before the delivery task has its turn."""
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
        if self.hurried or then <= now:  # no time has passed by a mock clock, so no turn would ever be over
            self.end = -inf
        else:
            self.end = then + LONGEST_TURN / (1 + self._in_line)
