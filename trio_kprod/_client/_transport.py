"""Bytes to a broker and back, and the fence that stops them.

A worker thread that is stuck in a callback of the user's is abandoned, and the thread that abandons it says
what became of each message. That is true only if nothing is written afterwards. So every byte leaves through
`FencedStream`, one non-blocking ``send`` at a time, each made and counted under the `Fence`'s lock: once
`Fence.shut` has returned, no further byte can leave, and what had left is known to the byte. The lock is
held for a system call that cannot block and never across an ``await``.
"""

from __future__ import annotations

import errno
import importlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import trio

if TYPE_CHECKING:
    from .._settings import Settings

#: As `trio.SocketStream`; the response to a full request is far smaller.
RECEIVE_SIZE = 65536

#: Longer names do not fit into DNS, and to encode one can take seconds.
_LONGEST_HOST = 255

#: NODELAY because requests are written whole, KEEPALIVE because a dead host's connection looks alive.
SOCKET_OPTIONS = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1))


class Fenced(Exception):
    """The worker was abandoned: nothing may be written any more."""


class Fence:
    """Stops all writing to the sockets behind it, from any thread and for good.

    Attributes:
        lock (threading.Lock): held for every step of sending, and for what must change together with it.
        is_shut (bool): True once nothing may be written any more.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.is_shut = False
        self._sockets: set[socket.socket] = set()

    def check(self) -> None:
        """Raise `Fenced` if the fence is shut. To be called while `lock` is held."""
        if self.is_shut:
            raise Fenced("the producer gave this connection up")

    def shut(self) -> None:
        """Let nothing through from now on, and shut every socket down: that wakes tasks that wait for it."""
        with self.lock:
            self.is_shut = True
            for sock in self._sockets:
                with suppress(OSError):  # not connected any more, which is just as good
                    sock.shutdown(socket.SHUT_RDWR)

    def register(self, sock: socket.socket) -> None:
        """Put `sock` behind the fence; raises `Fenced` if it is shut."""
        with self.lock:
            self.check()
            self._sockets.add(sock)

    def unregister(self, sock: socket.socket) -> None:
        """Forget `sock`. To be called before it is closed: its number may be another's at once."""
        with self.lock:
            self._sockets.discard(sock)


class _OneAtATime:
    """A block for one task at a time; another task gets `trio.BusyResourceError`."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._taken = False

    def __enter__(self) -> None:
        if self._taken:
            raise trio.BusyResourceError(self._text)
        self._taken = True

    def __exit__(self, *_: object) -> None:
        self._taken = False


class _StreamErrors:
    """A block whose OSErrors become trio's. A class, since a generator would cost ten times as much."""

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError):
            if error.errno == errno.EBADF:
                raise trio.ClosedResourceError("this stream was closed") from None
            raise trio.BrokenResourceError(str(error)) from error


_stream_errors = _StreamErrors()


