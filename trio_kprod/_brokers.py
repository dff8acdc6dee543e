"""The connections of one client: one to each broker that leads something, and one for questions.

Nothing here decides anything about messages. Each connection's fate is told to the client as an event.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import trio
from kafka.protocol.producer import ProduceRequest

from ._connection import SetupFailed
from ._endpoints import Address, Endpoints, Events, name_of
from ._errors import ConnectionLost
from ._exchange import Exchange
from ._protocol import LOWEST_PRODUCE_VERSION, ProduceAnswers, produce_answers, produce_request
from ._questions import Questions

if TYPE_CHECKING:
    from ._config import Settings
    from ._core._batch import Request
    from ._transport import Fence, Network


class Brokers:
    """All connections. `run` serves them until it is cancelled."""

    def __init__(self, settings: Settings, network: Network, fence: Fence, events: Events) -> None:
        self._settings = settings
        self._events = events
        self._endpoints = Endpoints(settings, network, fence, events)
        self._produce: dict[int, ProduceConnection] = {}
        self.questions = Questions(self._endpoints)

    async def run(self) -> None:
        """Connect to any broker, then serve until cancelled; return if no broker can be reached."""
        async with trio.open_nursery() as nursery:
            self._endpoints.nursery = nursery
            failure = await self.questions.open()
            self._events.opened(failure)
            if failure is None:
                await self.questions.run()
            nursery.cancel_scope.cancel()

    def connect(self, node: int) -> None:
        """Open a connection to a node; `Events.connected` or `Events.unreachable` follows."""
        self._endpoints.start_soon(self._serve, node)

    def send(self, request: Request) -> None:
        """Send a request over the connection to its node."""
        connection = self._produce.get(request.node)
        if connection is None:  # it ended while this was being decided
            self._events.lost(request.node, [request], ConnectionLost("the connection has ended"))
        else:
            connection.send(request)

    def troubles(self) -> str:
        """What is wrong with brokers just now, to be added to an error."""
        return self._endpoints.troubles()

    async def _serve(self, node: int) -> None:
        address = self._endpoints.addresses.get(node)
        if address is None:  # metadata named a leader whose address it did not give
            await trio.sleep(self._settings.reconnect_backoff_max)
            self._events.unreachable(node)
            return
        connection = ProduceConnection(self._endpoints, node, address)
        try:
            await connection.open()
        except SetupFailed as error:
            self._endpoints.tell_failure(connection.pace, error)
            # Perhaps it is somewhere else by now; but not more often than this.
            await trio.sleep(self._settings.reconnect_backoff)
            self._events.unreachable(node)
            return
        self._produce[node] = connection
        try:
            await connection.serve()
        finally:
            del self._produce[node]


class _Flight(NamedTuple):
    """What is to be remembered of a request until it is answered."""

    request: Request
    started: float


class ProduceConnection:
    """The connection over which one broker gets its batches."""

    def __init__(self, endpoints: Endpoints, node: int, address: Address) -> None:
        self._endpoints = endpoints
        self._settings = endpoints.settings
        self._events = endpoints.events
        self._node = node
        self._name = name_of(address)
        self.pace = endpoints.pace(address, node)
        needs = ((ProduceRequest, LOWEST_PRODUCE_VERSION),)
        self._connection = endpoints.make_connection(address, node, needs=needs)
        self._version = 0
        self._flights: dict[Exchange, _Flight] = {}

    async def open(self) -> None:
        """Raises `SetupFailed`."""
        await self.pace.wait()
        self.pace.attempt()
        await self._connection.open()
        self._version = self._connection.usable_version(ProduceRequest, LOWEST_PRODUCE_VERSION)

    async def serve(self) -> None:
        self._events.observe("connected", broker=self._name)
        self._events.connected(self._node)
        cause: BaseException = ConnectionLost("closed after it had been idle")
        try:
            await self._connection.serve()
        except ConnectionLost as error:
            cause = error
            self._endpoints.tell_end(self.pace, error)
        # Not in a `finally`: a cancelled connection is one being stopped, and then the fence tells what
        # was written.
        self._tell_lost(cause)

    def send(self, request: Request) -> None:
        timeout = self._settings.request_timeout
        message = produce_request(request, version=self._version, acks=self._settings.acks, timeout=timeout)
        exchange = Exchange(
            message,
            timeout,
            self._on_answer,
            read=partial(produce_answers, request, message.API_VERSION),
            on_handed=self._on_handed,
            on_sent=self._on_sent,
        )
        self._flights[exchange] = _Flight(request, trio.current_time())
        self._connection.send(exchange)

    def _on_handed(self, exchange: Exchange) -> None:
        self._flights[exchange].request.handed = True

    def _on_sent(self, exchange: Exchange) -> None:
        if not exchange.expects_answer:
            flight = self._flights.pop(exchange)
            self._events.sent(flight.request)
            self._observe(exchange, flight)

    def _on_answer(self, exchange: Exchange, told: ProduceAnswers) -> None:
        flight = self._flights.pop(exchange)
        self.pace.answered()
        self._endpoints.addresses.update(told.moved)
        self._events.answered(flight.request, told.answers)
        self._observe(exchange, flight)

    def _tell_lost(self, cause: BaseException) -> None:
        requests: list[Request] = []
        for exchange in self._connection.unanswered():
            flight = self._flights.pop(exchange)
            flight.request.handed = exchange.handed
            requests.append(flight.request)
            self._observe(exchange, flight, cause)
        self._events.lost(self._node, requests, cause)
        self._events.observe("disconnected", broker=self._name, error=cause)

    def _observe(self, exchange: Exchange, flight: _Flight, error: BaseException | None = None) -> None:
        if not self._settings.instruments:
            return
        duration = trio.current_time() - flight.started
        count = sum(len(batch.entries) for batch in flight.request.batches)
        self._events.observe(
            "request",
            broker=self._name,
            api=exchange.name,
            request_bytes=exchange.request_bytes,
            response_bytes=exchange.response_bytes,
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
