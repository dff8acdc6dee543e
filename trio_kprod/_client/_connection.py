"""One connection to one broker: opened, authenticated, then a writer and a reader side by side.

A failed write does not end the connection at once: the broker may have sent a response or a TLS alert first
(with TLS 1.3 it refuses our certificate only after the handshake). So the reader goes on for a second, and
if it fails, too, its error is the one that is raised.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import trio

from .._errors import ConnectionLost, NoResponse
from ._diagnosis import of_no_way
from ._exchange import ApiExchange, Exchange, Frames, decode
from ._handshake import CONNECTING, Handshake, SetupFailed as SetupFailed
from ._reasons import CLOSED, STREAM_ERRORS, is_mute, losing, reason, tls_error
from ._sasl import AuthenticationFailed
from ._transport import RECEIVE_SIZE, Fence, Network
from ._writer import InFlight, Writer, patience

if TYPE_CHECKING:
    from .._settings import Settings

#: How long the reader may go on after a write failed, in seconds. What it waits for has been sent already.
LAST_WORDS = 1.0

#: If a wait ends later than it should by this time, in seconds, the process or its loop stood still. The
#: reader then first reads what has come meanwhile, before it calls anything late.
_STOOD_STILL = 0.1

#: The largest response while a connection is being opened. None needs a tenth of it, and its sender has not
#: been authenticated yet.
_SETUP_MAX_BYTES = 100_000


class _OwnRequest(ApiExchange):
    """A request of the connection's own."""

    __slots__ = ("responded", "response")

    def __init__(self, request: Any, timeout: float, expects_response: bool | None) -> None:
        super().__init__(request, timeout, _OwnRequest._respond, expects_response=expects_response)
        self.responded = trio.Event()
        self.response: Any = None

    def _respond(self, response: Any) -> None:
        self.response = response
        self.responded.set()


