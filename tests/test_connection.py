from __future__ import annotations

import socket
import ssl
import struct
from contextlib import suppress
from typing import Any

import pytest
import trio
import trustme
from kafka.protocol.metadata import ApiVersionsRequest, MetadataRequest
from kafka.protocol.producer import InitProducerIdRequest, ProduceRequest

from tests.scripted_peer import (
    Client,
    Peer,
    WatchedExchange,
    answer_bytes,
    api_versions,
    client_of,
    metadata,
    serving,
    settings,
)
from trio_kprod._client import _connection
from trio_kprod._client._connection import Connection, SetupFailed
from trio_kprod._client._exchange import ApiExchange, Exchange
from trio_kprod._client._transport import Fence, FencedStream, TcpNetwork
from trio_kprod._errors import ConnectionLost, NoResponse


def produce(acks: int = 0) -> Any:
    return ProduceRequest(version=8, transactional_id=None, acks=acks, timeout_ms=1000, topic_data=[])


def assert_nothing_open(client: Client) -> None:
    assert [stream._sock.fileno() for stream in client.network.opened] == [-1] * len(client.network.opened)
    assert not client.fence._sockets


# ---------------------------------------------------------------------------------------------------------
# Opening


async def test_open_learns_the_versions() -> None:
    """The newest ApiVersions is asked first, and what is answered decides what is spoken."""

    async def script(peer: Peer) -> None:
        request = await peer.request()
        assert (request.API_VERSION, request.client_software_name) == (4, "trio-kprod")
        assert request.header.client_id == "tester"
        await peer.answer(request, api_versions(4, {3: (0, 9), 0: (99, 100), 22: (0, 50)}))
        await peer.until_closed()

    async with client_of(script) as client:
        await client.connection.open()
        assert client.connection.version(MetadataRequest) == 9
        assert client.connection.version(InitProducerIdRequest) == InitProducerIdRequest.max_version
        assert client.connection.version(ProduceRequest) is None  # the broker's lowest is above ours
        assert client.connection.version(ApiVersionsRequest) is None  # the broker has none
        client.connection.close()
        await client.connection.serve()
        assert_nothing_open(client)


@pytest.mark.parametrize(("offered", "asked"), [({18: (0, 2)}, [4, 2]), ({}, [4, 0]), ({18: (0, 9)}, [4, 3])])
async def test_versions_are_downgraded(offered: dict[int, tuple[int, int]], asked: list[int]) -> None:
    """To what the refusal offers, else to the first; always downwards."""
    seen = []

    async def script(peer: Peer) -> None:
        request = await peer.request()
        seen.append(request.API_VERSION)
        refusal = api_versions(0, offered, error=35)
        await peer.answer(request, refusal)
        request = await peer.request()
        seen.append(request.API_VERSION)
        await peer.answer(request, api_versions(request.API_VERSION))
        await peer.until_closed()

    async with client_of(script) as client:
        await client.connection.open()
        assert client.connection.version(MetadataRequest) == 12
        client.connection.close()
        await client.connection.serve()
    assert seen == asked


async def test_versions_refused_for_ever() -> None:
    async def script(peer: Peer) -> None:
        for _ in range(5):
            await peer.answer(await peer.request(), api_versions(0, {18: (0, 99)}, error=35))
        await peer.until_closed()

    async with client_of(script) as client:
        with pytest.raises(SetupFailed, match=r"^ApiVersions: UNSUPPORTED_VERSION \(35\)$") as caught:
            await client.connection.open()
        assert not caught.value.fatal
        assert_nothing_open(client)


async def test_open_has_one_deadline(autojump_clock: trio.testing.MockClock) -> None:
    """The error says what was being done, and nothing stays open."""
    async with client_of(Peer.until_closed_after_anything) as client:
        with pytest.raises(SetupFailed, match=r"^ApiVersions: not finished within 10 s$") as caught:
            await client.connection.open()
        assert trio.current_time() == 10
        assert not caught.value.fatal
        assert_nothing_open(client)


async def test_a_network_that_never_connects(autojump_clock: trio.testing.MockClock) -> None:
    class BlackHole:
        async def open_stream(self, *_: Any) -> trio.abc.Stream:
            await trio.sleep_forever()
            raise AssertionError

    connection = Connection(("broker", 9092), settings(), BlackHole(), Fence())
    with pytest.raises(SetupFailed, match=r"^connecting: not finished within 10 s$"):
        await connection.open()
    assert trio.current_time() == 10


@pytest.mark.parametrize(
    ("offered", "why"),
    [
        (
            {},
            "^it takes no Produce requests; perhaps this is the port of a Kafka controller, not of a broker$",
        ),
        ({0: (0, 2)}, r"^this broker is older than Kafka 0\.11, .* 0 to 2, we send 3 to 13; upgrade it$"),
        ({0: (-9, -5)}, r"^this broker is older than Kafka 0\.11, .* -9 to -5, we send 3 to 13; upgrade it$"),
        ({0: (14, 16)}, "^this broker is too new .* 14 to 16, we send 3 to 13; upgrade trio_kprod$"),
        ({0: (9, 5)}, "^no version of Produce requests that we can use: .* 9 to 5, we send 3 to 13$"),
    ],
    ids=["none", "too low", "negative", "too high", "contradictory"],
)
async def test_a_broker_without_what_is_needed_is_left(offered: dict[int, tuple[int, int]], why: str) -> None:
    """The error says why and what to do, and its connection is closed."""

    async def script(peer: Peer) -> None:
        await peer.versions({3: (0, 12), **offered})
        await peer.until_closed()

    async with client_of(script, needs=[(MetadataRequest, 1), (ProduceRequest, 3)]) as client:
        with pytest.raises(SetupFailed, match=why) as caught:
            await client.connection.open()
        assert caught.value.fatal
        assert_nothing_open(client)


