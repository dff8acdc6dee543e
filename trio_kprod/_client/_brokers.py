"""The connections of one client: one to each broker that leads something, and one to any broker.

Nothing here decides anything about messages. What happens on connections goes to the produce core as events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio
from kafka.protocol.producer import ProduceRequest

from .._core import Opened
from .._errors import ConnectionLost
from ._any_broker import AnyBroker
from ._connection import SetupFailed
from ._endpoints import Address, Endpoints, name_of
from ._produce_codec import HIGHEST_VERSION, ProduceExchange, lowest_version
from ._protocol import ProduceOutcome

if TYPE_CHECKING:
    from .._core import ProduceCore, Request, Shrunk
    from .._settings import Settings
    from ._steps import Reporter, Steps
    from ._transport import Fence, Network
    from ._troubles import TroubleLog


class Brokers:
    """All connections. `run` serves them until it is cancelled."""

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
        self._settings = settings
        self._core = core
        self._steps = steps
        self._reporter = reporter
        self._endpoints = Endpoints(settings, network, fence, core, steps, reporter, log)
        self._produce: dict[int, ProduceConnection] = {}
        self.any_broker = AnyBroker(self._endpoints)

    async def run(self) -> None:
        """Connect to any broker, then serve until cancelled; return if no broker can be reached."""
        async with trio.open_nursery() as nursery:
            self._endpoints.nursery = nursery
            failure = await self.any_broker.open()
            self._steps.post_and_run(self._reporter.put, Opened(failure))
            if failure is None:
                await self.any_broker.run()
            nursery.cancel_scope.cancel()

    def connect(self, node: int) -> None:
        """Open a connection to a node; `ProduceCore.connected` or `.unreachable` follows."""
        self._endpoints.start_soon(self._serve, node)

    def send(self, request: Request) -> None:
        """Send a request over the connection to its node."""
        connection = self._produce.get(request.node)
        if connection is None:  # it ended while this was being decided
            cause = ConnectionLost("the connection has ended")
            self._steps.post(self._core.lost, request.node, [request], cause)
        else:
            connection.send(request)

    def withdraw(self, request: Request) -> None:
        """Do not send a request after all, unless its write has started."""
        connection = self._produce.get(request.node)
        if connection is not None:
            connection.withdraw(request)

    def tell_shrunk(self, told: Shrunk) -> None:
        """Requests to a node are made smaller. That costs speed, so it is told."""
        address = self._endpoints.addresses.get(told.node)
        self._endpoints.log.event(
            f"node {told.node}" if address is None else name_of(address),
            f"ends the connection at each request of {told.size} bytes, so requests are kept to {told.limit} "
            f"bytes; perhaps its socket.request.max.bytes is lower than batch_size or max_request_size",
        )

    def trouble(self) -> ConnectionLost | None:
        """What is wrong with brokers just now."""
        return self._endpoints.trouble()

    @trio.lowlevel.enable_ki_protection
    async def _serve(self, node: int) -> None:
        address = self._endpoints.addresses.get(node)
        if address is None:  # metadata named a leader whose address it did not give
            await trio.sleep(self._settings.reconnect_backoff_max)
            cause = ConnectionLost(f"metadata named node {node} as leader, but not its address")
            self._steps.post(self._core.unreachable, node, cause)
            return
        connection = ProduceConnection(self._endpoints, node, address)
        try:
            await connection.open()
        except SetupFailed as error:
            self._endpoints.tell_failure(connection.pace, error)
            # Perhaps the node is elsewhere by now; but do not look for it more often than this.
            await trio.sleep(self._settings.reconnect_backoff)
            self._steps.post(self._core.unreachable, node, self._endpoints.explain(address, error))
            return
        self._produce[node] = connection
        try:
            await connection.serve()
        finally:
            del self._produce[node]


class ProduceConnection:
    """The connection over which one broker gets its batches."""

    def __init__(self, endpoints: Endpoints, node: int, address: Address) -> None:
        self.pace = endpoints.pace(address, node)
        self._endpoints = endpoints
        self._settings = endpoints.settings
        self._core = endpoints.core
        self._steps = endpoints.steps
        self._node = node
        self._address = address
        self._lowest = lowest_version(endpoints.settings.compression)
        needs = ((ProduceRequest, self._lowest),)
        self._connection = endpoints.make_connection(address, node, needs=needs)
        self._version = 0

    async def open(self) -> None:
        """Raises `SetupFailed`."""
        await self.pace.wait()
        self.pace.attempt()
        await self._connection.open()
        self._endpoints.opened(self._address)
        self._version = min(self._connection.usable_version(ProduceRequest, self._lowest), HIGHEST_VERSION)

    async def serve(self) -> None:
        self._steps.post(self._core.connected, self._node)
        error: ConnectionLost | None = None
        try:
            await self._connection.serve()
        except ConnectionLost as lost:
            error = lost
        # Not in a `finally`: a cancelled connection is one being stopped, and then the fence tells what
        # was written.
        self._tell_lost(error or ConnectionLost("closed after it had been idle"))
        self._endpoints.tell_end(self.pace, self._connection, error)

    def send(self, request: Request) -> None:
        self._connection.send(
            ProduceExchange(
                request,
                self._version,
                self._settings.acks,
                self._settings.request_timeout,
                self._on_response,
                on_sent=None if self._settings.acks else self._on_sent,
                started_at=trio.current_time(),
            )
        )

    def withdraw(self, request: Request) -> None:
        for exchange in self._connection.queued:
            if isinstance(exchange, ProduceExchange) and exchange.request is request:
                self._connection.withdraw(exchange)
                break

    def _on_sent(self, exchange: ProduceExchange) -> None:
        """With ``acks=0``, this is all that we ever learn."""
        self._endpoints.responded(self.pace)
        self._observe(exchange)
        self._steps.post(self._core.sent, exchange.request)

    def _on_response(self, exchange: ProduceExchange, outcome: ProduceOutcome) -> None:
        self._endpoints.responded(self.pace)
        if outcome.moved:
            self._endpoints.addresses.update(outcome.moved)
        self._observe(exchange, outcome)
        self._steps.post_and_run(self._core.responded, exchange.request, outcome.responses)

    def _tell_lost(self, cause: BaseException) -> None:
        requests: list[Request] = []
        for exchange in self._connection.unanswered():
            assert isinstance(exchange, ProduceExchange)
            requests.append(exchange.request)
            self._observe(exchange, error=cause)
        # Also without a request: a broker that is no longer the leader may close the connection to say so.
        self._steps.post(self._core.lost, self._node, requests, cause)

    def _observe(
        self,
        exchange: ProduceExchange,
        outcome: ProduceOutcome | None = None,
        error: BaseException | None = None,
    ) -> None:
        """For instruments: there was a response, or an error, or (``acks=0``) all is written."""
        reporter = self._endpoints.reporter
        if not reporter.hooks:
            return
        if error is not None:
            acknowledged = 0
        elif outcome is None:
            acknowledged = exchange.message_count
        else:
            acknowledged = exchange.acknowledged(outcome.responses)
        duration = trio.current_time() - exchange.started_at
        reporter.observe(
            "request",
            broker=name_of(self._address),
            api=exchange.name,
            request_bytes=exchange.request_bytes,
            response_bytes=exchange.response_bytes,
            duration=duration,
            error=error,
        )
        reporter.observe(
            "send_messages",
            broker=name_of(self._address),
            message_count=exchange.message_count,
            sent_message_count=acknowledged,
            duration=duration,
        )
