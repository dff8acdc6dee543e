"""The Kafka client: a trio program of its own, in a worker thread for the life of the scope, and its seam.

Two loops run side by side, the user's and the client's, and only three things cross between them: deques,
flags, and wake-ups by ``TrioToken.run_sync_soon``, one for many batches. Nothing that happens in the user's
loop (a cancelled scope, a mock clock, a task that hogs it) reaches a delivery.

Inside, everything that happens, on connections or in the user's loop, is an event in one queue; a *step*
tells the produce core of all that has come, does what it says, and passes its reports on. What a message
waits for, its submission and its answer, is stepped on where it comes in; the rest, and what time brings,
by one task that feeds the core. The core is touched in steps only, under `_lock`, so that a client stuck in
somebody's partitioner can be abandoned by the other thread (`Client.abandon`), which then knows the core to
be whole.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from math import inf
from random import Random
from typing import TYPE_CHECKING, Any

import trio

from .._core import (
    Action,
    Connect,
    Observed,
    Opened,
    Partitioner,
    PartitionResponse,
    ProduceCore,
    Report,
    Request,
    RequestMetadata,
    RequestProducerId,
    Rules,
    Send,
    Settled,
    adapt,
)
from .._errors import ConnectFailed, DeliveryAborted
from .._instruments import overridden
from ._brokers import Brokers
from ._protocol import ClusterMetadata
from ._transport import Fence, Network, TcpNetwork

if TYPE_CHECKING:
    from .._messages import Entry
    from .._settings import Settings

#: How many messages a step takes from the inbox, so that connections, timers and `stop` get their turn.
_PER_STEP = 1000

#: How long `abandon` waits for a step to end. A step is milliseconds of work, or a partitioner's, which
#: does not hold the lock.
_STEP_PATIENCE = 10.0


def _nothing() -> None:
    pass


class Client:
    """One client, for one scope. Of its methods all but `run` and `main` are for the user's loop.

    Args:
        settings (Settings): the producer's.
        clock: gives the time in seconds, in any thread; `Entry.accepted_at` is read from the same.
        network (Network | None): where connections come from; None for TCP.
        yield_gil: called between stretches of work that hold the GIL.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.perf_counter,
        network: Network | None = None,
        yield_gil: Callable[[], object] = _nothing,
    ) -> None:
        self.reports: deque[Report] = deque()
        self._settings = settings
        self._clock = clock
        self._fence = Fence()
        self._network = network or TcpNetwork(settings, self._fence)
        self._lock = threading.Lock()  # held by whoever touches the core
        self._core = ProduceCore(self._rules(yield_gil), Random())
        wanted = {hook for one in settings.instruments for hook in overridden(one)}
        events = _Events(self, self._core, frozenset(wanted))
        self._brokers = Brokers(settings, self._network, self._fence, events)
        self._inbox: deque[Sequence[Entry] | str] = deque()  # messages; or a topic somebody asks about
        self._events: deque[Callable[[], object]] = deque()
        self._notify: Callable[[], None] = _nothing
        self._token: trio.lowlevel.TrioToken | None = None
        self._wake_up = trio.Event()
        self._woken = False
        self._feeding = False
        self._sleep = trio.CancelScope()  # of the task that feeds the core
        self._sleeps_until = inf
        self._bug: BaseException | None = None
        self._untold = False  # whether there are reports that nobody was woken for
        self._awaited = False  # whether the user's loop waits for the inbox to be empty
        self._stopping = False
        self._why = "the producer was stopped"
        self._stopped = False
        self._abandoned = False

    # ---- for the user's loop -----------------------------------------------------------------------------

    def bind(self, wake: Callable[[], None]) -> None:
        """Have `wake` called, in the client's loop, whenever there is something in `reports`."""
        self._notify = wake

    def submit(self, entries: Sequence[Entry]) -> None:
        """Hand messages over for delivery."""
        for start in range(0, len(entries), _PER_STEP):
            self._inbox.append(entries[start : start + _PER_STEP])
        self._wake()

    def is_behind(self) -> bool:
        """Whether it has yet to take what was submitted before; then it wakes the user's loop when it has.

        More would have to wait there, and each wake-up takes time from the thread that is to do the work.
        """
        self._awaited = bool(self._inbox)
        return bool(self._inbox)

    def want_partitions(self, topic: str) -> None:
        """Ask for the number of partitions of a topic; a `PartitionCount` report answers."""
        self._inbox.append(topic)
        self._wake()

    def stop(self, why: str) -> None:
        """Give up on everything unsettled, report it, close the connections, end. Idempotent."""
        self._why = why
        self._stopping = True
        self._wake()

    def abandon(self) -> list[Settled]:
        """Take everything unsettled away from the client, wherever it stands, and say what became of it.

        After this it writes no byte and touches nothing that is not its own.
        """
        self._abandoned = True
        self._fence.shut()
        if not self._lock.acquire(timeout=_STEP_PATIENCE):
            raise RuntimeError("the client's loop does not end its step")
        try:
            self._give_up_all()
            return [action for action in self._core.actions() if isinstance(action, Settled)]
        finally:
            self._lock.release()

    def _wake(self) -> None:
        # A flag, so that many submissions cost one wake-up. It is cleared before the inbox is read, so what
        # comes after that wakes again.
        if self._token is not None and not self._woken:
            self._woken = True
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._wake_here)

    # ---- the client's own loop ---------------------------------------------------------------------------

    def run(self) -> None:
        """Run `main` in this thread until it ends."""
        trio.run(self.main)

    async def main(self) -> None:
        """The client itself. Ends after `stop`, or after reporting that no broker could be reached."""
        self._token = trio.lowlevel.current_trio_token()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._serve_brokers, nursery.cancel_scope)
                await self._feed()
                nursery.cancel_scope.cancel()
        except BaseException:
            # A worker that was abandoned finds out when the user's callback returns: nobody waits for it.
            if not self._abandoned:
                raise

    async def _serve_brokers(self, scope: trio.CancelScope) -> None:
        await self._brokers.run()
        scope.cancel()  # no broker could be reached: there is nothing to feed

    async def _feed(self) -> None:
        self._feeding = True
        try:
            while not self._stopped:
                self._wake_up = trio.Event()
                self._sleeps_until = inf
                self._sleep = trio.CancelScope()
                self._turn()
                with self._sleep:
                    await self._wake_up.wait()
                if self._bug is not None:
                    raise self._bug
        finally:
            self._feeding = False

    def _wake_here(self) -> None:
        self._woken = False
        self._turn()

    def _turn(self) -> None:
        """Make a step here: in the task that feeds, a callback of the loop, or the reader of a connection.

        From those two, waking the feeding task would cost more than the step. Whatever a step raises, that
        task raises; nobody steps after it has ended.
        """
        if not self._feeding:
            return
        try:
            self._step()
        except BaseException as error:
            self._bug = error
            self._feeding = False
        left = self._events or (self._inbox and not self._woken)  # else `_wake_here` is about to be called
        if left or self._stopped or self._bug is not None:
            self._wake_up.set()
        elif self._core.deadline < self._sleeps_until:
            self._sleeps_until = self._core.deadline
            # In this order, or rounding wakes it too early, again and again where time stands still.
            self._sleep.deadline = trio.current_time() + (self._sleeps_until - self._clock())

    def _step(self) -> None:
        """Tell the core what has happened, and do what it says."""
        with self._lock:
            if self._stopped:
                return
            if self._stopping:
                self._fence.shut()  # from here on `Request.write_started` is final
                self._tell_events()  # an acknowledgement may be among them
                self._give_up_all()
            else:
                self._tell_events()
                self._take_from_inbox()
            for action in self._core.actions():
                self._do(action)
        if self._untold:
            self._untold = False
            self._notify()

    def _tell_events(self) -> None:
        while self._events:
            self._core.now = self._clock()
            self._events.popleft()()

    def _take_from_inbox(self) -> None:
        self._core.now = self._clock()
        taken = 0
        while self._inbox and taken < _PER_STEP:
            item = self._inbox.popleft()
            if isinstance(item, str):
                self._core.want_partitions(item)
            else:
                self._core.submit(item)
                taken += len(item)
        self._core.advance()
        if self._awaited and not self._inbox:
            self._awaited = False
            self._untold = True

    def _give_up_all(self) -> None:
        error = DeliveryAborted(f"not acknowledged before {self._why}{self._brokers.troubles()}")
        late = [message for item in self._inbox if not isinstance(item, str) for message in item]
        self._inbox.clear()
        self._core.now = self._clock()
        self._core.stop(late, error)
        self._stopped = True

    def _do(self, action: Action) -> None:
        if isinstance(action, Send):
            self._brokers.send(action.request)
        elif isinstance(action, Connect):
            self._brokers.connect(action.node)
        elif isinstance(action, RequestMetadata):
            self._brokers.any_broker.request_metadata(action.topics)
        elif isinstance(action, RequestProducerId):
            self._brokers.any_broker.request_producer_id()
        else:
            self.put(action)

    # ---- what the parts get ------------------------------------------------------------------------------

    def post(self, event: Callable[[], object]) -> None:
        """Tell the core, in the next step, with the time of it."""
        self._events.append(event)
        self._wake_up.set()

    def post_and_step(self, event: Callable[[], object]) -> None:
        """Tell the core now, in a step of its own. Not for what a step calls."""
        self._events.append(event)
        self._turn()

    def tell(self) -> None:
        """Have what was put among the reports read, though nothing else happens."""
        self._wake_up.set()

    def put(self, report: Report) -> None:
        """Have a report read when something has happened."""
        self.reports.append(report)
        # Reports are read until none is left. So whoever was woken for those before this one reads it, too.
        if len(self.reports) == 1:
            self._untold = True

    def _rules(self, yield_gil: Callable[[], object]) -> Rules:
        settings = self._settings
        partitioner = adapt(settings.partitioner)
        return Rules(
            idempotent=settings.idempotent,
            batch_size=settings.batch_size,
            max_request_size=settings.max_request_size,
            compression=settings.compression,
            retry_backoff=settings.retry_backoff,
            max_retries=settings.max_retries,
            delivery_timeout=settings.delivery_timeout,
            topic_timeout=settings.topic_timeout,
            metadata_max_age=settings.metadata_max_age,
            partitioner=partitioner and self._unlocked(partitioner),
            observed=bool(settings.instruments),
            yield_gil=yield_gil,
        )

    def _unlocked(self, partitioner: Partitioner) -> Partitioner:
        """Leave the core alone while code of the user runs: it may never return."""

        def call(message: Entry, count: int, available: Sequence[int]) -> object:
            self._lock.release()
            try:
                return partitioner(message, count, available)
            finally:
                self._lock.acquire()
                if self._abandoned:
                    raise _Abandoned

        return call


