"""A port that is served in a thread of its own: what the embedded broker and the proxy have in common.

A thread with a `trio.run` of its own, because a blocking client in the caller's thread would deadlock with
a server that runs as tasks of the caller's loop.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar

import trio

from ._checks import check_port, check_text
from ._cluster import Address
from ._listener import Port
from ._watching import InLoop

if TYPE_CHECKING:
    from typing_extensions import Self


class Server(ABC):
    """Serves a port while its block runs, ``with`` or ``async with``. It can be entered once."""

    #: Its name in messages, and in the function ``open_...`` that makes it.
    _kind: ClassVar[str]

    def __init__(self, address: Address) -> None:
        check_text("host", address.host)
        check_port("port", address.port, 0)
        self._address = address
        self._thread: threading.Thread | None = None
        self._nursery: trio.Nursery | None = None
        self._in_loop: InLoop | None = None
        self._port: Port | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port it listens on, even if it advertises others."""
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

        Connections that are open live on: to be a server that is down, call `disconnect_all` as well. Only
        while it runs.
        """
        self._call(lambda: self._running_port().close())

    def start_listening(self) -> None:
        """Accept connections again, on the same port; returns when it is so. Only while it runs."""
        self._call(lambda: self._running_port().open())

    # -- what it serves

    @abstractmethod
    def _began(self) -> None:
        """Called in the server's loop when the address is known, before any client has connected."""

    @abstractmethod
    async def _serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection and close it. No `Exception` may leave."""

    # -- the thread

    def _start(self) -> None:
        if self._thread is not None:
            raise RuntimeError(f"a {self._kind} can be entered once; call open_{self._kind} again")
        started: Future[None] = Future()
        name = f"trio_kprod.testing {self._kind}"
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
        """Run a function in the server's loop and wait until it has run."""
        outcome: Future[None] = Future()

        def run() -> None:
            try:
                function()
            except Exception as error:
                outcome.set_exception(error)
            else:
                outcome.set_result(None)

        if self._in_loop is None or not self._in_loop(run):
            raise RuntimeError(f"the {self._kind} is not running")
        outcome.result()

    def _running_port(self) -> Port:
        if self._port is None:
            raise RuntimeError(f"the {self._kind} is not running")
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
        self._began()
        port.open()
        started.set_result(None)
        await trio.sleep_forever()
