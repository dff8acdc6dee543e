"""The connections of one client: one to each broker that leads something, and one for questions.

Metadata and producer ids are asked for on a connection of their own, to any broker: a broker serves one
connection in order, so behind a produce request that waits for a frozen follower everything waits.

Nothing here decides anything about messages. Each connection's fate is told to the client as an event.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from logging import DEBUG, INFO, WARNING
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import trio
from kafka.protocol.metadata import MetadataRequest
from kafka.protocol.producer import InitProducerIdRequest, ProduceRequest

from ._connection import Connection, Exchange, SetupFailed
from ._core._answers import Verdict, refusal, row
from ._core._batch import Request
from ._errors import ConnectFailed, ConnectionLost
from ._protocol import (
    LOWEST_METADATA_VERSION,
    LOWEST_PRODUCE_VERSION,
    ClusterMetadata,
    cluster_metadata,
    metadata_request,
    moved_brokers,
    produce_answers,
    produce_request,
    producer_id_request,
)

if TYPE_CHECKING:
    from ._config import Settings
    from ._core._answers import Answer
    from ._transport import Fence, Network

Address = tuple[str, int]

#: How many known brokers are tried side by side for a question, besides the bootstrap servers.
_SIDE_BY_SIDE = 3


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


class Brokers:
    """All connections. `run` serves them until it is cancelled."""

    def __init__(self, settings: Settings, network: Network, fence: Fence, events: Events) -> None:
        self.settings = settings
        self.network = network
        self.fence = fence
        self.events = events
        self.addresses: dict[int, Address] = {}
        self._produce: dict[int, ProduceConnection] = {}
        self._paces: dict[Address, Pace] = {}
        self._provider_limiter = trio.CapacityLimiter(4)
        self.questions = Questions(self)
        self._nursery: trio.Nursery

    async def run(self) -> None:
        """Connect to any broker, then serve until cancelled; return if no broker can be reached."""
        async with trio.open_nursery() as self._nursery:
            failure = await self.questions.open()
            self.events.opened(failure)
            if failure is None:
                await self.questions.run()
            self._nursery.cancel_scope.cancel()

    def start_soon(self, function: Callable[..., Awaitable[Any]], *args: Any) -> None:
        self._nursery.start_soon(function, *args)

    def connect(self, node: int) -> None:
        """Open a connection to a node; `Events.connected` or `Events.unreachable` follows."""
        self._nursery.start_soon(self._serve, node)

    def send(self, request: Request) -> None:
        """Send a request over the connection to its node."""
        connection = self._produce.get(request.node)
        if connection is None:  # it ended while this was being decided
            self.events.lost(request.node, [request], ConnectionLost("the connection has ended"))
        else:
            connection.send(request)

    def make_connection(self, address: Address, node: int | None = None) -> Connection:
        return Connection(
            address, self.settings, self.network, self.fence, node, provider_limiter=self._provider_limiter
        )

    def pace(self, address: Address) -> Pace:
        if address not in self._paces:
            self._paces[address] = Pace(self.settings)
        return self._paces[address]

    def tell_failure(self, address: Address, error: BaseException) -> None:
        name = "{}:{}".format(*address)
        pace = self.pace(address)
        pace.trouble = error
        level = WARNING if pace.failures == 1 else DEBUG  # once for each outage
        self.settings.logger.log(level, "%s: %s", name, error)
        self.events.observe("disconnected", broker=name, error=error)

    def troubles(self) -> str:
        """What is wrong with brokers just now, to be added to an error."""
        texts = ["{}:{}: {}".format(*at, pace.trouble) for at, pace in self._paces.items() if pace.trouble]
        return f" ({'; '.join(texts)})" if texts else ""

    def tell_end(self, name: str, error: BaseException) -> None:
        if not self.fence.raised:  # otherwise it was we who ended it
            self.settings.logger.warning("%s: %s", name, error)

    async def _serve(self, node: int) -> None:
        address = self.addresses.get(node)
        if address is None:  # metadata named a leader whose address it did not give
            await trio.sleep(self.settings.reconnect_backoff_max)
            self.events.unreachable(node)
            return
        connection = ProduceConnection(self, node, address)
        try:
            await connection.open()
        except SetupFailed as error:
            self.tell_failure(address, error)
            self.events.unreachable(node)
            return
        self._produce[node] = connection
        try:
            await connection.serve()
        finally:
            del self._produce[node]


class _Flight(NamedTuple):
    """What is to be remembered of a request until it is answered."""

    request: Request
    version: int
    size: int
    started: float


class ProduceConnection:
    """The connection over which one broker gets its batches."""

    def __init__(self, brokers: Brokers, node: int, address: Address) -> None:
        self._brokers = brokers
        self._settings = brokers.settings
        self._events = brokers.events
        self._node = node
        self._name = "{}:{}".format(*address)
        self._pace = brokers.pace(address)
        self._connection = brokers.make_connection(address, node)
        self._version = 0
        self._flights: dict[Exchange, _Flight] = {}

    async def open(self) -> None:
        """Raises `SetupFailed`."""
        await self._pace.wait()
        self._pace.attempt()
        await self._connection.open()
        self._version = _version(self._connection, ProduceRequest, LOWEST_PRODUCE_VERSION)

    async def serve(self) -> None:
        self._events.observe("connected", broker=self._name)
        self._events.connected(self._node)
        cause: BaseException = ConnectionLost("closed after it had been idle")
        try:
            await self._connection.serve()
        except ConnectionLost as error:
            cause = error
            self._brokers.tell_end(self._name, error)
        # Not in a `finally`: a cancelled connection is one being stopped, and then the fence tells what
        # was written.
        self._tell_lost(cause)

    def send(self, request: Request) -> None:
        timeout = self._settings.request_timeout
        message = produce_request(request, version=self._version, acks=self._settings.acks, timeout=timeout)
        exchange = Exchange(
            message, timeout, self._on_answer, on_handed=self._on_handed, on_sent=self._on_sent
        )
        size = sum(len(batch.data or b"") for batch in request.batches)
        self._flights[exchange] = _Flight(request, message.API_VERSION, size, trio.current_time())
        self._connection.send(exchange)

    def _on_handed(self, exchange: Exchange) -> None:
        self._flights[exchange].request.handed = True

    def _on_sent(self, exchange: Exchange) -> None:
        if not exchange.expects_answer:
            flight = self._flights.pop(exchange)
            self._events.sent(flight.request)
            self._observe(flight)

    def _on_answer(self, exchange: Exchange, response: Any) -> None:
        flight = self._flights.pop(exchange)
        self._pace.answered()
        self._brokers.addresses.update(moved_brokers(response))
        self._events.answered(flight.request, produce_answers(flight.request, flight.version, response))
        self._observe(flight)

    def _tell_lost(self, cause: BaseException) -> None:
        requests: list[Request] = []
        for exchange in self._connection.unanswered():
            flight = self._flights.pop(exchange)
            flight.request.handed = exchange.handed
            requests.append(flight.request)
            self._observe(flight, cause)
        self._events.lost(self._node, requests, cause)
        self._events.observe("disconnected", broker=self._name, error=cause)

    def _observe(self, flight: _Flight, error: BaseException | None = None) -> None:
        if not self._settings.instruments:
            return
        duration = trio.current_time() - flight.started
        count = sum(len(batch.entries) for batch in flight.request.batches)
        self._events.observe(
            "request",
            broker=self._name,
            api="Produce",
            request_bytes=flight.size,
            response_bytes=0,
            duration=duration,
            error=error,
        )
        self._events.observe(
            "send_messages",
            broker=self._name,
            message_count=count,
            sent_message_count=0 if error else count,
            duration=duration,
        )


class Questions:
    """Asks any broker for metadata and producer ids, one question after the other."""

    def __init__(self, brokers: Brokers) -> None:
        self._brokers = brokers
        self._settings = brokers.settings
        self._events = brokers.events
        self._asks, self._to_ask = trio.open_memory_channel[Callable[[], Awaitable[None]]](inf)
        self._link: _Link | None = None
        self._causes: dict[str, BaseException] = {}

    def ask_metadata(self, topics: tuple[str, ...]) -> None:
        """`Events.metadata` or `Events.metadata_failed` follows."""
        self._asks.send_nowait(partial(self._metadata, topics))

    def ask_producer_id(self) -> None:
        """`Events.producer_id` or `Events.producer_id_failed` follows."""
        self._asks.send_nowait(self._producer_id)

    async def open(self) -> ConnectFailed | None:
        """Wait for the first answer of any broker; at most `connect_timeout`, and not if one refuses us."""
        timeout = self._settings.connect_timeout
        refused = False
        with trio.move_on_after(timeout):
            while not refused:
                try:
                    self._learn_brokers(await self._ask_for_metadata(()))
                except _NoAnswer as failure:
                    refused = failure.fatal
                else:
                    return None
        return self._connect_failed(
            "a broker refused the connection" if refused else f"no broker answered within {timeout:g} s"
        )

    async def run(self) -> None:
        async for ask in self._to_ask:
            await ask()

    # ---- the questions -----------------------------------------------------------------------------------

    async def _metadata(self, topics: tuple[str, ...]) -> None:
        try:
            metadata = await self._ask_for_metadata(topics)
        except _NoAnswer:
            self._events.metadata_failed(topics)
        else:
            self._learn_brokers(metadata)
            self._events.metadata(metadata, topics)

    async def _producer_id(self) -> None:
        try:
            response = await self._ask(InitProducerIdRequest, 0, producer_id_request)
        except _NoAnswer:
            self._events.producer_id_failed(None)
            return
        code = response.error_code
        if not code:
            self._events.producer_id(response.producer_id)
        else:
            final = row(code).verdict is Verdict.REFUSED
            self._settings.logger.log(WARNING if final else INFO, "InitProducerId: %s", refusal(code))
            self._events.producer_id_failed(refusal(code) if final else None)

    async def _ask_for_metadata(self, topics: tuple[str, ...]) -> ClusterMetadata:
        auto_create = self._settings.allow_auto_create_topics
        make = partial(metadata_request, topics, auto_create=auto_create)
        return cluster_metadata(await self._ask(MetadataRequest, LOWEST_METADATA_VERSION, make))

    def _learn_brokers(self, metadata: ClusterMetadata) -> None:
        self._brokers.addresses.update(metadata.brokers)

    # ---- asking ------------------------------------------------------------------------------------------

    async def _ask(self, kind: Any, lowest: int, make: Callable[[int], Any]) -> Any:
        """The answer of the connected broker, or else of the first that can be connected to."""
        link = self._link
        if link is None or link.ended.is_set():
            link = self._link = await self._connect_to_any()
        try:
            version = _version(link.connection, kind, lowest)
            answer = await link.ask(make(version), self._patience)
        except (ConnectionLost, SetupFailed) as error:
            link.connection.close()
            self._causes[link.name] = error
            raise _NoAnswer(fatal=isinstance(error, SetupFailed) and error.fatal) from error
        self._brokers.pace(link.connection.address).answered()
        return answer

    @property
    def _patience(self) -> float:
        """A broker that does not answer is left for another; a slow one is not hurried."""
        return min(self._settings.request_timeout, self._settings.connection_setup_timeout)

    async def _connect_to_any(self) -> _Link:
        """Try side by side; the first that can be used is taken."""
        race = _Race()
        async with trio.open_nursery() as nursery:
            for address in self._candidates():
                nursery.start_soon(self._compete, race, address, nursery.cancel_scope)
        if race.winner is None:
            raise _NoAnswer(fatal=race.fatal)
        return race.winner

    def _candidates(self) -> list[Address]:
        known = list(self._brokers.addresses.values())
        some = random.sample(known, min(len(known), _SIDE_BY_SIDE))
        return list(dict.fromkeys([*some, *self._settings.bootstrap_servers]))

    async def _compete(self, race: _Race, address: Address, scope: trio.CancelScope) -> None:
        pace = self._brokers.pace(address)
        await pace.wait()
        pace.attempt()
        connection = self._brokers.make_connection(address)
        try:
            await connection.open()
        except SetupFailed as error:
            race.fatal = race.fatal or error.fatal
            self._causes["{}:{}".format(*address)] = error
            self._brokers.tell_failure(address, error)
            return
        link = _Link(connection)
        self._brokers.start_soon(link.serve, self._brokers)  # which alone closes it
        if race.winner is None:
            race.winner = link
            scope.cancel()
        else:
            connection.close()

    def _connect_failed(self, what: str) -> ConnectFailed:
        told = dict.fromkeys("{}:{}".format(*address) for address in self._settings.bootstrap_servers)
        causes = {name: self._causes.get(name, trio.TooSlowError("no answer")) for name in told}
        text = "; ".join(f"{name}: {cause}" for name, cause in causes.items())
        return ConnectFailed(f"{what}: {text}", causes)


class _Race:
    """The connections that are being tried side by side."""

    def __init__(self) -> None:
        self.winner: _Link | None = None
        self.fatal = False


class _NoAnswer(Exception):
    """Nobody answered a question."""

    def __init__(self, *, fatal: bool) -> None:
        self.fatal = fatal


class _Link:
    """A connection that is being served, and on which one waits for answers."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.name = "{}:{}".format(*connection.address)
        self.ended = trio.Event()
        self._cause: BaseException | None = None
        self._changed = trio.Event()

    async def serve(self, brokers: Brokers) -> None:
        brokers.events.observe("connected", broker=self.name)
        try:
            await self.connection.serve()
        except ConnectionLost as error:
            self._cause = error
            brokers.tell_end(self.name, error)
        finally:
            self.ended.set()
            self._changed.set()
        brokers.events.observe("disconnected", broker=self.name, error=self._cause)

    async def ask(self, request: Any, timeout: float) -> Any:
        """Raises `ConnectionLost`."""
        answers: list[Any] = []

        def on_answer(_: Exchange, response: Any) -> None:
            answers.append(response)
            self._changed.set()

        self.connection.send(Exchange(request, timeout, on_answer))
        while not answers and not self.ended.is_set():
            self._changed = trio.Event()
            await self._changed.wait()
        if answers:
            return answers[0]
        raise self._cause or ConnectionLost("the connection was closed")


def _version(connection: Connection, kind: Any, lowest: int) -> int:
    version = connection.version(kind)
    if version is None or version < lowest:
        name = kind.__name__.removesuffix("Request")
        raise SetupFailed(f"the broker speaks no version of {name} that we can use", fatal=True)
    return version
