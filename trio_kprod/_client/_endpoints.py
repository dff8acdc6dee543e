"""Where brokers are, how soon to try each again, and what is wrong with it: what all connections share."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from logging import DEBUG, WARNING
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

import trio

from ._connection import Connection

if TYPE_CHECKING:
    from .._core import PartitionResponse, Request
    from .._errors import ConnectFailed
    from .._settings import Settings
    from ._protocol import ClusterMetadata
    from ._transport import Fence, Network

Address = tuple[str, int]

#: How many token providers of the user may run at a time, each in a thread.
_PROVIDERS = 4


class Events(Protocol):
    """Whom to tell. Each returns at once."""

    def opened(self, failure: ConnectFailed | None) -> None: ...
    def connected(self, node: int) -> None: ...
    def unreachable(self, node: int) -> None: ...
    def lost(self, node: int, requests: Iterable[Request], cause: BaseException) -> None: ...
    def sent(self, request: Request) -> None: ...
    def answered(self, request: Request, answers: Mapping[tuple[str, int], PartitionResponse]) -> None: ...
    def metadata(self, metadata: ClusterMetadata, asked: tuple[str, ...]) -> None: ...
    def metadata_failed(self, asked: tuple[str, ...]) -> None: ...
    def producer_id(self, producer_id: int) -> None: ...
    def producer_id_failed(self, refusal: BaseException | None) -> None: ...

    def wants(self, hook: str) -> bool:
        """Whether any instrument has this hook."""
        ...

    def observe(self, hook: str, **payload: Any) -> None:
        """For instruments: told together with the next event."""
        ...

    def tell_observed(self) -> None:
        """No event follows: tell what was observed."""
        ...


class Pace:
    """When to try an address again: 50 ms after a failure, doubling to a second, with jitter.

    Only a real answer ends the pause. That a listener accepts means nothing, nor that a handshake
    succeeds: some close at the first request, and would be called on a thousand times a second.

    Attributes:
        address (Address): where.
        troubles (dict): what has gone wrong since the last answer: the last error of each kind.
    """

    def __init__(self, settings: Settings, address: Address) -> None:
        self.address = address
        self.troubles: dict[type[BaseException], BaseException] = {}
        self._first = settings.reconnect_backoff
        self._longest = settings.reconnect_backoff_max
        self._failures = 0
        self._not_before = -inf

    async def wait(self) -> None:
        await trio.sleep_until(self._not_before)

    def attempt(self) -> None:
        """An attempt begins. Until `answered` it counts as a failure."""
        pause = min(self._first * 2.0 ** min(self._failures, 30), self._longest)
        self._failures += 1
        self._not_before = trio.current_time() + pause * (1 - 0.2 * random.random())

    def answered(self) -> None:
        self._failures = 0
        self.troubles.clear()
        self._not_before = -inf


class Endpoints:
    """The addresses of the cluster as far as they are known, and how each fares.

    Attributes:
        addresses (dict[int, Address]): where each node is.
        nursery (trio.Nursery): where connections are served.
    """

    def __init__(self, settings: Settings, network: Network, fence: Fence, events: Events) -> None:
        self.settings = settings
        self.events = events
        self.addresses: dict[int, Address] = {}
        self.nursery: trio.Nursery
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
        """Metadata lists all the brokers there are; none, while a cluster starts."""
        if brokers:
            self.addresses = dict(brokers)
            known = {*brokers.values(), *self.settings.bootstrap_servers}
            self._paces = {at: pace for at, pace in self._paces.items() if pace.address in known}

    def pace(self, address: Address, node: int | None = None) -> Pace:
        """How soon to connect to a node, or (None) to ask questions there.

        Each by itself: a broker that answers questions may still close at each produce request.
        """
        if (address, node) not in self._paces:
            self._paces[address, node] = Pace(self.settings, address)
        return self._paces[address, node]

    def tell_failure(self, pace: Pace, error: BaseException) -> None:
        """An attempt to connect failed."""
        self._tell_trouble(pace, error)
        self.events.observe("disconnected", broker=name_of(pace.address), error=error)
        self.events.tell_observed()

    def tell_end(self, pace: Pace, error: BaseException) -> None:
        """A connection ended."""
        if not self._fence.is_shut:  # otherwise it was we who ended it
            self._tell_trouble(pace, error)

    def _tell_trouble(self, pace: Pace, error: BaseException) -> None:
        paces = [other for other in self._paces.values() if other.address == pace.address]
        again = any(type(error) in other.troubles for other in paces)
        pace.troubles[type(error)] = error
        level = DEBUG if again else WARNING  # once for each outage
        self.settings.logger.log(level, "%s: %s", name_of(pace.address), error)

    def troubles(self) -> str:
        """What is wrong with brokers just now, to be added to an error; from any thread."""
        texts = {
            f"{name_of(pace.address)}: {trouble}": None
            for pace in list(self._paces.values())
            for trouble in list(pace.troubles.values())
        }
        return f" ({'; '.join(texts)})" if texts else ""


def name_of(address: Address) -> str:
    """An address as people write it."""
    return "{}:{}".format(*address)