class FencedStream(trio.abc.Stream):
    """A connected stream socket behind a `Fence`; otherwise like `trio.SocketStream`.

    Args:
        sock (socket.socket): a connected socket, which from now on is the stream's own.
        fence (Fence): what may stop it; if it is shut already, the socket is closed and `Fenced` raised.

    Attributes:
        bytes_sent (int): how many bytes the operating system has taken.
    """

    def __init__(self, sock: socket.socket, fence: Fence) -> None:
        self.bytes_sent = 0
        self._sock = sock
        self._fence = fence
        self._broken = False
        self._drained = False  # the last read took all there was
        self._sending = _OneAtATime("another task is sending on this stream")
        sock.setblocking(False)
        try:
            fence.register(sock)
        except Fenced:
            sock.close()
            raise

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`.

        Cancelled, or after any other error, it may have sent some, all or none of it (`bytes_sent` tells),
        and the stream takes no more. Raises `Fenced` at the first step after the fence was shut.
        """
        with self._sending, _stream_errors:
            self._check()
            self._broken = True
            with memoryview(data).cast("B") as view:
                await self._send_steps(view)
            self._broken = False

    def send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        """Send what the operating system takes at once, and return how much that was; no checkpoint.

        Raises what `send_all` does, and breaks the stream as that does.
        """
        with self._sending, _stream_errors:
            self._check()
            self._broken = True
            sent = self._send_step(data)
            self._broken = False
            return sent

    def _check(self) -> None:
        if self._sock.fileno() == -1:
            raise trio.ClosedResourceError("this stream was closed")
        if self._broken:
            raise trio.BrokenResourceError("an earlier send did not end")

    async def _send_steps(self, view: memoryview) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        waited = False
        done = 0
        while done < len(view):
            with view[done:] as rest:
                sent = self._send_step(rest)
            done += sent
            if not sent:
                waited = True
                await trio.lowlevel.wait_writable(self._sock)
        if not waited:
            await trio.lowlevel.cancel_shielded_checkpoint()

    def _send_step(self, data: bytes | bytearray | memoryview) -> int:
        with self._fence.lock:
            self._fence.check()
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                return 0
            self.bytes_sent += sent
            return sent

    def is_quiet(self) -> bool:
        """Whether there is nothing to read now: no bytes, no end of the stream, no error."""
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream`."""
        with self._sending, _stream_errors:
            self._check()
            await trio.lowlevel.wait_writable(self._sock)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive what is there, at most `max_bytes`; ``b""`` at the end. Cancelled, it has taken nothing."""
        size = RECEIVE_SIZE if max_bytes is None else max_bytes
        if size < 1:
            raise ValueError("max_bytes must be at least 1")
        await trio.lowlevel.checkpoint_if_cancelled()
        with _stream_errors:
            data = None if self._drained else self._receive_step(size)
            if data is not None:
                await trio.lowlevel.cancel_shielded_checkpoint()
                return data
            while data is None:  # once, but for spurious wake-ups
                await trio.lowlevel.wait_readable(self._sock)
                data = self._receive_step(size)
            return data

    def _receive_step(self, size: int) -> bytes | None:
        try:
            data = self._sock.recv(size)
        except BlockingIOError:
            return None
        self._drained = len(data) < size
        return data

    async def aclose(self) -> None:
        """Close at once, even if something is unsent; a checkpoint. Tasks that wait get
        `trio.ClosedResourceError`.
        """
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """The same, without the checkpoint."""
        if self._sock.fileno() != -1:
            self._fence.unregister(self._sock)
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()
            self._drained = False  # so that a later read tries the socket, and raises


class Network(Protocol):
    """Where connections come from. What it gives is the transport below TLS."""

    async def open_stream(self, host: str, port: int) -> trio.abc.Stream:
        """Connect; raises OSError with a one-line text. Cancelled, it leaves nothing open."""
        ...


