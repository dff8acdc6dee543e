"""The producer, sockets and all, through a network that fails: all arrives once, or is told."""

from __future__ import annotations

import os
import ssl
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trustme

import trio_kprod
from trio_kprod.testing import Broker, Proxy, Rule, open_broker, open_proxy

#: Not to wait longer than need be; what a test is about it sets itself.
QUICK: dict[str, Any] = {
    "reconnect_backoff_ms": 1,
    "reconnect_backoff_max_ms": 5,
    "retry_backoff": 0.001,
    "topic_timeout": 600,
}


@asynccontextmanager
async def open_producer(broker: Broker, **options: Any) -> AsyncGenerator[trio_kprod.Producer, None]:
    """A producer that delivers each message at once. What would wait for ever fails."""
    options = {"delivery_threshold": 1, **QUICK, **options}
    with trio.fail_after(60):
        async with trio_kprod.open_producer(broker.bootstrap_servers, **options) as producer:
            yield producer


def values(count: int, start: int = 0) -> list[bytes]:
    """Different values, long enough for the record to be most of a request."""
    return [b"%06d" % number * 20 for number in range(start, start + count)]


def in_log(broker: Broker) -> list[bytes | None]:
    return [record.value for record in broker.records("t")]


def told(failed: trio_kprod.DeliveryFailed) -> list[bytes | None]:
    return [one.message.value for one in failed.undelivered]


