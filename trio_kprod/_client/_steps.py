"""When events are handed to the produce core, and how reports leave for the user's loop.

Everything that happens, on connections or in the user's loop, is an event. A *step* hands the events that
have come to the core, does what the core says, and passes its reports on. A submission and a produce
response make a step right where they arrive, because a message waits for each. Other events and timers are
left to one task that feeds the core.
"""

from __future__ import annotations

import enum
import threading
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from math import inf
from typing import Any, Generic, TypeVar

import trio

from .._core import Abandoned, Observed, Report

T = TypeVar("T")
D = TypeVar("D")  # what a step has decided

#: How long the thread that abandons a client waits for the end of a step, in seconds. Its loop stands still
#: meanwhile. A step holds the lock for milliseconds, since calls that may take long run `unlocked`, so only a
#: machine that gives the client's thread no time at all, or a bug, takes longer.
_STEP_PATIENCE = 1.0


def _nothing() -> None:
    pass


class Life(enum.Enum):
    """How far a client has come. It changes only while `Steps.lock` is held, and never back."""

    STARTING = enum.auto()  # no step is made yet
    RUNNING = enum.auto()
    STOPPED = enum.auto()  # everything is given up, or a step has failed: no step is made any more
    ABANDONED = enum.auto()  # the other thread has taken everything away


class Steps(Generic[D]):
    """Makes steps in the client's loop, and keeps the core whole for the thread that abandons the client.

    Args:
        decide: the first half of a step, with the lock held: takes `events`, returns what is to be done.
        carry_out: the second half, without the lock: does that, returns when the next step is due by `clock`.
        clock: returns the time in seconds.

    Attributes:
        lock (threading.Lock): held by the thread that touches the core.
        life (Life): see there.
        events (deque): methods of the core with their arguments, to be called in the next step.
    """

    def __init__(
        self, decide: Callable[[], D], carry_out: Callable[[D], float], clock: Callable[[], float]
    ) -> None:
        self.lock = threading.Lock()
        self.life = Life.STARTING
        self.events: deque[Callable[[], object]] = deque()
        self._decide = decide
        self._carry_out = carry_out
        self._clock = clock
        self._deciding = False
        self._error: BaseException | None = None
        self._wake_up = trio.Event()
        self._sleep = trio.CancelScope()  # of the feeding task
        self._sleeps_until = inf

    def post(self, method: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Have a method of the core called in the next step, by the feeding task."""
        self.events.append(partial(method, *args, **kwargs))
        self._wake_up.set()

    def post_and_run(self, method: Callable[..., object], *args: Any) -> None:
        """Have a method of the core called now, in a step of its own. Not for what a step calls."""
        self.events.append(partial(method, *args))
        self.run()

    def run(self) -> None:
        """Make a step here: in the feeding task, a callback of the loop, or the reader of a connection.

        For a callback or a reader, to wake the feeding task would cost more than the step. If a step raises,
        the feeding task raises that.
        """
        if self.life is not Life.RUNNING:
            return
        if self._deciding:  # in the loop of the user, what a step calls (a partitioner) may lead here again
            self._wake_up.set()
            return
        try:
            due = self._step()
        except BaseException as error:
            self._error = error
            self.end()
            due = -inf
        if due == -inf or self.life is not Life.RUNNING:
            self._wake_up.set()
        elif due < self._sleeps_until:
            self._sleeps_until = due
            # In this order, or rounding wakes it too early, again and again where time stands still.
            self._sleep.deadline = trio.current_time() + (due - self._clock())

    def _step(self) -> float:
        with self.lock:
            if self.life is not Life.RUNNING:
                return inf
            self._deciding = True
            try:
                decision = self._decide()
            finally:
                self._deciding = False
        return self._carry_out(decision)

    async def feed(self) -> None:
        """Make steps until the client is stopped. Between two of them the loop always gets a turn."""
        with self.lock:
            if self.life is Life.STARTING:
                self.life = Life.RUNNING
        try:
            while self.life is Life.RUNNING:
                self._wake_up = trio.Event()
                self._sleeps_until = inf
                self._sleep = trio.CancelScope()
                self.run()
                with self._sleep:
                    await self._wake_up.wait()
            # An abandoned client ends quietly: the other thread has told all outcomes already.
            if self._error is not None and self.life is not Life.ABANDONED:
                raise self._error
        finally:
            self.end()

    def end(self) -> None:
        """Make no further step."""
        with self.lock:
            if self.life is not Life.ABANDONED:
                self.life = Life.STOPPED

    def unlocked(self, function: Callable[..., T], *args: Any) -> T:
        """Call what may take long, or never return, in a step, but without the lock.

        The core must be whole then: the other thread may take it away meanwhile. Then this raises
        `Abandoned`, and does not return.
        """
        self.lock.release()
        try:
            return function(*args)
        finally:
            self.lock.acquire()
            if self.life is Life.ABANDONED:
                raise Abandoned

    @contextmanager
    def abandoned(self) -> Generator[None, None, None]:
        """A block of the other thread that has the core to itself; afterwards no step is made."""
        if not self.lock.acquire(timeout=_STEP_PATIENCE):
            raise RuntimeError("the client's loop does not end its step")
        try:
            self.life = Life.ABANDONED
            yield
        finally:
            self.lock.release()


class Reporter:
    """Reports for the user's loop, which is woken once for many.

    The user's loop, once woken, takes reports from `queue` until it is empty. So a report that is appended
    behind others is read without another wake-up. This needs no lock: both sides look at the deque alone,
    whose changes come one after the other, also in a Python without GIL.

    Args:
        hooks (frozenset[str]): of instruments, those that any of them has.

    Attributes:
        hooks (frozenset[str]): the same.
        queue (deque[Report]): what is to be read.
        wake: called in the client's loop when there is something in `queue`.
    """

    def __init__(self, hooks: frozenset[str]) -> None:
        self.queue: deque[Report] = deque()
        self.wake: Callable[[], None] = _nothing
        self.hooks = hooks
        self._wake_due = False

    def put(self, report: Report) -> None:
        """Have a report read after the step, or after the next one."""
        self.queue.append(report)
        if len(self.queue) == 1:
            self._wake_due = True

    def wants(self, hook: str) -> bool:
        """Whether any instrument has this hook."""
        return hook in self.hooks

    def observe(self, hook: str, **payload: Any) -> None:
        """For instruments, if any has this hook."""
        if hook in self.hooks:
            self.put(Observed(hook, payload))

    def wake_later(self) -> None:
        """Wake the user's loop after the step, though there may be no report."""
        self._wake_due = True

    def wake_if_due(self) -> None:
        """The step is over."""
        if self._wake_due:
            self._wake_due = False
            self.wake()
