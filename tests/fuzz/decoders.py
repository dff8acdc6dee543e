"""From bytes to meaning: frames, and the responses of every version."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from random import Random
from types import SimpleNamespace
from typing import Any, NamedTuple

from kafka.protocol.metadata import ApiVersionsRequest, MetadataRequest
from kafka.protocol.producer import InitProducerIdRequest, ProduceResponse
from kafka.protocol.sasl import SaslAuthenticateRequest, SaslBytesRequest, SaslHandshakeRequest

from tests.fuzz.mutations import mutated
from tests.fuzz.samples import NUMBER, TOPIC_IDS, TOPICS, frame_of
from tests.fuzz.targets import Target, check_text, length
from trio_kprod._client._exchange import ApiExchange, Exchange, Frames, decode
from trio_kprod._client._produce_codec import HIGHEST_VERSION, LOWEST_VERSION, ProduceExchange
from trio_kprod._client._protocol import (
    LOWEST_METADATA_VERSION,
    ClusterMetadata,
    ProduceOutcome,
    cluster_metadata,
    decode_produce,
    producer_id,
)
from trio_kprod._errors import ConnectionLost

#: Valid frames to begin with, of each kind and version.
_SAMPLES = 24

Fuzzed = tuple[int, bytes]


class Kind(NamedTuple):
    """A request that is waiting, valid responses to it, and what must hold of their meaning."""

    exchange: Exchange
    samples: tuple[bytes, ...]
    look: Callable[[Exchange, bytes, Any], None]


def _of_api(request_class: Any, lowest: int = 0, read: Any = None, look: Any = None) -> list[Kind]:
    kinds = []
    for version in range(lowest, request_class.max_version + 1):
        exchange = ApiExchange(request_class(version=version), 1.0, _ignore, read=read)
        exchange.correlation_id = NUMBER
        exchange.encode("fuzz")
        response = exchange.request.header.get_response_class()
        kinds.append(Kind(exchange, _samples(response[None], version), look or _nothing_more))
    return kinds


def _samples(response_class: Any, version: int) -> tuple[bytes, ...]:
    rng = Random(version)
    return tuple(frame_of(response_class, version, rng) for _ in range(_SAMPLES))


def _ignore(*_: Any) -> None:
    pass


def _nothing_more(exchange: Exchange, frame: bytes, meaning: Any) -> None:
    """Whatever could be decoded is as good as any: the handshake looks at it, see `connections`."""


def _is_producer_id(exchange: Exchange, frame: bytes, meaning: Any) -> None:
    code, number = meaning
    assert code or 0 <= number < 2**63


def _is_metadata(exchange: Exchange, frame: bytes, meaning: ClusterMetadata) -> None:
    for node, (host, port) in meaning.brokers.items():
        assert isinstance(node, int)
        assert isinstance(host, str)
        assert host
        assert isinstance(port, int)
    for topic in meaning.topics:
        assert topic.name is None or isinstance(topic.name, str)
        assert sorted(one.index for one in topic.partitions) == list(range(len(topic.partitions)))
        assert all(one.leader == -1 or one.leader in meaning.brokers for one in topic.partitions)


def _is_outcome(exchange: Exchange, frame: bytes, meaning: ProduceOutcome) -> None:
    assert isinstance(exchange, ProduceExchange)
    for (name, partition), response in meaning.responses.items():
        assert isinstance(name, str)
        assert isinstance(partition, int)
        assert -1 <= response.base_offset < 2**63 - 2**31
        assert response.leader == -1 or response.leader in meaning.moved
    if exchange.read_plain(frame) is not None:  # what is read by hand must be what kafka-python reads
        names = dict(zip(TOPIC_IDS, TOPICS, strict=True))
        assert decode_produce(frame, exchange.version, names)[1] == meaning


def _of_produce() -> list[Kind]:
    kinds = []
    for version in range(LOWEST_VERSION, HIGHEST_VERSION + 1):
        exchange = ProduceExchange(_request(), version, -1, 1.0, _ignore)
        exchange.correlation_id = NUMBER
        exchange.encode("fuzz")
        samples = _samples(ProduceResponse, version) + (_plain(version),) * (_SAMPLES // 2)
        kinds.append(Kind(exchange, samples, _is_outcome))
    return kinds


class _Topic:
    def __init__(self, name: str, topic_id: Any) -> None:
        self.name, self.id = name, topic_id


def _request() -> Any:
    batches = [
        SimpleNamespace(partition=SimpleNamespace(topic=topic, index=index), data=b"records", entries=[()])
        for topic in map(_Topic, TOPICS, TOPIC_IDS)
        for index in (0, 1, 2)
    ]
    return SimpleNamespace(batches=batches, write_started=False)


def _plain(version: int) -> bytes:
    """That all is written."""
    topic_class = ProduceResponse.TopicProduceResponse
    responses = [
        topic_class(
            partition_responses=[
                topic_class.PartitionProduceResponse(
                    index=index, error_code=0, base_offset=5, log_append_time_ms=-1, error_message=None
                )
                for index in (0, 1, 2)
            ],
            **({"topic_id": topic_id} if version >= 13 else {"name": name}),
        )
        for name, topic_id in zip(TOPICS, TOPIC_IDS, strict=True)
    ]
    message = ProduceResponse(version=version, throttle_time_ms=0, responses=responses)
    message.with_header(correlation_id=NUMBER)
    return bytes(message.encode(header=True))


def _bare_tokens() -> list[Kind]:
    """SASL without frames of its own, as before Kafka 1.0."""
    exchange = ApiExchange(SaslBytesRequest(b""), 1.0, _ignore)
    exchange.correlation_id = NUMBER
    exchange.encode("fuzz")
    return [Kind(exchange, (b"", b"r=nonce,s=c2FsdA==,i=4096", b"v=abcd"), _nothing_more)]


_KINDS: dict[str, Callable[[], list[Kind]]] = {
    "versions": partial(_of_api, ApiVersionsRequest),
    "metadata": partial(
        _of_api, MetadataRequest, LOWEST_METADATA_VERSION, read=cluster_metadata, look=_is_metadata
    ),
    "producer_id": partial(_of_api, InitProducerIdRequest, read=producer_id, look=_is_producer_id),
    "produce": _of_produce,
    "sasl_handshake": partial(_of_api, SaslHandshakeRequest),
    "sasl_authenticate": lambda: _of_api(SaslAuthenticateRequest) + _bare_tokens(),
}


@cache
def kinds(name: str) -> list[Kind]:
    return _KINDS[name]()


def _draw(name: str, rng: Random) -> Fuzzed:
    which = rng.randrange(len(kinds(name)))
    kind = kinds(name)[which]
    return which, mutated(rng.choice(kind.samples), rng)


def _check(name: str, fuzzed: Fuzzed) -> str:
    which, frame = fuzzed
    kind = kinds(name)[which]
    try:
        throttle_ms, meaning = decode(kind.exchange, frame)
    except ConnectionLost as error:
        check_text(str(error))
        return "refused"
    assert isinstance(throttle_ms, int)
    kind.look(kind.exchange, frame, meaning)
    return "decoded"


def _draw_stream(rng: Random) -> tuple[int, list[bytes]]:
    """A limit, and what is received piece by piece."""
    sizes = (0, 1, 3, 4, 5, 100, 1000)
    frames = [rng.randbytes(rng.choice(sizes)) for _ in range(rng.choice((0, 1, 2, 5)))]
    stream = b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)
    if rng.random() < 0.7:
        stream = mutated(stream, rng)
    pieces = []
    while stream:
        size = rng.choice((1, 2, 4, 5, 64, 5000))
        pieces.append(stream[:size])
        stream = stream[size:]
    return rng.choice((0, 100, 2**31 - 1)), pieces


def _check_stream(fuzzed: tuple[int, list[bytes]]) -> str:
    limit, pieces = fuzzed
    expected, rest, ends = _cut(b"".join(pieces), limit)
    frames = Frames(limit)
    got: list[bytes] = []
    lost = False
    for piece in pieces:
        try:
            got.extend(frames.feed(piece))
        except ConnectionLost as error:
            check_text(str(error))
            lost = True
            break
    assert got == expected
    assert lost == ends
    assert lost or bytes(frames._buffer) == rest
    return "lost" if lost else "cut"


def _cut(stream: bytes, limit: int) -> tuple[list[bytes], bytes, bool]:
    """The whole frames in it, what is left, and whether a length is not allowed."""
    frames: list[bytes] = []
    while len(stream) >= 4:
        size = int.from_bytes(stream[:4], "big", signed=True)
        if size < 0 or size > limit:
            return frames, stream, True
        if len(stream) < 4 + size:
            break
        frames.append(stream[4 : 4 + size])
        stream = stream[4 + size :]
    return frames, stream, False


_SHARES = {"versions": 120, "metadata": 280, "producer_id": 60, "produce": 320, "sasl_handshake": 50}

DECODERS = [
    *(
        Target(name, _SHARES.get(name, 50), partial(_draw, name), partial(_check, name), length)
        for name in _KINDS
    ),
    Target("frames", 70, _draw_stream, _check_stream, lambda fuzzed: sum(map(len, fuzzed[1]))),
]