class _Abandoned(BaseException):
    """Ends a worker that was abandoned. No Exception, so that nobody takes it for the partitioner's."""


class _Events:
    """Turns what `Brokers` tells into events for the core."""

    def __init__(self, client: Client, core: ProduceCore, wanted: frozenset[str]) -> None:
        self._client = client
        self._core = core
        self._wanted = wanted

    def opened(self, failure: ConnectFailed | None) -> None:
        self._client.put(Opened(failure))
        self._client.tell()

    def connected(self, node: int) -> None:
        self._client.post(lambda: self._core.connected(node))

    def unreachable(self, node: int) -> None:
        self._client.post(lambda: self._core.unreachable(node))

    def lost(self, node: int, requests: Iterable[Request], cause: BaseException) -> None:
        self._client.post(lambda: self._core.lost(node, requests, cause))

    def sent(self, request: Request) -> None:
        self._client.post(lambda: self._core.sent(request))

    def answered(self, request: Request, answers: Mapping[tuple[str, int], PartitionResponse]) -> None:
        self._client.post_and_step(lambda: self._core.answered(request, answers))

    def metadata(self, metadata: ClusterMetadata, asked: tuple[str, ...]) -> None:
        self._client.post(lambda: self._core.metadata(metadata.topics, asked))

    def metadata_failed(self, asked: tuple[str, ...]) -> None:
        self._client.post(lambda: self._core.metadata_failed(asked))

    def producer_id(self, producer_id: int) -> None:
        self._client.post(lambda: self._core.producer_id(producer_id))

    def producer_id_failed(self, refusal: BaseException | None) -> None:
        self._client.post(lambda: self._core.producer_id_failed(refusal))

    def wants(self, hook: str) -> bool:
        return hook in self._wanted

    def observe(self, hook: str, **payload: Any) -> None:
        if hook in self._wanted:
            self._client.put(Observed(hook, payload))

    def tell_observed(self) -> None:
        if self._wanted:
            self._client.tell()
