"""The life of a producer: opened, used, drained, stopped; and which exception its user sees.

::

    nursery
    ├── client, delivery task, timer task, stopper      each in a shielded scope of its own
    └── with body: connect, then the user's code        what a crash or the user cancels

The children are *supervised*: they never raise, so the nursery can never make a group of what they raise and
what the body raises. One that fails leaves its exception here and cancels the body. They are shielded, so
that a cancellation from outside reaches the body at once and the delivery only by the deadline of the drain.

What comes out of the body is kept while the drain runs, and one place decides what leaves, the first of these
that applies: the body's own exception, KeyboardInterrupt, `ProducerCrashed`, the body's `Cancelled`,
`DeliveryFailed`. The rest is logged, and noted on what leaves.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from ._errors import ConnectFailed, DeliveryFailed, ProducerCrashed

if TYPE_CHECKING:
    from ._client import Client, Host
    from ._delivery import Delivery
    from ._settings import Settings

#: Seconds that the client has for stopping, before it is abandoned. It needs milliseconds, unless a callback
#: of the user holds its loop.
STOP_GRACE = 1.0

#: How many topics a log line names.
_MOST_TOPICS = 10


class Lifetime:
    """One use of a producer, from its opening to its end. `ProducerScope` is what users enter and leave."""

    def __init__(self, settings: Settings, delivery: Delivery, client: Client, host: Host) -> None:
        self._settings = settings
        self._logger = settings.logger
        self._delivery = delivery
        self._delivery.on_crash = self._crashed
        self._ending = delivery.ending
        self._client = client
        self._host = host
        self._nursery: trio.Nursery
        self._body = trio.CancelScope()
        self._left: BaseException | None = None
        self._interrupt: KeyboardInterrupt | None = None
        self._children: list[trio.CancelScope] = []
        self._running = 0
        self._all_ended = trio.Event()
        # Set when the client has ended, or has had its time for that.
        self._client_done = trio.Event()
        self._stopped = trio.Event()
        #: Set in a forked child: what this holds belongs to the parent.
        self.forked = False

    @asynccontextmanager
    @trio.lowlevel.enable_ki_protection
    async def serve(self) -> AsyncGenerator[None, None]:
        """Run everything while the body runs; raises only if the body was never reached."""
        reached = False
        async with trio.open_nursery() as self._nursery:
            self._start_children()
            try:
                with self._body:
                    await self._opened()
                    reached = True
                    yield
            except BaseException as error:  # kept during the drain: `leaves` tells what is raised afterwards
                self._left = error
            await self._end()
        if not reached:
            leaves = self.leaves()
            assert leaves is not None
            raise leaves

    async def _opened(self) -> None:
        await self._delivery.opened.wait()
        if self._delivery.open_error is not None:
            raise self._delivery.open_error
        # The body must not begin if it is cancelled already, by a crash for one.
        await trio.lowlevel.checkpoint_if_cancelled()

    # -- the children --------------------------------------------------------------------------------

    def _start_children(self) -> None:
        self._start(self._run_client)
        self._start(self._delivery.run)
        self._start(self._stop_client)
        if self._delivery.demand.has_timer:
            self._start(self._delivery.demand.run_timer)

    def _start(self, run: Callable[[], Awaitable[None]]) -> trio.CancelScope:
        scope = trio.CancelScope(shield=True)
        self._children.append(scope)
        self._running += 1
        self._nursery.start_soon(self._supervise, run, scope)
        return scope

    @trio.lowlevel.enable_ki_protection
    async def _supervise(self, run: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
        try:
            with scope:
                await run()
        except BaseException as error:
            # Any exception: to raise it here would cancel the drain, and make a group. (`Cancelled` does not
            # get here: the scope is shielded, and takes its own.)
            self._crashed(error)
        finally:
            self._running -= 1
            if not self._running:
                self._all_ended.set()

    def _crashed(self, error: BaseException) -> None:
        if self._ending.crash is not None:
            self._logger.error("%r, after the producer had crashed", error, exc_info=error)
            return
        self._body.cancel(reason="a background task of the producer crashed")
        self._delivery.crashed(error)

    async def _run_client(self) -> None:
        try:
            await self._host.run(self._client.main)
        except ConnectFailed as error:
            self._delivery.opening_ended(error)
        finally:
            self._client_done.set()
        self._delivery.turn()  # it may have said why it ended
        if not self._ending.stopping.is_set() and self._delivery.open_error is None:
            raise RuntimeError("the client ended without being told to")

    async def _stop_client(self) -> None:
        try:
            await self._ending.stopping.wait()
            self._client.stop(self._ending.reason)
            await self._wait(self._client_done, STOP_GRACE)
            self._delivery.finish()
        finally:
            self._stopped.set()

    async def _wait(self, event: trio.Event, seconds: float) -> None:
        """Wait for the event. It is set at the latest after this many seconds by the host's clock."""

        async def ring() -> None:
            started = self._host.clock()
            try:
                await self._host.sleep(seconds)
            except Exception as error:
                self._logger.warning("no thread for a clock, so %g s go by this loop's: %r", seconds, error)
                await trio.sleep(max(0, seconds - (self._host.clock() - started)))
            finally:
                event.set()

        if not event.is_set():
            clock = self._start(ring)
            try:
                await event.wait()
            finally:
                clock.cancel()

    # -- the end -------------------------------------------------------------------------------------

    async def _end(self) -> None:
        """Drain, stop, and wait until no child is left. An interrupt only makes it shorter."""
        with trio.CancelScope(shield=True):
            if not self.forked:
                try:
                    await self._drain()
                except BaseException as error:  # a bug; the children must end all the same
                    self._crashed(error)
            for child in self._children:
                child.cancel()
            await self._uninterrupted(self._all_ended)

    async def _drain(self) -> None:
        self._delivery.close()
        try:
            await self._wait(self._ending.over, self._settings.shutdown_timeout)
        except KeyboardInterrupt as interrupt:
            self._interrupt = interrupt
            self._ending.give_up_because("the shutdown was interrupted")
        self._ending.stop(f"shutdown_timeout ({self._settings.shutdown_timeout:g} s) passed")
        await self._uninterrupted(self._stopped)

    async def _uninterrupted(self, event: trio.Event) -> None:
        """Wait for an event that is sure to come soon. Ctrl-C can reach the main task even in a shield."""
        while not event.is_set():
            try:
                await event.wait()
            except KeyboardInterrupt as interrupt:  # as often as the user presses
                self._interrupt = interrupt

    # -- what leaves ---------------------------------------------------------------------------------

    def leaves(self) -> BaseException | None:
        """The exception that the user sees. The others are logged and noted on it."""
        if self.forked:
            return self._left
        candidates = self._candidates()
        if not candidates:
            return None
        first, *others = candidates
        for other in others:
            if not isinstance(other, DeliveryFailed):
                text = "not raised because of %r: %s"
                self._logger.error(text, first, _said(other), exc_info=_traced(other))
            if sys.version_info >= (3, 11):
                first.add_note(f"trio_kprod: besides, {_said(other)}")
        return first

    def _undelivered(self) -> DeliveryFailed | None:
        """What was never reported. It is logged, too, because some frameworks swallow what leaves."""
        failed = self._delivery.teller.last_words()
        if failed is not None:
            topics = Counter(one.message.topic for one in failed.undelivered).most_common()
            named = ", ".join(f"{topic!r} {count}" for topic, count in topics[:_MOST_TOPICS])
            more = f" and {len(topics) - _MOST_TOPICS} more topics" if len(topics) > _MOST_TOPICS else ""
            self._logger.error("the block has ended: %s; by topic: %s%s", failed, named, more)
        return failed

    def _candidates(self) -> list[BaseException]:
        cancelled = _is_cancellation(self._left)
        order = (
            None if cancelled else self._left,
            self._interrupt,
            self._crash_error(),
            self._left if cancelled else None,
            self._undelivered(),
        )
        return [error for error in order if error is not None]

    def _crash_error(self) -> ProducerCrashed | None:
        cause = self._ending.crash
        if cause is None:
            return None
        error = ProducerCrashed(f"a background task of the producer failed: {cause!r}")
        error.__cause__ = cause
        return error


def _is_cancellation(error: BaseException | None) -> bool:
    """Whether it is `Cancelled`, or a group of them, which a nursery in the body makes."""
    if isinstance(error, trio.Cancelled):
        return True
    parts = getattr(error, "exceptions", None)  # groups are no built-in before Python 3.11
    return isinstance(parts, tuple) and bool(parts) and all(map(_is_cancellation, parts))


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _traced(error: BaseException) -> BaseException | None:
    """The error, if its traceback belongs into the log: a crash is a bug to be found, others are not."""
    return error if isinstance(error, ProducerCrashed) else None
