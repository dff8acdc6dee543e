"""The connections of one client: one to each broker that leads something, and one for questions.

Nothing here decides anything about messages. Each connection's fate is told to the client as an event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from kafka.protocol.producer import ProduceRequest, ProduceResponse

from .._errors import ConnectionLost
from ._any_broker import AnyBroker
from ._connection import SetupFailed
from ._endpoints import Address, Endpoints, Events, name_of
from ._exchange import Exchange, decode_api
from ._produce_codec import HIGHEST_VERSION, LOWEST_VERSION, ProduceMessage
from ._protocol import ProduceAnswers, produce_answers, produce_message

if TYPE_CHECKING:
    from .._core import Request
    from .._settings import Settings
    from ._transport import Fence, Network


class Brokers:
    """All connections. `run` serves them until it is cancelled."""

    def __init__(self, settings: Settings, network: Network, fence: Fence, events: Events) -> None:
        self._settings = settings
        self._events = events
        self._endpoints = Endpoints(settings, network, fence, events)
        self._produce: dict[int, ProduceConnection] = {}
        self.any_broker = AnyBroker(self._endpoints)

    async def run(self) -> None:
        """Connect to any broker, then serve until cancelled; return if no broker can be reached."""
        async with trio.open_nursery() as nursery:
            self._endpoints.nursery = nursery
            failure = await self.any_broker.open()
            self._events.opened(failure)
            if failure is None:
                await self.any_broker.run()
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


class _ProduceExchange(Exchange):
    """A produce request and its answer."""

    __slots__ = ("message", "started")

    name = "Produce"

    def __init__(self, message: ProduceMessage, timeout: float, owner: ProduceConnection) -> None:
        super().__init__(timeout, owner.answered, on_sent=owner.sent, expects_answer=message.expects_answer)
        self.message = message
        self.started = trio.current_time()

    @property
    def request(self) -> Request:
        return self.message.request

    def start_write(self) -> None:
        self.write_started = self.request.write_started = True

    def encode(self, client_id: str) -> bytes:
        return self.message.encode(self.correlation_id, client_id)

    def decode(self, frame: bytes) -> tuple[int, ProduceAnswers]:
        plain = self.message.read_plain(frame)
        if plain is not None:
            answers, throttle_ms = plain
            return throttle_ms, ProduceAnswers(answers, {})
        version = self.message.version
        response = decode_api(ProduceResponse[version], frame)
        return response.throttle_time_ms, produce_answers(self.request, version, response)


class ProduceConnection:
    """The connection over which one broker gets its batches."""

    def __init__(self, endpoints: Endpoints, node: int, address: Address) -> None:
        self._endpoints = endpoints
        self._settings = endpoints.settings
        self._events = endpoints.events
        self._node = node
        self._name = name_of(address)
        self.pace = endpoints.pace(address, node)
        needs = ((ProduceRequest, LOWEST_VERSION),)
        self._connection = endpoints.make_connection(address, node, needs=needs)
        self._version = 0

    async def open(self) -> None:
        """Raises `SetupFailed`."""
        await self.pace.wait()
        self.pace.attempt()
        await self._connection.open()
        self._version = min(self._connection.usable_version(ProduceRequest, LOWEST_VERSION), HIGHEST_VERSION)

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
        message = produce_message(request, version=self._version, acks=self._settings.acks, timeout=timeout)
        self._connection.send(_ProduceExchange(message, timeout, self))

    def sent(self, exchange: _ProduceExchange) -> None:
        if not exchange.expects_answer:
            self._observe(exchange)
            self._events.sent(exchange.request)

    def answered(self, exchange: _ProduceExchange, told: ProduceAnswers) -> None:
        self.pace.answered()
        if told.moved:
            self._endpoints.addresses.update(told.moved)
        self._observe(exchange)
        self._events.answered(exchange.request, told.answers)

    def _tell_lost(self, cause: BaseException) -> None:
        requests: list[Request] = []
        for exchange in self._connection.unanswered():
            assert isinstance(exchange, _ProduceExchange)
            exchange.request.write_started = exchange.write_started
            requests.append(exchange.request)
            self._observe(exchange, cause)
        self._events.observe("disconnected", broker=self._name, error=cause)
        self._events.lost(self._node, requests, cause)

    def _observe(self, exchange: _ProduceExchange, error: BaseException | None = None) -> None:
        duration = trio.current_time() - exchange.started
        if self._events.wants("request"):
            self._events.observe(
                "request",
                broker=self._name,
                api=exchange.name,
                request_bytes=exchange.request_bytes,
                response_bytes=exchange.response_bytes,
                duration=duration,
                error=error,
            )
        if self._events.wants("send_messages"):
            count = sum(len(batch.entries) for batch in exchange.request.batches)
            self._events.observe(
                "send_messages",
                broker=self._name,
                message_count=count,
                sent_message_count=0 if error else count,
                duration=duration,
            )
