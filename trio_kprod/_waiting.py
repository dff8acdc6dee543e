"""One task waits, another ends the wait; or the wait is cancelled. Never both.

A `trio.Event` is not enough where ending the wait hands something over (room that was taken for the waiter,
an error that only it is told of): a task that was cancelled stays a waiter in our books until it runs again,
and what it is given in between is lost with the `Cancelled` that it raises. Here cancelling calls `withdraw`
in the moment in which it happens, so that nobody ends the wait of a task that will not see it.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

_CANCELLED = trio.lowlevel.Abort.SUCCEEDED


class Wait:
    """A wait of one task, which happens once.

    Attributes:
        ended (bool): `end` was called, before `wait` or in it.
    """

    __slots__ = ("_task", "ended")

    def __init__(self) -> None:
        self.ended: bool = False
        self._task: trio.lowlevel.Task | None = None

    def end(self) -> None:
        self.ended = True
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    async def wait(self, withdraw: Callable[[], object]) -> None:
        """Always a checkpoint. If it raises, `withdraw` was called, and `end` must not be called any more.

        If it was ended before, it returns even if it is cancelled: what it was given would be lost.
        """
        if self.ended:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return

        def abort(_: object) -> trio.lowlevel.Abort:
            self._task = None
            withdraw()
            return _CANCELLED

        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)
