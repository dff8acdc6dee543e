from __future__ import annotations

import base64
import hashlib
import hmac
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
from kafka.net.sasl import SASL_MECHANISMS
from kafka.net.sasl.abc import SaslMechanism
from kafka.net.sasl.oauth import AbstractTokenProvider
from kafka.protocol.metadata import MetadataRequest
from kafka.protocol.sasl import SaslAuthenticateResponse, SaslHandshakeResponse

from tests.scripted_peer import Client, Peer, client_of, metadata
from trio_kprod._client._connection import SetupFailed
from trio_kprod._client._sasl import Authenticator

LOGIN = "are sasl_plain_username and sasl_plain_password right, and known to this listener?"

PLAIN: dict[str, Any] = {
    "security_protocol": "SASL_PLAINTEXT",
    "sasl_mechanism": "PLAIN",
    "sasl_options": {"sasl_plain_username": "ann", "sasl_plain_password": "secret"},
}
SCRAM: dict[str, Any] = {
    "security_protocol": "SASL_PLAINTEXT",
    "sasl_mechanism": "SCRAM-SHA-256",
    "sasl_options": {**PLAIN["sasl_options"], "sasl_mechanism": "SCRAM-SHA-256"},
}

#: A broker of Kafka 0.11: no SaslAuthenticate.
OLD_VERSIONS = {3: (0, 4), 17: (0, 0)}


async def next_token(peer: Peer) -> tuple[Any, bytes]:
    request = await peer.request()
    return request, bytes(request.auth_bytes)


async def reply(peer: Peer, request: Any, data: bytes = b"", error: int = 0, **fields: Any) -> None:
    response = SaslAuthenticateResponse(
        version=request.API_VERSION, error_code=error, auth_bytes=data, **{"error_message": None, **fields}
    )
    await peer.answer(request, response)


async def plain(peer: Peer, **fields: Any) -> None:
    """One good PLAIN authentication."""
    await peer.handshake("PLAIN")
    request, data = await next_token(peer)
    assert data == b"ann\0ann\0secret"
    await reply(peer, request, **fields)


async def open_and_close(client: Client) -> None:
    await client.connection.open()
    client.connection.close()
    await client.connection.serve()


async def failure(client: Client) -> SetupFailed:
    with pytest.raises(SetupFailed) as caught:
        await client.connection.open()
    assert [stream._sock.fileno() for stream in client.network.opened] == [-1]
    return caught.value


async def test_plain() -> None:
    async def script(peer: Peer) -> None:
        await peer.versions()
        await plain(peer)
        await peer.until_closed()

    async with client_of(script, **PLAIN) as client:
        await open_and_close(client)


async def test_plain_without_frames() -> None:
    """Before Kafka 1.0 the tokens stand on the wire without a request around them."""

    async def script(peer: Peer) -> None:
        await peer.versions(OLD_VERSIONS)
        await peer.handshake("PLAIN")
        assert await peer.frame() == b"ann\0ann\0secret"
        await peer.stream.send_all(b"\0\0\0\0")
        await peer.until_closed()

    async with client_of(script, **PLAIN) as client:
        await open_and_close(client)


async def test_last_token_without_frames_has_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """As GSSAPI ends with a broker of Kafka 0.11: waiting for an answer would be for ever."""

    class Twice(SaslMechanism):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            self.host = options["host"]
            self.tokens = [b"first", b"last"]

        def auth_bytes(self) -> bytes:
            return self.tokens.pop(0)

        def receive(self, auth_bytes: bytes) -> None:
            assert (auth_bytes, self.host) == (b"go on", "broker")

        def is_done(self) -> bool:
            return not self.tokens

        def is_authenticated(self) -> bool:
            return self.is_done()

    monkeypatch.setitem(SASL_MECHANISMS, "TWICE", Twice)

    async def script(peer: Peer) -> None:
        await peer.versions(OLD_VERSIONS)
        await peer.handshake("TWICE")
        assert await peer.frame() == b"first"
        await peer.stream.send_all(b"\0\0\0\5go on")
        assert await peer.frame() == b"last"
        await peer.metadata()
        await peer.until_closed()

    async with client_of(script, sasl_mechanism="TWICE") as client, trio.open_nursery() as nursery:
        await client.connection.open()
        nursery.start_soon(client.serve)
        await client.until("answer", client.ask(MetadataRequest(version=4, topics=[])))
        client.connection.close()


