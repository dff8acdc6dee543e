"""A broker that does what a test's script says, at the other end of a socket pair, and a client of it."""

from __future__ import annotations

import io
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import trio
from kafka.protocol.api_header import RequestHeader
from kafka.protocol.metadata import ApiVersionsRequest, ApiVersionsResponse, MetadataRequest, MetadataResponse
from kafka.protocol.producer import InitProducerIdRequest, ProduceRequest
from kafka.protocol.sasl import SaslAuthenticateRequest, SaslHandshakeRequest, SaslHandshakeResponse

from trio_kprod._client._connection import Connection
from trio_kprod._client._endpoints import Endpoints
from trio_kprod._client._exchange import ApiExchange, Exchange
from trio_kprod._client._steps import Reporter
from trio_kprod._client._transport import Fence, FencedStream
from trio_kprod._client._troubles import TroubleLog
from trio_kprod._errors import ConnectionLost

REQUESTS = {
    request.API_KEY: request
    for request in (
        ApiVersionsRequest,
        InitProducerIdRequest,
        MetadataRequest,
        ProduceRequest,
        SaslAuthenticateRequest,
        SaslHandshakeRequest,
    )
}

#: What the peer says it speaks, unless a script says otherwise.
VERSIONS = {3: (0, 12), 0: (0, 9), 18: (0, 4), 17: (0, 1), 36: (0, 2)}


class Peer:
    """The broker's end of one connection."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._buffer = bytearray()

    async def receive(self, count: int) -> bytes:
        while len(self._buffer) < count:
            data = await self.stream.receive_some(65536)
            if not data:
                raise EOFError
            self._buffer += data
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def frame(self) -> bytes:
        return await self.receive(int.from_bytes(await self.receive(4), "big"))

    async def request(self) -> Any:
        """The next request, decoded."""
        request, _ = await self.request_and_frame()
        return request

    async def request_and_frame(self) -> tuple[Any, bytes]:
        """The same, and the bytes it came as."""
        frame = await self.frame()
        request_class = REQUESTS[int.from_bytes(frame[:2], "big")]
        version = int.from_bytes(frame[2:4], "big")
        data = io.BytesIO(frame)
        header = RequestHeader.decode(data, flexible=request_class.flexible_version_q(version))
        request = request_class.decode(data.read(), version=version)
        request.with_header(correlation_id=header.correlation_id, client_id=header.client_id)
        return request, frame

    async def answer(self, request: Any, response: Any) -> None:
        await self.stream.send_all(answer_bytes(request, response))

    async def metadata(self) -> None:
        """Answer one MetadataRequest."""
        request = await self.request()
        await self.answer(request, metadata(request))

    async def versions(self, offered: dict[int, tuple[int, int]] = VERSIONS) -> None:
        """Answer one ApiVersionsRequest."""
        request = await self.request()
        await self.answer(request, api_versions(request.API_VERSION, offered))

    async def handshake(self, *mechanisms: str, error: int = 0) -> None:
        """Answer one SaslHandshakeRequest."""
        request = await self.request()
        response = SaslHandshakeResponse(
            version=request.API_VERSION, error_code=error, mechanisms=list(mechanisms)
        )
        await self.answer(request, response)

    async def until_closed(self) -> None:
        """Wait for the client's end of the connection; fails if anything but that comes."""
        assert await self.stream.receive_some(1) == b""

    async def until_closed_after_anything(self) -> None:
        """Read and never answer."""
        while await self.stream.receive_some():
            pass


def answer_bytes(request: Any, response: Any) -> bytes:
    response.with_header(correlation_id=request.header.correlation_id)
    return bytes(response.encode(framed=True, header=True))


def api_versions(version: int, offered: dict[int, tuple[int, int]] = VERSIONS, error: int = 0) -> Any:
    keys = [
        ApiVersionsResponse.ApiVersion(version=version, api_key=key, min_version=low, max_version=high)
        for key, (low, high) in offered.items()
    ]
    return ApiVersionsResponse(version=version, error_code=error, api_keys=keys)


def metadata(request: Any, **fields: Any) -> Any:
    return MetadataResponse(version=request.API_VERSION, brokers=[], topics=[], controller_id=1, **fields)


Script = Callable[[Peer], Awaitable[None]]


