"""One connection to one broker: opened, authenticated, then a writer and a reader side by side.

A broker answers one connection's requests in their order, so what is in flight is a queue: the writer
appends to it, the reader takes from its front. Two rules decide what is told when a connection ends:

- **The reader's word counts.** What the broker said before the end (an answer that came together with it,
  a TLS alert about our certificate, which TLS 1.3 sends only after the handshake) is still to be read when
  a write has failed already. So when the writer breaks, the reader goes on to its own end, for a second.
- **Handed over means perhaps written.** A request is marked, under the fence's lock, before its first byte
  is given to the stream. Afterwards the count of the transport below TLS tells whether any byte really
  left; where there is no count, the mark stands.
"""

from __future__ import annotations

import random
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import kafka.errors
import trio
from kafka.protocol.metadata.api_versions import ApiVersionsRequest

from .._errors import ConnectionLost, ProducerError
from .._version import __version__
from ._exchange import ApiExchange, Exchange, Frames, decode
from ._reasons import STREAM_ERRORS, causes, is_about_certificate, is_mute, losing, reason
from ._sasl import AuthenticationFailed, Authenticator
from ._transport import RECEIVE_SIZE, Fence, FencedStream, Network

if TYPE_CHECKING:
    from .._settings import Settings

#: How long the reader may go on after the writer broke, in seconds. What it waits for has been sent already.
LAST_WORDS = 1.0

#: The largest answer while a connection is being opened. Nothing that is said then needs a hundredth of it,
#: and whoever says it has not been authenticated yet.
_SETUP_MAX_BYTES = 1_000_000

#: What the broker's statistics show us as. Kafka allows letters, digits, "-" and "." only (KIP-511).
SOFTWARE_NAME = "trio-kprod"


class SetupFailed(ProducerError):
    """A connection could not be opened; the text says in one line what was being done and the true cause.

    Attributes:
        fatal (bool): it is about credentials, certificates or settings, so trying again is of no use.
    """

    def __init__(self, text: str, *, fatal: bool = False) -> None:
        super().__init__(text)
        self.fatal = fatal


class _OwnRequest(ApiExchange):
    """A request of the connection's own."""

    __slots__ = ("answer",)

    def __init__(self, request: Any, timeout: float, expects_answer: bool | None) -> None:
        super().__init__(request, timeout, _keep_answer, expects_answer=expects_answer)
        self.answer: Any = None


def _keep_answer(request: _OwnRequest, response: Any) -> None:
    request.answer = response


