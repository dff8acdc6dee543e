from __future__ import annotations

import errno
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any

import pytest
import trio

from tests.cycles import no_more_descriptors
from tests.scripted_peer import settings
from trio_kprod._client._transport import Fence, Fenced, FencedStream, TcpNetwork


def pair(fence: Fence | None = None) -> tuple[FencedStream, FencedStream]:
    fence = fence or Fence()
    ours, theirs = socket.socketpair()
    return FencedStream(ours, fence), FencedStream(theirs, Fence())


def tcp(**changes: Any) -> TcpNetwork:
    return TcpNetwork(settings(**changes), Fence())


@contextmanager
def resolving(*addresses: str) -> Iterator[None]:
    """Every host name has these addresses."""

    class Resolver(trio.abc.HostnameResolver):
        async def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> list[Any]:
            assert host
            await trio.lowlevel.checkpoint()
            return [
                (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
                for address in addresses
            ]

        async def getnameinfo(self, *_: Any) -> tuple[str, str]:
            raise AssertionError("not used")

    before = trio.socket.set_custom_hostname_resolver(Resolver())
    try:
        yield
    finally:
        trio.socket.set_custom_hostname_resolver(before)


@asynccontextmanager
async def listening(host: str = "127.0.0.1") -> AsyncIterator[trio.SocketListener]:
    (listener,) = await trio.open_tcp_listeners(0, host=host)
    async with listener:
        yield listener


# ---------------------------------------------------------------------------------------------------------
# The stream


async def test_stream_keeps_the_contract_of_trio() -> None:
    """trio's own checks for any stream: checkpoints, conflicts, closing while others wait, and so on."""

    async def make() -> tuple[FencedStream, FencedStream]:
        return pair()

    async def make_clogged() -> tuple[FencedStream, FencedStream]:
        left, right = pair()
        for stream in (left, right):
            with suppress(BlockingIOError):
                while True:
                    stream._sock.send(bytes(65536))
        return left, right

    await trio.testing.check_two_way_stream(make, make_clogged)


async def test_bytes_are_counted_and_whole() -> None:
    ours, theirs = pair()
    data = bytes(range(256)) * 20_000
    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(ours.send_all, memoryview(bytearray(data)))
        received = bytearray()
        while len(received) < len(data):
            received += await theirs.receive_some()
    assert bytes(received) == data
    assert ours.bytes_sent == len(data)


async def test_cancelled_send_breaks_the_stream() -> None:
    """Some of it has been sent, so whatever came next would be torn."""
    ours, theirs = pair()
    async with ours, theirs:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ours.send_all, bytes(10_000_000))
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert 0 < ours.bytes_sent < 10_000_000
        with pytest.raises(trio.BrokenResourceError, match="an earlier send did not end"):
            await ours.send_all(b"more")


async def test_send_nowait_sends_what_there_is_room_for() -> None:
    ours, theirs = pair()
    data = bytes(range(256)) * 20_000
    async with ours, theirs, trio.open_nursery() as nursery:
        count = ours.send_nowait(data)
        assert 0 < count == ours.bytes_sent < len(data)
        assert ours.send_nowait(data[count:]) == 0
        nursery.start_soon(ours.send_all, data[count:])
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            ours.send_nowait(b"not between")
        received = bytearray()
        while len(received) < len(data):
            received += await theirs.receive_some()
    assert bytes(received) == data
    assert ours.bytes_sent == len(data)


async def test_send_nowait_that_fails() -> None:
    fence = Fence()
    ours, theirs = pair(fence)
    await theirs.aclose()
    with pytest.raises(trio.BrokenResourceError):
        ours.send_nowait(b"x")
    with pytest.raises(trio.BrokenResourceError, match="an earlier send did not end"):
        ours.send_nowait(b"x")
    await ours.aclose()
    with pytest.raises(trio.ClosedResourceError):
        ours.send_nowait(b"x")
    ours, theirs = pair(fence)
    fence.shut()
    with pytest.raises(Fenced):
        ours.send_nowait(b"x")
    assert ours.bytes_sent == 0
    ours.close()
    theirs.close()


