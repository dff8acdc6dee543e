"""The fault proxy between plain sockets: what gets through, each fault, start and stop."""

from __future__ import annotations

import logging
import os
import select
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio
from kafka import KafkaProducer

from trio_kprod.testing import MemoryBroker, Proxy, open_broker, open_proxy

THREAD = "trio_kprod.testing proxy"
PRODUCE, METADATA = 0, 3


def proxy_threads() -> int:
    """How many proxies run in this process."""
    return sum(thread.name == THREAD for thread in threading.enumerate())


def descriptors() -> int:
    """How many files and sockets are open in this process."""
    return len(os.listdir("/proc/self/fd"))


def request(correlation_id: int, body: bytes = b"", *, key: int = PRODUCE) -> bytes:
    """A request as far as the proxy looks at it."""
    return struct.pack(">ihhi", 8 + len(body), key, 9, correlation_id) + body


def answer(correlation_id: int, body: bytes = b"") -> bytes:
    return struct.pack(">ii", 4 + len(body), correlation_id) + body


class Upstream:
    """A server whose connections the test itself holds."""

    def __init__(self, listener: trio.SocketListener) -> None:
        self.listener = listener
        self.address: tuple[str, int] = listener.socket.getsockname()

    async def accept(self) -> trio.SocketStream:
        return await self.listener.accept()


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        yield Upstream(listener)


@pytest.fixture
async def proxy(upstream: Upstream) -> AsyncIterator[Proxy]:
    async with open_proxy(upstream.address) as proxy:
        yield proxy


class Pair:
    """Both ends of a connection through the proxy."""

    def __init__(self, client: trio.SocketStream, server: trio.SocketStream) -> None:
        self.client = client
        self.server = server

    async def ask(self, data: bytes) -> bytes:
        """What arrives of a request."""
        await self.client.send_all(data)
        return await exactly(self.server, len(data))

    async def tell(self, data: bytes) -> bytes:
        """What arrives of an answer."""
        await self.server.send_all(data)
        return await exactly(self.client, len(data))


async def connect(proxy: Proxy, upstream: Upstream) -> Pair:
    return Pair(await trio.open_tcp_stream(*proxy.address), await upstream.accept())


@pytest.fixture
async def pair(proxy: Proxy, upstream: Upstream) -> AsyncIterator[Pair]:
    pair = await connect(proxy, upstream)
    async with pair.client, pair.server:
        yield pair


async def exactly(stream: trio.SocketStream, count: int) -> bytes:
    """So many bytes; fewer if the stream ends before."""
    received = b""
    while len(received) < count and (data := await stream.receive_some(count - len(received))):
        received += data
    return received


async def everything(stream: trio.SocketStream) -> bytes:
    """All that comes up to an orderly end."""
    received = b""
    while data := await stream.receive_some():
        received += data
    return received


async def is_reset(stream: trio.SocketStream) -> bool:
    """Whether the connection ends by a reset."""
    try:
        await everything(stream)
    except trio.BrokenResourceError as error:
        return isinstance(error.__cause__, ConnectionResetError)
    return False


async def meets_a_reset(proxy: Proxy) -> bool:
    """Whether a new connection ends by a reset, which may even come before it is known to be open."""
    try:
        stream = await trio.open_tcp_stream(*proxy.address)
    except OSError as error:
        return "reset by peer" in repr(error.__cause__)
    async with stream:
        return await is_reset(stream)


# ---------------------------------------------------------------------------------------------------------
# What gets through


async def test_bytes_get_through_in_both_directions(proxy: Proxy, pair: Pair) -> None:
    assert await pair.ask(request(1, b"question")) == request(1, b"question")
    assert await pair.tell(answer(1, b"reply")) == answer(1, b"reply")
    await proxy.until(lambda: proxy.bytes_forwarded == {"requests": 20, "answers": 13})


async def test_any_protocol_gets_through(pair: Pair) -> None:
    assert await pair.ask(b"hi") == b"hi"
    assert await pair.tell(b"h") == b"h"


async def test_much_gets_through(pair: Pair, nursery: trio.Nursery) -> None:
    data = os.urandom(1) * 3_000_000
    nursery.start_soon(pair.client.send_all, request(1, data))
    assert await exactly(pair.server, 3_000_012) == request(1, data)


async def test_the_end_of_one_direction_gets_through(proxy: Proxy, pair: Pair) -> None:
    await pair.client.send_eof()
    assert await everything(pair.server) == b""
    assert await pair.tell(b"still here") == b"still here"
    await pair.server.send_eof()
    assert await everything(pair.client) == b""
    await proxy.until(lambda: proxy.connections == 0)