class Connection:
    """One connection to one broker.

    `open` it, then `serve` it in the same task: only `serve` closes what `open` opened. `send`, `withdraw`
    and `close` are for other tasks of the same loop.

    Args:
        address (tuple[str, int]): host and port.
        settings (Settings): the producer's.
        network (Network): where the stream comes from.
        fence (Fence): what may stop it.
        node_id (int | None): the broker's, if it is known; for texts only.
        needs: (request class, lowest usable version) pairs; `open` fails if the broker lacks one.
        provider_limiter (trio.CapacityLimiter | None): bounds the threads in which token providers run.
        on_throttle: called with the seconds by which a throttle of the broker makes the present pause longer.
        may_guess: whether nothing is known yet of what this address speaks, so that errors may guess.
        if_unreachable: what to do if there is no way to this address.

    Attributes:
        served_for (float): after `serve`, how many seconds the connection served: from its opening to
            its end, or 0 if it neither got a response nor wrote a request that gets none.
        ended_idle (bool): after `serve`, whether the stream ended while no request waited for anything.
    """

    def __init__(
        self,
        address: tuple[str, int],
        settings: Settings,
        network: Network,
        fence: Fence,
        node_id: int | None = None,
        *,
        needs: Sequence[tuple[Any, int]] = (),
        provider_limiter: trio.CapacityLimiter | None = None,
        on_throttle: Callable[[float], object] | None = None,
        may_guess: Callable[[], bool] = lambda: True,
        if_unreachable: str = "",
    ) -> None:
        self.address = address
        self.node_id = node_id
        self.served_for = 0.0
        self.ended_idle = False
        self._settings = settings
        self._network = network
        self._handshake = Handshake(address[0], settings, needs, provider_limiter)
        self._in_flight = InFlight(on_throttle)
        self._writer = Writer(fence, settings.client_id, self._in_flight)
        self._may_guess = may_guess
        self._if_unreachable = if_unreachable
        self._nonsense = b""  # what came and is not Kafka's protocol
        self._stream: trio.abc.Stream | None = None
        self._frames = Frames(min(_SETUP_MAX_BYTES, settings.receive_message_max_bytes))
        self._serving = trio.CancelScope()

    def __repr__(self) -> str:
        host, port = self.address
        counts = f"{len(self._writer.queue)} queued, {len(self._in_flight.exchanges)} in flight"
        return f"<Connection to {host}:{port}, node {self.node_id}, {counts}>"

    @property
    def doing(self) -> str:
        """The step of `open` that was begun last."""
        return self._handshake.doing

    # -----------------------------------------------------------------------------------------------------
    # Opening

    async def open(self) -> None:
        """Connect, agree on TLS and versions, authenticate: all within `connection_setup_timeout`.

        Raises:
            SetupFailed: it did not work, or not in time. Nothing stays open, also after `trio.Cancelled`.
        """
        timeout = self._settings.connection_setup_timeout
        with trio.move_on_after(timeout) as scope:
            try:
                await self._open()
            except (OSError, *STREAM_ERRORS, AuthenticationFailed) as error:
                raise self._failure(error) from error
        if scope.cancelled_caught:
            raise self._failed(None, f"not finished within {timeout:g} s")

    def _failure(self, error: Exception) -> SetupFailed:
        if isinstance(error, OSError) and self.doing == CONNECTING and tls_error(error) is None:
            return self._failed(error, reason(error))
        return self._handshake.failure(error, self._nonsense, may_guess=self._may_guess())

    def _failed(self, error: OSError | None, words: str) -> SetupFailed:
        advice = self._if_unreachable if self.doing == CONNECTING and self._may_guess() else ""
        return SetupFailed(self.doing, of_no_way(error, words, advice))

    async def _open(self) -> None:
        transport = self._stream = await self._network.open_stream(*self.address)
        try:
            if self._settings.ssl_context is not None:
                self._stream = await self._handshake.start_tls(transport, self._settings.ssl_context)
            self._writer.attach(self._stream, transport)
            await self._beside_reader(lambda: self._handshake.introduce(self._ask))
        except BaseException:
            await trio.aclose_forcefully(transport)
            raise

    async def _ask(self, request: Any, expects_response: bool | None = None) -> Any:
        """Send a request of our own and return its response; only for the task that writes."""
        own = _OwnRequest(request, self._settings.request_timeout, expects_response)
        await self._writer.write_ahead(own)
        # No checkpoint if the response is here: the stream may have ended right after it, which cancels us.
        if own.expects_response and not own.responded.is_set():
            await own.responded.wait()
        return own.response

    def version(self, request_class: Any) -> int | None:
        """The highest version of a request that both sides speak, or None if they share no version."""
        return self._handshake.version(request_class)

    def usable_version(self, request_class: Any, lowest: int) -> int:
        """The same. Raises `SetupFailed` if they share no version, or only versions below `lowest`."""
        return self._handshake.usable_version(request_class, lowest)

    # -----------------------------------------------------------------------------------------------------
    # Serving

    def send(self, exchange: Exchange) -> None:
        """Have a request written after those before it: at once, or by the writer. Never blocks.

        Requests that are sent before `serve` wait for it. Those that are sent too late are `unanswered`.
        """
        self._writer.send(exchange)

    def withdraw(self, exchange: Exchange) -> None:
        """Do not write a request after all. Once its write has started, this does nothing."""
        self._writer.withdraw(exchange)

    @property
    def queued(self) -> Sequence[Exchange]:
        """The requests that are not written yet; the write of the first may have started."""
        return self._writer.queue

    def close(self) -> None:
        """Make `serve` close the connection and return. Idempotent; not a checkpoint."""
        self._serving.cancel()

    def unanswered(self) -> list[Exchange]:
        """The requests without a response, as sent, once `serve` has ended. `write_started` is final."""
        return [one for one in self._writer.unanswered() if not isinstance(one, _OwnRequest)]

    async def serve(self) -> None:
        """Write requests and take responses until the connection ends; then it is closed.

        Returns after `close`, and when nothing was sent or answered for `connections_max_idle` seconds.
        Cancelled, it closes as well. Afterwards see `unanswered`.

        Raises:
            ConnectionLost: the broker or the network ended it, did not respond in time, or sent nonsense.
        """
        assert self._stream is not None, "open() comes first"
        self._frames.limit = self._settings.receive_message_max_bytes
        self._in_flight.max_idle = self._settings.connections_max_idle
        self._in_flight.completed = 0
        opened_at = self._in_flight.use()
        try:
            with self._serving:
                await self._beside_reader(self._write)
        except AuthenticationFailed as error:
            raise ConnectionLost(f"{self.doing}, again: {reason(error)}") from error
        finally:
            if self._in_flight.completed:
                self.served_for = trio.current_time() - opened_at
            await trio.aclose_forcefully(self._stream)

    async def _beside_reader(self, write: Callable[[], Awaitable[None]]) -> None:
        """Run `write` and the reader until one of them ends, and raise what ended them."""
        reader, writer = _Side(self._read), _Side(write)
        async with trio.open_nursery() as nursery:
            # The reader first: over TLS, a broken write keeps a later read from seeing the broker's alert.
            await nursery.start(reader.run_and_cancel, nursery.cancel_scope)
            await writer.run()
            if isinstance(writer.error, ConnectionLost):
                with trio.move_on_after(LAST_WORDS):
                    await reader.ended.wait()
            nursery.cancel_scope.cancel()
        errors = [error for error in (reader.error, writer.error) if error is not None]
        # A bug, or a refusal that came together with the end, says more than the end.
        errors.sort(key=lambda error: (isinstance(error, ConnectionLost), is_mute(error)))
        if errors:
            raise errors[0]

    async def _write(self) -> None:
        """The writer's task."""
        writer, in_flight, handshake = self._writer, self._in_flight, self._handshake
        while True:
            with trio.move_on_at(handshake.renew_at):
                await writer.wait_for_work()
            if writer.is_midway:
                await writer.write_next()
            elif trio.current_time() < in_flight.throttled_until:
                await trio.sleep_until(in_flight.throttled_until)
            elif trio.current_time() >= handshake.renew_at:
                await self._authenticate_again()
            elif writer.queue:
                await writer.write_next()

    async def _authenticate_again(self) -> None:
        """KIP-368: on the same connection, with nothing else on the way."""
        await self._in_flight.drained()
        await trio.sleep_until(self._in_flight.throttled_until)
        timeout = self._settings.connection_setup_timeout
        with trio.move_on_after(timeout) as scope:
            await self._handshake.authenticate(self._ask)
        if scope.cancelled_caught:
            raise AuthenticationFailed(f"not finished within {timeout:g} s", fatal=False)

    # -----------------------------------------------------------------------------------------------------
    # The reader

    async def _read(self) -> None:
        """The reader's task."""
        in_flight = self._in_flight
        while True:
            in_flight.reading = trio.CancelScope(deadline=in_flight.patient_until())
            with in_flight.reading:
                await self._receive()
            if trio.current_time() > in_flight.reading.deadline + _STOOD_STILL:
                with trio.move_on_after(LAST_WORDS):
                    await self._receive()
            late = [one for one in in_flight.exchanges if one.deadline <= trio.current_time()]
            if late:
                what = "no response to" if late[0].expects_response else "no room to write"
                raise NoResponse(f"{what} {late[0].name} within {patience(late[0]):g} s")
            if self._is_unused() and trio.current_time() >= in_flight.patient_until():
                return

    def _is_unused(self) -> bool:
        return not self._in_flight.exchanges and not self._writer.queue

    async def _receive(self) -> None:
        assert self._stream is not None
        while True:
            try:
                with losing():
                    data = await self._stream.receive_some(RECEIVE_SIZE)
                if not data:
                    raise ConnectionLost(CLOSED)
            except ConnectionLost:
                self.ended_idle = self._is_unused()
                raise
            try:
                for frame in self._frames.feed(data):
                    self._take(frame)
            except ConnectionLost:
                self._nonsense = bytes(data)
                raise

    def _take(self, frame: bytes) -> None:
        """Take one response."""
        in_flight = self._in_flight
        if not in_flight.exchanges or not in_flight.exchanges[0].expects_response:
            raise ConnectionLost(f"a response of {len(frame)} bytes without a request")
        throttle_ms, meaning = decode(in_flight.exchanges[0], frame)
        exchange = in_flight.take_first()
        exchange.response_bytes = len(frame)
        if throttle_ms > 0:
            in_flight.throttle(throttle_ms / 1000)
        exchange.on_response(exchange, meaning)


class _Side:
    """The reader or the writer, and how it ended."""

    def __init__(self, work: Callable[[], Awaitable[None]]) -> None:
        self.ended = trio.Event()
        self.error: Exception | None = None
        self._work = work

    async def run(self) -> None:
        try:
            await self._work()
        except ConnectionLost as error:
            # Without its traceback, which would keep what was received as long as somebody keeps the error.
            self.error = error.with_traceback(None)
        except Exception as error:  # kept for `_beside_reader`, which raises it outside of the nursery
            self.error = error
        self.ended.set()

    @trio.lowlevel.enable_ki_protection
    async def run_and_cancel(
        self, scope: trio.CancelScope, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        task_status.started()
        await self.run()
        scope.cancel()