class TcpNetwork:
    """The real network: every address of a host (happy eyeballs), look-ups in threads, proxies.

    Args:
        settings (Settings): `socket_options`, `send_buffer_bytes`, `receive_buffer_bytes`, `proxy_url` and
            `connection_setup_timeout` are used.
        fence (Fence): what every stream stands behind.

    Raises:
        ModuleNotFoundError: there is a `proxy_url`, but not the extra ``trio_kprod[proxy]``.
        ValueError: `proxy_url` is not a URL of a proxy.
    """

    def __init__(self, settings: Settings, fence: Fence) -> None:
        self._settings = settings
        self._fence = fence
        self._proxy = None if settings.proxy_url is None else _load_proxy(settings.proxy_url)

    async def open_stream(self, host: str, port: int) -> FencedStream:
        """See `Network.open_stream`. Has no time limit of its own, but for proxies."""
        host = _checked_host(host)
        if not 1 <= port <= 65535:
            raise OSError(errno.EADDRNOTAVAIL, f"port {port} is not in 1-65535")
        connected = await self._connect(host, port)
        sock = socket.socket(fileno=connected.detach())
        try:
            self._set_options(sock)
            return FencedStream(sock, self._fence)
        except BaseException:
            sock.close()
            raise

    async def _connect(self, host: str, port: int) -> trio.socket.SocketType:
        try:
            if self._proxy is not None:
                timeout = self._settings.connection_setup_timeout
                return await self._proxy.connect(host, port, timeout=timeout)  # type: ignore[no-any-return]
            return (await trio.open_tcp_stream(host, port)).socket
        except ValueError as error:  # a label that is empty or longer than 63 characters; a null in it
            raise OSError(errno.EINVAL, f"{host!r} is not a host name: {error}") from error
        except OSError as error:
            plain = _plain_error(error) or _lack_of_descriptors()
            if plain is None:
                raise
            raise plain from error
        except Exception as error:
            if self._proxy is None:
                raise
            # python-socks has errors of its own and lets others through: each means that it cannot connect.
            raise ConnectionError(f"proxy: {error or type(error).__name__}") from error
        except BaseException as error:
            if not _is_interrupt(error):
                raise
            # Ctrl-C came while a task of trio's ran, which we cannot protect from it. The main task gets it.
            signal.raise_signal(signal.SIGINT)
            raise OSError(errno.EINTR, "interrupted by Ctrl-C") from None

    def _set_options(self, sock: socket.socket) -> None:
        options = [*SOCKET_OPTIONS, *self._settings.socket_options]
        for name, size in (
            (socket.SO_SNDBUF, self._settings.send_buffer_bytes),
            (socket.SO_RCVBUF, self._settings.receive_buffer_bytes),
        ):
            if size is not None:
                options.append((socket.SOL_SOCKET, name, size))
        for option in options:
            _set_option(sock, option)


def _set_option(sock: socket.socket, option: tuple[int, int, int]) -> None:
    try:
        sock.setsockopt(*option)
    except OSError as error:
        raise OSError(error.errno, f"socket option {option}: {error.strerror}") from error


def _load_proxy(url: str) -> Any:
    try:
        module = importlib.import_module("python_socks.async_.trio")
    except ImportError as error:
        raise ModuleNotFoundError("a proxy needs python-socks: pip install 'trio_kprod[proxy]'") from error
    return module.Proxy.from_url(url)


def _checked_host(host: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not host:  # to getaddrinfo it would mean this machine
        raise OSError(errno.EINVAL, "the host name is empty")
    if len(host) > _LONGEST_HOST:
        raise OSError(errno.EINVAL, f"a host name of {len(host)} characters")
    return host


def _plain_error(error: OSError) -> OSError | None:
    """One error, with a text of one line, in place of trio's group with an error for each address.

    None if it is no such group.
    """
    leaves = [] if error.__cause__ is None else list(_leaves(error.__cause__))
    if error.errno is not None or not leaves:
        return None
    if len(leaves) == 1 and leaves[0].errno:
        return OSError(leaves[0].errno, os.strerror(leaves[0].errno))  # trio's text names the address again
    if len({leaf.errno for leaf in leaves}) == 1:
        return OSError(leaves[0].errno, "; ".join(leaf.strerror or str(leaf) for leaf in leaves))
    return ConnectionError("; ".join(map(str, leaves)))


def _lack_of_descriptors() -> OSError | None:
    """The true error of a look-up for which there was no descriptor: its own says that a resource is busy.

    None if there are descriptors.
    """
    try:
        socket.socket().close()
    except OSError as error:
        return error
    return None


def _is_interrupt(error: BaseException) -> bool:
    parts = getattr(error, "exceptions", None)  # groups are no built-in before Python 3.11
    if parts is None:
        return isinstance(error, KeyboardInterrupt)
    return any(map(_is_interrupt, parts)) and all(
        isinstance(one, trio.Cancelled) or _is_interrupt(one) for one in parts
    )


def _leaves(error: BaseException) -> Iterator[OSError]:
    if isinstance(error, OSError):
        yield error
    for part in getattr(error, "exceptions", ()):
        yield from _leaves(part)