async def test_the_beginning_of_a_frame_and_the_end_get_through(pair: Pair) -> None:
    await pair.client.send_all(b"\0\0")
    await pair.client.send_eof()
    assert await everything(pair.server) == b"\0\0"


@pytest.mark.parametrize("side", ["client", "server"])
async def test_a_reset_gets_through(proxy: Proxy, pair: Pair, side: str) -> None:
    one, other = (pair.client, pair.server) if side == "client" else (pair.server, pair.client)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await one.aclose()
    assert await is_reset(other)
    await proxy.until(lambda: proxy.connections == 0)


async def test_an_upstream_that_refuses_is_a_reset(proxy: Proxy, upstream: Upstream) -> None:
    await upstream.listener.aclose()
    assert await meets_a_reset(proxy)
    assert proxy.connections_accepted == 1


# ---------------------------------------------------------------------------------------------------------
# Which frames


async def test_a_fault_is_for_as_many_frames_as_asked(proxy: Proxy, pair: Pair) -> None:
    rule = proxy.corrupt("requests", at=12, data=b"X", times=2, skip=1)
    assert await pair.ask(request(1, b"a") * 4) == request(1, b"a") + request(1, b"X") * 2 + request(1, b"a")
    assert rule.hits == 2


async def test_faults_of_a_kind_come_one_after_the_other(proxy: Proxy, pair: Pair) -> None:
    proxy.replace("requests", data=b"one")
    proxy.replace("requests", data=b"two")
    await pair.client.send_all(request(1) * 3)
    assert await exactly(pair.server, 18) == b"onetwo" + request(1)


async def test_a_fault_for_one_kind_of_request(proxy: Proxy, pair: Pair) -> None:
    rule = proxy.corrupt("requests", "Metadata", at=-1, data=b"X", times=None)
    sent = request(1, b"a") + request(2, b"b", key=METADATA)
    assert await pair.ask(sent) == request(1, b"a") + request(2, b"X", key=METADATA)
    assert rule.hits == 1


async def test_a_fault_for_the_answer_to_one_kind_of_request(proxy: Proxy, pair: Pair) -> None:
    proxy.corrupt("answers", "Metadata", at=-1, data=b"X", times=None)
    await pair.ask(request(1) + request(2, key=METADATA))
    assert await pair.tell(answer(1, b"a") + answer(2, b"b")) == answer(1, b"a") + answer(2, b"X")


async def test_a_fault_without_direction_is_for_both(proxy: Proxy, pair: Pair) -> None:
    rule = proxy.delay(seconds=0, times=None)
    await pair.ask(request(1))
    await pair.tell(answer(1))
    assert rule.hits == 2


async def test_clearing_ends_every_fault(proxy: Proxy, pair: Pair) -> None:
    rules = [
        proxy.replace("answers", data=b"no", times=None),
        proxy.drop_connections("answer", times=None),
        proxy.silence(),
    ]
    await pair.client.send_all(request(1))
    await proxy.until(lambda: rules[2].hits == 1)
    proxy.clear_faults()
    assert not any(rule.active for rule in rules)
    assert await exactly(pair.server, 12) == request(1)
    assert await pair.tell(answer(1)) == answer(1)


MISUSES: list[tuple[Callable[[Proxy], Any], type[Exception], str]] = [
    (lambda p: p.delay("answer", seconds=1), ValueError, "'requests' or 'answers'; got 'answer'"),  # type: ignore[arg-type]
    (lambda p: p.delay(seconds=-1), ValueError, "seconds must be 0 or more, and finite; got -1"),
    (lambda p: p.trickle(seconds=float("inf")), ValueError, "finite; got inf"),
    (lambda p: p.trickle(seconds=1, size=0), ValueError, "size must be 1 or more; got 0"),
    (lambda p: p.silence(api="produce"), ValueError, "must be one of Produce, .*; got 'produce'"),
    (lambda p: p.silence(times=0), ValueError, "times must be 1 or more, or None for always; got 0"),
    (lambda p: p.silence(skip=-1), ValueError, "skip must be 0 or more; got -1"),
    (lambda p: p.replace("answers", data=b""), ValueError, "data must not be empty"),
    (lambda p: p.replace("answers", data="HTTP"), TypeError, "data must be bytes; got 'HTTP'"),  # type: ignore[arg-type]
    (lambda p: p.corrupt("answers", at=0, data=b""), ValueError, "data must not be empty"),
    (lambda p: p.drop_connections(forward=-1), ValueError, "forward must be 0 or more, or None .*; got -1"),
    (lambda p: p.drop_connections("append"), ValueError, "'accept', 'request' or 'answer'; got 'append'"),  # type: ignore[arg-type]
    (lambda p: p.drop_connections("accept", "Produce"), ValueError, "there is no api"),
    (lambda p: p.drop_connections("accept", forward=1), ValueError, "nothing to forward"),
]


