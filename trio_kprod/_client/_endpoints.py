"""What all connections of one client share: where brokers are, how soon to try each again, what is wrong."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

import trio

from .._core import Observed, Throttled
from .._errors import ConnectionLost
from ._connection import Connection, SetupFailed
from ._diagnosis import ADVERTISED
from ._reasons import causes

if TYPE_CHECKING:
    from .._core import ProduceCore
    from .._settings import Settings
    from ._steps import Reporter, Steps
    from ._transport import Fence, Network
    from ._troubles import TroubleLog

Address = tuple[str, int]

#: If more addresses than this have spoken Kafka's protocol, we remember only those of the cluster.
_MOST_PROVEN = 1000

#: How many calls of the user's token provider may run at a time, each in a thread.
_PROVIDERS = 4


class Pace:
    """When to connect to an address again, and what is wrong there.

    Each attempt makes the pause before the next one longer: 50 ms, doubling to a second, with jitter. Only a
    connection that has *lasted* makes it shorter again, a step for each second, and is followed without a
    pause. A response is not enough, and a handshake even less: some brokers respond and close, each time.

    Attributes:
        address (Address), node (int | None): where; None for any broker.
        troubles (dict): what has gone wrong since the last response: the last error of each kind.
        final (BaseException | None): what has gone wrong and will not pass; it outranks the others.
        is_proven (bool): there was a response since the last attempt.
    """

    def __init__(self, settings: Settings, address: Address, node: int | None) -> None:
        self.address = address
        self.node = node
        self.troubles: dict[type[BaseException], BaseException] = {}
        self.final: BaseException | None = None
        self.is_proven = False
        self._first = settings.reconnect_backoff
        self._longest = settings.reconnect_backoff_max
        self._step = 0
        self._not_before = -inf

    async def wait(self) -> None:
        """Wait for the end of the pause."""
        await trio.sleep_until(self._not_before)

    def attempt(self) -> None:
        """An attempt to connect begins."""
        self.is_proven = False
        pause = self._first * 2.0**self._step
        if pause < self._longest:
            self._step += 1
        self._not_before = trio.current_time() + min(pause, self._longest) * (1 - 0.2 * random.random())  # noqa: S311 (no secret: jitter)

    def clear(self) -> None:
        """Nothing is wrong here any more."""
        self.troubles.clear()
        self.final = None

    def worst(self) -> list[BaseException]:
        """What is wrong. Any thread may call this."""
        final = self.final
        return list(self.troubles.values()) if final is None else [final]

    def ended(self, served_for: float) -> None:
        """A connection has ended; `Connection.served_for` says what counts."""
        if served_for >= self._longest:
            self._step = max(0, self._step - int(served_for / max(self._longest, 0.001)))
            self._not_before = -inf


class Endpoints:
    """The addresses of the cluster as far as they are known, and how each fares.

    Attributes:
        core, steps, reporter: where events and reports go.
        log (TroubleLog): where troubles go.
        addresses (dict[int, Address]): where each node is.
        nursery (trio.Nursery): where connections are served.
        no_producer_id (BaseException | None): why the brokers gave none the last time.
    """

    def __init__(
        self,
        settings: Settings,
        network: Network,
        fence: Fence,
        core: ProduceCore,
        steps: Steps[Any],
        reporter: Reporter,
        log: TroubleLog,
    ) -> None:
        self.log = log
        self.settings = settings
        self.core = core
        self.steps = steps
        self.reporter = reporter
        self.addresses: dict[int, Address] = {}
        self.nursery: trio.Nursery
        self.no_producer_id: BaseException | None = None
        self._network = network
        self._fence = fence
        self._paces: dict[tuple[Address, int | None], Pace] = {}
        self._providers = trio.CapacityLimiter(_PROVIDERS)
        self._proven: set[Address] = set()  # those that have ever spoken Kafka's protocol with us

    def start_soon(self, function: Callable[..., Awaitable[Any]], *args: Any) -> None:
        self.nursery.start_soon(function, *args)

    def make_connection(
        self,
        address: Address,
        node: int | None = None,
        *,
        needs: Sequence[tuple[Any, int]] = (),
        settings: Settings | None = None,
    ) -> Connection:
        """Make a connection, with the producer's settings or with others."""
        return Connection(
            address,
            settings or self.settings,
            self._network,
            self._fence,
            node,
            needs=needs,
            provider_limiter=self._providers,
            on_throttle=partial(self._throttled, address),
            may_guess=partial(self._may_guess, address),
            if_unreachable="" if address in self.settings.bootstrap_servers else ADVERTISED,
        )

    def _may_guess(self, address: Address) -> bool:
        """Whether nothing is known yet of what an address speaks, nor what is wrong there for good."""
        return address not in self._proven and all(pace.final is None for pace in self._paces_at(address))

    def learn(self, brokers: Mapping[int, Address]) -> None:
        """Metadata lists all the brokers there are; while a cluster starts, the list is empty."""
        if brokers:
            self.addresses = dict(brokers)
            known = {*brokers.values(), *self.settings.bootstrap_servers}
            if len(self._proven) > _MOST_PROVEN:  # a broker that is away for a while stays proven
                self._proven &= known
            for gone in {pace.address for pace in self._paces.values()} - known:
                self.log.over(name_of(gone), "")
            self._paces = {at: pace for at, pace in self._paces.items() if pace.address in known}

    def pace(self, address: Address, node: int | None = None) -> Pace:
        """How soon to connect to a node, or (None) to an address for what any broker can tell.

        Each has a pace of its own: a broker that responds to metadata requests may still close at each
        produce request.
        """
        if (address, node) not in self._paces:
            self._paces[address, node] = Pace(self.settings, address, node)
        return self._paces[address, node]

    def opened(self, address: Address) -> None:
        """A connection was opened: the address speaks Kafka's protocol. It may still want a login."""
        self._proven.add(address)

    def tell_failure(self, pace: Pace, error: BaseException) -> None:
        """An attempt to connect has failed, or a connection ended before its first response."""
        self._tell_trouble(pace, error)
        self.observe("connect_failed", broker=name_of(pace.address), error=error)

    def responded(self, pace: Pace) -> None:
        """A broker has responded, or with ``acks=0`` taken a request: its troubles are over.

        Only this shows that a connection is usable. The greetings before it do not: a listener that wants a
        login greets everybody, and closes at the first request.
        """
        pace.clear()
        if not pace.is_proven:
            pace.is_proven = True
            self.settings.logger.info("connected to %s (node %s)", name_of(pace.address), pace.node)
            self.reporter.observe("connected", broker=name_of(pace.address))
            for other in self._paces_at(pace.address):  # no attempt to connect there fails any more
                other.troubles.pop(SetupFailed, None)
                other.final = None
            self.log.over(name_of(pace.address), "responds again")

    def _throttled(self, address: Address, pause: float) -> None:
        """The broker reads nothing from us for that time (KIP-219)."""
        broker = name_of(address)
        self.log.event(
            f"quota at {broker}",
            f"this user or client_id has used it up, so we pause for {pause:g} s",
        )
        self.steps.post(self.reporter.put, Throttled(broker, pause))

    def tell_end(self, pace: Pace, connection: Connection, error: BaseException | None) -> None:
        """A connection has ended that was opened; `error` is None if we closed it."""
        pace.ended(connection.served_for)
        # If the fence is shut, we have ended it ourselves. And brokers close connections that are not used.
        if error is not None and not self._fence.is_shut:
            if connection.ended_idle:
                self.settings.logger.debug("%s: %s", name_of(pace.address), error)
            else:
                self._tell_trouble(pace, error)
        if pace.is_proven:
            self.observe("disconnected", broker=name_of(pace.address), error=error)
        elif error is not None:
            self.observe("connect_failed", broker=name_of(pace.address), error=error)

    def observe(self, hook: str, **payload: Any) -> None:
        """Tell instruments, by an event of its own: no other event follows that would have it read."""
        if self.reporter.wants(hook):
            self.steps.post(self.reporter.put, Observed(hook, payload))

    def _tell_trouble(self, pace: Pace, error: BaseException) -> None:
        final = any(getattr(cause, "fatal", False) for cause in causes(error))
        if final:
            pace.final = error
        else:
            pace.troubles[type(error)] = error
        self.log.trouble(name_of(pace.address), str(error), final=final)

    def _paces_at(self, address: Address) -> list[Pace]:
        return [pace for pace in self._paces.values() if pace.address == address]

    def explain(self, address: Address, error: SetupFailed) -> ConnectionLost:
        """Why there is no connection to this address. A final error outranks the last one."""
        finals = [pace.final for pace in self._paces_at(address) if pace.final is not None]
        lost = ConnectionLost(f"{name_of(address)}: {finals[0] if finals else error}")
        lost.__cause__ = finals[0] if finals else error
        return lost

    def trouble(self) -> ConnectionLost | None:
        """All that is wrong with brokers now, in one error. Any thread may call this."""
        texts = {
            f"{name_of(pace.address)}: {trouble}": None
            for pace in list(self._paces.values())
            for trouble in pace.worst()
        }
        if self.no_producer_id is not None:
            texts[f"InitProducerId: {self.no_producer_id}"] = None
        return ConnectionLost("; ".join(texts)) if texts else None


def name_of(address: Address) -> str:
    """An address as people write it."""
    return "{}:{}".format(*address)
