"""Openings that cannot succeed: what `ConnectFailed` says, how soon, and what is waited for all the same."""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trustme

import trio_kprod
from tests.modes import OpenProducer
from tests.scripted_cluster import Asked, Close, ScriptedCluster, open_on
from tests.scripted_peer import Peer, Script, make_endpoints
from trio_kprod.testing import open_broker

Clock = trio.testing.MockClock

CA = trustme.CA()
SERVER = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
CA.issue_cert("127.0.0.1").configure_cert(SERVER)
TRUSTING = ssl.create_default_context()
CA.configure_trust(TRUSTING)

LOGIN = {"sasl_mechanism": "PLAIN", "sasl_plain_username": "ada", "sasl_plain_password": "secret"}

#: What a client needs to speak each protocol, and a broker to offer it.
CLIENTS: dict[str, dict[str, Any]] = {
    "PLAINTEXT": {},
    "SSL": {"security_protocol": "SSL", "ssl_context": TRUSTING},
    "SASL_PLAINTEXT": {"security_protocol": "SASL_PLAINTEXT", **LOGIN},
    "SASL_SSL": {"security_protocol": "SASL_SSL", "ssl_context": TRUSTING, **LOGIN},
}
PORTS: dict[str, dict[str, Any]] = {
    "PLAINTEXT": {},
    "SSL": {"ssl_context": SERVER},
    "SASL_PLAINTEXT": {"sasl_users": {"ada": "secret"}},
    "SASL_SSL": {"ssl_context": SERVER, "sasl_users": {"ada": "secret"}},
}

WANTS_TLS = "ApiVersions: the broker closed the connection; this is a TLS port: use security_protocol={}"
WANTS_NO_TLS = (
    "TLS handshake: this port speaks Kafka's protocol without TLS;"
    " use a port that speaks TLS, or security_protocol={}"
)
WANTS_LOGIN = (
    "this listener wants SASL, and offers: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512;"
    " use security_protocol={} with a sasl_mechanism"
)
WANTS_NO_LOGIN = (
    "SASL PLAIN authentication: ILLEGAL_SASL_STATE (34): this listener takes no SASL, or not now;"
    " use a listener that does, or security_protocol={}"
)

#: By client and port.
MISMATCHES = {
    ("PLAINTEXT", "SSL"): WANTS_TLS.format("'SSL' or 'SASL_SSL'"),
    ("PLAINTEXT", "SASL_PLAINTEXT"): WANTS_LOGIN.format("'SASL_PLAINTEXT'"),
    ("PLAINTEXT", "SASL_SSL"): WANTS_TLS.format("'SSL' or 'SASL_SSL'"),
    ("SSL", "PLAINTEXT"): WANTS_NO_TLS.format("'PLAINTEXT' or 'SASL_PLAINTEXT'"),
    ("SSL", "SASL_PLAINTEXT"): WANTS_NO_TLS.format("'PLAINTEXT' or 'SASL_PLAINTEXT'"),
    ("SSL", "SASL_SSL"): WANTS_LOGIN.format("'SASL_SSL'"),
    ("SASL_PLAINTEXT", "PLAINTEXT"): WANTS_NO_LOGIN.format("'PLAINTEXT'"),
    ("SASL_PLAINTEXT", "SSL"): WANTS_TLS.format("'SASL_SSL'"),
    ("SASL_PLAINTEXT", "SASL_SSL"): WANTS_TLS.format("'SASL_SSL'"),
    ("SASL_SSL", "PLAINTEXT"): WANTS_NO_TLS.format("'SASL_PLAINTEXT'"),
    ("SASL_SSL", "SSL"): WANTS_NO_LOGIN.format("'SSL'"),
    ("SASL_SSL", "SASL_PLAINTEXT"): WANTS_NO_TLS.format("'SASL_PLAINTEXT'"),
}


@asynccontextmanager
async def listening(script: Script) -> AsyncIterator[str]:
    """The address of a server that runs `script` for each connection."""

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            await script(Peer(stream))

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        host, port = listeners[0].socket.getsockname()
        yield f"{host}:{port}"
        nursery.cancel_scope.cancel()


