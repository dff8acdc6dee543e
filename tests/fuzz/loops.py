"""What runs in a loop: the SASL exchange, one connection, the whole producer, the embedded broker."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from types import SimpleNamespace
from typing import Any, NamedTuple

import trio
import trio.testing
from kafka.net.sasl.oauth import AbstractTokenProvider
from kafka.protocol.metadata import ApiVersionsRequest, MetadataRequest
from kafka.protocol.producer import InitProducerIdRequest, ProduceRequest
from kafka.protocol.sasl import SaslAuthenticateRequest, SaslHandshakeRequest

import trio_kprod
from tests.fuzz.decoders import kinds
from tests.fuzz.mutations import mutated
from tests.fuzz.samples import frame_of
from tests.fuzz.targets import Target, check_text
from tests.scripted_cluster import Asked, Close, ScriptedCluster, framed, open_on
from tests.scripted_peer import Peer, answer_bytes, api_versions, settings
from trio_kprod._client._connection import Connection, SetupFailed
from trio_kprod._client._exchange import ApiExchange, decode_api
from trio_kprod._client._sasl import AuthenticationFailed, Authenticator
from trio_kprod._client._transport import Fence
from trio_kprod._errors import ConnectionLost
from trio_kprod.testing import MemoryBroker

# ---- SASL ------------------------------------------------------------------------------------------------

_PASSWORD = "cloves-and-cinnamon"

#: Iterations of SCRAM: as brokers have them, cheaper, too many, and no numbers.
_ITERATIONS = ("4096", "1", "0", "-1", "1000001", "9" * 5000, "1e3", "", " 4096 ", "\uff14096", "0x1000")

_CHALLENGES = (b"", b'{"status":"invalid_token","scope":"x"}', b"\x1b[31mno\n", b"\xff\xfe", b"x" * 70_000)


class Dialogue(NamedTuple):
    """A mechanism, and what a broker says at each step: error codes, texts, and what becomes of tokens."""

    mechanism: str
    seed: int


def check_secret(text: str) -> None:
    check_text(text)
    assert _PASSWORD not in text


class _Tokens(AbstractTokenProvider):  # type: ignore[misc]
    def token(self) -> str:
        return _PASSWORD


def _draw_dialogue(rng: Random) -> Dialogue:
    return Dialogue(
        rng.choice(("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")), rng.getrandbits(32)
    )


class _SaslServer:
    """The other side of a dialogue; it proves that it knows the password unless it is spoiled."""

    def __init__(self, dialogue: Dialogue) -> None:
        self._mechanism = dialogue.mechanism
        self._rng = Random(dialogue.seed)
        self._first = b""
        self._begun = False
        self.steps = 0

    async def ask(self, request: Any, expects_response: bool | None = None) -> Any:
        self.steps += 1
        assert self.steps < 50, "the dialogue has no end"
        rng = self._rng
        if hasattr(request, "mechanism"):
            names = rng.choice(([self._mechanism], [], None, ["\x1b[2J", "A\nB", "\u202e"] * 9, ["x" * 9000]))
            return SimpleNamespace(error_code=rng.choice((0, 0, 0, 0, 33, 34, 58, -1)), mechanisms=names)
        token = getattr(request, "auth_bytes", None) or request._data
        code = rng.choice((0,) * 12 + (58, 34, 74, -1))
        text = rng.choice((None, "", "no\x1b[31m\n", "x" * 30_000, "\ud800"))
        lifetime = rng.choice((0, 1, -5, 2**63 - 1, 3_600_000))
        data = self._answer(bytes(token))
        return SimpleNamespace(
            error_code=code, error_message=text, auth_bytes=data, session_lifetime_ms=lifetime
        )

    def _answer(self, token: bytes) -> bytes:
        rng = self._rng
        if self._mechanism.startswith("SCRAM"):
            answer = self._scram(token)
            return mutated(answer, rng) if rng.random() < 0.5 else answer
        return rng.choice((b"", b"", *_CHALLENGES, rng.randbytes(20)))

    def _scram(self, token: bytes) -> bytes:
        hash_name = self._mechanism.removeprefix("SCRAM-").replace("-", "").lower()
        if not self._begun:
            self._begun = True
            nonce = token.partition(b",r=")[2] + b"server"
            self._iterations = self._rng.choice(("4096",) * 12 + _ITERATIONS)
            answer = b"r=%b,s=%b,i=%b" % (nonce, base64.b64encode(b"salt"), self._iterations.encode())
            self._first = token.removeprefix(b"n,,") + b"," + answer
            return answer
        rounds = int(self._iterations) if self._iterations in ("1", "4096") else 1
        salted = hashlib.pbkdf2_hmac(hash_name, _PASSWORD.encode(), b"salt", rounds)
        key = hmac.digest(salted, b"Server Key", hash_name)
        said = self._first + b"," + token.partition(b",p=")[0]
        return b"v=" + base64.b64encode(hmac.digest(key, said, hash_name))


async def _check_dialogue(dialogue: Dialogue) -> str:
    options: dict[str, Any] = {"sasl_plain_username": "ann", "sasl_plain_password": _PASSWORD}
    options["sasl_mechanism"] = dialogue.mechanism
    if dialogue.mechanism == "OAUTHBEARER":
        options = {"sasl_oauth_token_provider": _Tokens()}
    authenticator = Authenticator(dialogue.mechanism, options, "SASL_PLAINTEXT", "broker", None)
    server = _SaslServer(dialogue)
    versions = {SaslHandshakeRequest: Random(dialogue.seed).choice((None, 0, 1, 1, 1))}
    versions[SaslAuthenticateRequest] = Random(dialogue.seed + 1).choice((None, 0, 1, 2))
    try:
        lifetime = await authenticator.authenticate(server.ask, versions.get)
    except AuthenticationFailed as error:
        check_secret(str(error))
        return "refused"
    assert 0 <= lifetime <= 2**63
    return "authenticated"


# ---- One connection --------------------------------------------------------------------------------------

_TLS_TYPES = (20, 21, 22, 23, 24, 72, 255)


#: Longer than a broker can throttle us, which is for 2**31 milliseconds, a few times.
_FOR_EVER = 1e8


class Conversation(NamedTuple):
    """What the peer of a connection does, from a seed."""

    tls: bool
    sasl: bool
    seed: int


def _draw_conversation(rng: Random) -> Conversation:
    return Conversation(rng.random() < 0.15, rng.random() < 0.2, rng.getrandbits(32))


class _HostilePeer:
    """Answers requests, nearly right, in pieces, or with anything at all."""

    def __init__(self, rng: Random, stream: trio.abc.Stream) -> None:
        self._rng = rng
        self._peer = Peer(stream)
        self._honest = rng.choice((0.2, 0.5, 0.95))

    async def run(self) -> None:
        with suppress(EOFError, trio.BrokenResourceError, trio.ClosedResourceError):
            async with self._peer.stream:
                while True:
                    try:
                        request = await self._peer.request()
                    except KeyError:  # a token of SASL that stands there by itself
                        await self._send(framed(mutated(b"", self._rng)))
                    else:
                        await self._send(self._answer(request))
                    if self._rng.random() < 0.05:
                        break

    def _answer(self, request: Any) -> bytes:
        rng = self._rng
        if isinstance(request, ApiVersionsRequest) and rng.random() < self._honest:
            return answer_bytes(request, api_versions(request.API_VERSION))
        response_class = request.header.get_response_class()[None]
        frame = frame_of(response_class, request.API_VERSION, rng)
        frame = request.header.correlation_id.to_bytes(4, "big") + frame[4:]
        if rng.random() > self._honest:
            frame = mutated(frame, rng)
        answer = framed(frame)
        return mutated(answer, rng) if rng.random() < 0.05 else answer

    async def garbage(self) -> None:
        """To a client that expects TLS."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with self._peer.stream:
                for _ in range(self._rng.randrange(1, 5)):
                    await self._send(self._tls_record())
                await self._peer.until_closed_after_anything()

    def _tls_record(self) -> bytes:
        rng = self._rng
        body = rng.randbytes(rng.choice((0, 2, 40, 500)))
        kind = rng.choice((21, 22, rng.choice(_TLS_TYPES)))
        record = bytes((kind, 3, rng.choice((1, 3, 4)))) + len(body).to_bytes(2, "big") + body
        return rng.choice((record, mutated(record, rng), b"HTTP/1.1 400 Bad Request\r\n\r\n", framed(body)))

    async def _send(self, data: bytes) -> None:
        while data:
            size = self._rng.choice((1, 3, 4, 7, 1000, 100_000))
            await self._peer.stream.send_all(data[:size])
            data = data[size:]