class Connection:
    """One connection to one broker.

    `open` it, then `serve` it in the same task: nothing but `serve` closes what `open` opened. `send` and
    `close` are for other tasks of the same loop. `doing` is the step of `open` that was begun last.

    Args:
        address (tuple[str, int]): host and port.
        settings (Settings): the producer's.
        network (Network): where the stream comes from.
        fence (Fence): what may stop it.
        node_id (int | None): the broker's, if it is known; for texts only.
        needs: classes of requests, each with its lowest version of use, without which a broker is of none.
        provider_limiter (trio.CapacityLimiter | None): bounds the threads in which token providers run.
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
    ) -> None:
        self.address = address
        self.node_id = node_id
        self._needs = needs
        self._settings = settings
        self._network = network
        self._fence = fence
        self._authenticator = _make_authenticator(settings, address[0], provider_limiter)
        self.doing = "connecting"
        self._transport: trio.abc.Stream | None = None
        self._stream: trio.abc.Stream | None = None
        self._scope = trio.CancelScope()
        # Ends the reader: when an answer is late, or when the connection has been idle for too long.
        self._patience = trio.CancelScope()
        self._frames = Frames(min(_SETUP_MAX_BYTES, settings.receive_message_max_bytes))
        self._queue: deque[Exchange] = deque()
        self._in_flight: deque[Exchange] = deque()
        # A request that was begun outside of the writer's task, and what is left of it for the writer.
        self._unsent: tuple[Exchange, memoryview] | None = None
        self._failure: ConnectionLost | None = None  # of a write outside of the writer's task
        # What the writer waits for, and how it is woken.
        self._awaited: Callable[[], bool] | None = None
        self._changed = trio.Event()
        self._correlation_id = 0
        self._versions: dict[int, tuple[int, int]] = {}
        self._answers = 0
        self._max_idle = float("inf")
        self._quiet_since = 0.0
        self._throttled_until = -float("inf")
        self._authenticate_at = float("inf")

    def __repr__(self) -> str:
        host, port = self.address
        counts = f"{len(self._queue)} queued, {len(self._in_flight)} in flight"
        return f"<Connection to {host}:{port}, node {self.node_id}, {counts}>"

    # -----------------------------------------------------------------------------------------------------
    # Opening

    async def open(self) -> None:
        """Connect, agree on TLS and versions, authenticate: all within `connection_setup_timeout`.

        Raises:
            SetupFailed: it did not work, or not in time. Nothing is left open, nor after `trio.Cancelled`.
        """
        timeout = self._settings.connection_setup_timeout
        with trio.move_on_after(timeout) as scope:
            try:
                await self._open()
            except BaseException:
                if self._transport is not None:
                    await trio.aclose_forcefully(self._transport)
                raise
        if scope.cancelled_caught:
            raise SetupFailed(f"{self.doing}: not finished within {timeout:g} s")
        host, port = self.address
        self._settings.logger.info("connected to %s:%d (node %s)", host, port, self.node_id)

    async def _open(self) -> None:
        try:
            self._transport = self._stream = await self._network.open_stream(*self.address)
            if self._settings.ssl_context is not None:
                await self._start_tls(self._transport, self._settings.ssl_context)
            await self._beside_reader(self._introduce)
        except (OSError, *STREAM_ERRORS, AuthenticationFailed) as error:
            raise self._setup_failed(error) from error

    async def _start_tls(self, transport: trio.abc.Stream, context: ssl.SSLContext) -> None:
        self.doing = "TLS handshake"
        # A certificate names the host without the dot that keeps a resolver from adding a domain.
        hostname = self.address[0].strip("[]").rstrip(".")
        try:
            stream = trio.SSLStream(transport, context, server_hostname=hostname, https_compatible=True)
        except (ValueError, TypeError, ssl.SSLError) as error:
            raise SetupFailed(f"{self.doing}: {error}", fatal=True) from error
        self._stream = stream
        await stream.do_handshake()

    async def _introduce(self) -> None:
        self.doing = "ApiVersions"
        await self._ask_versions()
        for request_class, lowest in self._needs:
            self.usable_version(request_class, lowest)
        await self._authenticate()

    async def _ask_versions(self) -> None:
        version = ApiVersionsRequest.max_version
        while True:
            response = await self._ask(
                ApiVersionsRequest(
                    version=version, client_software_name=SOFTWARE_NAME, client_software_version=__version__
                )
            )
            if response.error_code != kafka.errors.UnsupportedVersionError.errno or version == 0:
                break
            # Since Kafka 2.4 the refusal says what the broker would have taken (KIP-511).
            offered = {key.api_key: key.max_version for key in response.api_keys or ()}
            version = max(0, min(version - 1, offered.get(ApiVersionsRequest.API_KEY, 0)))
        if response.error_code:
            name = kafka.errors.for_code(response.error_code).message
            raise SetupFailed(f"{self.doing}: {name} ({response.error_code})")
        self._versions = {key.api_key: (key.min_version, key.max_version) for key in response.api_keys or ()}

    async def _authenticate(self) -> None:
        if self._authenticator is None:
            return
        self.doing = f"SASL {self._settings.sasl_mechanism} authentication"
        lifetime = await self._authenticator.authenticate(self._ask, self.version)
        # As Java: early, and not all connections of a client at once. A second at least, so that a broker
        # that grants less leaves room for requests.
        share = random.uniform(0.85, 0.95)
        self._authenticate_at = trio.current_time() + max(lifetime, 1.0) * share if lifetime else float("inf")

    def _setup_failed(self, error: Exception) -> SetupFailed:
        fatal = getattr(error, "fatal", False) or any(map(is_about_certificate, causes(error)))
        hint = "" if fatal else self._hint()
        return SetupFailed(f"{self.doing}: {reason(error)}{hint}", fatal=fatal)

    def _hint(self) -> str:
        if self.doing == "TLS handshake":
            return "; perhaps this is no TLS port (security_protocol)"
        if self.doing == "ApiVersions" and not self._answers and self._settings.ssl_context is None:
            return "; perhaps this is a TLS port (security_protocol)"
        return ""

    def version(self, request_class: Any) -> int | None:
        """The highest version of a request that both sides speak; None if there is none."""
        if request_class.API_KEY not in self._versions:
            return None
        lowest, highest = self._versions[request_class.API_KEY]
        version: int = min(highest, request_class.max_version)
        return version if version >= max(lowest, 0) else None

    def usable_version(self, request_class: Any, lowest: int) -> int:
        """The same, but raises `SetupFailed` if there is none, or none from `lowest` on."""
        version = self.version(request_class)
        if version is None or version < lowest:
            name = request_class.__name__.removesuffix("Request")
            raise SetupFailed(f"the broker speaks no version of {name} that we can use", fatal=True)
        return version

    # -----------------------------------------------------------------------------------------------------
    # Serving

    def send(self, exchange: Exchange) -> None:
        """Have a request written after those before it: at once, or by the writer. Never blocks.

        At any time: what is queued before `serve` waits for it, what is queued too late is `unanswered`.
        """
        self._queue.append(exchange)
        if self._is_writable_now():
            self._write_now()
        self._notice()

    def close(self) -> None:
        """Make `serve` close the connection and return. Idempotent; not a checkpoint."""
        self._scope.cancel()

    def unanswered(self) -> list[Exchange]:
        """After `serve`, however it ended: what has no response, as sent, with `write_started` final."""
        sent = getattr(self._transport, "bytes_sent", None)
        for exchange in self._in_flight:
            # Exact, since only the last one can be without a byte, and nothing was written after it.
            exchange.write_started = exchange.mark is None or exchange.mark != sent
        return [one for one in (*self._in_flight, *self._queue) if not isinstance(one, _OwnRequest)]

    async def serve(self) -> None:
        """Write what is queued and tell what is answered, until the connection ends; then it is closed.

        Returns after `close`, and when nothing was sent or answered for `connections_max_idle` seconds.
        Cancelled, it closes as well. Whatever ended it: see `unanswered`.

        Raises:
            ConnectionLost: the broker or the network ended it, did not answer in time, or said nonsense.
        """
        assert self._stream is not None, "open() comes first"
        self._frames.limit = self._settings.receive_message_max_bytes
        self._max_idle = self._settings.connections_max_idle
        self._quiet_since = trio.current_time()
        self._answers = 0
        try:
            with self._scope:
                await self._beside_reader(self._write_queue)
        except AuthenticationFailed as error:
            raise ConnectionLost(f"{self.doing}, again: {reason(error)}") from error
        finally:
            await trio.aclose_forcefully(self._stream)

    async def _beside_reader(self, write: Callable[[], Awaitable[None]]) -> None:
        """Run `write` and the reader until one of them ends, and raise what ended them."""
        reading, writing = _End(), _End()
        async with trio.open_nursery() as nursery:
            # The reader first: over TLS, a broken write keeps a later read from seeing the broker's alert.
            await nursery.start(self._read_beside, reading, nursery.cancel_scope)
            await writing.of(write)
            if isinstance(writing.error, ConnectionLost):
                with trio.move_on_after(LAST_WORDS):
                    await reading.event.wait()
            nursery.cancel_scope.cancel()
        errors = [error for error in (reading.error, writing.error) if error is not None]
        # A bug, or a refusal that came together with the end, says more than the end.
        errors.sort(key=lambda error: (isinstance(error, ConnectionLost), is_mute(error)))
        if errors:
            raise errors[0]

    async def _read_beside(
        self,
        end: _End,
        scope: trio.CancelScope,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        task_status.started()
        await end.of(self._read)
        scope.cancel()

    # -----------------------------------------------------------------------------------------------------
    # The writer

    async def _write_queue(self) -> None:
        while True:
            with trio.move_on_at(self._authenticate_at):
                await self._until(self._has_work)
                await trio.lowlevel.checkpoint()  # the reader first: perhaps there is no connection any more
            if self._failure is not None:
                raise self._failure
            if self._unsent is not None:
                await self._write(*self._unsent)
                self._unsent = None
            elif trio.current_time() >= self._authenticate_at:
                await self._authenticate_again()
            elif trio.current_time() < self._throttled_until:
                await trio.sleep_until(self._throttled_until)
            else:
                await self._write_next()

    def _has_work(self) -> bool:
        return bool(self._queue or self._unsent or self._failure)

    def _is_writable_now(self) -> bool:
        """Whether the writer has nothing to do but the next request, and that without waiting for anything.

        Then whoever sends it writes it, which saves the writer a turn. Over TLS a write may have to wait. And
        what has come comes first: if it is the end, nothing more may be written, and should be told as such.
        """
        return (
            self._awaited == self._has_work
            and self._stream is self._transport
            and isinstance(self._stream, FencedStream)
            and not (len(self._queue) > 1 or self._unsent or self._failure)
            and trio.current_time() >= self._throttled_until
            and self._stream.is_quiet()
        )

    def _write_now(self) -> None:
        assert isinstance(self._stream, FencedStream)
        try:
            with losing():
                exchange, data = self._next()
                sent = self._stream.send_nowait(data)
        except ConnectionLost as error:  # the writer's to tell: whoever called knows nothing of connections
            self._failure = error
        else:
            if sent < len(data):
                self._unsent = exchange, memoryview(data)[sent:]
            else:
                self._sent(exchange)

    async def _write_next(self) -> None:
        with losing():
            exchange, data = self._next()
        await self._write(exchange, data)

    def _next(self) -> tuple[Exchange, bytes]:
        """Take a request from the queue, as handed over, and its bytes."""
        exchange = self._queue[0]
        data = self._encode(exchange)
        self._start_write(exchange)
        self._queue.popleft()
        return exchange, data

    def _encode(self, exchange: Exchange) -> bytes:
        self._correlation_id = (self._correlation_id + 1) % 2**31
        exchange.correlation_id = self._correlation_id
        data = exchange.encode(self._settings.client_id)
        exchange.request_bytes = len(data)
        return data

    async def _write(self, exchange: Exchange, data: bytes | memoryview) -> None:
        assert self._stream is not None
        with losing():
            await self._stream.send_all(data)
        self._sent(exchange)

    def _sent(self, exchange: Exchange) -> None:
        if not exchange.expects_answer:
            self._in_flight.pop()
        if exchange.on_sent is not None:
            exchange.on_sent(exchange)

    def _start_write(self, exchange: Exchange) -> None:
        """From here on it is perhaps written; the fence's lock makes that one step with being let through."""
        with self._fence.lock:
            self._fence.check()
            exchange.mark = getattr(self._transport, "bytes_sent", None)
            self._quiet_since = trio.current_time()
            exchange.deadline = self._quiet_since + exchange.timeout
            self._in_flight.append(exchange)
            exchange.start_write()
        if exchange.deadline < self._patience.deadline:
            self._patience.deadline = exchange.deadline

    async def _ask(self, request: Any, expect_answer: bool | None = None) -> Any:
        """Send a request of our own and return its response; only for the task that writes."""
        request = _OwnRequest(request, self._settings.request_timeout, expect_answer)
        data = self._encode(request)
        with losing():
            self._start_write(request)
        await self._write(request, data)
        if request.expects_answer:
            await self._until(lambda: request.answer is not None)
        return request.answer

    async def _authenticate_again(self) -> None:
        """KIP-368: on the same connection, with nothing else on the way."""
        await self._until(lambda: not self._in_flight)
        timeout = self._settings.connection_setup_timeout
        with trio.move_on_after(timeout) as scope:
            await self._authenticate()
        if scope.cancelled_caught:
            raise AuthenticationFailed(f"not finished within {timeout:g} s", fatal=False)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed = trio.Event()
            self._awaited = condition
            try:
                await self._changed.wait()
            finally:
                self._awaited = None

    def _notice(self) -> None:
        """Something has changed."""
        if self._awaited is not None and self._awaited():
            self._changed.set()

    # -----------------------------------------------------------------------------------------------------
    # The reader

    async def _read(self) -> None:
        while True:
            self._patience = trio.CancelScope(deadline=self._patient_until())
            with self._patience:
                await self._receive()
            late = [one for one in self._in_flight if one.deadline <= trio.current_time()]
            if late:
                what = "no answer to" if late[0].expects_answer else "no room to write"
                raise ConnectionLost(f"{what} {late[0].name} within {late[0].timeout:g} s")
            if not self._in_flight and not self._queue and trio.current_time() >= self._patient_until():
                return  # idle

    async def _receive(self) -> None:
        assert self._stream is not None
        while True:
            with losing():
                data = await self._stream.receive_some(RECEIVE_SIZE)
            if not data:
                raise ConnectionLost(self._end())
            for frame in self._frames.feed(data):
                self._answer(frame)

    def _end(self) -> str:
        text = "the broker closed the connection"
        first = self.node_id is None and self._versions and not self._answers
        if first and self._settings.sasl_mechanism is None:
            # A listener that wants SASL tells its versions to all, and closes at the first other request.
            text += " instead of answering; perhaps this listener wants SASL (security_protocol)"
        return text

    def _patient_until(self) -> float:
        """For how long the reader has nothing to complain of.

        Its scope may end earlier, at the time of something that was answered: it is not moved each time.
        """
        if self._in_flight:
            return min(exchange.deadline for exchange in self._in_flight)
        return self._quiet_since + self._max_idle

    def _answer(self, frame: bytes) -> None:
        if not self._in_flight or not self._in_flight[0].expects_answer:
            raise ConnectionLost(f"an answer of {len(frame)} bytes that nobody asked for")
        throttle_ms, meaning = decode(self._in_flight[0], frame)
        exchange = self._in_flight.popleft()
        exchange.response_bytes = len(frame)
        self._answers += 1
        self._quiet_since = trio.current_time()
        if throttle_ms > 0:
            # KIP-219: the broker answers at once and then does not read for that time. Its quotas span
            # seconds; no longer than a request may take, so that one answer cannot silence the connection.
            throttle = min(throttle_ms / 1000, self._settings.request_timeout)
            self._throttled_until = max(self._throttled_until, self._quiet_since + throttle)
        exchange.on_answer(exchange, meaning)
        self._notice()


class _End:
    """How one of two sides ended."""

    def __init__(self) -> None:
        self.event = trio.Event()
        self.error: Exception | None = None

    async def of(self, side: Callable[[], Awaitable[None]]) -> None:
        try:
            await side()
        except Exception as error:  # kept for `_beside_reader`, which raises it outside of the nursery
            self.error = error
        self.event.set()


def _make_authenticator(
    settings: Settings, host: str, limiter: trio.CapacityLimiter | None
) -> Authenticator | None:
    if settings.sasl_mechanism is None:
        return None
    return Authenticator(settings.sasl_mechanism, settings.sasl_options, host, limiter)
