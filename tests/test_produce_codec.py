"""Our bytes of produce requests and answers, against those of kafka-python's classes."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from kafka.protocol.producer import ProduceRequest, ProduceResponse

from trio_kprod._client._produce_codec import HIGHEST_VERSION, LOWEST_VERSION, ProduceExchange
from trio_kprod._client._protocol import OFFSET_LIMIT, decode_produce
from trio_kprod._core._error_codes import PartitionResponse
from trio_kprod._core._metadata import NO_TOPIC_ID

VERSIONS = range(LOWEST_VERSION, HIGHEST_VERSION + 1)

#: By topic name: the partitions, each with its records. One name and one list are so long that their lengths
#: have two digits.
SHAPES: dict[str, dict[str, dict[int, bytes]]] = {
    "one": {"t": {3: b"records"}},
    "two partitions": {"t": {1: b"", 0: bytes(range(256))}},
    "two topics": {"t": {0: b"x" * 126}, "another.topic": {7: b"y" * 127, 8: b"z" * 128}},
    "long": {"n" * 249: dict.fromkeys(range(200), b"r" * 20_000)},
    "a thousand topics": {f"topic-{number}": {number: b"%d" % number} for number in range(1000)},
}


def core_request(shape: dict[str, dict[int, bytes]], *, ids: bool = True) -> Any:
    batches = []
    for number, (name, partitions) in enumerate(shape.items(), 1):
        topic = Topic(name, UUID(int=number << 100 | number) if ids else NO_TOPIC_ID)
        for index, data in partitions.items():
            partition = SimpleNamespace(topic=topic, index=index)
            batches.append(Batch(partition=partition, data=data, entries=[()]))
    return SimpleNamespace(batches=batches, write_started=False)


def exchange(request: Any, version: int, acks: int = -1, timeout: float = 1.0) -> ProduceExchange:
    return ProduceExchange(request, version, acks, timeout, lambda *_: None)


def begun(request: Any, version: int) -> ProduceExchange:
    """One that has been put together, as it is before a response can come."""
    made = exchange(request, version)
    made.encode("c")
    return made


class Batch(SimpleNamespace):
    """One that can be referred to weakly."""


class Topic:
    def __init__(self, name: str, topic_id: UUID) -> None:
        self.name, self.id = name, topic_id


def naming(topic: Any, version: int) -> dict[str, Any]:
    return {"topic_id": topic.id} if version >= 13 else {"name": topic.name}


def by_topic(request: Any) -> dict[Any, list[Any]]:
    found: dict[Any, list[Any]] = {}
    for batch in request.batches:
        found.setdefault(batch.partition.topic, []).append(batch)
    return found


def kafka_python_frame(
    request: Any, version: int, acks: int, timeout_ms: int, correlation_id: int, client_id: str
) -> bytes:
    data = ProduceRequest.TopicProduceData
    topics = [
        data(
            partition_data=[
                data.PartitionProduceData(index=batch.partition.index, records=batch.data)
                for batch in batches
            ],
            **naming(topic, version),
        )
        for topic, batches in by_topic(request).items()
    ]
    message = ProduceRequest(
        version=version, transactional_id=None, acks=acks, timeout_ms=timeout_ms, topic_data=topics
    )
    message.with_header(correlation_id=correlation_id, client_id=client_id)
    return bytes(message.encode(framed=True, header=True))


def response(request: Any, version: int, *, throttle: int = 0, **changes: Any) -> Any:
    """That all is written, or (`changes`) something else of the last partition."""
    data = ProduceResponse.TopicProduceResponse
    topics = []
    for topic, batches in by_topic(request).items():
        partitions = [
            {
                "index": batch.partition.index,
                "error_code": 0,
                "base_offset": 10**12 + number,
                "log_append_time_ms": -1,
                "log_start_offset": number,
                "record_errors": [],
                "error_message": None,
            }
            for number, batch in enumerate(batches)
        ]
        topics.append((topic, partitions))
    topics[-1][1][-1].update(changes)
    return ProduceResponse(
        version=version,
        throttle_time_ms=throttle,
        responses=[
            data(
                partition_responses=[data.PartitionProduceResponse(**one) for one in partitions],
                **naming(topic, version),
            )
            for topic, partitions in topics
        ],
    )


def frame_of(message: Any) -> bytes:
    message.with_header(correlation_id=77)
    return bytes(message.encode(header=True))


def by_kafka_python(request: Any, version: int, frame: bytes) -> tuple[Any, int]:
    """The answers and the throttle time; raises if the frame makes no sense."""
    names = {topic.id: topic.name for topic in by_topic(request)}
    throttle_ms, told = decode_produce(frame, version, names)
    assert not told.moved
    return told.responses, throttle_ms


# ---------------------------------------------------------------------------------------------------------
# Requests


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("version", VERSIONS)
def test_requests_are_kafka_pythons_byte_by_byte(version: int, shape: str) -> None:
    request = core_request(SHAPES[shape])
    for acks, timeout, correlation_id, client_id in ((-1, 30.0, 0, "c"), (1, 0.001, 2**31 - 1, "ä" * 200)):
        made = exchange(request, version, acks, timeout)
        made.correlation_id = correlation_id
        timeout_ms = 24_000 if timeout == 30.0 else 1  # the broker's share of it, and never 0
        expected = kafka_python_frame(request, version, acks, timeout_ms, correlation_id, client_id)
        assert made.encode(client_id) == expected
        assert made.version == version


def test_without_the_id_of_a_topic_it_goes_by_name() -> None:
    request = core_request(SHAPES["two topics"])
    request.batches[0].partition.topic.id = NO_TOPIC_ID
    made = exchange(request, 13)
    made.correlation_id = 5
    assert made.encode("c") == kafka_python_frame(request, 12, -1, 800, 5, "c")
    assert made.version == 12


def test_only_requests_with_acks_expect_an_answer() -> None:
    request = core_request(SHAPES["one"])
    assert [exchange(request, 13, acks).expects_response for acks in (-1, 0, 1)] == [True, False, True]


def test_it_is_put_together_when_its_write_starts() -> None:
    """Until then batches may be given up, also all of them."""
    request = core_request(SHAPES["two topics"])
    made = exchange(request, 12)
    del request.batches[1:]
    assert not made.is_empty
    made.correlation_id = 5
    assert made.encode("c") == kafka_python_frame(request, 12, -1, 800, 5, "c")
    assert made.message_count == 1
    request.batches.clear()
    assert made.is_empty


def test_it_is_for_the_topic_that_there_was_when_it_was_made() -> None:
    """Batches that continue the old log must not begin a new one, if the topic is created again meanwhile."""
    request = core_request(SHAPES["two topics"])
    made = exchange(request, 13)
    topic = request.batches[0].partition.topic
    before, topic.id = topic.id, UUID(int=99)
    frame = made.encode("c")
    assert before.bytes in frame
    assert topic.id.bytes not in frame


@pytest.mark.parametrize("version", [12, 13])
def test_it_keeps_no_batch_that_the_core_has_given_up(version: int) -> None:
    """And still reads the response, which speaks of all that was written."""
    request = core_request(SHAPES["two topics"])
    batches = [weakref.ref(batch) for batch in request.batches]
    made = begun(request, version)
    good = frame_of(response(request, version))
    bad = frame_of(response(request, version, error_code=6))
    request.batches.clear()
    gc.collect()
    assert [batch() for batch in batches] == [None] * 3
    assert made.message_count == 3
    for frame in (good, bad):
        _, outcome = made.decode(frame)
        assert sorted(outcome.responses) == [("another.topic", 7), ("another.topic", 8), ("t", 0)]


def test_whether_its_write_has_started_is_the_requests() -> None:
    request = core_request(SHAPES["one"])
    made = exchange(request, 12)
    made.write_started = True
    assert request.write_started


def test_kafka_python_knows_the_same_versions() -> None:
    """If it learns another one, somebody should look what is new in it."""
    assert ProduceRequest.max_version == ProduceResponse.max_version == HIGHEST_VERSION


# ---------------------------------------------------------------------------------------------------------
# Answers


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("version", VERSIONS)
def test_plain_answers_are_read_as_kafka_python_reads_them(version: int, shape: str) -> None:
    request = core_request(SHAPES[shape])
    made = begun(request, version)
    frame = frame_of(response(request, version, throttle=1234, log_append_time_ms=99, base_offset=-1))
    plain = made.read_plain(frame)
    assert plain is not None
    assert plain == by_kafka_python(request, version, frame)
    answers, throttle_ms = plain
    assert throttle_ms == 1234
    assert len(answers) == len(request.batches)
    assert list(answers.values())[-1] == PartitionResponse(0, -1, 99)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_order_of_the_answer_is_the_brokers(version: int) -> None:
    shape = SHAPES["two topics"]
    request = core_request(shape)
    other = core_request(shape)
    other.batches.reverse()
    frame = frame_of(response(other, version))
    made = begun(request, version)
    expected, _ = by_kafka_python(other, version, frame)
    assert made.read_plain(frame) == (expected, 0)


def leader() -> Any:
    return ProduceResponse.TopicProduceResponse.PartitionProduceResponse.LeaderIdAndEpoch(
        leader_id=1, leader_epoch=2
    )


def record_errors() -> Sequence[Any]:
    part = ProduceResponse.TopicProduceResponse.PartitionProduceResponse.BatchIndexAndErrorMessage
    return [part(batch_index=0, batch_index_error_message=None)]


@pytest.mark.parametrize(
    ("changes", "since"),
    [
        ({"error_code": 6}, 3),
        ({"error_code": -1, "base_offset": -1}, 3),
        ({"base_offset": -2}, 3),
        ({"base_offset": OFFSET_LIMIT}, 3),
        ({"index": 99}, 99),
        ({"error_message": ""}, 8),
        ({"error_message": "text"}, 8),
        ({"record_errors": record_errors()}, 8),
        ({"current_leader": leader()}, 10),
    ],
)
@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_not_plain_is_left_to_kafka_python(version: int, changes: dict[str, Any], since: int) -> None:
    """So is what cannot be in this version; only that a partition is another is for others to notice."""
    request = core_request(SHAPES["two topics"])
    frame = frame_of(response(request, version, **changes))
    plain = begun(request, version).read_plain(frame)
    assert (plain is None) == (version >= since)


@pytest.mark.parametrize("version", VERSIONS)
def test_answers_for_other_partitions_than_asked(version: int) -> None:
    """Too few, too many, other topics, the same twice."""
    made = begun(core_request(SHAPES["two topics"]), version)
    for shape in ("one", "two partitions", "a thousand topics"):
        assert made.read_plain(frame_of(response(core_request(SHAPES[shape]), version))) is None
    twice = response(core_request(SHAPES["two topics"]), version, index=7)
    assert made.read_plain(frame_of(twice)) is None


def test_an_answer_for_a_topic_that_was_made_anew_is_left_to_kafka_python() -> None:
    request = core_request(SHAPES["one"])
    frame = frame_of(response(request, 13))
    made = begun(request, 13)
    assert made.read_plain(frame) is not None
    request.batches[0].partition.topic.id = UUID(int=12345)
    assert made.read_plain(frame) is None


def spoiled(frame: bytes, chance: random.Random) -> Iterator[bytes]:
    """Cut short, made longer, and with one byte changed, each behind the correlation id."""
    for end in range(4, len(frame)):
        yield frame[:end]
    yield frame + b"\0"
    for at in range(4, len(frame)):
        for value in {0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)} - {frame[at]}:
            yield frame[:at] + bytes([value]) + frame[at + 1 :]


@pytest.mark.parametrize("shape", ["one", "two topics"])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_spoiled_answer_means_nothing_else_than_to_kafka_python(version: int, shape: str) -> None:
    """Whatever is read as plain, kafka-python reads just so; and nothing makes reading fail."""
    request = core_request(SHAPES[shape])
    made = begun(request, version)
    for frame in spoiled(frame_of(response(request, version)), random.Random(version)):
        plain = made.read_plain(frame)
        if plain is not None:
            assert plain == by_kafka_python(request, version, frame)


@pytest.mark.parametrize("length", range(4, 40))
def test_answers_of_noise(length: int) -> None:
    chance = random.Random(length)
    for version in VERSIONS:
        made = begun(core_request(SHAPES["one"]), version)
        for _ in range(20):
            assert made.read_plain(chance.randbytes(length)) is None