async def cannot_connect(opening: Any) -> str:
    """The one line that is told of an opening that fails at once."""
    with trio.fail_after(20), pytest.raises(trio_kprod.ConnectFailed) as caught:
        async with opening:
            pytest.fail("must not be entered")
    head, _, rest = str(caught.value).partition(": ")
    assert head == "cannot connect"
    return re.sub(r"127.0.0.1:\d+: ", "", rest)


# ---------------------------------------------------------------------------------------------------------
# The port speaks something else


@pytest.mark.parametrize(("client", "port"), MISMATCHES, ids=lambda each: each)
async def test_a_port_of_another_protocol(client: str, port: str) -> None:
    """The cause and what to do, long before `connect_timeout`."""
    with open_broker(**PORTS[port]) as broker:
        opening = trio_kprod.open_producer(broker.bootstrap_servers, connect_timeout=60, **CLIENTS[client])
        assert await cannot_connect(opening) == MISMATCHES[client, port]


@pytest.mark.parametrize("protocol", PORTS)
async def test_a_port_of_the_same_protocol(protocol: str) -> None:
    with open_broker(**PORTS[protocol]) as broker:
        async with trio_kprod.open_producer(broker.bootstrap_servers, **CLIENTS[protocol]) as producer:
            await producer.send_and_wait("t", b"x")
        assert len(broker.records("t")) == 1


@pytest.mark.parametrize(
    ("trusted", "what", "advice"),
    [
        (False, "unable to get local issuer certificate", "give the authority that signed the broker's"),
        (True, "Hostname mismatch", "the certificate is for another name: use a name that is in it"),
    ],
)
async def test_a_certificate_that_this_client_refuses(
    trusted: bool, what: str, advice: str, open_producer: OpenProducer
) -> None:
    """It says who refused whom, and does not wait for a second time."""
    context = ssl.create_default_context()
    if trusted:
        CA.configure_trust(context)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA.issue_cert("elsewhere.example").configure_cert(server)
    with open_broker(ssl_context=server) as broker:
        servers = broker.bootstrap_servers.replace("127.0.0.1", "localhost")
        opening = open_producer(servers, security_protocol="SSL", ssl_context=context, connect_timeout=60)
        text = await cannot_connect(opening)
    assert "TLS handshake: this client refuses the broker's certificate: [SSL: CERTIFICATE_VERIFY_" in text
    assert what in text
    assert advice in text


# ---------------------------------------------------------------------------------------------------------
# What is waited for, and how often it must be shown