class PairNetwork:
    """Connects to a script, which runs in `nursery`."""

    def __init__(self, nursery: trio.Nursery, script: Script, fence: Fence) -> None:
        self._nursery = nursery
        self._script = script
        self._fence = fence
        self.opened: list[FencedStream] = []

    async def open_stream(self, *_: Any, **__: Any) -> FencedStream:
        await trio.lowlevel.checkpoint()
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        self._nursery.start_soon(self._run, trio.SocketStream(trio.socket.from_stdlib_socket(theirs)))
        stream = FencedStream(ours, self._fence)
        self.opened.append(stream)
        return stream

    async def _run(self, stream: trio.SocketStream) -> None:
        async with stream:
            await self._script(Peer(stream))


def settings(**changes: Any) -> Any:
    values: dict[str, Any] = {
        "client_id": "tester",
        "connection_setup_timeout": 10.0,
        "connections_max_idle": 540.0,
        "logger": logging.getLogger("tests"),
        "proxy_url": None,
        "receive_buffer_bytes": None,
        "receive_message_max_bytes": 100_000_000,
        "request_timeout": 30.0,
        "client_certificate": None,
        "sasl_mechanism": None,
        "sasl_options": {},
        "security_protocol": "PLAINTEXT",
        "send_buffer_bytes": None,
        "socket_options": (),
        "ssl_context": None,
    }
    return SimpleNamespace(**{**values, **changes})


def make_endpoints(**changes: Any) -> Endpoints:
    """What all connections share, without a network and without a core."""
    values = {"bootstrap_servers": [], "reconnect_backoff": 0.05, "reconnect_backoff_max": 1.0}
    nothing: Any = None
    log = TroubleLog(logging.getLogger("trio_kprod"), trio.current_time, lambda: 0)
    return Endpoints(
        settings(**{**values, **changes}), nothing, Fence(), nothing, nothing, Reporter(frozenset()), log
    )


class WatchedExchange(ApiExchange):
    """Calls `on_write_started` where it is marked as begun: under the fence's lock."""

    def __init__(self, *args: Any, on_write_started: Callable[[Any], object], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._watch = on_write_started

    @property
    def write_started(self) -> bool:
        return super().write_started

    @write_started.setter
    def write_started(self, started: bool) -> None:
        first, self._write_started = started and not self._write_started, started
        if first:
            self._watch(self)


class Client:
    """A connection to a script and a record of what it told."""

    def __init__(
        self,
        nursery: trio.Nursery,
        script: Script,
        host: str,
        needs: Sequence[tuple[Any, int]] = (),
        **changes: Any,
    ) -> None:
        self.fence = Fence()
        self.network = PairNetwork(nursery, script, self.fence)
        self.connection = Connection((host, 9092), settings(**changes), self.network, self.fence, needs=needs)
        self.record: list[Any] = []
        self._told = trio.Event()
        self.ended = trio.Event()
        self.lost: ConnectionLost | None = None

    async def serve(self) -> None:
        try:
            await self.connection.serve()
        except ConnectionLost as error:
            self.lost = error
        self.ended.set()
        self._told.set()

    async def loss(self) -> str:
        """How the connection ended."""
        await self.ended.wait()
        return str(self.lost)

    def ask(self, request: Any = None, timeout: float = 30.0) -> Exchange:
        exchange = WatchedExchange(
            MetadataRequest(version=12, topics=[]) if request is None else request,
            timeout,
            lambda exchange, _: self._tell("answer", exchange),
            on_write_started=lambda exchange: self._tell("write_started", exchange),
            on_sent=lambda exchange: self._tell("sent", exchange),
        )
        self.connection.send(exchange)
        return exchange

    def _tell(self, *entry: Any) -> None:
        self.record.append(entry)
        self._told.set()

    def told(self, exchange: Exchange) -> list[str]:
        return [entry[0] for entry in self.record if entry[1] is exchange]

    async def until(self, *entry: Any) -> None:
        """Wait until `record` has `entry`."""
        while entry not in self.record:
            assert not self.ended.is_set(), self.lost
            self._told = trio.Event()
            await self._told.wait()


@asynccontextmanager
async def client_of(script: Script, *, host: str = "broker", **changes: Any) -> AsyncIterator[Client]:
    """A client whose `open` is still to be called. The script must have ended, or wait, at the end."""
    async with trio.open_nursery() as nursery:
        yield Client(nursery, script, host, **changes)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def serving(script: Script, **changes: Any) -> AsyncIterator[Client]:
    """A client that is connected and served; `script` begins after ApiVersions."""

    async def introduced(peer: Peer) -> None:
        await peer.versions()
        await script(peer)

    async with client_of(introduced, **changes) as client, trio.open_nursery() as nursery:
        await client.connection.open()
        nursery.start_soon(client.serve)
        yield client
        client.connection.close()