@pytest.mark.parametrize(("misuse", "error", "message"), MISUSES)
def test_a_fault_that_makes_no_sense_is_refused(
    misuse: Callable[[Proxy], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        misuse(open_proxy("localhost:9092"))


# ---------------------------------------------------------------------------------------------------------
# Ends of connections


async def test_a_connection_ends_before_a_request_is_read(proxy: Proxy, pair: Pair) -> None:
    rule = proxy.drop_connections("request", skip=1)
    await pair.client.send_all(request(1) + request(2))
    assert await everything(pair.server) == request(1)
    assert await everything(pair.client) == b""
    assert (rule.hits, proxy.connections) == (1, 0)


async def test_a_connection_ends_instead_of_an_answer(proxy: Proxy, pair: Pair) -> None:
    proxy.drop_connections("answer", "Produce")
    assert await pair.ask(request(1)) == request(1)
    await pair.server.send_all(answer(1))
    assert await everything(pair.client) == b""
    assert await everything(pair.server) == b""


@pytest.mark.parametrize(
    ("forward", "through"),
    [(1, answer(1)[:1]), (7, answer(1)[:7]), (None, answer(1)), (12, answer(1) + answer(2)[:4])],
)
async def test_a_connection_ends_within_an_answer(
    proxy: Proxy, pair: Pair, forward: int | None, through: bytes
) -> None:
    proxy.drop_connections("answer", forward=forward)
    await pair.server.send_all(answer(1) + answer(2))
    assert await everything(pair.client) == through


async def test_what_is_ending_is_not_ended_again(proxy: Proxy, pair: Pair) -> None:
    rules = [proxy.drop_connections("answer", forward=forward) for forward in (20, 0)]
    await pair.server.send_all(answer(1) + answer(2) + answer(3))
    assert await everything(pair.client) == answer(1) + answer(2) + answer(3)[:4]
    assert [rule.hits for rule in rules] == [1, 0]


async def test_an_orderly_end_is_no_reset_with_requests_on_the_way(proxy: Proxy, pair: Pair) -> None:
    """A socket that is closed with something unread in it sends a reset, unless care is taken."""
    rule = proxy.drop_connections("request", forward=3)
    await pair.client.send_all(request(1))
    await proxy.until(lambda: rule.hits == 1)
    for _ in range(10):
        await pair.client.send_all(request(2, b"x" * 10_000))
    assert await everything(pair.client) == b""
    assert await everything(pair.server) == request(1)[:3]


async def test_a_connection_ends_by_a_reset(proxy: Proxy, pair: Pair) -> None:
    proxy.drop_connections("answer", reset=True)
    assert await pair.ask(request(1)) == request(1)
    await pair.server.send_all(answer(1))
    assert await is_reset(pair.client)
    assert await everything(pair.server) == b""


@pytest.mark.parametrize("reset", [False, True])
async def test_a_connection_ends_when_it_is_accepted(proxy: Proxy, upstream: Upstream, reset: bool) -> None:
    rule = proxy.drop_connections("accept", reset=reset, skip=1)
    first = await connect(proxy, upstream)
    assert await meets_a_reset(proxy) is reset
    third = await connect(proxy, upstream)
    assert await third.ask(request(1)) == request(1)
    assert (rule.hits, proxy.connections, proxy.connections_accepted) == (1, 2, 3)
    for stream in (first.client, first.server, third.client, third.server):
        await stream.aclose()


@pytest.mark.parametrize("reset", [False, True])
async def test_all_connections_end_now(proxy: Proxy, upstream: Upstream, reset: bool) -> None:
    pairs = [await connect(proxy, upstream) for _ in range(2)]
    await proxy.until(lambda: proxy.connections == 2)
    proxy.disconnect_all(reset=reset)
    for pair in pairs:
        assert await is_reset(pair.client) is reset
        assert await everything(pair.server) == b""
        await pair.client.aclose()
        await pair.server.aclose()
    assert proxy.connections == 0


async def test_the_answers_end_and_the_requests_go_on(proxy: Proxy, pair: Pair) -> None:
    proxy.half_close("answers", forward=5)
    await pair.server.send_all(answer(1) + answer(2))
    assert await everything(pair.client) == answer(1)[:5]
    assert await pair.ask(request(3)) == request(3)


async def test_the_requests_end_and_the_answers_go_on(
    proxy: Proxy, pair: Pair, nursery: trio.Nursery
) -> None:
    """What the client still sends is swallowed, however much it is."""
    proxy.half_close("requests", "Produce", skip=1)
    await pair.client.send_all(request(1) + request(2, b"x" * 3_000_000))
    assert await everything(pair.server) == request(1)
    assert await pair.tell(answer(1)) == answer(1)
    await pair.client.send_all(request(3))
    assert proxy.connections == 1


# ---------------------------------------------------------------------------------------------------------
# Time


async def test_a_delayed_frame_comes_later(proxy: Proxy, pair: Pair) -> None:
    proxy.delay("answers", seconds=0.05)
    before = trio.current_time()
    assert await pair.ask(request(1)) == request(1)
    assert await pair.tell(answer(1)) == answer(1)
    assert trio.current_time() >= before + 0.05


async def test_a_trickle_comes_little_by_little(proxy: Proxy, pair: Pair) -> None:
    rule = proxy.trickle("answers", size=3, seconds=0.01, skip=1)
    before = trio.current_time()
    assert await pair.tell(answer(1) + answer(2, b"1234")) == answer(1) + answer(2, b"1234")
    assert trio.current_time() >= before + 0.03
    assert rule.hits == 1


async def test_a_connection_can_end_within_a_trickle(proxy: Proxy, pair: Pair) -> None:
    proxy.trickle("answers", seconds=0.001)
    proxy.drop_connections("answer", forward=5)
    await pair.server.send_all(answer(1))
    assert await everything(pair.client) == answer(1)[:5]


async def test_what_is_held_gets_through_when_resumed(proxy: Proxy, pair: Pair) -> None:
    rule = proxy.silence()
    await pair.client.send_all(request(1) + request(2))
    await pair.server.send_all(b"welcome")
    await proxy.until(lambda: rule.hits == 2)
    assert proxy.bytes_forwarded == {"requests": 0, "answers": 0}
    proxy.resume()
    assert await exactly(pair.server, 24) == request(1) + request(2)
    assert await exactly(pair.client, 7) == b"welcome"


async def test_one_direction_can_be_silent(proxy: Proxy, pair: Pair) -> None:
    rule = proxy.silence("answers")
    assert await pair.ask(request(1)) == request(1)
    await pair.server.send_all(answer(1))
    await proxy.until(lambda: rule.hits == 1)
    assert await pair.ask(request(2)) == request(2)
    rule.remove()
    assert await exactly(pair.client, 8) == answer(1)


async def test_a_silence_may_begin_later_and_hold_one_frame(
    proxy: Proxy, upstream: Upstream, pair: Pair
) -> None:
    rule = proxy.silence("requests", times=1, skip=1)
    assert await pair.ask(request(1)) == request(1)
    await pair.client.send_all(request(2))
    await proxy.until(lambda: rule.hits == 1)
    other = await connect(proxy, upstream)
    assert await other.ask(request(3)) == request(3)
    rule.remove()
    assert await exactly(pair.server, 12) == request(2)
    await other.client.aclose()
    assert await everything(other.server) == b""
    await other.server.aclose()


@pytest.mark.parametrize("reset", [False, True])
async def test_in_a_silence_nobody_learns_of_an_end(
    proxy: Proxy, upstream: Upstream, pair: Pair, reset: bool
) -> None:
    proxy.silence()
    if reset:
        pair.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await pair.client.aclose()
    other = await connect(proxy, upstream)  # by now the proxy has seen the first end
    assert select.select([pair.server.socket], [], [], 0) == ([], [], [])
    await pair.server.send_all(b"x")  # no error: nothing tells that the client is gone
    assert proxy.connections == 2
    proxy.resume()
    assert await is_reset(pair.server) is reset
    await other.client.aclose()
    await other.server.aclose()


async def test_a_request_outlives_its_client(proxy: Proxy, pair: Pair) -> None:
    rule = proxy.silence("requests")
    await pair.client.send_all(request(1))
    await proxy.until(lambda: rule.hits == 1)
    await pair.client.aclose()
    proxy.resume()
    assert await everything(pair.server) == request(1)


async def test_what_is_held_or_delayed_does_not_hold_up_the_end(upstream: Upstream) -> None:
    async with open_proxy(upstream.address) as proxy:
        rules = [proxy.silence("requests"), proxy.delay("answers", seconds=10_000)]
        pair = await connect(proxy, upstream)
        await pair.client.send_all(request(1))
        await pair.server.send_all(answer(1))
        await proxy.until(lambda: all(rule.hits for rule in rules))
    await pair.client.aclose()
    await pair.server.aclose()


# ---------------------------------------------------------------------------------------------------------
# Other bytes


@pytest.mark.parametrize(
    ("at", "data", "through"),
    [
        (0, b"\xff", b"\xff\0\0\x0c\0\0\0\1abcdefgh"),
        (8, b"XYZ", b"\0\0\0\x0c\0\0\0\1XYZdefgh"),
        (-2, b"XYZ", b"\0\0\0\x0c\0\0\0\1abcdefXY"),
        (100, b"X", b"\0\0\0\x0c\0\0\0\1abcdefgX"),
        (-100, b"X", b"X\0\0\x0c\0\0\0\1abcdefgh"),
        (3, None, b"\0\0\0\xf3\0\0\0\1abcdefgh"),
        (-1, None, b"\0\0\0\x0c\0\0\0\1abcdefg\x97"),
    ],
)
async def test_bytes_change(proxy: Proxy, pair: Pair, at: int, data: bytes | None, through: bytes) -> None:
    proxy.corrupt("answers", at=at, data=data)
    sent = answer(1, b"abcdefgh")
    assert await pair.tell(sent + sent) == through + sent


async def test_bytes_change_in_a_frame_that_arrives_in_pieces(proxy: Proxy, pair: Pair) -> None:
    proxy.corrupt("answers", at=12, data=b"XYZ")
    assert await pair.tell(answer(1, b"abcdefgh")[:14]) == answer(1, b"abcdXY")[:3] + b"\x0c\0\0\0\1abcdXY"
    assert await pair.tell(answer(1, b"abcdefgh")[14:]) == b"Zh"


async def test_garbage_comes_in_the_place_of_an_answer(proxy: Proxy, pair: Pair) -> None:
    garbage = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    proxy.replace("answers", data=garbage)
    await pair.server.send_all(answer(1, b"x" * 200_000) + answer(2))
    assert await exactly(pair.client, len(garbage) + 8) == garbage + answer(2)


# ---------------------------------------------------------------------------------------------------------
# Start and stop


def test_a_proxy_runs_while_its_block_does() -> None:
    before = descriptors()
    with open_broker() as broker, open_proxy(broker.address) as proxy:
        assert proxy_threads() == 1
        assert repr(proxy) == (
            f"<Proxy {proxy.bootstrap_servers} to {broker.bootstrap_servers}, running, 0 connections>"
        )
        assert proxy.bootstrap_servers == "{}:{}".format(*proxy.address)
        with socket.create_connection(proxy.address) as client:
            client.sendall(b"\xff" * 20)  # the broker closes at such a length
            assert client.recv(1) == b""
    assert proxy_threads() == 0
    assert "not running" in repr(proxy)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(proxy.address)
    assert descriptors() == before


async def test_an_async_block_that_is_cancelled_leaves_nothing(upstream: Upstream) -> None:
    before = descriptors()
    with trio.CancelScope() as scope:
        async with open_proxy(upstream.address) as proxy:
            pair = await connect(proxy, upstream)
            async with pair.client, pair.server:
                await pair.ask(request(1))
                scope.cancel()
                await trio.sleep_forever()
    assert scope.cancelled_caught
    assert (proxy_threads(), proxy.connections, descriptors()) == (0, 0, before)


async def test_leaving_ends_the_connections(upstream: Upstream) -> None:
    async with open_proxy(upstream.address) as proxy:
        pair = await connect(proxy, upstream)
    assert await everything(pair.client) == await everything(pair.server) == b""
    assert proxy.connections == 0
    await pair.client.aclose()
    await pair.server.aclose()


def test_a_proxy_is_entered_once() -> None:
    with open_proxy("localhost:9092") as proxy:
        pass
    with pytest.raises(RuntimeError, match="a proxy can be entered once; call open_proxy again"), proxy:
        pass  # pragma: no cover


async def test_an_address_in_use_is_named(upstream: Upstream) -> None:
    host, port = upstream.address
    with (
        pytest.raises(OSError, match=f"cannot listen on {host}:{port}: .*in use"),
        open_proxy("localhost:9092", port=port),
    ):
        pass  # pragma: no cover
    assert proxy_threads() == 0


def test_a_proxy_that_is_not_running_cannot_be_told_to_listen_or_disconnect() -> None:
    proxy = open_proxy("localhost:9092")
    for call in (proxy.start_listening, proxy.stop_listening, proxy.disconnect_all):
        with pytest.raises(RuntimeError, match="the proxy is not running"):
            call()


@pytest.mark.parametrize(
    ("upstream", "error", "message"),
    [
        ("localhost", ValueError, "'host:port' or a tuple of host and port; got 'localhost'"),
        (":9092", ValueError, "got ':9092'"),
        (("localhost",), ValueError, r"got \('localhost',\)"),
        (("localhost", "9092"), ValueError, r"got \('localhost', '9092'\)"),
        (9092, TypeError, "upstream must be a broker of open_broker, 'host:port' or .*; got 9092"),
        ("localhost:0", ValueError, "a port must be from 1 to 65535; got 0"),
        (("localhost", 65536), ValueError, "a port must be from 1 to 65535; got 65536"),
        (MemoryBroker(), TypeError, "upstream must be a broker of open_broker, .*; got <MemoryBroker"),
    ],
)
def test_what_is_no_upstream_is_refused(upstream: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        open_proxy(upstream)


@pytest.mark.parametrize("upstream", ["[::1]:9092", ("::1", 9092)])
def test_an_ipv6_upstream(upstream: Any) -> None:
    assert "to [::1]:9092, not running" in repr(open_proxy(upstream))


async def test_a_proxy_refuses_connections_and_takes_them_again(
    proxy: Proxy, upstream: Upstream, pair: Pair
) -> None:
    proxy.stop_listening()
    with pytest.raises(OSError, match="connect"):
        await trio.open_tcp_stream(*proxy.address)
    assert await pair.ask(request(1)) == request(1)
    proxy.start_listening()
    other = await connect(proxy, upstream)
    assert await other.ask(request(1)) == request(1)
    await other.client.aclose()
    await other.server.aclose()


async def test_waiting_is_a_checkpoint_and_can_be_cancelled(proxy: Proxy) -> None:
    with trio.testing.assert_checkpoints():
        await proxy.until(lambda: True)
    with trio.move_on_after(0) as scope:
        await proxy.until(lambda: False)
    assert scope.cancelled_caught


def test_waiting_says_how_things_stand() -> None:
    with open_proxy("localhost:9092") as proxy:
        proxy.wait_until(lambda: proxy.connections == 0, timeout=0)
        with pytest.raises(TimeoutError, match=r"not so after 0 seconds: <Proxy .* 0 connections>"):
            proxy.wait_until(lambda: proxy.connections == 1, timeout=0)


# ---------------------------------------------------------------------------------------------------------
# In front of a broker


def test_a_broker_tells_clients_of_the_proxy_in_front_of_it() -> None:
    with open_broker() as broker:
        own = broker.bootstrap_servers
        with open_proxy(broker) as proxy:
            assert broker.bootstrap_servers == proxy.bootstrap_servers != own
        assert broker.bootstrap_servers == own


def test_a_broker_that_is_not_running_cannot_have_a_proxy() -> None:
    broker = open_broker()
    with pytest.raises(RuntimeError, match="the broker is not running"), open_proxy(broker):
        pass  # pragma: no cover
    assert proxy_threads() == 0


def test_kafka_python_does_not_duplicate_when_an_answer_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    """A blocking client in the thread of the test."""
    with open_broker() as broker, open_proxy(broker) as proxy:
        producer = KafkaProducer(
            bootstrap_servers=broker.bootstrap_servers, reconnect_backoff_ms=10, retry_backoff_ms=10
        )
        rule = proxy.drop_connections("answer", "Produce", forward=10)
        assert producer.send("t", b"once").get(timeout=10).offset == 0
        producer.close()
        proxy.wait_until(lambda: proxy.connections == 0)
        assert rule.hits == 1
        assert broker.requests["Produce"] == 2
    assert [record.value for record in broker.records("t")] == [b"once"]
    assert [
        one for one in caplog.records if one.name == "trio_kprod.testing" and one.levelno > logging.INFO
    ] == []