async def test_answer_that_authenticates_nobody() -> None:
    async def script(peer: Peer) -> None:
        await peer.versions()
        await peer.handshake("PLAIN")
        request, _ = await next_token(peer)
        await reply(peer, request, b"who are you?")
        await peer.until_closed()

    async with client_of(script, **PLAIN) as client:
        error = await failure(client)
        assert str(error) == "SASL PLAIN authentication: authentication failed"
        assert error.fatal


async def test_wrong_password_is_fatal_with_the_words_of_the_broker() -> None:
    """Also when the broker closes right behind its answer, as Kafka does."""

    async def script(peer: Peer) -> None:
        await peer.versions()
        await peer.handshake("PLAIN")
        request, _ = await next_token(peer)
        await reply(
            peer, request, error=58, error_message="Authentication failed: Invalid username or password"
        )

    async with client_of(script, **PLAIN) as client:
        error = await failure(client)
        assert str(error) == (
            "SASL PLAIN authentication: authentication failed: "
            f"Authentication failed: Invalid username or password; {LOGIN}"
        )
        assert error.fatal


@pytest.mark.parametrize(
    ("code", "text", "advice", "fatal"),
    [
        (
            33,
            "the broker does not support the mechanism PLAIN; it offers: GSSAPI, SCRAM-SHA-256",
            "set sasl_mechanism to one of them",
            True,
        ),
        (
            34,
            "ILLEGAL_SASL_STATE (34): this listener takes no SASL, or not now",
            "use a listener that does, or security_protocol='PLAINTEXT'",
            True,
        ),
        (-1, "UNKNOWN (-1)", "", False),
    ],
)
async def test_handshake_refused(code: int, text: str, advice: str, fatal: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.versions()
        await peer.handshake("GSSAPI", "SCRAM-SHA-256", error=code)

    async with client_of(script, **PLAIN) as client:
        error = await failure(client)
        assert error.what == f"SASL PLAIN authentication: {text}"
        assert error.advice == advice
        assert error.fatal == fatal


async def test_offer_of_nothing_readable() -> None:
    async def script(peer: Peer) -> None:
        await peer.versions()
        await peer.request()
        # UNSUPPORTED_SASL_MECHANISM, and a null in place of a name
        await peer.stream.send_all(b"\0\0\0\x0c\0\0\0\2" + b"\0\x21\0\0\0\1\xff\xff")

    async with client_of(script, **PLAIN) as client:
        error = await failure(client)
        assert "does not support the mechanism PLAIN; it offers: None" in str(error)


@pytest.mark.parametrize("count", ["1", "4095", "0", "-4096", " 4096", "4_096", "9" * 5000, "", "4096,i=1"])
async def test_scram_with_iterations_that_give_the_password_away(count: str) -> None:
    """Who pretends to be a broker gets no answer from which it could be guessed."""

    async def script(peer: Peer) -> None:
        await peer.versions()
        await peer.handshake("SCRAM-SHA-256")
        request, data = await next_token(peer)
        nonce = data.split(b",r=")[1]
        await reply(peer, request, b"r=" + nonce + b"x,s=c2FsdA==,i=" + count.encode())
        await peer.until_closed()

    async with client_of(script, **SCRAM) as client:
        error = await failure(client)
    assert error.fatal
    assert "iterations, not 4096 or more" in str(error)
    assert len(str(error)) < 1200


@pytest.mark.parametrize("data", [b"\xff" * 20, b"r=,s=,i=0", b"r", b"", b"r=x,s=x,i=99999999999"])
async def test_challenge_that_is_none(data: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.versions()
        await peer.handshake("SCRAM-SHA-256")
        request, _ = await next_token(peer)
        await reply(peer, request, data)
        await peer.until_closed()

    async with client_of(script, **SCRAM) as client:
        error = await failure(client)
        assert str(error).startswith("SASL SCRAM-SHA-256 authentication: ")
        assert error.fatal


async def test_challenge_of_10_megabytes() -> None:
    """Ends the connection before it has come."""

    async def script(peer: Peer) -> None:
        await peer.versions()
        await peer.handshake("SCRAM-SHA-256")
        await next_token(peer)
        await peer.stream.send_all((10_000_000).to_bytes(4, "big"))
        await peer.until_closed()

    async with client_of(script, **SCRAM) as client:
        assert "a frame of 10000000 bytes" in str(await failure(client))


async def test_challenges_without_end() -> None:
    async def script(peer: Peer) -> None:
        await peer.versions()
        await peer.handshake("OAUTHBEARER")
        with suppress(EOFError):
            while True:
                request, _ = await next_token(peer)
                await reply(peer, request, b"and another thing")

    async with client_of(script, **oauth(lambda: "abc")) as client:
        error = await failure(client)
        assert str(error) == "SASL OAUTHBEARER authentication: not finished after 20 steps"
        assert not error.fatal


async def test_what_the_broker_has_us_compute_is_computed_in_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It says how often SCRAM has to hash, up to half a second's worth."""
    threads = set()

    def watched(*args: Any, **kwargs: Any) -> bytes:
        threads.add(threading.current_thread())
        return pbkdf2(*args, **kwargs)

    pbkdf2 = hashlib.pbkdf2_hmac

    async def script(peer: Peer) -> None:
        await peer.versions()
        with monkeypatch.context() as patch:
            patch.setattr(hashlib, "pbkdf2_hmac", watched)
            await peer.handshake("SCRAM-SHA-256")
            request, _ = await next_token(peer)
            nonce = _.split(b",r=")[1]
            await reply(peer, request, b"r=" + nonce + b"x,s=c2FsdA==,i=4096")
            request, _ = await next_token(peer)
            await reply(peer, request, error=58)

    async with client_of(script, **SCRAM) as client:
        await failure(client)
    assert threads
    assert threading.current_thread() not in threads


async def test_refusal_of_30_kilobytes_is_told_in_short() -> None:
    async def script(peer: Peer) -> None:
        await peer.versions()
        await peer.handshake("PLAIN")
        request, _ = await next_token(peer)
        await reply(peer, request, error=58, error_message="no\n" * 10_000)

    async with client_of(script, **PLAIN) as client:
        text = str(await failure(client))
    assert "authentication failed: no no no" in text
    assert len(text) < 2000


@pytest.mark.parametrize("versions", [{3: (0, 9)}, {3: (0, 9), 17: (-5, -1)}, {3: (0, 9), 17: (1, 0)}])
async def test_broker_without_sasl(versions: dict[int, tuple[int, int]]) -> None:
    async def script(peer: Peer) -> None:
        await peer.versions(versions)
        await peer.until_closed()

    async with client_of(script, **PLAIN) as client:
        error = await failure(client)
        assert "the broker does not speak SASL" in str(error)
        assert error.fatal


async def test_closed_instead_of_an_answer_is_not_fatal() -> None:
    async def script(peer: Peer) -> None:
        await peer.versions()
        await peer.request()

    async with client_of(script, **PLAIN) as client:
        error = await failure(client)
        assert str(error) == "SASL PLAIN authentication: the broker closed the connection"
        assert not error.fatal


@pytest.mark.parametrize(
    ("mechanism", "options", "text"),
    [
        ("ROT13", {}, "unknown mechanism 'ROT13'"),
        ("PLAIN", {}, "sasl_plain_username required"),
        ("PLAIN", {"sasl_plain_username": "ann", "sasl_plain_password": None}, "TypeError"),
    ],
)
async def test_unusable_settings_are_fatal(mechanism: str, options: dict[str, Any], text: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.versions()
        await peer.handshake(mechanism)
        await peer.until_closed()

    login: dict[str, Any] = {"sasl_mechanism": mechanism, "sasl_options": options}
    async with client_of(script, security_protocol="SASL_PLAINTEXT", **login) as client:
        error = await failure(client)
        assert text in str(error)
        assert error.fatal


# ---------------------------------------------------------------------------------------------------------
# SCRAM


async def scram(peer: Peer, password: bytes = b"secret", *, forge: bool = False) -> None:
    """A server of RFC 5802, as far as it is needed."""

    def keyed(key: bytes, text: bytes) -> bytes:
        return hmac.new(key, text, "sha256").digest()

    await peer.handshake("SCRAM-SHA-256")
    request, first = await next_token(peer)
    bare = first.removeprefix(b"n,,")
    nonce = bare.split(b",r=")[1] + b"server"
    salt = b"salt"
    server_first = b"r=" + nonce + b",s=" + base64.b64encode(salt) + b",i=4096"
    await reply(peer, request, server_first)
    request, final = await next_token(peer)
    without_proof, proof = final.split(b",p=")
    salted = hashlib.pbkdf2_hmac("sha256", password, salt, 4096)
    text = b",".join([bare, server_first, without_proof])
    client_key = keyed(salted, b"Client Key")
    signature = keyed(hashlib.sha256(client_key).digest(), text)
    if bytes(a ^ b for a, b in zip(client_key, signature, strict=True)) != base64.b64decode(proof):
        return await reply(peer, request, error=58, error_message="wrong proof")
    signature = b"forged" if forge else keyed(keyed(salted, b"Server Key"), text)
    return await reply(peer, request, b"v=" + base64.b64encode(signature))


async def test_scram() -> None:
    async def script(peer: Peer) -> None:
        await peer.versions()
        await scram(peer)
        await peer.until_closed()

    async with client_of(script, **SCRAM) as client:
        await open_and_close(client)


async def test_scram_with_another_password() -> None:
    async def script(peer: Peer) -> None:
        await peer.versions()
        await scram(peer, b"another")

    async with client_of(script, **SCRAM) as client:
        error = await failure(client)
        assert error.what == "SASL SCRAM-SHA-256 authentication: authentication failed: wrong proof"
        assert error.advice == LOGIN
        assert error.fatal


async def test_scram_server_that_does_not_know_the_password() -> None:
    async def script(peer: Peer) -> None:
        await peer.versions()
        await scram(peer, forge=True)
        await peer.until_closed()

    async with client_of(script, **SCRAM) as client:
        error = await failure(client)
        assert "wrong signature" in str(error)
        assert error.fatal


async def test_scram_server_that_talks_nonsense() -> None:
    async def script(peer: Peer) -> None:
        await peer.versions()
        await peer.handshake("SCRAM-SHA-256")
        request, _ = await next_token(peer)
        await reply(peer, request, b"\xff")
        await peer.until_closed()

    async with client_of(script, **SCRAM) as client:
        assert (await failure(client)).fatal


# ---------------------------------------------------------------------------------------------------------
# Token providers


class Provider(AbstractTokenProvider):  # type: ignore[misc]
    def __init__(self, function: Callable[[], str]) -> None:
        self._function = function

    def token(self) -> str:
        return self._function()


def oauth(function: Callable[[], str]) -> dict[str, Any]:
    options = {"sasl_oauth_token_provider": Provider(function)}
    return {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "OAUTHBEARER",
        "sasl_options": options,
    }


async def test_token_provider_runs_in_a_thread() -> None:
    async def script(peer: Peer) -> None:
        await peer.versions()
        await peer.handshake("OAUTHBEARER")
        request, data = await next_token(peer)
        assert b"auth=Bearer abc" in data
        await reply(peer, request)
        await peer.until_closed()

    threads = []

    def provide() -> str:
        threads.append(threading.current_thread())
        return "abc"

    async with client_of(script, **oauth(provide)) as client:
        await open_and_close(client)
    assert threading.current_thread() not in threads
    assert len(threads) == 1


async def test_refused_token_is_told_with_the_words_of_the_broker() -> None:
    """RFC 7628: the refusal is a challenge, to be answered with one byte; then comes the error."""

    async def script(peer: Peer) -> None:
        await peer.versions()
        await peer.handshake("OAUTHBEARER")
        request, _ = await next_token(peer)
        await reply(peer, request, b'{"status":"invalid_token"}')
        request, data = await next_token(peer)
        assert data == b"\x01"
        await reply(peer, request, error=58, error_message="invalid_token")

    async with client_of(script, **oauth(lambda: "abc")) as client:
        error = await failure(client)
        assert error.what == "SASL OAUTHBEARER authentication: authentication failed: invalid_token"
        assert error.advice == "is the token of sasl_oauth_token_provider valid, and for this broker?"
        assert error.fatal


@pytest.mark.parametrize("kind", [LookupError, SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration])
async def test_provider_that_raises_fails_this_attempt_only(kind: type[BaseException]) -> None:
    """Whatever it raises: it runs in a thread, where it can stop nothing but itself."""

    async def script(peer: Peer) -> None:
        await peer.versions()
        await peer.handshake("OAUTHBEARER")
        await peer.until_closed()

    def provide() -> str:
        raise kind("identity server is down")

    async with client_of(script, **oauth(provide)) as client:
        error = await failure(client)
        assert str(error) == (
            "SASL OAUTHBEARER authentication:"
            f" sasl_oauth_token_provider raised {kind.__name__}: identity server is down"
        )
        assert not error.fatal
        assert error.lasting


async def test_ctrl_c_is_no_failure_of_a_mechanism_in_our_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """PLAIN has no thread, so what is raised in it may be a Ctrl-C for the program."""

    class Interrupted:
        def __init__(self, **_: object) -> None:
            raise KeyboardInterrupt

    async def ask(request: Any) -> Any:
        return SaslHandshakeResponse(version=request.API_VERSION, error_code=0, mechanisms=["PLAIN"])

    monkeypatch.setitem(SASL_MECHANISMS, "PLAIN", Interrupted)
    authenticator = Authenticator("PLAIN", PLAIN["sasl_options"], "SASL_PLAINTEXT", "kafka", None)
    with pytest.raises(KeyboardInterrupt):
        await authenticator.authenticate(ask, lambda _: 1)


async def test_provider_that_hangs_is_left_behind() -> None:
    async def script(peer: Peer) -> None:
        await peer.versions()
        await peer.handshake("OAUTHBEARER")
        await peer.until_closed()

    release, ended = threading.Event(), threading.Event()

    def provide() -> str:
        release.wait(60)
        ended.set()
        return "late"

    async with client_of(script, connection_setup_timeout=0.05, **oauth(provide)) as client:
        error = await failure(client)
        assert str(error) == "SASL OAUTHBEARER authentication: not finished within 0.05 s"
        assert not error.fatal
    assert not ended.is_set()
    release.set()
    await trio.to_thread.run_sync(ended.wait, 60)


# ---------------------------------------------------------------------------------------------------------
# Again (KIP-368)


async def test_authenticates_again_before_the_session_ends(autojump_clock: trio.testing.MockClock) -> None:
    """With nothing else on the way; requests that come meanwhile wait, and go out afterwards."""
    times = []

    async def script(peer: Peer) -> None:
        await peer.versions()
        await plain(peer, session_lifetime_ms=100_000)
        held = await peer.request()
        await trio.sleep(120)  # the session ends meanwhile, but the client owes us patience for one answer
        await peer.answer(held, metadata(held))
        await plain(peer, session_lifetime_ms=100_000)
        times.append(trio.current_time())
        await peer.metadata()
        await plain(peer, session_lifetime_ms=0)
        times.append(trio.current_time())
        await peer.until_closed()

    async with client_of(script, **PLAIN) as client, trio.open_nursery() as nursery:
        await client.connection.open()
        nursery.start_soon(client.serve)
        client.ask(timeout=1000)
        await trio.sleep(110)
        queued = client.ask()
        await trio.testing.wait_all_tasks_blocked()
        assert client.told(queued) == []
        await client.until("answer", queued)
        await client.ended.wait()
        assert client.lost is None  # idle at last, and asked no more for authentication
    assert times[0] == 120
    assert 120 + 85 <= times[1] <= 120 + 95


@pytest.mark.parametrize("delay", [5, 9.8], ids=["before it is time", "when it is time"])
async def test_a_throttled_connection_authenticates_afterwards(
    delay: float, autojump_clock: trio.testing.MockClock
) -> None:
    """The broker reads nothing before, so that it would seem silent."""

    async def script(peer: Peer) -> None:
        await peer.versions()
        await plain(peer, session_lifetime_ms=10_000)
        request = await peer.request()
        await trio.sleep(delay)
        await peer.answer(request, metadata(request, throttle_time_ms=60_000))
        await plain(peer, session_lifetime_ms=0)
        assert trio.current_time() == delay + 60
        await peer.metadata()
        await peer.until_closed()

    async with client_of(script, **PLAIN) as client, trio.open_nursery() as nursery:
        await client.connection.open()
        nursery.start_soon(client.serve)
        await client.until("answer", client.ask())
        await client.until("answer", client.ask())
        client.connection.close()


async def test_refused_again_loses_the_connection(autojump_clock: trio.testing.MockClock) -> None:
    """What was queued meanwhile is told as not handed over; our own requests are nobody's business."""

    async def script(peer: Peer) -> None:
        await peer.versions()
        await plain(peer, session_lifetime_ms=1000)
        await peer.handshake("PLAIN")
        request, _ = await next_token(peer)
        exchanges.append(client.ask())
        await trio.testing.wait_all_tasks_blocked()
        await reply(peer, request, error=58, error_message="account closed")

    exchanges: list[Any] = []
    async with client_of(script, **PLAIN) as client, trio.open_nursery() as nursery:
        await client.connection.open()
        nursery.start_soon(client.serve)
        expected = "SASL PLAIN authentication, again: authentication failed: account closed"
        assert await client.loss() == expected
        assert client.connection.unanswered() == exchanges
        assert not exchanges[0].write_started


async def test_silence_when_authenticating_again(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.versions()
        await plain(peer, session_lifetime_ms=1000)
        await peer.until_closed_after_anything()

    async with client_of(script, **PLAIN) as client, trio.open_nursery() as nursery:
        await client.connection.open()
        nursery.start_soon(client.serve)
        assert await client.loss() == "SASL PLAIN authentication, again: not finished within 10 s"
        assert client.connection.unanswered() == []
        assert 10.85 <= trio.current_time() <= 10.95
