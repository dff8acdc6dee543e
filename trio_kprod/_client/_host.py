"""Where a client runs: in a worker thread, as it does for users, or in the caller's own loop, for tests."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol

import trio

if TYPE_CHECKING:
    from ._client import Client


class Host(Protocol):
    """Where a client runs, and whose time it goes by."""

    def clock(self) -> float:
        """The client's time in seconds, from any thread."""
        ...

    def yield_gil(self) -> None:
        """Called between stretches of work."""
        ...

    async def run(self, client: Client) -> None:
        """Run the client until it ends. Cancelled, it does not wait for that."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Sleep by the client's time, which is not always that of the loop that sleeps."""
        ...


class ThreadHost:
    """A worker thread with a loop of its own. Its threads do not count against trio's default limit."""

    def __init__(self) -> None:
        self._worker = trio.CapacityLimiter(1)
        self._sleepers = trio.CapacityLimiter(2)

    clock = staticmethod(time.perf_counter)  # read for each message, so without a call in between

    def yield_gil(self) -> None:
        # A trio checkpoint does not do it: its poll takes the GIL back before another thread has woken up.
        time.sleep(0)

    async def run(self, client: Client) -> None:
        await trio.to_thread.run_sync(client.run, abandon_on_cancel=True, limiter=self._worker)

    async def sleep(self, seconds: float) -> None:
        """In a thread: a mock clock in the user's loop jumps while a worker works, and would end this."""
        over = threading.Event()
        try:
            longest = min(seconds, threading.TIMEOUT_MAX)
            await trio.to_thread.run_sync(over.wait, longest, abandon_on_cancel=True, limiter=self._sleepers)
        finally:
            over.set()


class LoopHost:
    """The loop of the caller, for tests in virtual time."""

    _clock: trio.abc.Clock | None = None

    def clock(self) -> float:
        if self._clock is None:
            self._clock = trio.lowlevel.current_clock()  # which other threads may read, but not find
        return self._clock.current_time()

    def yield_gil(self) -> None:
        pass

    async def run(self, client: Client) -> None:
        await client.main()

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)
