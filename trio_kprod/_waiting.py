"""One task waits, another ends the wait; or the wait is cancelled. Never both.

A `trio.Event` is not enough where ending the wait hands something over (room that was taken for the waiter,
an error that only this task gets): a cancelled task would stay in our books until it runs again, and what it
is given in between would be lost with the `Cancelled` that it raises. Here cancelling calls `withdraw` at
once, so nobody ends the wait of a task that will not see it.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

_CANCELLED = trio.lowlevel.Abort.SUCCEEDED


class Wait:
    """A wait of one task, which happens once.

    Attributes:
        ended (bool): `end` was called, before `wait` or in it.
        error (BaseException | None): what the task has to raise, set by `end`.
    """

    __slots__ = ("_task", "ended", "error")

    def __init__(self) -> None:
        self.ended: bool = False
        self.error: BaseException | None = None
        self._task: trio.lowlevel.Task | None = None

    def end(self, error: BaseException | None = None) -> None:
        self.ended = True
        self.error = error
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    async def wait(self, withdraw: Callable[[], object]) -> None:
        """Always a checkpoint; raises `error`. If it is cancelled, `withdraw` is called instead of `end`.

        If it was ended before, it returns even if it is cancelled: what it was given would be lost.
        """
        if self.ended:
            await trio.lowlevel.cancel_shielded_checkpoint()
        else:

            def abort(_: object) -> trio.lowlevel.Abort:
                self._task = None
                withdraw()
                return _CANCELLED

            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(abort)
        if self.error is not None:
            raise self.error