class _OneStream:
    """A network with one address, where somebody waits."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def open_stream(self, *_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return self._stream


async def _check_conversation(conversation: Conversation) -> str:
    rng = Random(conversation.seed)
    protocol = ("SASL_" if conversation.sasl else "") + ("SSL" if conversation.tls else "PLAINTEXT")
    changes: dict[str, Any] = {"security_protocol": protocol}
    if conversation.tls:
        changes["ssl_context"] = ssl.create_default_context()
    if conversation.sasl:
        options = {"sasl_plain_username": "ann", "sasl_plain_password": _PASSWORD}
        changes.update(sasl_mechanism="PLAIN", sasl_options=options)
    ours, theirs = trio.testing.memory_stream_pair()
    peer = _HostilePeer(rng, theirs)
    network: Any = _OneStream(ours)
    connection = Connection(("broker", 9092), settings(**changes), network, Fence())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.garbage if conversation.tls else peer.run)
        with trio.fail_after(_FOR_EVER):
            ended = await _converse(connection)
        nursery.cancel_scope.cancel()
    return ended


async def _converse(connection: Connection) -> str:
    try:
        await connection.open()
    except SetupFailed as error:
        check_secret(str(error))
        return "not opened"
    answered: list[Any] = []
    exchanges: list[Any] = []
    for request_class, name in _ASKED:
        version = connection.version(request_class)
        if version is not None and version >= _LOWEST[name]:
            waiting = kinds(name)[version - _LOWEST[name]].exchange
            exchanges.append(_exchange(waiting, answered))
            connection.send(exchanges[-1])
    connection_ended = "closed"
    try:
        await connection.serve()
    except ConnectionLost as error:
        check_text(str(error))
        connection_ended = "lost"
    assert len(answered) == len(set(map(id, answered)))
    left = set(map(id, connection.unanswered()))
    assert set(map(id, answered)).isdisjoint(left)
    assert set(map(id, answered)) | left == set(map(id, exchanges))
    return connection_ended


_ASKED = ((MetadataRequest, "metadata"), (InitProducerIdRequest, "producer_id"))
_LOWEST = {"metadata": 1, "producer_id": 0}


def _exchange(waiting: Any, answered: list[Any]) -> ApiExchange:
    return ApiExchange(
        waiting.request, 30.0, lambda exchange, _: answered.append(exchange), read=waiting._read
    )


# ---- The whole producer ----------------------------------------------------------------------------------


def _draw_seed(rng: Random) -> int:
    return rng.getrandbits(32)


async def _check_producer(seed: int) -> str:
    """One broker of two is hostile: what is meant for the other is delivered, each message is told once."""
    rng = Random(seed)
    cluster = ScriptedCluster()
    undelivered: list[trio_kprod.Undelivered] = []
    async with open_on(
        cluster, delivery_threshold=1, shutdown_timeout=3, on_undelivered=undelivered.append
    ) as producer:
        await producer.send_and_wait("t", b"before", partition=1)
        cluster.nodes[2].behave_like(_hostile(rng))
        for number in range(3):
            producer.send_nowait("t", b"%d" % number, partition=1)
        for number in range(3):
            with trio.fail_after(2):
                await producer.send_and_wait("t", b"%d" % number, partition=0)
        await trio.sleep(rng.choice((0, 1, 3)))
    told = producer.statistics()
    assert (told.accepted, told.delivered) == (7, 7 - len(undelivered))
    assert cluster.values("t", 0) == [b"0", b"1", b"2"]
    assert [node.connections for node in cluster.nodes.values()] == [0, 0]
    return f"{len(undelivered)} undelivered"


def _hostile(rng: Random) -> Callable[[Asked], Awaitable[bytes]]:
    """Garbage in the place of answers. What can be read is a lie only about its own partitions."""

    async def script(asked: Asked) -> bytes:
        good = await asked.good_frame()
        if rng.random() < 0.2:
            return framed(good)
        bad = mutated(good, rng)
        if asked.api in ("Metadata", "InitProducerId") and _is_readable(asked, bad):
            raise Close
        return framed(bad)

    return script


def _is_readable(asked: Asked, frame: bytes) -> bool:
    try:
        decode_api(asked.request.header.get_response_class(), frame)
    except Exception:
        return False
    return True


# ---- The embedded broker ---------------------------------------------------------------------------------

_REQUESTS = (ApiVersionsRequest, MetadataRequest, InitProducerIdRequest, ProduceRequest)


def _draw_requests(rng: Random) -> list[bytes]:
    requests = []
    for _ in range(rng.randrange(1, 4)):
        request_class: Any = rng.choice(_REQUESTS)
        version = rng.randrange(request_class.max_version + 1)
        frame = frame_of(request_class, version, rng)
        requests.append(framed(mutated(frame, rng)) if rng.random() < 0.9 else rng.randbytes(40))
    return requests


async def _check_embedded(requests: list[bytes]) -> str:
    """Whatever it is sent costs that connection, and no test that uses the broker."""
    broker = MemoryBroker()
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(broker.serve, theirs)
        with suppress(trio.BrokenResourceError):
            await ours.send_all(b"".join(requests))
            await ours.send_eof()
        received = 0
        with suppress(trio.BrokenResourceError):
            while data := await ours.receive_some():
                received += len(data)
        await ours.aclose()
    return "answered" if received else "closed"


def _one(_: Any) -> int:
    return 1


LOOPS = [
    Target("sasl", 20, _draw_dialogue, _check_dialogue, _one, "loop"),
    Target("connection", 20, _draw_conversation, _check_conversation, _one, "loop"),
    Target("producer", 2, _draw_seed, _check_producer, _one, "loop"),
    Target("embedded_broker", 8, _draw_requests, _check_embedded, lambda sent: sum(map(len, sent)), "loop"),
]
