"""The embedded broker: the Kafka protocol on a loopback port, out of memory, in a thread of its own.

A thread with a `trio.run` of its own, because a blocking client in the caller's thread would deadlock with
a broker that runs as tasks of the caller's loop.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING

import trio

from ._cluster import MAX_MESSAGE_BYTES, MAX_REQUEST_BYTES, Address, Options
from ._controls import BrokerControls
from ._listener import Port
from ._serve import InLoop, serve_connection

if TYPE_CHECKING:
    from typing_extensions import Self


def open_broker(
    *,
    partitions: int = 1,
    auto_create_topics: bool = True,
    topics: Mapping[str, int] | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    advertised: tuple[str, int] | None = None,
    ssl_context: ssl.SSLContext | None = None,
    sasl_users: Mapping[str, str] | None = None,
    sasl_session_lifetime: float | None = None,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    max_request_bytes: int = MAX_REQUEST_BYTES,
    max_versions: Mapping[str, int] | None = None,
) -> Broker:
    """A broker for tests and examples: ``with open_broker() as broker:``, or ``async with``.

    Any Kafka client can use it: it speaks ApiVersions, Metadata, InitProducerId, Produce, ListOffsets,
    Fetch, CreateTopics, DeleteTopics and SASL. Consumers have to be assigned their partitions: there are
    no consumer groups, transactions or access rights. All is gone when the block ends.

    Args:
        partitions: how many partitions an auto-created topic gets.
        auto_create_topics: whether asking for a topic's metadata creates it.
        topics: names and partition counts of topics to begin with.
        host: the address to listen on.
        port: the port to listen on; 0 takes a free one.
        advertised: host and port to tell clients instead of the real ones: those of a proxy in front.
        ssl_context: a server's context; serves TLS with it.
        sasl_users: passwords by user name; clients must use PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
        sasl_session_lifetime: seconds after which a client has to authenticate again (KIP-368).
        max_message_bytes: the largest batch taken, unless a topic has a limit of its own.
        max_request_bytes: a larger request ends its connection.
        max_versions: the highest version of a request to serve, by its name: ``{"Produce": 12}``.

    Raises:
        ValueError: a setting makes no sense.
        OSError: on entering, if it cannot listen there.
    """
    options = Options(
        partitions=partitions,
        auto_create_topics=auto_create_topics,
        max_message_bytes=max_message_bytes,
        max_request_bytes=max_request_bytes,
        max_versions=max_versions,
        sasl_users=sasl_users,
        sasl_session_lifetime=sasl_session_lifetime,
    )
    return Broker(options, Address(host, port), topics, advertised, ssl_context)


class Broker(BrokerControls):
    """What `open_broker` gives. It can be entered once."""

    def __init__(
        self,
        options: Options,
        address: Address,
        topics: Mapping[str, int] | None,
        advertised: tuple[str, int] | None,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        super().__init__(options, Address(*advertised) if advertised else address, topics)
        self._address = address
        self._advertises_itself = advertised is None
        self._ssl_context = ssl_context
        self._thread: threading.Thread | None = None
        self._nursery: trio.Nursery | None = None
        self._in_loop: InLoop | None = None
        self._port: Port | None = None

    def __repr__(self) -> str:
        state = "running" if self._port else "not running"
        return f"<Broker {self._address}, {state}, {self.connections} connections>"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port it listens on, whatever it advertises."""
        return self._address

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    async def __aenter__(self) -> Self:
        await trio.to_thread.run_sync(self._start, limiter=trio.CapacityLimiter(1))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._stop, limiter=trio.CapacityLimiter(1))

    def stop_listening(self) -> None:
        """Refuse new connections, on a port that stays reserved; returns when it is so.

        Connections that are open live on: to be a broker that is down, call `disconnect_all` as well.
        """
        self._call(lambda: self._running_port().close())

    def start_listening(self) -> None:
        """Accept connections again, on the same port; returns when it is so."""
        self._call(lambda: self._running_port().open())

    # -- the thread

    def _start(self) -> None:
        if self._thread is not None:
            raise RuntimeError("a broker can be entered once; call open_broker again")
        started: Future[None] = Future()
        name = "trio_kprod.testing broker"
        self._thread = threading.Thread(target=self._run, args=(started,), name=name, daemon=True)
        self._thread.start()
        try:
            started.result()
        except OSError as error:
            self._thread.join()
            raise OSError(error.errno, f"cannot listen on {self._address}: {error.strerror}") from error

    def _stop(self) -> None:
        nursery = self._nursery
        if nursery is not None and self._in_loop is not None:
            self._in_loop(nursery.cancel_scope.cancel)
        if self._thread is not None:
            self._thread.join()

    def _call(self, function: Callable[[], None]) -> None:
        """Run a function in the broker's loop and wait until it has run."""
        outcome: Future[None] = Future()

        def run() -> None:
            try:
                function()
            except Exception as error:
                outcome.set_exception(error)
            else:
                outcome.set_result(None)

        if self._in_loop is None or not self._in_loop(run):
            raise RuntimeError("the broker is not running")
        outcome.result()

    def _running_port(self) -> Port:
        if self._port is None:
            raise RuntimeError("the broker is not running")
        return self._port

    def _run(self, started: Future[None]) -> None:
        try:
            trio.run(self._main, started)
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    async def _main(self, started: Future[None]) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery, self._in_loop = nursery, InLoop()
            try:
                port = Port(self._address, nursery, self._serve)
            except OSError as error:
                started.set_exception(error)
                return
            try:
                await self._listen(port, started)
            finally:
                self._port = None
                port.release()

    async def _listen(self, port: Port, started: Future[None]) -> None:
        self._port, self._address = port, port.address
        if self._advertises_itself:
            self.advertise(*port.address)
        port.open()
        started.set_result(None)
        await trio.sleep_forever()

    async def _serve(self, stream: trio.SocketStream) -> None:
        secured: trio.abc.Stream = stream
        if self._ssl_context is not None:
            secured = trio.SSLStream(stream, self._ssl_context, server_side=True)
        await serve_connection(self._cluster, secured, self._connections)
