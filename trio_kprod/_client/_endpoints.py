"""What all connections of one client share: where brokers are, how soon to try each again, what is wrong."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from logging import DEBUG, WARNING
from math import inf
from typing import TYPE_CHECKING, Any

import trio

from .._core import Observed
from ._connection import Connection, SetupFailed

if TYPE_CHECKING:
    from .._core import ProduceCore
    from .._settings import Settings
    from ._steps import Reporter, Steps
    from ._transport import Fence, Network

Address = tuple[str, int]

#: How many token providers of the user may run at a time, each in a thread.
_PROVIDERS = 4


class Pace:
    """When to connect to an address again, and what is wrong there.

    Each attempt makes the pause before the next one longer: 50 ms, doubling to a second, with jitter. Only a
    connection that has *lasted* makes it shorter again, a step for each second, and is followed without a
    pause. A response is not enough, and a handshake even less: some brokers respond and close, each time.

    Attributes:
        address (Address): where.
        troubles (dict): what has gone wrong since the last response: the last error of each kind.
        is_proven (bool): there was a response since the last attempt.
    """

    def __init__(self, settings: Settings, address: Address) -> None:
        self.address = address
        self.troubles: dict[type[BaseException], BaseException] = {}
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
        self._not_before = trio.current_time() + min(pause, self._longest) * (1 - 0.2 * random.random())

    def ended(self, served_for: float) -> None:
        """A connection has ended that served for that many seconds, see `Connection.served_for`."""
        if served_for >= self._longest:
            self._step = max(0, self._step - int(served_for / max(self._longest, 0.001)))
            self._not_before = -inf


class Endpoints:
    """The addresses of the cluster as far as they are known, and how each fares.

    Attributes:
        core, steps, reporter: where events and reports go.
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
        steps: Steps,
        reporter: Reporter,
    ) -> None:
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

    def start_soon(self, function: Callable[..., Awaitable[Any]], *args: Any) -> None:
        self.nursery.start_soon(function, *args)

    def make_connection(
        self, address: Address, node: int | None = None, *, needs: Sequence[tuple[Any, int]]
    ) -> Connection:
        return Connection(
            address,
            self.settings,
            self._network,
            self._fence,
            node,
            needs=needs,
            provider_limiter=self._providers,
        )

    def learn(self, brokers: Mapping[int, Address]) -> None:
        """Metadata lists all the brokers there are; while a cluster starts, the list is empty."""
        if brokers:
            self.addresses = dict(brokers)
            known = {*brokers.values(), *self.settings.bootstrap_servers}
            self._paces = {at: pace for at, pace in self._paces.items() if pace.address in known}

    def pace(self, address: Address, node: int | None = None) -> Pace:
        """How soon to connect to a node, or (None) to ask there what any broker can tell.

        Each by itself: a broker that responds to metadata requests may still close at each produce request.
        """
        if (address, node) not in self._paces:
            self._paces[address, node] = Pace(self.settings, address)
        return self._paces[address, node]

    def tell_connected(self, address: Address) -> None:
        """A connection is ready."""
        self.observe("connected", broker=name_of(address))

    def tell_failure(self, pace: Pace, error: BaseException) -> None:
        """An attempt to connect has failed."""
        self._tell_trouble(pace, error)
        self.observe("disconnected", broker=name_of(pace.address), error=error)

    def responded(self, pace: Pace) -> None:
        """A broker has responded, or with ``acks=0`` taken a request: its troubles are over."""
        pace.troubles.clear()
        if not pace.is_proven:
            pace.is_proven = True
            for other in self._paces_at(pace.address):  # that connecting fails is no longer true of any
                other.troubles.pop(SetupFailed, None)

    def tell_end(self, pace: Pace, connection: Connection, error: BaseException | None) -> None:
        """A connection has ended that was ready; `error` is None if we closed it."""
        pace.ended(connection.served_for)
        # If the fence is shut, it was we who ended it. And brokers close connections that are not used.
        if error is not None and not self._fence.is_shut:
            if connection.ended_idle:
                self.settings.logger.debug("%s: %s", name_of(pace.address), error)
            else:
                self._tell_trouble(pace, error)
        self.observe("disconnected", broker=name_of(pace.address), error=error)

    def observe(self, hook: str, **payload: Any) -> None:
        """For instruments, where no event follows with which it would be read."""
        if self.reporter.wants(hook):
            self.steps.post(self.reporter.put, Observed(hook, payload))

    def _tell_trouble(self, pace: Pace, error: BaseException) -> None:
        again = any(type(error) in other.troubles for other in self._paces_at(pace.address))
        pace.troubles[type(error)] = error
        level = DEBUG if again else WARNING  # once for each outage
        self.settings.logger.log(level, "%s: %s", name_of(pace.address), error)

    def _paces_at(self, address: Address) -> list[Pace]:
        return [pace for pace in self._paces.values() if pace.address == address]

    def troubles(self) -> str:
        """What is wrong with brokers just now, to be added to an error; from any thread."""
        texts = {
            f"{name_of(pace.address)}: {trouble}": None
            for pace in list(self._paces.values())
            for trouble in list(pace.troubles.values())
        }
        if self.no_producer_id is not None:
            texts[f"InitProducerId: {self.no_producer_id}"] = None
        return f" ({'; '.join(texts)})" if texts else ""


def name_of(address: Address) -> str:
    """An address as people write it."""
    return "{}:{}".format(*address)
