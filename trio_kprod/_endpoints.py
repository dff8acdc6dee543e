"""Where brokers are, how soon to try each again, and what is wrong with it: what all connections share."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable
from logging import DEBUG, WARNING
from math import inf
from typing import TYPE_CHECKING, Any, Protocol

import trio

from ._connection import Connection, SetupFailed

if TYPE_CHECKING:
    from ._config import Settings
    from ._core._answers import Answer
    from ._core._batch import Request
    from ._errors import ConnectFailed
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
    def answered(self, request: Request, answers: dict[tuple[str, int], Answer]) -> None: ...
    def metadata(self, metadata: ClusterMetadata, asked: tuple[str, ...]) -> None: ...
    def metadata_failed(self, asked: tuple[str, ...]) -> None: ...
    def producer_id(self, producer_id: int) -> None: ...
    def producer_id_failed(self, refusal: BaseException | None) -> None: ...
    def observe(self, hook: str, **payload: Any) -> None: ...


class Pace:
    """When to try an address again: 50 ms after a failure, doubling to a second, with jitter.

    Only a real answer ends the pause. That a listener accepts means nothing, nor that a handshake
    succeeds: some close at the first request, and would be called on a thousand times a second.
    """

    def __init__(self, settings: Settings) -> None:
        self._first = settings.reconnect_backoff
        self._longest = settings.reconnect_backoff_max
        self.failures = 0
        self.trouble: BaseException | None = None
        self._not_before = -inf

    async def wait(self) -> None:
        await trio.sleep_until(self._not_before)

    def attempt(self) -> None:
        """An attempt begins. Until `answered` it counts as a failure."""
        pause = min(self._first * 2.0 ** min(self.failures, 30), self._longest)
        self.failures += 1
        self._not_before = trio.current_time() + pause * (1 - 0.2 * random.random())

    def answered(self) -> None:
        self.failures = 0
        self.trouble = None
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
        self._paces: dict[Address, Pace] = {}
        self._providers = trio.CapacityLimiter(_PROVIDERS)

    def start_soon(self, function: Callable[..., Awaitable[Any]], *args: Any) -> None:
        self.nursery.start_soon(function, *args)

    def make_connection(self, address: Address, node: int | None = None) -> Connection:
        return Connection(
            address, self.settings, self._network, self._fence, node, provider_limiter=self._providers
        )

    def pace(self, address: Address) -> Pace:
        if address not in self._paces:
            self._paces[address] = Pace(self.settings)
        return self._paces[address]

    def tell_failure(self, address: Address, error: BaseException) -> None:
        """An attempt to connect failed."""
        pace = self.pace(address)
        pace.trouble = error
        level = WARNING if pace.failures == 1 else DEBUG  # once for each outage
        self.settings.logger.log(level, "%s: %s", name_of(address), error)
        self.events.observe("disconnected", broker=name_of(address), error=error)

    def tell_end(self, address: Address, error: BaseException) -> None:
        """A connection ended."""
        if not self._fence.raised:  # otherwise it was we who ended it
            self.settings.logger.warning("%s: %s", name_of(address), error)

    def troubles(self) -> str:
        """What is wrong with brokers just now, to be added to an error."""
        texts = [f"{name_of(at)}: {pace.trouble}" for at, pace in self._paces.items() if pace.trouble]
        return f" ({'; '.join(texts)})" if texts else ""


def name_of(address: Address) -> str:
    """An address as people write it."""
    return "{}:{}".format(*address)


def usable_version(connection: Connection, kind: Any, lowest: int) -> int:
    """The version of a request to use on a connection. Raises `SetupFailed` if there is none."""
    version = connection.version(kind)
    if version is None or version < lowest:
        name = kind.__name__.removesuffix("Request")
        raise SetupFailed(f"the broker speaks no version of {name} that we can use", fatal=True)
    return version
