"""State that several threads change and look at. One can wait for a change, blocked or in a trio loop.

Register with `watching` before you look at the state: then no change between looking and waiting is missed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

import trio


class Watched:
    """State with a lock and with waiters. After each change, made under `lock`, call `changed`."""

    def __init__(self) -> None:
        self.lock = threading.Condition(threading.RLock())
        # What to call after any change: one entry per waiting task.
        self._watchers: set[Callable[[], None]] = set()

    def changed(self) -> None:
        """Wake all who wait, to look again."""
        with self.lock:
            self.lock.notify_all()
            for watcher in self._watchers:
                watcher()

    @contextmanager
    def watch(self, watcher: Callable[[], None]) -> Generator[None]:
        """Call `watcher` after each change, from whichever thread made it."""
        with self.lock:
            self._watchers.add(watcher)
        try:
            yield
        finally:
            with self.lock:
                self._watchers.discard(watcher)

    def wait_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Block until a condition holds; False if it does not within `timeout` seconds (of real time)."""
        with self.lock:
            return self.lock.wait_for(condition, timeout)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds; in any trio loop."""
        await trio.lowlevel.checkpoint()
        with watching(self) as changes:
            while not condition():
                await changes.wait()


class Observable:
    """What a test can wait for."""

    _watched: Watched

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something about this holds, such as ``rule.hits == 2``; in any trio loop.

        Cancelled, it changes nothing.
        """
        await self._watched.until(condition)

    def wait_until(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        """Block until something about this holds.

        Do not call it in the producer's loop: there, await `until`.

        Raises:
            TimeoutError: it does not within `timeout` seconds (of real time).
        """
        if not self._watched.wait_until(condition, timeout):
            raise TimeoutError(f"not so after {timeout} seconds: {self!r}")


class InLoop:
    """Calls functions in the trio loop in which it was made, from any thread."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.get_ident()

    def __call__(self, function: Callable[[], object]) -> bool:
        """Call it now, or soon if this is another thread; False if the loop is gone."""
        if threading.get_ident() == self._thread:
            function()
            return True
        try:
            self._token.run_sync_soon(function)
        except trio.RunFinishedError:
            return False
        return True


class Changes:
    """Waits for changes. Made by `watching`; look at the state after entering it."""

    def __init__(self) -> None:
        self._in_loop = InLoop()
        self._event = trio.Event()

    def notify(self) -> None:
        """Something changed; from any thread."""
        self._in_loop(lambda: self._event.set())

    async def wait(self) -> None:
        """Until the next change, or at once if there was one since the last wait."""
        await self._event.wait()
        self._event = trio.Event()


@contextmanager
def watching(watched: Watched) -> Generator[Changes]:
    """A block in which no change between entering it and waiting is missed."""
    changes = Changes()
    with watched.watch(changes.notify):
        yield changes