def http(times: int) -> Callable[[Asked], Any]:
    """A script of an HTTP server, for this number of connections."""
    left = times

    async def script(asked: Asked) -> None:
        nonlocal left
        if asked.api == "ApiVersions" and left:
            left -= 1
            raise Close(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    return script


async def test_what_was_shown_once_is_tried_again(autojump_clock: Clock) -> None:
    cluster = ScriptedCluster(nodes=1)
    cluster.nodes[1].script = http(times=1)
    async with open_on(cluster) as producer:
        await producer.send_and_wait("t", b"x")


async def test_what_was_shown_twice_is_the_end(autojump_clock: Clock) -> None:
    cluster = ScriptedCluster(nodes=1)
    cluster.nodes[1].script = http(times=2)
    text = await cannot_connect(open_on(cluster))
    assert text == "node1:9092: ApiVersions: an HTTP server responds; is this the port of a Kafka listener?"
    assert trio.current_time() < 1


async def test_not_twice_in_a_row_does_not_count(autojump_clock: Clock) -> None:
    """The server was replaced in between."""
    cluster = ScriptedCluster(nodes=1)
    node, asked_for = cluster.nodes[1], 0
    odd = http(times=3)

    async def script(asked: Asked) -> None:
        nonlocal asked_for
        if asked.api == "ApiVersions":
            asked_for += 1
            if asked_for % 2 == 0 and asked_for < 6:
                raise Close
        await odd(asked)

    node.script = script
    async with open_on(cluster) as producer:
        await producer.send_and_wait("t", b"x")
    assert asked_for > 5


async def test_a_bootstrap_server_that_may_yet_come_is_waited_for(autojump_clock: Clock) -> None:
    """However often the other one shows that it is none."""
    cluster = ScriptedCluster(nodes=2)
    cluster.nodes[1].script = http(times=1000)
    cluster.nodes[2].listening = False
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def come_up() -> None:
            await trio.sleep(20)
            cluster.nodes[2].listening = True

        async with open_on(cluster, bootstrap=[1, 2]):
            assert 20 <= trio.current_time() <= 21


@pytest.mark.parametrize("api", ["ApiVersions", "Metadata"])
async def test_a_proxy_that_closes_as_there_is_no_kafka_behind_it_yet(
    api: str, autojump_clock: Clock
) -> None:
    """Closing alone proves nothing, so it is waited for. It is looked at twice, and no more often."""
    cluster = ScriptedCluster(nodes=1)
    node = cluster.nodes[1]

    async def script(asked: Asked) -> None:
        if asked.api == api:
            raise Close

    node.script = script
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def come_up() -> None:
            await trio.sleep(20)
            node.script = None

        async with open_on(cluster):
            assert 20 <= trio.current_time() <= 21
            assert node.accepted <= 2 * (20 / 0.8 + 8)


async def test_tls_to_a_proxy_that_closes_as_there_is_no_kafka_behind_it_yet() -> None:
    with open_broker(ssl_context=SERVER) as broker:
        host, port = broker.bootstrap_servers.split(":")
        accepted = 0

        async def script(peer: Peer) -> None:
            nonlocal accepted
            accepted += 1
            if accepted > 8:  # four attempts, with a second look each
                await relay(peer.stream, await trio.open_tcp_stream(host, int(port)))

        async with (
            listening(script) as address,
            trio_kprod.open_producer(
                address, security_protocol="SSL", ssl_context=TRUSTING, reconnect_backoff_ms=1
            ) as producer,
        ):
            await producer.send_and_wait("t", b"x")
        assert accepted == 9


async def relay(one: trio.abc.Stream, other: trio.abc.Stream) -> None:
    async def copy(source: trio.abc.Stream, target: trio.abc.Stream) -> None:
        try:
            while data := await source.receive_some(65536):
                await target.send_all(data)
        except trio.BrokenResourceError:
            pass
        nursery.cancel_scope.cancel()

    async with other, trio.open_nursery() as nursery:
        nursery.start_soon(copy, one, other)
        nursery.start_soon(copy, other, one)


async def test_one_who_logs_in_and_gets_no_response_is_told_that(autojump_clock: Clock) -> None:
    """There is nothing to look for a second time."""
    cluster = ScriptedCluster(nodes=1, sasl_users={"ada": "secret"})

    async def script(asked: Asked) -> None:
        if asked.api == "Metadata":
            raise Close

    cluster.nodes[1].script = script
    with pytest.raises(trio_kprod.ConnectFailed) as caught:
        async with open_on(cluster, connect_timeout=3, **CLIENTS["SASL_PLAINTEXT"]):
            pytest.fail("must not be entered")
    assert str(caught.value) == (
        "no broker responded within 3 s: node1:9092: the broker closed the connection"
    )


# ---------------------------------------------------------------------------------------------------------
# Token providers


class Tokens:
    """Raises this number of times."""

    def __init__(self, failures: int) -> None:
        self.failures = failures

    def token(self) -> str:
        if self.failures:
            self.failures -= 1
            raise OSError("identity server is down")
        return "abc"


async def takes_tokens(peer: Peer) -> None:
    """A broker that wants a token, and never sees one."""
    try:
        await peer.versions()
        await peer.handshake("OAUTHBEARER")
        request = await peer.request()
    except EOFError:
        return
    raise Seen(bytes(request.auth_bytes))


class Seen(Exception):
    pass


async def test_a_token_provider_that_raises(open_producer: OpenProducer) -> None:
    tokens = Tokens(failures=2)
    async with listening(takes_tokens) as address:
        opening = open_producer(
            address,
            connect_timeout=60,
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="OAUTHBEARER",
            sasl_oauth_token_provider=tokens,
        )
        text = await cannot_connect(opening)
    expected = "sasl_oauth_token_provider raised OSError: identity server is down"
    assert text == f"SASL OAUTHBEARER authentication: {expected}"
    assert tokens.failures == 0


# ---------------------------------------------------------------------------------------------------------
# What else is told meanwhile


class Watch(trio_kprod.Instrument):
    def __init__(self) -> None:
        self.told: list[str] = []

    def connected(self, *, broker: str) -> None:
        self.told.append("connected")

    def connect_failed(self, *, broker: str, error: BaseException) -> None:
        self.told.append(f"connect_failed: {error}")

    def disconnected(self, *, broker: str, error: BaseException | None) -> None:
        self.told.append(f"disconnected: {error}")


async def test_no_connection_is_told_to_a_listener_that_greets_and_closes(
    caplog: pytest.LogCaptureFixture, open_producer: OpenProducer
) -> None:
    """A listener that wants a login tells its versions to everybody."""
    caplog.set_level(logging.DEBUG, "trio_kprod")
    watch = Watch()
    with open_broker(sasl_users={"ada": "secret"}) as broker:
        await cannot_connect(open_producer(broker.bootstrap_servers, instruments=[watch]))
    assert not [one for one in caplog.messages if "connected to" in one]
    (warning,) = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert "this listener wants SASL, and offers: PLAIN" in warning.getMessage()
    assert "connected" not in watch.told
    assert not [one for one in watch.told if one.startswith("disconnected")]


async def test_a_connection_is_told_once_it_has_shown_that_it_is_of_use(
    caplog: pytest.LogCaptureFixture, open_producer: OpenProducer
) -> None:
    caplog.set_level(logging.DEBUG, "trio_kprod")
    watch = Watch()
    with open_broker(sasl_users={"ada": "secret"}) as broker:
        options = CLIENTS["SASL_PLAINTEXT"]
        async with open_producer(broker.bootstrap_servers, instruments=[watch], **options) as producer:
            await producer.send_and_wait("t", b"x")
            await producer.send_and_wait("t", b"y")
        name = broker.bootstrap_servers
    told = [one for one in caplog.messages if "connected to" in one]
    assert told == [f"connected to {name} (node None)", f"connected to {name} (node 0)"]
    assert watch.told[:2] == ["connected", "connected"]


async def test_a_broker_that_was_only_greeted_is_not_guessed_about(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It fell before its first response to a request; but what it speaks is known."""
    caplog.set_level(logging.DEBUG, "trio_kprod")
    cluster, greetings = ScriptedCluster(nodes=2), 0

    async def script(asked: Asked) -> None:
        nonlocal greetings
        greetings += asked.api == "ApiVersions"
        if asked.api == "Produce" or greetings > 1:
            raise Close

    cluster.nodes[2].script = script
    with pytest.raises(trio_kprod.DeliveryFailed) as caught:
        async with open_on(cluster, delivery_threshold=1, shutdown_timeout=3) as producer:
            producer.send_nowait("t", b"x", partition=1)
            await trio.sleep(5)
    assert greetings > 1
    told = [str(caught.value), *caplog.messages]
    assert any("ApiVersions: the broker closed the connection" in text for text in told)
    assert not any("perhaps this is" in text for text in told)


async def test_a_broker_that_was_away_is_not_guessed_about(autojump_clock: Clock) -> None:
    """While it is away, the others do not list it."""
    endpoints = make_endpoints()
    addresses = {1: ("one", 1), 2: ("two", 2)}
    endpoints.learn(addresses)
    endpoints.opened(("one", 1))
    endpoints.learn({2: ("two", 2)})
    endpoints.learn(addresses)
    assert not endpoints._may_guess(("one", 1))
    assert endpoints._may_guess(("two", 2))


async def test_what_is_known_of_addresses_is_bounded(autojump_clock: Clock) -> None:
    """A cluster that replaces its brokers for ever does not use more and more memory."""
    endpoints = make_endpoints()
    for number in range(3000):
        endpoints.opened(("b", number))
        endpoints.learn({1: ("b", number)})
    assert len(endpoints._proven) <= 1001