async def test_what_arrives_later_is_waited_for() -> None:
    """Also by who has read all there was before."""
    ours, theirs = pair()
    async with ours, theirs:
        await ours.send_all(b"one")
        assert await theirs.receive_some() == b"one"
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def read() -> None:
                assert await theirs.receive_some() == b"two"

            await trio.testing.wait_all_tasks_blocked()
            await ours.send_all(b"two")
        await ours.send_all(b"three")
        assert await theirs.receive_some(2) == b"th"
        assert await theirs.receive_some(100) == b"ree"


async def test_a_stream_is_quiet_when_all_was_read() -> None:
    ours, theirs = pair()
    async with ours, theirs:
        assert ours.is_quiet()
        await theirs.send_all(b"x")
        assert not ours.is_quiet()
        assert await ours.receive_some() == b"x"
        assert ours.is_quiet()
        await theirs.aclose()
        assert not ours.is_quiet()
        assert await ours.receive_some() == b""
        assert not ours.is_quiet()
    assert not ours.is_quiet()


async def test_cancelled_receive_loses_nothing() -> None:
    ours, theirs = pair()
    async with ours, theirs:
        with trio.CancelScope() as scope:
            scope.cancel()
            await theirs.send_all(b"x")
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(theirs.receive_some)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        await ours.send_all(b"all of it")
        assert await theirs.receive_some() == b"all of it"


async def test_reset_is_a_broken_stream_with_its_cause() -> None:
    async with listening() as listener:
        ours = await tcp().open_stream(*listener.socket.getsockname())
        theirs = await listener.accept()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await theirs.aclose()
        async with ours:
            with pytest.raises(trio.BrokenResourceError, match="reset") as caught:
                await ours.receive_some()
        assert isinstance(caught.value.__cause__, ConnectionResetError)


# ---------------------------------------------------------------------------------------------------------
# The fence


async def test_raised_fence_stops_a_send_midway() -> None:
    """What was counted when `raise_` returned is all that the peer ever gets; then it sees the end."""
    fence = Fence()
    ours, theirs = pair(fence)
    async with ours, theirs, trio.open_nursery() as nursery:

        async def send() -> None:
            with pytest.raises(Fenced):
                await ours.send_all(bytes(10_000_000))

        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        await trio.to_thread.run_sync(fence.shut)
        count = ours.bytes_sent
        received = 0
        while data := await theirs.receive_some():
            received += len(data)
        assert received == count == ours.bytes_sent > 0


async def test_raised_fence_wakes_the_reader() -> None:
    fence = Fence()
    ours, theirs = pair(fence)
    async with ours, theirs, trio.open_nursery() as nursery:

        async def read() -> None:
            assert await ours.receive_some() == b""

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        fence.shut()


async def test_no_new_stream_behind_a_raised_fence() -> None:
    fence = Fence()
    fence.shut()
    ours, theirs = socket.socketpair()
    with theirs, pytest.raises(Fenced):
        FencedStream(ours, fence)
    assert ours.fileno() == -1


async def test_raised_fence_leaves_closed_streams_alone() -> None:
    """Their numbers may be other sockets' by now."""
    fence = Fence()
    ours, theirs = pair(fence)
    await ours.aclose()
    await ours.aclose()
    left, right = socket.socketpair()  # takes the number that is free now
    fence.shut()
    with left, right:
        assert left.send(b"x") == 1
    await theirs.aclose()


async def test_each_step_is_made_under_the_lock() -> None:
    """So that a step and `raise_` exclude each other, whichever threads they are in."""
    fence = Fence()
    locked = []

    class Watched(socket.socket):
        def send(self, data: Any, flags: int = 0) -> int:
            locked.append(fence.lock.locked())
            return super().send(data, flags)

    ours, theirs = socket.socketpair()
    with theirs:
        async with FencedStream(Watched(fileno=ours.detach()), fence) as stream:
            await stream.send_all(b"x")
            assert not fence.lock.locked()
    assert locked == [True]


# ---------------------------------------------------------------------------------------------------------
# The network


