"""Where a client runs: in a worker thread with a loop of its own, or in the loop of the user."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

import trio

from .._errors import ConnectFailed


class Host(Protocol):
    """Where a client runs, and whose time it goes by.

    Attributes:
        shares_loop (bool): the client runs in the loop of the user, so a plain call replaces each wake-up.
    """

    shares_loop: bool

    def clock(self) -> float:
        """The client's time in seconds, from any thread."""
        ...

    def fastest_clock(self) -> Callable[[], float]:
        """The same clock, for code that reads it for each message. Called in the user's loop."""
        ...

    def yield_gil(self) -> None:
        """Called between stretches of work."""
        ...

    def call(self, loop: trio.lowlevel.TrioToken, function: Callable[[], object], /) -> None:
        """Have a function called in a loop: that of the client or that of the user, whichever is the other.

        Soon, or at once if they are the same. If that loop has ended, nothing is called.
        """
        ...

    async def run(self, main: Callable[[], Awaitable[None]]) -> None:
        """Run the client's `main` until it ends. Cancelled, it does not wait for that.

        Raises `ConnectFailed` if `main` cannot be started.
        """
        ...

    async def sleep(self, seconds: float) -> None:
        """Sleep by the client's time, which is not always that of the loop that sleeps."""
        ...


class ThreadHost:
    """A worker thread with a loop of its own. Its threads do not count against trio's default limit."""

    shares_loop = False

    def __init__(self) -> None:
        self._worker = trio.CapacityLimiter(1)
        self._sleepers = trio.CapacityLimiter(2)

    clock = staticmethod(time.perf_counter)

    def fastest_clock(self) -> Callable[[], float]:
        return time.perf_counter

    def yield_gil(self) -> None:
        # A trio checkpoint does not do it: its poll takes the GIL back before another thread has woken up.
        time.sleep(0)

    def call(self, loop: trio.lowlevel.TrioToken, function: Callable[[], object], /) -> None:
        with suppress(trio.RunFinishedError):
            loop.run_sync_soon(function)

    async def run(self, main: Callable[[], Awaitable[None]]) -> None:
        begun = False

        async def begin() -> None:
            nonlocal begun
            begun = True
            await main()

        try:
            await trio.to_thread.run_sync(run_loop, begin, abandon_on_cancel=True, limiter=self._worker)
        except (OSError, RuntimeError) as error:  # too few descriptors for a loop, or too many threads
            if begun:
                raise
            raise ConnectFailed(f"cannot start a thread and a loop for the client: {error}") from error

    async def sleep(self, seconds: float) -> None:
        """In a thread: a mock clock in the user's loop jumps while a thread works, and would end a sleep."""
        over = threading.Event()
        try:
            longest = min(seconds, threading.TIMEOUT_MAX)
            await trio.to_thread.run_sync(over.wait, longest, abandon_on_cancel=True, limiter=self._sleepers)
        finally:
            over.set()


def run_loop(main: Callable[[], Awaitable[None]]) -> None:
    """The worker thread."""
    trio.run(main)


class LoopHost:
    """The loop of the user, whose time and whose turns it shares."""

    shares_loop = True

    _clock: trio.abc.Clock | None = None

    def clock(self) -> float:
        if self._clock is None:
            self._clock = trio.lowlevel.current_clock()  # other threads may read it, but cannot find it
        return self._clock.current_time()

    def fastest_clock(self) -> Callable[[], float]:
        return trio.lowlevel.current_clock().current_time

    def yield_gil(self) -> None:
        pass

    def call(self, _: trio.lowlevel.TrioToken, function: Callable[[], object], /) -> None:
        function()

    async def run(self, main: Callable[[], Awaitable[None]]) -> None:
        await main()

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)