@pytest.fixture(autouse=True)
def place(own_thread: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs twice: see `own_thread`."""
    monkeypatch.setitem(QUICK, "own_thread", own_thread)


@pytest.fixture(autouse=True)
async def nothing_left() -> AsyncIterator[None]:
    """Each test leaves as many threads and descriptors as it found."""
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert trio.testing.active_thread_count() == 0
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
async def broker(nothing_left: None) -> AsyncIterator[Broker]:
    async with open_broker() as broker:
        yield broker


@pytest.fixture
async def proxy(broker: Broker) -> AsyncIterator[Proxy]:
    async with open_proxy(broker) as proxy:
        yield proxy


# ---------------------------------------------------------------------------------------------------------
# A fault, and then all is well


async def deliver_around(broker: Broker, *rules: Rule, **options: Any) -> None:
    """Send before and after the faults have struck: every message is there once and in order."""
    sent = values(40)
    async with open_producer(broker, **options) as producer:
        for value in sent[:20]:
            producer.send_nowait("t", value)
        await producer.flush()
        for value in sent[20:]:
            producer.send_nowait("t", value)
    assert in_log(broker) == sent
    assert [rule.hits for rule in rules] == [1] * len(rules)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("forward", [0, 3, 10, None])
@pytest.mark.parametrize("api", ["ApiVersions", "Metadata", "InitProducerId", "Produce"])
async def test_a_connection_that_ends_at_an_answer(
    broker: Broker, proxy: Proxy, api: str, forward: int | None, reset: bool
) -> None:
    """The broker has done what it was asked. Before the answer, within it, right behind it."""
    rule = proxy.drop_connections("answer", api, forward=forward, reset=reset)
    await deliver_around(broker, rule)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("forward", [0, 3, 60, None])
async def test_a_connection_that_ends_at_a_request(
    broker: Broker, proxy: Proxy, forward: int | None, reset: bool
) -> None:
    """Before it, within it, or behind it: then it is handled, and nobody is there to be told."""
    rule = proxy.drop_connections("request", "Produce", forward=forward, reset=reset)
    await deliver_around(broker, rule)


@pytest.mark.parametrize("direction", ["requests", "answers"])
@pytest.mark.parametrize("forward", [0, 10, None])
async def test_one_direction_ends(broker: Broker, proxy: Proxy, direction: Any, forward: int | None) -> None:
    await deliver_around(broker, proxy.half_close(direction, "Produce", forward=forward))


@pytest.mark.parametrize("api", ["ApiVersions", "Metadata", "InitProducerId", "Produce"])
async def test_garbage_instead_of_an_answer(broker: Broker, proxy: Proxy, api: str) -> None:
    """It costs the connection; what had been sent on it is sent again, and what comes later is sent."""
    rule = proxy.replace("answers", api, data=b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
    await deliver_around(broker, rule)


@pytest.mark.parametrize("length", [0x7FFFFFFF, -1, 0, 3, 1000])
@pytest.mark.parametrize("direction", ["requests", "answers"])
async def test_a_length_that_is_wrong(broker: Broker, proxy: Proxy, direction: Any, length: int) -> None:
    """Too long by little, nobody notices before the rest does not come in time."""
    rule = proxy.corrupt(direction, "Produce", at=0, data=struct.pack(">i", length))
    await deliver_around(broker, rule, request_timeout_ms=200)


async def test_a_batch_that_is_damaged_on_its_way(broker: Broker, proxy: Proxy) -> None:
    """The broker refuses it as CORRUPT_MESSAGE, and gets it again."""
    rule = proxy.corrupt("requests", "Produce", at=-40)
    await deliver_around(broker, rule)


@pytest.mark.parametrize("api", ["ApiVersions", "Metadata", "InitProducerId", "Produce"])
async def test_an_answer_to_nobodys_request(broker: Broker, proxy: Proxy, api: str) -> None:
    """Its number is damaged, so that it cannot be told what it says."""
    rule = proxy.corrupt("answers", api, at=7)
    await deliver_around(broker, rule)


async def test_an_answer_that_comes_too_late(broker: Broker, proxy: Proxy) -> None:
    """The request was given up, and sent again over another connection: it is there once."""
    rule = proxy.delay("answers", "Produce", seconds=0.3)
    await deliver_around(broker, rule, request_timeout_ms=100)
    assert broker.requests["Produce"] >= 2


async def test_a_request_that_comes_too_late(broker: Broker, proxy: Proxy) -> None:
    """When all that was sent after it has been written: the broker knows it for a duplicate."""
    sent = values(3)
    async with open_producer(broker, request_timeout_ms=100) as producer:
        await producer.send_and_wait("t", sent[0])
        rule = proxy.silence("requests", "Produce", times=1)
        await producer.send_and_wait("t", sent[1])
        await producer.send_and_wait("t", sent[2])
        before = broker.requests["Produce"]
        rule.remove()
        await broker.requests_arrived("Produce", before + 1)
    assert in_log(broker) == sent


@pytest.mark.parametrize(("direction", "size"), [("requests", 50), ("answers", 1)])
async def test_a_trickle_is_slow_and_no_fault(
    broker: Broker, proxy: Proxy, direction: Any, size: int
) -> None:
    rule = proxy.trickle(direction, "Produce", size=size, seconds=0.002)
    await deliver_around(broker, rule)
    assert proxy.connections_accepted == 2  # for questions, and for batches: none was given up


async def test_a_listener_that_closes_what_it_accepts(broker: Broker, proxy: Proxy) -> None:
    rules = [proxy.drop_connections("accept", reset=reset, times=1) for reset in (False, True) * 2]
    await deliver_around(broker, *rules)


# ---------------------------------------------------------------------------------------------------------
# Again and again


async def test_every_connection_dies_again_and_again(broker: Broker, proxy: Proxy) -> None:
    """2,000 messages, and a cut at every other request and answer, at another byte each time."""
    rules = [
        proxy.drop_connections(
            "request" if number % 2 else "answer",
            "Produce",
            forward=(0, 7, 50, 300, None)[number % 5],
            reset=number % 3 == 0,
            skip=2 * number,
        )
        for number in range(30)
    ]
    sent = values(2000)
    async with open_producer(broker, delivery_threshold=7) as producer:
        for start in range(0, 2000, 20):
            await producer.send_many("t", sent[start : start + 20])
            await producer.flush()
    assert in_log(broker) == sent
    assert [rule.hits for rule in rules] == [1] * 30
    assert proxy.connections_accepted > 15


@pytest.mark.parametrize("reset", [False, True])
async def test_no_connection_lives_longer_than_ten_kilobytes(
    broker: Broker, proxy: Proxy, reset: bool
) -> None:
    """Wherever in a batch that is, and with up to five of them on their way."""
    rule = proxy.drop_connections("request", forward=10_000, reset=reset, times=None)
    sent = values(700)
    async with open_producer(broker, batch_size=2000) as producer:
        await producer.send_many("t", sent)
    assert in_log(broker) == sent
    assert rule.hits >= sum(map(len, sent)) // 10_000


async def test_a_slow_broker_pushes_back(broker: Broker, proxy: Proxy) -> None:
    """First the buffer fills, then the queue, then the caller hears it; nothing grows beyond."""
    bounds = {"max_buffer_size": 30, "max_queue_size": 20, "batch_size": 2000}
    sent = values(300)
    proxy.delay("answers", "Produce", seconds=0.005, times=None)
    overflows = 0
    async with open_producer(broker, **bounds) as producer:
        for value in sent:
            try:
                producer.send_nowait("t", value)
            except trio_kprod.BufferOverflow:
                overflows += 1
                await producer.send("t", value)
            now = producer.statistics()
            assert now.queued <= 20
            assert now.waiting + now.in_flight <= 30
    assert overflows > 0
    assert in_log(broker) == sent


async def test_a_silent_broker_pushes_back(broker: Broker, proxy: Proxy) -> None:
    sent = values(100)
    async with open_producer(broker, max_buffer_size=30, max_queue_size=20) as producer:
        await producer.send_and_wait("t", sent[0])
        rule = proxy.silence("answers")
        accepted = 1
        with pytest.raises(trio_kprod.BufferOverflow):
            for value in sent[1:]:
                producer.send_nowait("t", value)
                accepted += 1
                await trio.lowlevel.checkpoint()
        assert 20 <= accepted - 1 <= 50
        await proxy.until(lambda: rule.hits >= 1)
        proxy.resume()
        await producer.send_many("t", sent[accepted:])
    assert in_log(broker) == sent


# ---------------------------------------------------------------------------------------------------------
# Silence: nothing gets through, and nobody is told


async def test_a_silence_that_ends_in_time(broker: Broker, proxy: Proxy) -> None:
    """Requests are given up and sent again; those that were held arrive as well. All is there once."""
    sent = values(20)
    async with open_producer(
        broker, request_timeout_ms=100, socket_connection_setup_timeout_ms=100
    ) as producer:
        await producer.send_and_wait("t", sent[0])
        held = proxy.silence()
        producer.send_nowait("t", sent[1])
        await proxy.until(lambda: held.hits >= 1)
        for value in sent[2:]:
            producer.send_nowait("t", value)
        accepted = proxy.connections_accepted
        await proxy.until(lambda: proxy.connections_accepted >= accepted + 2)
        assert producer.statistics().in_flight + producer.statistics().queued == 19
        proxy.resume()
    assert in_log(broker) == sent


async def test_a_silence_that_lasts_too_long(broker: Broker, proxy: Proxy) -> None:
    """What was sent into it may be written, and can land later; what is sent after it is delivered."""
    sent = values(3)
    async with open_producer(
        broker, delivery_timeout=0.3, request_timeout_ms=100, socket_connection_setup_timeout_ms=100
    ) as producer:
        await producer.send_and_wait("t", sent[0])
        rule = proxy.silence()
        with pytest.raises(trio_kprod.DeliveryFailed) as caught:
            await producer.send_and_wait("t", sent[1])
        assert rule.hits >= 1
        (failed,) = caught.value.undelivered
        assert isinstance(failed.cause, trio_kprod.DeliveryTimedOut)
        assert failed.maybe_written
        proxy.resume()
        while True:  # the first ones may be sent before the producer has found its way back
            try:
                await producer.send_and_wait("t", sent[2])
            except trio_kprod.DeliveryFailed as error:
                assert isinstance(error.undelivered[0].cause, trio_kprod.DeliveryTimedOut)  # noqa: PT017
                continue
            break
    found = in_log(broker)
    assert found[0] == sent[0]
    assert found.count(sent[1]) <= 1


async def test_a_broker_that_falls_silent_for_good(broker: Broker, proxy: Proxy) -> None:
    """The end comes in time and tells of all. What it calls not written is not there, even later."""
    sent = values(50)
    async with open_producer(broker) as producer:
        await producer.send_and_wait("t", sent[0])
    with pytest.raises(trio_kprod.DeliveryFailed) as caught, trio.fail_after(20):
        async with open_producer(broker, shutdown_timeout=0.2, max_buffer_size=20) as producer:
            await producer.send_and_wait("t", sent[1])
            rule = proxy.silence()
            producer.send_nowait("t", sent[2])
            await proxy.until(lambda: rule.hits >= 1)
            for value in sent[3:]:
                producer.send_nowait("t", value)
    assert told(caught.value) == sent[2:]
    maybe = [one.message.value for one in caught.value.undelivered if one.maybe_written]
    assert sent[2] in maybe
    assert sent[-1] not in maybe
    proxy.resume()
    await proxy.until(lambda: proxy.connections == 0)
    found = in_log(broker)
    assert found[:3] == sent[:3]
    assert set(found[3:]) <= set(maybe)
    assert len(set(found)) == len(found)


class Ends(trio_kprod.Instrument):
    """Waits until the producer has seen the ends of this number of connections."""

    def __init__(self, count: int) -> None:
        self.all_seen = trio.Event()
        self._left = count

    def disconnected(self, *, error: BaseException | None, **_: object) -> None:
        self._left -= isinstance(error, trio_kprod.ConnectionLost)
        if self._left == 0:
            self.all_seen.set()


@pytest.mark.parametrize("reset", [False, True])
async def test_a_broker_that_is_gone_for_good(broker: Broker, proxy: Proxy, reset: bool) -> None:
    """Nothing could be written any more, and so it is told."""
    sent = values(30)
    ends = Ends(2)  # the connection for produce requests, and the one for all others
    with pytest.raises(trio_kprod.DeliveryFailed) as caught, trio.fail_after(20):
        async with open_producer(broker, shutdown_timeout=0.2, instruments=(ends,)) as producer:
            await producer.send_and_wait("t", sent[0])
            proxy.stop_listening()
            proxy.disconnect_all(reset=reset)
            await ends.all_seen.wait()  # until then, something may be written and get lost
            for value in sent[1:]:
                producer.send_nowait("t", value)
    assert told(caught.value) == sent[1:]
    assert not any(one.maybe_written for one in caught.value.undelivered)
    assert in_log(broker) == sent[:1]


async def test_a_broker_that_is_silent_at_the_start(broker: Broker, proxy: Proxy) -> None:
    proxy.silence()
    with (
        pytest.raises(trio_kprod.ConnectFailed, match=r"within 0\.2 s: .*: no response"),
        trio.fail_after(20),
    ):
        async with open_producer(broker, connect_timeout=0.2):
            pytest.fail("must not be entered")


async def test_a_broker_that_speaks_late(broker: Broker, proxy: Proxy) -> None:
    """A silence at the start that ends before `connect_timeout` does no harm."""
    held = proxy.silence()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def resume() -> None:
            await proxy.until(lambda: proxy.connections_accepted >= 2)
            assert held.hits >= 1
            proxy.resume()

        await deliver_around(broker, socket_connection_setup_timeout_ms=100)


# ---------------------------------------------------------------------------------------------------------
# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def tls_broker(nothing_left: None, authority: trustme.CA) -> AsyncIterator[Broker]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with open_broker(ssl_context=context) as broker:
        yield broker


@pytest.fixture
async def tls_proxy(tls_broker: Broker) -> AsyncIterator[Proxy]:
    async with open_proxy(tls_broker) as proxy:
        yield proxy


@pytest.fixture
def tls(authority: trustme.CA) -> dict[str, Any]:
    """What a client needs."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return {"security_protocol": "SSL", "ssl_context": context}


async def deliver_before_and_after(
    broker: Broker, faults: Sequence[Callable[[], Rule]], options: dict[str, Any]
) -> None:
    """Let faults strike, one after the other, at what comes next."""
    first, *others = sent = values(1 + len(faults))
    async with open_producer(broker, **options) as producer:
        await producer.send_and_wait("t", first)
        for fault, value in zip(faults, others, strict=True):
            rule = fault()
            await producer.send_and_wait("t", value)
            assert rule.hits == 1
    assert in_log(broker) == sent


async def test_a_connection_that_ends_within_a_record_of_tls(
    tls_broker: Broker, tls_proxy: Proxy, tls: dict[str, Any]
) -> None:
    faults = [
        partial(tls_proxy.drop_connections, after, forward=forward, reset=reset)
        for after in ("request", "answer")
        for forward in (0, 3, 20, None)
        for reset in (False, True)
    ]
    await deliver_before_and_after(tls_broker, faults, tls)


async def test_a_record_of_tls_that_is_damaged(
    tls_broker: Broker, tls_proxy: Proxy, tls: dict[str, Any]
) -> None:
    faults = [
        partial(tls_proxy.corrupt, direction, at=at)
        for direction in ("requests", "answers")
        for at in (0, 1, 10, -1)
    ]
    await deliver_before_and_after(tls_broker, faults, tls)


@pytest.mark.parametrize("skip", range(6))
@pytest.mark.parametrize("after", ["request", "answer"])
async def test_a_connection_that_ends_within_the_handshake(
    tls_broker: Broker, tls_proxy: Proxy, tls: dict[str, Any], after: Any, skip: int
) -> None:
    rule = tls_proxy.drop_connections(after, forward=20, skip=skip)
    await deliver_around(tls_broker, rule, **tls)


@pytest.mark.parametrize("direction", ["requests", "answers"])
async def test_a_handshake_without_answer_at_the_start(
    tls_broker: Broker, tls_proxy: Proxy, tls: dict[str, Any], direction: Any
) -> None:
    tls_proxy.silence(direction)
    with pytest.raises(trio_kprod.ConnectFailed, match="TLS handshake"), trio.fail_after(20):
        setup = {"connect_timeout": 0.2, "socket_connection_setup_timeout_ms": 100}
        async with open_producer(tls_broker, **setup, **tls):
            pytest.fail("must not be entered")


async def test_a_handshake_without_answer_while_messages_wait(
    tls_broker: Broker, tls_proxy: Proxy, tls: dict[str, Any]
) -> None:
    """It is given up and tried again, until there is an answer."""
    sent = values(20)
    async with open_producer(tls_broker, socket_connection_setup_timeout_ms=100, **tls) as producer:
        await producer.send_and_wait("t", sent[0])
        tls_proxy.silence("answers")
        tls_proxy.disconnect_all()
        for value in sent[1:]:
            producer.send_nowait("t", value)
        accepted = tls_proxy.connections_accepted
        await tls_proxy.until(lambda: tls_proxy.connections_accepted >= accepted + 2)
        tls_proxy.resume()
    assert in_log(tls_broker) == sent


async def test_a_broker_that_falls_silent_for_good_over_tls(
    tls_broker: Broker, tls_proxy: Proxy, tls: dict[str, Any]
) -> None:
    sent = values(10)
    with pytest.raises(trio_kprod.DeliveryFailed) as caught, trio.fail_after(20):
        async with open_producer(tls_broker, shutdown_timeout=0.2, **tls) as producer:
            await producer.send_and_wait("t", sent[0])
            tls_proxy.silence()
            for value in sent[1:]:
                producer.send_nowait("t", value)
    assert told(caught.value) == sent[1:]
    assert in_log(tls_broker) == sent[:1]
