"""The Kafka client: a trio program of its own, in a worker thread for the life of the scope, and its seam.

Two loops run side by side, the user's and the client's, and only three things cross between them: deques,
flags, and wake-ups by ``TrioToken.run_sync_soon``, one for many batches. Nothing that happens in the user's
loop (a cancelled scope, a mock clock, a task that hogs it) reaches a delivery. Where both are one loop, its
host makes each wake-up a call, and all else is the same.

The produce core is touched in steps only, see `_steps`. So a client that is stuck in a partitioner of the
user's can be abandoned by the other thread (`Client.abandon`), which then knows the core to be whole.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from random import Random
from typing import TYPE_CHECKING, cast, get_args

import trio

from .._core import (
    Connect,
    ProduceCore,
    Report,
    RequestMetadata,
    RequestProducerId,
    Rules,
    Send,
    Settled,
    Shrunk,
    Troubled,
    Untroubled,
    Withdraw,
    adapt,
)
from .._errors import DeliveryAborted
from .._instruments import overridden
from .._messages import request_overhead
from ._brokers import Brokers
from ._steps import Life, Reporter, Steps
from ._transport import Fence, Network, TcpNetwork
from ._troubles import PATIENCE, TroubleLog, topic_reason, topic_subject

if TYPE_CHECKING:
    from .._messages import Entry
    from .._settings import Settings
    from ._host import Host

#: How many messages a step takes from the inbox, so that connections, timers and `stop` get their turn.
_PER_STEP = 1000

#: What the core wants done. Its other actions are reports for the user's loop.
Order = Send | Withdraw | Connect | RequestMetadata | RequestProducerId | Troubled | Untroubled | Shrunk
_ORDERS = frozenset(get_args(Order))

#: What a step has decided: what to do, and when the next step is due.
Decision = tuple[list[Order], float]


class Client:
    """One client, for one scope. All its methods but `main` are for the user's loop.

    Args:
        settings (Settings): the producer's.
        host (Host): where it runs; `Entry.accepted_at` is read from the host's clock.
        network (Network | None): where connections come from; None for TCP.

    Attributes:
        reports (deque[Report]): for the user's loop to take from.
    """

    def __init__(self, settings: Settings, host: Host, network: Network | None = None) -> None:
        self._settings = settings
        self._host = host
        self._clock = clock = host.clock
        self._fence = Fence()
        self._steps = Steps(self._decide, self._carry_out, clock)
        self._core = ProduceCore(self._rules(host.yield_gil), Random())  # noqa: S311 (no secret: which of several goes first)
        hooks = {hook for one in settings.instruments for hook in overridden(one)}
        self._reporter = Reporter(frozenset(hooks))
        self.reports: deque[Report] = self._reporter.queue
        network = network or TcpNetwork(settings, self._fence)
        self._log = TroubleLog(settings.logger, clock, lambda: self._core.unsettled)
        self._brokers = Brokers(
            settings, network, self._fence, self._core, self._steps, self._reporter, self._log
        )
        self._inbox: deque[Sequence[Entry]] = deque()
        self._topics_asked: deque[str] = deque()  # for the number of their partitions
        self._stop_reason: str | None = None
        # One side stores something and looks at a flag, the other moves the flag and looks at what is stored.
        # Without the lock both could see what was there before, and a wake-up would be lost.
        self._flags = threading.Lock()
        self._token: trio.lowlevel.TrioToken | None = None  # None until the client's loop can be woken
        self._woken = False  # whether `_wake_here` is about to be called
        self._awaited = False  # whether the user's loop waits for the inbox to be empty

    # ---- for the user's loop -----------------------------------------------------------------------------

    def bind(self, wake: Callable[[], None]) -> None:
        """Have `wake` called, in the client's loop, whenever there is something in `reports`."""
        self._reporter.wake = wake

    def submit(self, entries: Sequence[Entry]) -> None:
        """Hand messages over for delivery."""
        for start in range(0, len(entries), _PER_STEP):
            self._inbox.append(entries[start : start + _PER_STEP])
        self._wake()

    def is_behind(self) -> bool:
        """Whether it has not taken all that was submitted yet. If so, it wakes the user's loop when it has.

        More messages would only wait there, and each wake-up takes time from the client's thread.
        """
        with self._flags:
            self._awaited = bool(self._inbox)
            return self._awaited

    def want_partitions(self, topic: str) -> None:
        """Ask for the number of partitions of a topic; a `PartitionCount` report answers."""
        self._topics_asked.append(topic)
        self._wake()

    def stop(self, why: str) -> None:
        """Give up on everything unsettled, report it, close the connections, end. Idempotent."""
        self._stop_reason = why
        self._wake()

    def abandon(self) -> list[Settled]:
        """Take everything unsettled away from the client, wherever it stands, and return what became of it.

        Afterwards the client writes no byte and touches nothing that is not its own.
        """
        self._fence.shut()
        with self._steps.abandoned():
            self._give_up_all()
            return [action for action in self._core.actions() if isinstance(action, Settled)]

    def _wake(self) -> None:
        """Have a step made that sees what the caller has stored. Many submissions cost one wake-up."""
        with self._flags:
            token = None if self._woken else self._token
            self._woken = self._woken or token is not None
        if token is not None:
            self._host.call(token, self._wake_here)

    # ---- the client's own loop ---------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def main(self) -> None:
        """The client itself. Ends after `stop`, or after reporting that no broker could be reached.

        In the loop of the user, Ctrl-C must not be raised in its tasks. So each is protected from it.
        """
        with self._flags:
            self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            @trio.lowlevel.enable_ki_protection
            async def serve() -> None:
                await self._brokers.run()
                nursery.cancel_scope.cancel()  # no broker could be reached: there is nothing to feed

            await self._steps.feed()
            nursery.cancel_scope.cancel()

    def _wake_here(self) -> None:
        with self._flags:
            self._woken = False
        self._steps.run()

    def _decide(self) -> Decision:
        """Tell the core what has happened, and ask it what to do. Called with the lock held."""
        if self._stop_reason is None:
            self._take_events()
            self._take_from_inbox()
        else:
            self._fence.shut()  # from here on `Request.write_started` is final
            self._take_events()  # an acknowledgement may be among them
            self._give_up_all()
            self._steps.life = Life.STOPPED
        orders: list[Order] = []
        for action in self._core.actions():
            if type(action) in _ORDERS:  # a tenth of the time that isinstance takes for a union
                orders.append(cast("Order", action))
            else:
                self._reporter.put(cast("Report", action))
        return orders, self._core.deadline

    def _carry_out(self, decision: Decision) -> float:
        """Do what was decided; return when the next step is due. Called without the lock.

        Writing to many brokers takes time. If the core is taken away meanwhile, the fence was shut before,
        and the orders come to nothing.
        """
        orders, due = decision
        for order in orders:
            self._do(order)
        self._reporter.wake_if_due()
        left = self._steps.events or ((self._inbox or self._topics_asked) and not self._woken)
        return -inf if left else due

    def _take_events(self) -> None:
        events = self._steps.events
        while events:
            self._core.now = self._clock()
            events.popleft()()

    def _take_from_inbox(self) -> None:
        self._core.now = self._clock()
        while self._topics_asked:
            self._core.want_partitions(self._topics_asked.popleft())
        taken = 0
        while self._inbox and taken < _PER_STEP:
            entries = self._inbox.popleft()
            self._core.submit(entries)
            taken += len(entries)
        self._core.advance()
        with self._flags:
            free = self._awaited and not self._inbox
            self._awaited = self._awaited and not free
        if free:
            self._reporter.wake_later()

    def _give_up_all(self) -> None:
        why = self._stop_reason or "the producer was stopped"
        error = DeliveryAborted(f"not acknowledged before {why}")
        late = [message for entries in self._inbox for message in entries]
        self._inbox.clear()
        self._topics_asked.clear()
        self._core.now = self._clock()
        self._core.stop(late, error, self._brokers.trouble())

    def _do(self, order: Order) -> None:
        if isinstance(order, Send):
            self._brokers.send(order.request)
        elif isinstance(order, Withdraw):
            self._brokers.withdraw(order.request)
        elif isinstance(order, Connect):
            self._brokers.connect(order.node)
        elif isinstance(order, RequestMetadata):
            self._brokers.any_broker.request_metadata(order.topics)
        elif isinstance(order, Troubled):
            self._log.trouble(
                topic_subject(order.topic), topic_reason(order), final=order.final, patience=PATIENCE
            )
        elif isinstance(order, Untroubled):
            how = "messages are acknowledged again" if order.recovered else ""
            self._log.over(topic_subject(order.topic), how)
        elif isinstance(order, Shrunk):
            self._brokers.tell_shrunk(order)
        else:
            self._brokers.any_broker.request_producer_id()

    def _rules(self, yield_gil: Callable[[], object]) -> Rules:
        settings = self._settings
        partitioner = adapt(settings.partitioner)
        return Rules(
            idempotent=settings.idempotent,
            has_responses=settings.acks != 0,
            batch_size=settings.batch_size,
            max_request_size=settings.max_request_size,
            compression=settings.compression,
            compression_level=settings.compression_level,
            retry_backoff=settings.retry_backoff,
            max_retries=settings.max_retries,
            delivery_timeout=settings.delivery_timeout,
            topic_timeout=settings.topic_timeout,
            metadata_max_age=settings.metadata_max_age,
            # It is the user's code, and may never return.
            partitioner=partitioner and partial(self._steps.unlocked, partitioner),
            observed=bool(settings.instruments),
            yield_gil=yield_gil,
            unlocked=self._steps.unlocked,
            request_overhead=request_overhead(settings.client_id),
        )