async def test_options_of_the_socket() -> None:
    changes = {
        "socket_options": ((socket.SOL_SOCKET, socket.SO_REUSEADDR, 1),),
        "send_buffer_bytes": 50_000,
        "receive_buffer_bytes": 60_000,
    }
    async with (
        listening() as listener,
        await tcp(**changes).open_stream(*listener.socket.getsockname()) as stream,
    ):
        option = stream._sock.getsockopt
        assert option(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert option(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert option(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert option(socket.SOL_SOCKET, socket.SO_SNDBUF) in (50_000, 100_000)  # Linux doubles it
        assert option(socket.SOL_SOCKET, socket.SO_RCVBUF) in (60_000, 120_000)


async def test_option_the_system_refuses_is_named() -> None:
    network = tcp(socket_options=((socket.SOL_SOCKET, 9999, 1),))
    async with listening() as listener:
        with pytest.raises(OSError, match=r"socket option \(\d+, 9999, 1\): "):
            await network.open_stream(*listener.socket.getsockname())


@pytest.mark.parametrize("host", ["::1", "[::1]"])
async def test_ipv6_with_and_without_brackets(host: str) -> None:
    try:
        (listener,) = await trio.open_tcp_listeners(0, host="::1")
    except OSError:
        pytest.skip("no IPv6 here")
    async with listener, await tcp().open_stream(host, listener.socket.getsockname()[1]):
        pass


@pytest.mark.parametrize("port", [0, -1, 65536, 70000])
async def test_port_out_of_range(port: int) -> None:
    with pytest.raises(OSError, match=f"port {port} is not in 1-65535"):
        await tcp().open_stream("127.0.0.1", port)


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example", "\ud800", "\u202e"])
async def test_impossible_host_name(host: str) -> None:
    with pytest.raises(OSError, match=r"is not a host name: .") as caught:
        await tcp().open_stream(host, 9092)
    assert repr(host) in str(caught.value)


@pytest.mark.parametrize("host", ["a\0b", "a b", "\n", "[::1", "1.2.3.4.5", "300.300.300.300", "a%b"])
async def test_host_name_of_nobody(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError):
        await tcp().open_stream(host, 9092)


async def test_endless_host_name() -> None:
    """To look at it closely would take seconds."""
    with pytest.raises(OSError, match="a host name of 3000 characters"):
        await tcp().open_stream("ä." * 1500, 9092)


@pytest.mark.parametrize("host", ["", "[]"])
async def test_empty_host_name(host: str) -> None:
    """To the system it would mean this very machine."""
    with pytest.raises(OSError, match="the host name is empty"):
        await tcp().open_stream(host, 9092)


async def test_unknown_host() -> None:
    class Resolver(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *_: Any, **__: Any) -> list[Any]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        async def getnameinfo(self, *_: Any) -> tuple[str, str]:
            raise AssertionError("not used")

    trio.socket.set_custom_hostname_resolver(Resolver())
    with pytest.raises(OSError, match="Name or service not known") as caught:
        await tcp().open_stream("nowhere.invalid", 9092)
    assert caught.value.errno == socket.EAI_NONAME


async def test_a_look_up_without_a_descriptor() -> None:
    """It says that something is busy, and would be taken for a fault of the name server."""

    class Resolver(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *_: Any, **__: Any) -> list[Any]:
            raise OSError(errno.EBUSY, "Device or resource busy")

        async def getnameinfo(self, *_: Any) -> tuple[str, str]:
            raise AssertionError("not used")

    trio.socket.set_custom_hostname_resolver(Resolver())
    with pytest.raises(OSError, match="busy"):
        await tcp().open_stream("somewhere.invalid", 9092)
    with no_more_descriptors(), pytest.raises(OSError, match="Too many open files"):
        await tcp().open_stream("somewhere.invalid", 9092)


@contextmanager
def refusing_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        yield taken.getsockname()[1]


async def test_refused_is_one_error_in_one_line() -> None:
    with refusing_port() as port, pytest.raises(ConnectionRefusedError) as caught:
        await tcp().open_stream("127.0.0.1", port)
    assert caught.value.errno == errno.ECONNREFUSED
    assert str(caught.value).startswith(f"[Errno {errno.ECONNREFUSED}] ")
    assert "\n" not in str(caught.value)
    assert not hasattr(caught.value, "exceptions")


@pytest.mark.skipif(sys.platform != "linux", reason="needs the whole of 127.0.0.0/8")
async def test_every_address_that_refused_is_named() -> None:
    with resolving("127.0.0.1", "127.0.0.2"), refusing_port() as port, pytest.raises(OSError) as caught:
        await tcp().open_stream("twice", port)
    assert "127.0.0.1" in str(caught.value)
    assert "127.0.0.2" in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse other addresses")
async def test_addresses_that_failed_in_several_ways() -> None:
    """Without an errno, since there are two."""
    several = r"\[Errno \d+\].*; \[Errno \d+\]"
    with (
        resolving("127.0.0.1", "255.255.255.255"),
        refusing_port() as port,
        pytest.raises(OSError, match=several) as caught,
    ):
        await tcp().open_stream("both", port)
    assert caught.value.errno is None


@pytest.mark.skipif(sys.platform != "linux", reason="needs the whole of 127.0.0.0/8")
async def test_dead_address_does_not_hide_the_living() -> None:
    async with listening() as listener:
        with resolving("127.0.0.2", "127.0.0.1"):
            stream = await tcp().open_stream("twice", listener.socket.getsockname()[1])
        async with stream:
            assert stream._sock.getpeername()[0] == "127.0.0.1"


async def full(stack: AsyncExitStack, host: str, port: int) -> None:
    """Take up a port that answers nobody any more: its backlog is full."""
    listener = stack.enter_context(socket.socket())
    listener.bind((host, port))
    listener.listen(0)
    for _ in range(3):
        sock = stack.enter_context(socket.socket())
        sock.setblocking(False)
        sock.connect_ex((host, port))


@pytest.mark.skipif(sys.platform != "linux", reason="needs the whole of 127.0.0.0/8")
async def test_black_hole_does_not_hide_the_living() -> None:
    """Though it stands first, and neither answers nor refuses."""
    async with AsyncExitStack() as stack:
        listener = await stack.enter_async_context(listening())
        port = listener.socket.getsockname()[1]
        await full(stack, "127.0.0.2", port)
        with resolving("127.0.0.2", "127.0.0.1"), trio.fail_after(20):
            stream = await tcp().open_stream("twice", port)
        async with stream:
            assert stream._sock.getpeername()[0] == "127.0.0.1"


async def test_nothing_is_open_after_a_raised_fence_met_a_new_connection() -> None:
    fence = Fence()
    fence.shut()
    async with listening() as listener:
        with pytest.raises(Fenced):
            await TcpNetwork(settings(), fence).open_stream(*listener.socket.getsockname())
        async with await listener.accept() as theirs:
            assert await theirs.receive_some() == b""


# ---------------------------------------------------------------------------------------------------------
# Proxies


async def socks5(stream: trio.SocketStream) -> None:
    """As much of RFC 1928 as one connection without password takes; then it echoes."""
    async with stream:
        assert (await stream.receive_some()).startswith(b"\x05")
        await stream.send_all(b"\x05\x00")
        request = await stream.receive_some()
        assert request == b"\x05\x01\x00\x03" + bytes([len(b"broker.invalid")]) + b"broker.invalid\x23\x84"
        await stream.send_all(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x01")
        await stream.send_all(await stream.receive_some())


async def test_proxy_gives_a_fenced_stream() -> None:
    pytest.importorskip("python_socks")
    async with listening() as listener, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: _serve_one(listener, socks5))
        url = f"socks5://127.0.0.1:{listener.socket.getsockname()[1]}"
        async with await tcp(proxy_url=url).open_stream("broker.invalid", 9092) as stream:
            await stream.send_all(b"through")
            assert await stream.receive_some() == b"through"
            assert stream.bytes_sent == 7


async def _serve_one(listener: trio.SocketListener, handler: Any) -> None:
    await handler(await listener.accept())


async def test_proxy_that_refuses() -> None:
    pytest.importorskip("python_socks")

    async def refuse(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"\x05\xff")

    async with listening() as listener, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: _serve_one(listener, refuse))
        url = f"socks5://127.0.0.1:{listener.socket.getsockname()[1]}"
        with pytest.raises(ConnectionError, match=r"^proxy: ."):
            await tcp(proxy_url=url).open_stream("broker.invalid", 9092)


async def test_proxy_that_is_not_there() -> None:
    pytest.importorskip("python_socks")
    with refusing_port() as port, pytest.raises(OSError, match="proxy") as caught:
        await tcp(proxy_url=f"socks5://127.0.0.1:{port}").open_stream("broker.invalid", 9092)
    assert caught.value.errno == errno.ECONNREFUSED


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "python_socks.async_.trio", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'trio_kprod\[proxy\]'"):
        tcp(proxy_url="socks5://127.0.0.1:1080")


def test_bad_proxy_url() -> None:
    pytest.importorskip("python_socks")
    with pytest.raises(ValueError):
        tcp(proxy_url="gopher://127.0.0.1")