async def test_a_large_frame_is_refused_while_opening() -> None:
    """Nothing needs one then, and nobody knows yet who it is; afterwards it is good."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.stream.send_all(struct.pack(">i", 10_000_000))
        await peer.until_closed()

    async with client_of(script) as client:
        with pytest.raises(SetupFailed, match=r"a frame of 10000000 bytes \(100000 allowed\)"):
            await client.connection.open()
        assert_nothing_open(client)

    async def large_answer(peer: Peer) -> None:
        request = await peer.request()
        await peer.answer(request, metadata(request, cluster_id="x" * 2_000_000))
        await peer.until_closed()

    async with serving(large_answer) as later:
        await later.until("answer", later.ask())


async def test_the_text_of_a_failure_is_short() -> None:
    """Though Python shows all the bytes that are no text."""

    async def script(peer: Peer) -> None:
        request = await peer.request()
        answer = answer_bytes(request, metadata(request, cluster_id="x" * 30_000))
        await peer.stream.send_all(answer.replace(b"x", b"\xff", 1))
        await peer.until_closed()

    async with serving(script) as client:
        client.ask()
        text = await client.loss()
    assert "UnicodeDecodeError" in text
    assert len(text) < 2000


async def test_an_answer_that_cannot_be_read_is_none() -> None:
    """It is taken apart before anybody is told; whatever that raises, the answer makes no sense."""

    def fail(_: Any) -> None:
        raise ZeroDivisionError("no sense")

    async def script(peer: Peer) -> None:
        await peer.metadata()
        await peer.until_closed()

    async with serving(script) as client:
        exchange = ApiExchange(
            MetadataRequest(version=12, topics=[]), 30, lambda *_: pytest.fail("it is none"), read=fail
        )
        client.connection.send(exchange)
        assert (
            await client.loss() == "the response to Metadata cannot be decoded: ZeroDivisionError('no sense')"
        )
        assert client.connection.unanswered() == [exchange]
        assert exchange.write_started
        assert_nothing_open(client)


async def test_cancelled_open_leaves_nothing() -> None:
    async with client_of(Peer.until_closed_after_anything) as client:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.connection.open)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught
        assert_nothing_open(client)


async def test_closed_at_the_first_request_hints_at_tls() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()

    async with client_of(script) as client:
        with pytest.raises(
            SetupFailed, match=r"the broker closed the connection; perhaps this is a TLS port"
        ):
            await client.connection.open()
        assert_nothing_open(client)


async def test_a_response_that_comes_together_with_the_end_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader may have seen both before the task that asked runs again."""
    async with client_of(Peer.until_closed_after_anything) as client:
        with trio.CancelScope() as serving_ends:

            async def write_ahead(exchange: Any) -> None:
                await trio.lowlevel.checkpoint()
                exchange.on_response(exchange, "a refusal")
                serving_ends.cancel()

            monkeypatch.setattr(client.connection._writer, "write_ahead", write_ahead)
            assert await client.connection._ask(MetadataRequest(version=12, topics=[])) == "a refusal"


async def test_fence_raised_before_open() -> None:
    async with client_of(Peer.until_closed) as client:
        client.fence.shut()
        with pytest.raises(SetupFailed, match="gave this connection up"):
            await client.connection.open()


async def test_unknown_host_is_told() -> None:
    class Resolver(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *_: Any, **__: Any) -> list[Any]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        async def getnameinfo(self, *_: Any) -> tuple[str, str]:
            raise AssertionError("not used")

    trio.socket.set_custom_hostname_resolver(Resolver())
    fence = Fence()
    connection = Connection(("nowhere.invalid", 9092), settings(), TcpNetwork(settings(), fence), fence)
    with pytest.raises(
        SetupFailed, match=r"^connecting: \[Errno -?\d+\] Name or service not known$"
    ) as caught:
        await connection.open()
    assert not caught.value.fatal


async def test_refused_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # but it does not listen
        fence = Fence()
        address = taken.getsockname()
        connection = Connection(address, settings(), TcpNetwork(settings(), fence), fence)
        with pytest.raises(
            SetupFailed, match=r"^connecting: \[Errno \d+\] .*[Cc]onnection refused$"
        ) as caught:
            await connection.open()
        assert not caught.value.fatal


# ---------------------------------------------------------------------------------------------------------
# TLS

CA = trustme.CA()
OTHER_CA = trustme.CA()
CERTIFICATE = CA.issue_cert("broker")


def server_context(client_ca: trustme.CA | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CERTIFICATE.configure_cert(context)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        client_ca.configure_trust(context)
    return context


def client_context(ca: trustme.CA = CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


async def tls_peer(peer: Peer, context: ssl.SSLContext | None = None) -> None:
    """A broker that speaks TLS, answers one Metadata, and does not mind how a handshake ends."""
    stream = trio.SSLStream(peer.stream, context or server_context(), server_side=True, https_compatible=True)
    secure = Peer(stream)
    try:
        await secure.versions()
        await secure.metadata()
        await secure.until_closed()
    except trio.BrokenResourceError:
        with suppress(trio.BrokenResourceError):  # trio leaves the alert unsent
            await peer.stream.send_all(stream._outgoing.read())
    except EOFError:
        pass


async def test_tls(autojump_clock: trio.testing.MockClock) -> None:
    """Handshake, request, answer, and no `close_notify` that would have to be waited for."""
    async with client_of(tls_peer, ssl_context=client_context()) as client:
        await client.connection.open()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.serve)
            exchange = client.ask()
            await client.until("answer", exchange)
            client.connection.close()
        assert client.lost is None
        assert trio.current_time() == 0
        assert_nothing_open(client)


@pytest.mark.parametrize(
    ("host", "ca", "text"),
    [("broker", OTHER_CA, "unable to get local issuer"), ("another", CA, "Hostname mismatch")],
)
async def test_tls_certificate_not_trusted(host: str, ca: trustme.CA, text: str) -> None:
    """Fatal, with OpenSSL's own words."""
    async with client_of(tls_peer, host=host, ssl_context=client_context(ca)) as client:
        with pytest.raises(
            SetupFailed, match=rf"^TLS handshake: this client refuses the .*CERTIFICATE_VERIFY_FAILED.*{text}"
        ) as caught:
            await client.connection.open()
        assert caught.value.fatal
        assert_nothing_open(client)


@pytest.mark.parametrize(
    ("certificate", "what"),
    [
        (None, "the broker wants a certificate of ours"),
        ("ssl_certfile='me.pem'", r"the broker refuses our certificate \(ssl_certfile='me.pem'\)"),
    ],
)
async def test_tls_certificate_required_of_us(certificate: str | None, what: str) -> None:
    """With TLS 1.3 the alert comes after our handshake has succeeded, and is told all the same."""

    async def script(peer: Peer) -> None:
        await tls_peer(peer, server_context(OTHER_CA))

    options: dict[str, Any] = {"security_protocol": "SSL", "client_certificate": certificate}
    async with client_of(script, ssl_context=client_context(), **options) as client:
        with pytest.raises(
            SetupFailed, match=rf"(?i)^TLS handshake: {what}: .*alert.*certificate.required"
        ) as caught:
            await client.connection.open()
        assert caught.value.fatal
        assert_nothing_open(client)


async def test_tls_peer_is_silent(autojump_clock: trio.testing.MockClock) -> None:
    async with client_of(Peer.until_closed_after_anything, ssl_context=client_context()) as client:
        with pytest.raises(SetupFailed, match=r"^TLS handshake: not finished within 10 s$"):
            await client.connection.open()
        assert trio.current_time() == 10
        assert_nothing_open(client)


TLS: dict[str, Any] = {"ssl_context": client_context(), "security_protocol": "SSL"}
NO_TLS = "use a port that speaks TLS, or security_protocol='PLAINTEXT' or 'SASL_PLAINTEXT'"


async def test_tls_to_a_port_that_says_something_else() -> None:
    async def script(peer: Peer) -> None:
        await peer.receive(5)
        await peer.stream.send_all(b"\x00\x00\x00\x04abcd")

    async with client_of(script, **TLS) as client:
        with pytest.raises(SetupFailed, match=r"^TLS handshake: the response is no TLS: \[SSL") as caught:
            await client.connection.open()
        assert caught.value.advice == NO_TLS
        assert caught.value.lasting
        assert not caught.value.fatal
        assert_nothing_open(client)


async def test_tls_to_a_port_that_closes() -> None:
    """Kafka does that where it finds no frame in our hello; and so does a proxy without a Kafka behind it."""

    async def script(peer: Peer) -> None:
        await peer.receive(5)

    async with client_of(script, **TLS) as client:
        with pytest.raises(SetupFailed) as caught:
            await client.connection.open()
        expected = "TLS handshake: the broker closed the connection; perhaps this is no TLS port"
        assert str(caught.value) == f"{expected} (security_protocol)"
        assert caught.value.is_silent
        assert not caught.value.lasting
        assert_nothing_open(client)


async def test_plaintext_to_a_tls_port_of_java() -> None:
    """It complains in a record of TLS."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.stream.send_all(b"\x15\x03\x03\x00\x02\x02\x50")

    async with client_of(script) as client:
        with pytest.raises(SetupFailed) as caught:
            await client.connection.open()
        assert caught.value.what == "ApiVersions: the port responds with a TLS alert"
        assert caught.value.advice == "this is a TLS port: use security_protocol='SSL' or 'SASL_SSL'"
        assert caught.value.lasting
        assert_nothing_open(client)


async def test_plaintext_to_a_tls_port_of_openssl() -> None:
    """It only closes, what everything may do."""
    async with client_of(tls_peer) as client:
        with pytest.raises(SetupFailed, match=r"^ApiVersions: .+; perhaps this is a TLS port") as caught:
            await client.connection.open()
        assert caught.value.is_silent
        assert not caught.value.lasting
        assert_nothing_open(client)


@pytest.mark.parametrize(
    ("said", "what"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "an HTTP server responds"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "not Kafka's protocol: a frame of 1397966893 bytes (100000 allowed)"),
        (b"\x00\x00\x00\x04abcd", "the response to ApiVersions is number 1633837924, not 1"),
    ],
)
async def test_a_port_that_is_not_kafkas(said: bytes, what: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.stream.send_all(said)

    async with client_of(script) as client:
        with pytest.raises(SetupFailed) as caught:
            await client.connection.open()
        assert str(caught.value) == f"ApiVersions: {what}; is this the port of a Kafka listener?"
        assert caught.value.lasting


async def test_closed_after_tls_without_a_certificate_of_ours() -> None:
    """An alert can get lost where the broker resets the connection."""

    async def script(peer: Peer) -> None:
        await trio.SSLStream(peer.stream, server_context(), server_side=True).do_handshake()
        await peer.stream.receive_some()

    async with client_of(script, **TLS) as client:
        with pytest.raises(SetupFailed, match="perhaps the broker wants a certificate of ours") as caught:
            await client.connection.open()
        assert not caught.value.lasting
    async with client_of(script, **TLS, client_certificate="ssl_certfile='me.pem'") as client:
        with pytest.raises(SetupFailed, match=r"^ApiVersions: the broker closed the connection$"):
            await client.connection.open()


@pytest.mark.parametrize(
    ("ours", "theirs", "ciphers", "what"),
    [
        ("TLSv1_2", "TLSv1_3", None, "the broker refuses our versions of TLS"),
        ("TLSv1_3", "TLSv1_2", None, "the broker refuses our versions of TLS"),
        ("TLSv1_2", "TLSv1_2", "ECDHE+CHACHA20", "the broker refuses our ciphers"),
    ],
)
async def test_tls_without_common_version_or_cipher(
    ours: str, theirs: str, ciphers: str | None, what: str
) -> None:
    """It is a TLS port: the alert says so."""
    here, there = client_context(), server_context()
    for context, version in ((here, ours), (there, theirs)):
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    there.set_ciphers("ECDHE+AESGCM")
    if ciphers is not None:
        here.set_ciphers(ciphers)

    async def script(peer: Peer) -> None:
        await tls_peer(peer, there)

    async with client_of(script, security_protocol="SSL", ssl_context=here) as client:
        with pytest.raises(SetupFailed, match=rf"^TLS handshake: {what}: .*alert") as caught:
            await client.connection.open()
        assert caught.value.lasting
        assert not caught.value.fatal
        assert "that both have" in caught.value.advice


async def test_tls_impossible_host_name() -> None:
    async with client_of(Peer.until_closed, host=".broker", ssl_context=client_context()) as client:
        with pytest.raises(SetupFailed, match=r"^TLS handshake: ") as caught:
            await client.connection.open()
        assert caught.value.fatal
        assert_nothing_open(client)


# ---------------------------------------------------------------------------------------------------------
# Requests and answers


async def test_answers_come_in_order() -> None:
    async def script(peer: Peer) -> None:
        requests = [await peer.request() for _ in range(3)]
        await peer.stream.send_all(b"".join(answer_bytes(one, metadata(one)) for one in requests))
        await peer.until_closed()

    async with serving(script) as client:
        exchanges = [client.ask() for _ in range(3)]
        await client.until("answer", exchanges[-1])
        assert [one for told, one in client.record if told == "answer"] == exchanges
        assert client.told(exchanges[0]) == ["write_started", "sent", "answer"]
        assert client.connection.unanswered() == []
        assert "0 queued, 0 in flight" in repr(client.connection)
    assert client.lost is None
    assert_nothing_open(client)


async def test_answer_byte_by_byte() -> None:
    async def script(peer: Peer) -> None:
        request = await peer.request()
        for byte in answer_bytes(request, metadata(request)):
            await peer.stream.send_all(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()
        await peer.until_closed()

    async with serving(script) as client:
        await client.until("answer", client.ask())


async def test_answer_together_with_the_end_counts() -> None:
    async def script(peer: Peer) -> None:
        first, _ = await peer.request(), await peer.request()
        await peer.answer(first, metadata(first))

    async with serving(script) as client:
        first, second = client.ask(), client.ask()
        assert (await client.loss()).startswith("the broker closed the connection")
        assert "answer" in client.told(first)
        assert client.connection.unanswered() == [second]
        assert second.write_started
        assert_nothing_open(client)


async def test_request_without_answer_is_told_when_sent() -> None:
    async def script(peer: Peer) -> None:
        assert (await peer.request()).acks == 0
        await peer.metadata()
        await peer.until_closed()

    async with serving(script) as client:
        exchange, after = client.ask(produce()), client.ask()
        await client.until("answer", after)
        assert client.told(exchange) == ["write_started", "sent"]


async def test_callback_that_raises_is_a_bug_and_leaves_serve() -> None:
    async def script(peer: Peer) -> None:
        await peer.versions()
        await peer.metadata()
        await peer.until_closed()

    def fail(*_: object) -> None:
        raise LookupError("bug")

    async with client_of(script) as client:
        await client.connection.open()
        client.connection.send(ApiExchange(MetadataRequest(version=1, topics=[]), 30, fail))
        with pytest.raises(LookupError, match="bug"):
            await client.connection.serve()
        assert_nothing_open(client)


def frame(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (b"\xff\xff\xff\xff", "a frame of -1 bytes"),
        (b"HTTP/1.1 400 Bad Request", "not Kafka's protocol: a frame of 1213486160 bytes"),
        (frame(b""), "the response to Metadata cannot be decoded"),
        (frame(b"\0\0\0\x02"), "the response to Metadata cannot be decoded"),
        (frame(b"\0\0\0\x07\0\0\0\0"), "the response to Metadata is number 7, not 2"),
        (frame(b"\0\0\0\x02\0" + b"\xff" * 60), "the response to Metadata cannot be decoded"),
        # 268,435,454 brokers in 20 bytes; and a string of 34 GB
        (frame(b"\0\0\0\x02\0" + b"\0\0\0\0" + b"\xff\xff\xff\x7f" + bytes(12)), "cannot be decoded"),
        (frame(b"\0\0\0\x02\0" + b"\0\0\0\0" + b"\x02\0\0\0\1\xff\xff\xff\xff\x7f" + bytes(2)), "cannot be"),
        # a text that is none
        (
            frame(b"\0\0\0\x02\0" + b"\0\0\0\0" + b"\x02\0\0\0\1\x03\xff\xff" + bytes(20)),
            "UnicodeDecodeError",
        ),
        # an integer that never ends
        (frame(b"\0\0\0\x02\0" + b"\0\0\0\0" + b"\xff" * 1_000_000), "an integer without end"),
    ],
)
async def test_nonsense_ends_the_connection_at_once(said: bytes, cause: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.stream.send_all(said)
        await peer.until_closed()

    async with serving(script) as client:
        exchange = client.ask()
        assert cause in await client.loss()
        assert client.connection.unanswered() == [exchange]
        assert exchange.write_started
        assert_nothing_open(client)


async def test_answers_before_nonsense_count() -> None:
    async def script(peer: Peer) -> None:
        first, _ = await peer.request(), await peer.request()
        await peer.stream.send_all(answer_bytes(first, metadata(first)) + frame(b"\0\0"))
        await peer.until_closed()

    async with serving(script) as client:
        first, second = client.ask(), client.ask()
        await client.loss()
        assert "answer" in client.told(first)
        assert client.connection.unanswered() == [second]


async def test_frame_above_the_limit() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.stream.send_all(struct.pack(">i", 1001))
        await peer.until_closed()

    async with serving(script, receive_message_max_bytes=1000) as client:
        client.ask()
        assert await client.loss() == "not Kafka's protocol: a frame of 1001 bytes (1000 allowed)"


async def test_answer_nobody_asked_for() -> None:
    async def script(peer: Peer) -> None:
        await peer.metadata()
        await peer.stream.send_all(frame(b"\0\0\0\1"))
        await peer.until_closed()

    async with serving(script) as client:
        client.ask()
        assert await client.loss() == "a response of 4 bytes without a request"
        assert_nothing_open(client)


async def test_answer_to_a_request_that_has_none() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.stream.send_all(frame(b"\0\0\0\2" + bytes(8)))
        await peer.until_closed()

    async with serving(script) as client:
        client.ask(produce())
        assert "without a request" in await client.loss()


# ---------------------------------------------------------------------------------------------------------
# Time


async def test_late_answer_ends_the_connection(autojump_clock: trio.testing.MockClock) -> None:
    """Each request has its own time; the earliest deadline counts, wherever it stands in the queue."""

    async def script(peer: Peer) -> None:
        await peer.metadata()
        await peer.until_closed_after_anything()

    async with serving(script) as client:
        await client.until("answer", client.ask())
        await trio.sleep(100)
        client.ask(timeout=30)
        client.ask(produce(acks=-1), timeout=5)
        assert await client.loss() == "no response to Produce within 5 s"
        assert isinstance(client.lost, NoResponse)
        assert trio.current_time() == 105
        assert_nothing_open(client)


async def test_a_process_that_stood_still_looks_for_the_answer_first(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It came in time, or nearly, and nobody was there. One that has not come then is late."""
    asked, may_answer = trio.Event(), trio.Event()

    async def script(peer: Peer) -> None:
        request = await peer.request()
        asked.set()
        await may_answer.wait()
        await peer.answer(request, metadata(request))
        await peer.until_closed_after_anything()

    async with serving(script) as client:
        exchange = client.ask(timeout=5)
        await asked.wait()
        autojump_clock.jump(100)
        may_answer.set()
        await client.until("answer", exchange)
        await trio.sleep(10)
        client.ask(timeout=5)
        await trio.testing.wait_all_tasks_blocked()
        autojump_clock.jump(100)
        assert await client.loss() == "no response to Metadata within 5 s"
        assert trio.current_time() == 211


async def test_idle_connection_is_closed(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.metadata()
        await peer.until_closed()

    async with serving(script) as client:
        await trio.sleep(500)
        await client.until("answer", client.ask())
        await client.ended.wait()
        assert client.lost is None
        assert trio.current_time() == 500 + 540
        assert_nothing_open(client)


async def test_idle_limit_does_not_count_while_opening(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: Peer) -> None:
        await trio.sleep(5)
        await peer.versions()
        await peer.until_closed()

    async with client_of(script, connections_max_idle=1) as client:
        await client.connection.open()
        assert client.connection.version(MetadataRequest) == 12
        await client.connection.serve()
        assert trio.current_time() == 6


async def test_throttled_writer_waits(autojump_clock: trio.testing.MockClock) -> None:
    """As long as the broker says (KIP-219), also where that is longer than a request may take."""
    times = []

    async def script(peer: Peer) -> None:
        for throttle_ms in (2_000, 90_000, 0):
            request = await peer.request()
            times.append(trio.current_time())
            await peer.answer(request, metadata(request, throttle_time_ms=throttle_ms))
        await peer.until_closed()

    async with serving(script) as client:
        for _ in range(3):
            await client.until("answer", client.ask())
    assert times == [0, 2, 92]


async def test_a_throttle_moves_the_deadlines_of_what_is_in_flight(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The broker reads nothing meanwhile (KIP-219), so it owes no response before; two throttles overlap."""

    async def script(peer: Peer) -> None:
        requests = [await peer.request() for _ in range(3)]
        for request, throttle_ms in zip(requests[:2], (90_000, 100_000), strict=True):
            await peer.answer(request, metadata(request, throttle_time_ms=throttle_ms))
        await peer.until_closed()

    async with serving(script) as client:
        exchanges = [client.ask(timeout=30) for _ in range(3)]
        await client.until("answer", exchanges[1])
        assert await client.loss() == "no response to Metadata within 30 s"
        assert trio.current_time() == 100 + 30


async def test_a_throttled_connection_is_not_idle(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: Peer) -> None:
        request = await peer.request()
        await peer.answer(request, metadata(request, throttle_time_ms=90_000))
        await peer.until_closed()

    async with serving(script, connections_max_idle=10) as client:
        await client.until("answer", client.ask())
        await client.ended.wait()
        assert client.lost is None
        assert trio.current_time() == 90 + 10


async def test_a_throttled_connection_closes_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """With a request that waits for the end of the throttle, which was never begun."""

    async def script(peer: Peer) -> None:
        request = await peer.request()
        await peer.answer(request, metadata(request, throttle_time_ms=90_000))
        await peer.until_closed()

    async with serving(script) as client:
        await client.until("answer", client.ask())
        waiting = client.ask()
        await trio.testing.wait_all_tasks_blocked()
        client.connection.close()
        await client.ended.wait()
        assert trio.current_time() == 0
        assert client.connection.unanswered() == [waiting]
        assert not waiting.write_started


async def test_peer_that_never_reads(autojump_clock: trio.testing.MockClock) -> None:
    """The writer waits, what is queued stays queued, and the request being written has its deadline."""

    async def script(_: Peer) -> None:
        await trio.sleep_forever()

    async with serving(script) as client:
        exchanges = [client.ask(large()) for _ in range(5)]
        assert await client.loss() == "no response to Produce within 30 s"
        assert trio.current_time() == 30
        assert client.connection.unanswered() == exchanges
        assert [one.write_started for one in exchanges] == [True, False, False, False, False]


def large(size: int = 4_000_000) -> Any:
    """A request that no socket's buffer takes as a whole."""
    partition = ProduceRequest.TopicProduceData.PartitionProduceData(version=8, index=0, records=bytes(size))
    topic = ProduceRequest.TopicProduceData(version=8, name="t", partition_data=[partition])
    request = produce(acks=-1)
    request.topic_data = [topic]
    return request


async def test_request_without_answer_has_its_time_to_be_written(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def script(_: Peer) -> None:
        await trio.sleep_forever()

    async with serving(script) as client:
        request = large()
        request.acks = 0
        exchange = client.ask(request, timeout=7)
        assert await client.loss() == "no room to write Produce within 28 s"
        assert isinstance(client.lost, NoResponse)
        assert client.connection.unanswered() == [exchange]
        assert exchange.write_started


async def test_request_is_written_at_once_if_the_writer_is_idle() -> None:
    """Without a turn of the writer."""

    async def script(peer: Peer) -> None:
        await peer.metadata()
        await peer.metadata()
        await peer.until_closed()

    async with serving(script) as client:
        for _ in range(2):
            await trio.testing.wait_all_tasks_blocked()
            exchange = client.ask()
            assert client.told(exchange) == ["write_started", "sent"]
            await client.until("answer", exchange)


async def test_nothing_is_written_behind_the_end() -> None:
    """The peer has closed before the request came: it has not been written, and that is told."""

    async def script(peer: Peer) -> None:
        await closing.wait()
        peer.stream.socket.close()  # type: ignore[attr-defined]
        told.append(client.ask())
        ended.set()

    closing, ended = trio.Event(), trio.Event()
    told: list[Exchange] = []
    async with serving(script) as client:
        await trio.testing.wait_all_tasks_blocked()
        closing.set()
        await ended.wait()
        assert (await client.loss()).startswith("the broker closed the connection")
        assert client.record == []
        assert client.connection.unanswered() == told


async def test_what_does_not_fit_at_once_is_left_to_the_writer() -> None:
    """And what is sent meanwhile comes after it."""

    async def script(peer: Peer) -> None:
        await begin.wait()
        request = await peer.request()
        assert request.topic_data[0].partition_data[0].records == bytes(4_000_000)
        await peer.metadata()
        await peer.until_closed()

    begin = trio.Event()
    async with serving(script) as client:
        await trio.testing.wait_all_tasks_blocked()
        request = large()
        request.acks = 0
        exchange = client.ask(request)
        after = client.ask()
        assert client.told(exchange) == ["write_started"]
        await trio.testing.wait_all_tasks_blocked()
        assert client.record == [("write_started", exchange)]
        begin.set()
        await client.until("answer", after)
        assert client.told(exchange) == ["write_started", "sent"]


async def test_an_answer_to_what_is_not_sent_yet(autojump_clock: trio.testing.MockClock) -> None:
    """A broker that knows it before it has read it is strange, but does no harm."""

    async def script(peer: Peer) -> None:
        await asked.wait()
        await peer.stream.send_all(frame(b"\0\0\0\x02" + bytes(8)))
        await answered.wait()
        await peer.request()
        await peer.metadata()
        await peer.until_closed()

    asked, answered = trio.Event(), trio.Event()
    async with serving(script) as client:
        await trio.testing.wait_all_tasks_blocked()
        exchange = client.ask(large())
        asked.set()
        await client.until("answer", exchange)
        answered.set()
        await client.until("answer", client.ask())
        assert client.told(exchange) == ["write_started", "answer", "sent"]


async def test_a_buffer_that_is_full_takes_nothing_at_once() -> None:
    """Then nothing of it is written, and nothing overtakes it."""

    async def script(_: Peer) -> None:
        await trio.sleep_forever()

    async with serving(script) as client:
        await trio.testing.wait_all_tasks_blocked()
        (stream,) = client.network.opened
        with suppress(BlockingIOError):
            while True:
                stream._sock.send(bytes(100_000))
        first, second = client.ask(), client.ask()
        assert [client.told(one) for one in (first, second)] == [["write_started"], []]
        await trio.testing.wait_all_tasks_blocked()
        client.connection.close()
        await client.ended.wait()
    assert client.connection.unanswered() == [first, second]
    assert [one.write_started for one in (first, second)] == [False, False]


async def test_a_queued_request_is_withdrawn() -> None:
    """It is not written. What has been begun is written to its end."""

    async def script(peer: Peer) -> None:
        await begin.wait()
        assert (await peer.request()).topic_data[0].partition_data[0].records == bytes(4_000_000)
        await peer.metadata()
        await peer.until_closed()

    begin = trio.Event()
    async with serving(script) as client:
        request = large()
        request.acks = 0
        begun, withdrawn, after = client.ask(request), client.ask(), client.ask()
        await trio.testing.wait_all_tasks_blocked()
        for exchange in (begun, withdrawn, withdrawn):
            client.connection.withdraw(exchange)
        assert list(client.connection.queued) == [begun, after]
        begin.set()
        await client.until("answer", after)
        client.connection.withdraw(after)  # it is answered already
        assert client.told(withdrawn) == []
        assert client.told(begun) == ["write_started", "sent"]
        assert client.connection.unanswered() == []


class EmptiedExchange(WatchedExchange):
    """All of it was given up while it was queued."""

    is_empty = True


@pytest.mark.parametrize("idle", [False, True])
async def test_a_request_that_has_become_empty_is_skipped(idle: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.metadata()
        await peer.until_closed()

    async with serving(script) as client:
        if idle:
            await trio.testing.wait_all_tasks_blocked()
        empty = EmptiedExchange(
            MetadataRequest(version=12, topics=[]),
            30,
            lambda *_: pytest.fail("it was not sent"),
            on_write_started=lambda _: pytest.fail("it is not to be written"),
        )
        client.connection.send(empty)
        await client.until("answer", client.ask())
        assert client.connection.unanswered() == []


async def test_a_written_request_keeps_no_bytes() -> None:
    """They are the batches', which may be given up before the response comes."""
    async with serving(Peer.until_closed_after_anything) as client:
        exchange = client.ask(large(100_000))
        await client.until("sent", exchange)
        assert exchange.unwritten is None
        client.connection.close()


async def test_how_long_a_connection_was_of_use(autojump_clock: trio.testing.MockClock) -> None:
    """From its opening to its end, if it has got a response, or has written what gets none."""

    async def answer(peer: Peer) -> None:
        await trio.sleep(3)
        await peer.metadata()
        await peer.until_closed()

    silent = Peer.until_closed_after_anything
    for script, acks, served_for in ((answer, None, 10), (silent, None, 0), (silent, 0, 10)):
        async with serving(script) as client:
            client.ask(None if acks is None else produce(acks))
            await trio.sleep(10)
            client.connection.close()
            await client.ended.wait()
            assert client.connection.served_for == served_for


@pytest.mark.parametrize("waiting", [False, True])
async def test_whether_the_end_came_while_it_was_idle(waiting: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.metadata()
        if waiting:
            await peer.request()

    async with serving(script) as client:
        await client.until("answer", client.ask())
        if waiting:
            client.ask()
        assert (await client.loss()).startswith("the broker closed the connection")
        assert client.connection.ended_idle is not waiting


async def test_cancelled_serve_closes(autojump_clock: trio.testing.MockClock) -> None:
    async def introduced(peer: Peer) -> None:
        await peer.versions()
        await trio.sleep_forever()

    async with client_of(introduced) as client:
        await client.connection.open()
        exchange = client.ask(large())
        with trio.move_on_after(1) as scope:
            await client.connection.serve()
        assert scope.cancelled_caught
        assert trio.current_time() == 1
        assert client.connection.unanswered() == [exchange]
        assert_nothing_open(client)


async def test_close_is_prompt_for_a_stuck_writer() -> None:
    async def script(_: Peer) -> None:
        await trio.sleep_forever()

    async with serving(script) as client:
        exchange = client.ask(large())
        await trio.testing.wait_all_tasks_blocked()
        client.connection.close()
        await client.ended.wait()
        assert client.lost is None
        assert client.connection.unanswered() == [exchange]
        assert exchange.write_started
        assert_nothing_open(client)


# ---------------------------------------------------------------------------------------------------------
# What may have been written


class BrokenAtWriting(FencedStream):
    """Its peer has reset the connection: nothing can be written; what came before can be read."""

    async def send_all(self, *_: Any, **__: Any) -> None:
        await trio.lowlevel.checkpoint()
        self.send_nowait()

    def send_nowait(self, *_: Any, **__: Any) -> int:
        raise trio.BrokenResourceError from ConnectionResetError(104, "Connection reset by peer")


@pytest.mark.parametrize("idle", [False, True])
async def test_nothing_is_handed_when_no_byte_left(idle: bool) -> None:
    """Marked under the lock, yet not a byte of it was taken: certainly not written."""
    async with serving(Peer.until_closed_after_anything) as client:
        if idle:  # then it is not the writer who finds out
            await trio.testing.wait_all_tasks_blocked()
        client.network.opened[0].__class__ = BrokenAtWriting
        exchange, queued = client.ask(), client.ask()
        assert await client.loss() == "[Errno 104] Connection reset by peer"
        assert client.told(exchange) == ["write_started"]
        assert client.connection.unanswered() == [exchange, queued]
        assert (exchange.write_started, queued.write_started) == (False, False)


async def test_without_a_count_the_mark_stands() -> None:
    async def script(stream: trio.abc.Stream) -> None:
        await Peer(stream).versions()

    class MemoryNetwork:
        async def open_stream(self, *_: Any, **__: Any) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            ours, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(script, theirs)
            return ours

    async with trio.open_nursery() as nursery:
        fence = Fence()
        connection = Connection(("broker", 9092), settings(), MemoryNetwork(), fence)
        await connection.open()
        exchange = ApiExchange(MetadataRequest(version=1, topics=[]), 1, lambda *_: None)
        connection.send(exchange)
        nursery.start_soon(connection.serve)
        await trio.testing.wait_all_tasks_blocked()
        connection.close()
    assert exchange.write_started
    assert connection.unanswered() == [exchange]


async def test_reader_finishes_after_the_writer_broke() -> None:
    """The answer and the true cause are still there to be read."""

    async def script(peer: Peer) -> None:
        request = await peer.request()
        go_on.set()
        await trio.testing.wait_all_tasks_blocked()
        await peer.stream.send_all(answer_bytes(request, metadata(request)) + b"\xff\xff\xff\xff")
        await peer.until_closed()

    go_on = trio.Event()
    async with serving(script) as client:
        first = client.ask()
        await go_on.wait()
        client.network.opened[0].__class__ = BrokenAtWriting
        second = client.ask()
        assert "a frame of -1 bytes" in await client.loss()
        assert "answer" in client.told(first)
        assert client.connection.unanswered() == [second]
        assert not second.write_started


async def test_reader_that_has_nothing_to_say(autojump_clock: trio.testing.MockClock) -> None:
    """It gets a second, then the writer's cause is told."""
    async with serving(Peer.until_closed) as client:
        client.network.opened[0].__class__ = BrokenAtWriting
        client.ask()
        assert await client.loss() == "[Errno 104] Connection reset by peer"
        assert trio.current_time() == _connection.LAST_WORDS


@pytest.mark.parametrize("idle", [False, True])
async def test_fence_stops_a_request_before_its_first_byte(idle: bool) -> None:
    async def script(peer: Peer) -> None:
        assert await peer.stream.receive_some() == b""

    async with serving(script) as client:
        if idle:
            await trio.testing.wait_all_tasks_blocked()
        with client.fence.lock:
            client.fence.is_shut = True  # as `raise_` does first, in another thread
        exchange = client.ask()
        client.fence.shut()
        await client.loss()
        assert client.told(exchange) == []
        assert client.connection.unanswered() == [exchange]
        assert not exchange.write_started
        assert_nothing_open(client)


@pytest.mark.parametrize("idle", [False, True])
async def test_fence_stops_a_request_in_the_middle(idle: bool) -> None:
    """Not a byte more reaches the peer than were counted when it was raised."""
    received = 0

    async def script(peer: Peer) -> None:
        nonlocal received
        await raised.wait()
        while data := await peer.stream.receive_some():
            received += len(data)
        done.set()

    raised, done = trio.Event(), trio.Event()
    async with serving(script) as client:
        if idle:
            await trio.testing.wait_all_tasks_blocked()
        (stream,) = client.network.opened
        before = stream.bytes_sent
        exchange = client.ask(large())
        await trio.testing.wait_all_tasks_blocked()
        client.fence.shut()
        count = stream.bytes_sent
        raised.set()
        await done.wait()
        await client.loss()
        assert received == count - before == stream.bytes_sent - before > 0
        assert client.connection.unanswered() == [exchange]
        assert exchange.write_started


@pytest.mark.parametrize("idle", [False, True])
async def test_handed_over_under_the_lock(idle: bool) -> None:
    async with serving(Peer.until_closed_after_anything) as client:
        if idle:
            await trio.testing.wait_all_tasks_blocked()
        locked = []
        exchange = WatchedExchange(
            MetadataRequest(version=1, topics=[]),
            30,
            lambda *_: None,
            on_write_started=lambda _: locked.append(
                (client.fence.lock.locked(), client.network.opened[0].bytes_sent)
            ),
        )
        before = client.network.opened[0].bytes_sent
        client.connection.send(exchange)
        await trio.testing.wait_all_tasks_blocked()
        assert locked == [(True, before)]
        assert client.network.opened[0].bytes_sent > before


async def test_connection_lost_is_an_os_error() -> None:
    """As users expect who catch ConnectionError."""
    assert issubclass(ConnectionLost, ConnectionError)
    assert not issubclass(SetupFailed, OSError)
