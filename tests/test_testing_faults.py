"""Scripted faults of the embedded broker, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio
from kafka.protocol.admin import (
    CreateTopicsRequest,
    CreateTopicsResponse,
    DeleteTopicsRequest,
    DeleteTopicsResponse,
)
from kafka.protocol.consumer import FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse
from kafka.protocol.metadata import ApiVersionsRequest, ApiVersionsResponse, MetadataRequest, MetadataResponse
from kafka.protocol.producer import InitProducerIdRequest, InitProducerIdResponse, ProduceResponse
from kafka.protocol.sasl import (
    SaslAuthenticateRequest,
    SaslAuthenticateResponse,
    SaslHandshakeRequest,
    SaslHandshakeResponse,
)

from tests._testing_peer import Peer, batch, produce_request
from trio_kprod.testing import Answer, Code, Delay, Drop, Fault, MemoryBroker, MemoryNetwork, Silence
from trio_kprod.testing._checks import API_NAMES

Clock = trio.testing.MockClock


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker(topics={"t": 2, "u": 1})


@pytest.fixture
def network(broker: MemoryBroker, nursery: trio.Nursery) -> MemoryNetwork:
    return MemoryNetwork(broker, nursery)


@pytest.fixture
async def peer(network: MemoryNetwork) -> AsyncIterator[Peer]:
    stream = await network.open_stream("memory", 9092)
    yield Peer(stream)
    await stream.aclose()


async def codes(peer: Peer, count: int, topic: str = "t", partition: int = 0) -> list[int]:
    """The answers to so many batches."""
    return [(await peer.produce(topic, batch(), partition=partition)).error_code for _ in range(count)]


# ---------------------------------------------------------------------------------------------------------
# Which requests


async def test_an_answer_is_given_as_often_as_asked(broker: MemoryBroker, peer: Peer) -> None:
    rule = broker.answer("Produce", error=19, times=2)
    assert await codes(peer, 3) == [19, 19, 0]
    assert rule.hits == 2
    assert len(broker.records("t")) == 1


async def test_answers_are_given_one_after_the_other(broker: MemoryBroker, peer: Peer) -> None:
    broker.answer("Produce", error=19)
    broker.answer("Produce", error=7)
    assert await codes(peer, 3) == [19, 7, 0]


async def test_an_answer_can_let_some_requests_pass(broker: MemoryBroker, peer: Peer) -> None:
    broker.answer("Produce", error=19, skip=1)
    assert await codes(peer, 3) == [0, 19, 0]


async def test_an_answer_for_ever_ends_when_removed(broker: MemoryBroker, peer: Peer) -> None:
    rule = broker.answer("Produce", error=19, times=None)
    assert await codes(peer, 5) == [19] * 5
    rule.remove()
    assert await codes(peer, 1) == [0]


async def test_an_answer_for_one_topic(broker: MemoryBroker, peer: Peer) -> None:
    broker.answer("Produce", error=29, topic="u", times=None)
    assert await codes(peer, 1) == [0]
    assert await codes(peer, 1, topic="u") == [29]


async def test_an_answer_for_one_partition_of_a_request(broker: MemoryBroker, peer: Peer) -> None:
    broker.answer("Produce", error=6, topic="t", partition=1)
    answer = await peer.call(produce_request(("t", 0, batch()), ("t", 1, batch())), ProduceResponse)
    parts = {part.index: part.error_code for part in answer.responses[0].partition_responses}
    assert parts == {0: 0, 1: 6}


async def test_clearing_ends_every_fault(broker: MemoryBroker, peer: Peer) -> None:
    broker.answer("Produce", error=19, times=None)
    broker.drop_connections(times=None)
    broker.clear_faults()
    assert await codes(peer, 1) == [0]


def test_a_fault_that_makes_no_sense_is_refused(broker: MemoryBroker) -> None:
    with pytest.raises(ValueError, match=r"name must be one of Produce, .*; got 'produce'"):
        broker.answer("produce", error=19)
    with pytest.raises(ValueError, match="times must be 1 or more"):
        broker.silence(times=0)
    with pytest.raises(ValueError, match="after must be 'accept', 'request' or 'append'; got 'answer'"):
        Drop(after="answer")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seconds must be 0 or more, and finite; got -1"):
        broker.delay("Produce", -1)


@pytest.mark.parametrize("error", [29, "TOPIC_AUTHORIZATION_FAILED", Code.TOPIC_AUTHORIZATION_FAILED])
async def test_an_error_is_given_by_name_or_number(
    broker: MemoryBroker, peer: Peer, error: int | str
) -> None:
    rule = broker.answer("Produce", error=error)
    assert await codes(peer, 2) == [29, 0]
    assert isinstance(rule.fault, Answer)
    assert rule.fault.code == 29


async def test_an_error_that_no_kafka_has_yet_is_given_by_number(broker: MemoryBroker, peer: Peer) -> None:
    broker.answer("Produce", error=999)
    assert await codes(peer, 2) == [999, 0]


NONSENSE: list[tuple[Callable[[MemoryBroker], object], type[Exception], str]] = [
    (lambda b: b.answer("Produce", error="TOO_BAD"), ValueError, "error must be one of Kafka's, .*'TOO_BAD'"),
    (lambda b: b.answer("Produce", error="29"), ValueError, "error must be one of Kafka's"),
    (lambda b: b.answer("Produce", error=40_000), ValueError, "error must be a 16-bit number; got 40000"),
    (lambda b: b.answer("Produce", error=None), TypeError, "error must be the number or the name"),  # type: ignore[arg-type]
    (lambda b: b.answer("Produce", error=True), TypeError, "error must be the number or the name"),
    (lambda b: b.answer(0, error=19), TypeError, "a request's name must be a string; got 0"),  # type: ignore[arg-type]
    (lambda b: b.answer("Produce", 19, times="2"), TypeError, "times must be an integer, or None for always"),  # type: ignore[arg-type]
    (lambda b: b.answer("Produce", 19, skip=0.5), TypeError, "skip must be an integer; got 0.5"),  # type: ignore[arg-type]
    (lambda b: b.answer("Produce", 19, topic=b"t"), TypeError, "topic must be a string; got b't'"),  # type: ignore[arg-type]
    (lambda b: b.answer("Produce", 19, partition="1"), TypeError, "partition must be an integer"),  # type: ignore[arg-type]
    (lambda b: b.answer("Produce", 19, base_offset="1"), TypeError, "base_offset must be an integer"),  # type: ignore[arg-type]
    (lambda b: b.answer("Produce", 19, message=1), TypeError, "message must be a string"),  # type: ignore[arg-type]
    (lambda b: b.answer("Produce", 87, record_errors=[("0", None)]), TypeError, "record's index must be"),  # type: ignore[list-item]
    (lambda b: b.answer("Produce", 87, record_errors=[(0, 1)]), TypeError, "record's message must be"),  # type: ignore[list-item]
    (lambda b: b.answer("Produce", 6, leader=("1", 0)), TypeError, "leader's node id must be an integer"),  # type: ignore[arg-type]
    (lambda b: b.answer("Produce", 6, leader=(1, None)), TypeError, "leader's epoch must be an integer"),  # type: ignore[arg-type]
    (lambda b: b.delay("Produce", "1"), TypeError, "seconds must be a number; got '1'"),  # type: ignore[arg-type]
    (lambda b: b.delay("Produce", float("nan")), ValueError, "seconds must be 0 or more, and finite"),
    (lambda b: b.create_topic(b"t"), TypeError, "a topic's name must be a string; got b't'"),  # type: ignore[arg-type]
    (lambda b: b.create_topic("n", "2"), TypeError, "partitions must be an integer; got '2'"),  # type: ignore[arg-type]
    (lambda b: b.wait_requests("Prodcue"), ValueError, "a request's name must be one of Produce, "),
]


@pytest.mark.parametrize(("call", "kind", "message"), NONSENSE)
async def test_nonsense_is_refused_at_the_call_and_harms_nothing(
    broker: MemoryBroker,
    peer: Peer,
    call: Callable[[MemoryBroker], object],
    kind: type[Exception],
    message: str,
) -> None:
    with pytest.raises(kind, match=message):
        call(broker)
    assert await codes(peer, 1) == [0]


async def test_a_request_that_there_is_not_is_not_waited_for(broker: MemoryBroker) -> None:
    with pytest.raises(ValueError, match=r"a request's name must be one of Produce, .*; got 'Prodcue'"):
        await broker.requests_arrived("Prodcue")


@pytest.mark.parametrize("versions", [{"Produce": "12"}, {"Produce": None}])
def test_versions_of_the_wrong_type_are_refused(versions: Any) -> None:
    with pytest.raises(TypeError, match="the highest version of Produce must be an integer"):
        MemoryBroker(max_versions=versions)


@pytest.mark.parametrize(
    "fault",
    [Answer("Produce", error=19), Delay(seconds=1), Silence("Fetch"), Drop(after="append")],
)
def test_a_rule_shows_its_fault(broker: MemoryBroker, fault: Fault) -> None:
    rule = broker.script(fault)
    assert repr(rule) == f"<Rule {fault!r}, hits=0>"
    rule.remove()
    assert repr(rule).endswith("removed>")


# ---------------------------------------------------------------------------------------------------------
# Answers


async def test_an_answer_after_append_tells_the_offset(broker: MemoryBroker, peer: Peer) -> None:
    broker.answer("Produce", error=7, after_append=True)
    answer = await peer.produce("t", batch())
    assert (answer.error_code, answer.base_offset) == (7, 0)
    assert len(broker.records("t")) == 1


async def test_an_answer_after_append_gives_way_to_a_refusal(broker: MemoryBroker, peer: Peer) -> None:
    broker.answer("Produce", error=7, after_append=True)
    answer = await peer.produce("t", b"junk")
    assert (answer.error_code, answer.base_offset) == (87, -1)


async def test_an_answer_before_append_has_no_offset(broker: MemoryBroker, peer: Peer) -> None:
    broker.answer("Produce", error=7)
    broker.answer("Produce", error=6, base_offset=5)
    answers = [await peer.produce("t", batch()) for _ in range(2)]
    assert [(answer.error_code, answer.base_offset) for answer in answers] == [(7, -1), (6, 5)]
    assert broker.records("t") == []


async def test_an_answer_can_list_records_and_say_why(broker: MemoryBroker, peer: Peer) -> None:
    broker.answer("Produce", error=32, record_errors=[(1, "too old"), (2, None)], message="refused")
    answer = await peer.produce("t", batch([b"1", b"2", b"3"]))
    listed = [(error.batch_index, error.batch_index_error_message) for error in answer.record_errors]
    assert (listed, answer.error_message) == ([(1, "too old"), (2, None)], "refused")


async def test_an_answer_can_hint_at_the_leader(broker: MemoryBroker, peer: Peer) -> None:
    broker.answer("Produce", error=6, leader=(0, 4))
    answer = await peer.produce("t", batch(), version=10)
    assert (answer.current_leader.leader_id, answer.current_leader.leader_epoch) == (0, 4)


async def test_metadata_of_one_topic_can_fail(broker: MemoryBroker, peer: Peer) -> None:
    broker.answer("Metadata", error=5, topic="t")
    topics = (await peer.metadata("t", "u")).topics
    assert [(topic.name, topic.error_code) for topic in topics] == [("t", 5), ("u", 0)]
    assert [topic.error_code for topic in (await peer.metadata("t", "u")).topics] == [0, 0]


async def test_metadata_of_one_partition_can_fail(broker: MemoryBroker, peer: Peer) -> None:
    broker.answer("Metadata", error=5, topic="t", partition=1)
    (topic,) = (await peer.metadata("t")).topics
    assert topic.error_code == 0
    assert [(part.error_code, part.leader_id) for part in topic.partitions] == [(0, 0), (5, -1)]


@pytest.mark.parametrize(
    ("api", "request_class", "response_class"),
    [
        ("InitProducerId", InitProducerIdRequest, InitProducerIdResponse),
        ("ApiVersions", ApiVersionsRequest, ApiVersionsResponse),
    ],
)
async def test_requests_without_topics_can_fail(
    broker: MemoryBroker, peer: Peer, api: str, request_class: Any, response_class: Any
) -> None:
    broker.answer(api, error=14)
    for code in (14, 0):
        request = request_class(version=0)
        if api == "InitProducerId":
            request.transactional_id = None
        assert (await peer.call(request, response_class)).error_code == code


def requests_of_every_kind() -> dict[str, tuple[Any, Any, Callable[[Any], Any]]]:
    """A request by its name, the class of its answer, and where the error stands in that."""
    fetched, listed = FetchRequest.FetchTopic, ListOffsetsRequest.ListOffsetsTopic
    created = CreateTopicsRequest.CreatableTopic
    fetch_part = fetched.FetchPartition(version=12, partition=0, fetch_offset=0, partition_max_bytes=99)
    list_part = listed.ListOffsetsPartition(version=7, partition_index=0, timestamp=-1)
    return {
        "Produce": (
            produce_request(("t", 0, batch())),
            ProduceResponse,
            lambda a: a.responses[0].partition_responses[0],
        ),
        "Fetch": (
            FetchRequest(
                version=12,
                max_wait_ms=0,
                min_bytes=0,
                max_bytes=99,
                topics=[fetched(version=12, topic="t", partitions=[fetch_part])],
            ),
            FetchResponse,
            lambda a: a.responses[0].partitions[0],
        ),
        "ListOffsets": (
            ListOffsetsRequest(
                version=7, replica_id=-1, topics=[listed(version=7, name="t", partitions=[list_part])]
            ),
            ListOffsetsResponse,
            lambda a: a.topics[0].partitions[0],
        ),
        "Metadata": (MetadataRequest(version=9, topics=None), MetadataResponse, lambda a: a.topics[0]),
        "SaslHandshake": (SaslHandshakeRequest(version=1, mechanism="PLAIN"), SaslHandshakeResponse, _whole),
        "ApiVersions": (ApiVersionsRequest(version=0), ApiVersionsResponse, _whole),
        "CreateTopics": (
            CreateTopicsRequest(
                version=5,
                topics=[created(version=5, name="n", num_partitions=1, replication_factor=1)],
            ),
            CreateTopicsResponse,
            lambda a: a.topics[0],
        ),
        "DeleteTopics": (
            DeleteTopicsRequest(version=5, topic_names=["t"], timeout_ms=1),
            DeleteTopicsResponse,
            lambda a: a.responses[0],
        ),
        "InitProducerId": (
            InitProducerIdRequest(version=0, transactional_id=None),
            InitProducerIdResponse,
            _whole,
        ),
        "SaslAuthenticate": (
            SaslAuthenticateRequest(version=2, auth_bytes=b""),
            SaslAuthenticateResponse,
            _whole,
        ),
    }


def _whole(answer: Any) -> Any:
    return answer


@pytest.mark.parametrize("api", API_NAMES)
async def test_every_request_can_be_answered_with_an_error(
    broker: MemoryBroker, peer: Peer, api: str
) -> None:
    request, response_class, part = requests_of_every_kind()[api]
    rule = broker.answer(api, error="UNKNOWN_SERVER_ERROR")
    assert part(await peer.call(request, response_class)).error_code == -1
    assert rule.hits == 1
    assert broker.records("t") == []
    assert broker.topics == {"t": 2, "u": 1}


# ---------------------------------------------------------------------------------------------------------
# Time


async def test_a_delayed_request_is_handled_late(
    broker: MemoryBroker, peer: Peer, autojump_clock: Clock
) -> None:
    broker.delay("Produce", 3.0)
    await peer.send(produce_request(("t", 0, batch())))
    await trio.sleep(2.5)
    assert broker.records("t") == []
    assert await peer.receive(ProduceResponse, 9)
    assert autojump_clock.current_time() == 3.0


async def test_a_delayed_answer_comes_late(broker: MemoryBroker, peer: Peer, autojump_clock: Clock) -> None:
    broker.delay("Produce", 3.0, after_append=True)
    await peer.send(produce_request(("t", 0, batch())))
    await broker.records_arrived("t")
    assert autojump_clock.current_time() == 0.0
    assert await peer.receive(ProduceResponse, 9)
    assert autojump_clock.current_time() == 3.0


async def test_a_delay_and_an_answer_go_together(
    broker: MemoryBroker, peer: Peer, autojump_clock: Clock
) -> None:
    broker.delay("Produce", 1.0)
    broker.answer("Produce", error=19)
    assert await codes(peer, 2) == [19, 0]
    assert autojump_clock.current_time() == 1.0


async def test_a_delay_holds_up_its_own_connection_only(
    broker: MemoryBroker, network: MemoryNetwork, peer: Peer, autojump_clock: Clock
) -> None:
    other = Peer(await network.open_stream("memory", 9092))
    broker.delay("Produce", 3.0)
    await peer.send(produce_request(("t", 0, batch())))
    await broker.requests_arrived("Produce")
    assert (await other.metadata("t")).topics
    assert autojump_clock.current_time() == 0.0
    assert (await peer.metadata("t")) is not None
    assert autojump_clock.current_time() == 3.0
    await other.stream.aclose()


# ---------------------------------------------------------------------------------------------------------
# Silence


async def test_a_held_request_is_handled_when_resumed(
    broker: MemoryBroker, peer: Peer, autojump_clock: Clock
) -> None:
    broker.silence()
    await peer.send(produce_request(("t", 0, batch())))
    with trio.move_on_after(1000):
        await peer.receive(ProduceResponse, 9)
    assert broker.records("t") == []
    assert autojump_clock.current_time() == 1000.0
    broker.resume()
    assert await peer.receive(ProduceResponse, 9)
    assert len(broker.records("t")) == 1


async def test_a_held_request_outlives_its_client(broker: MemoryBroker, network: MemoryNetwork) -> None:
    broker.silence("Produce")
    peer = Peer(await network.open_stream("memory", 9092))
    await peer.send(produce_request(("t", 0, batch())))
    await broker.requests_arrived("Produce")
    await peer.stream.aclose()
    broker.resume()
    await broker.records_arrived("t")


async def test_only_the_answer_can_be_held(broker: MemoryBroker, peer: Peer) -> None:
    rule = broker.silence("Produce", after_append=True)
    await peer.send(produce_request(("t", 0, batch())))
    await broker.records_arrived("t")
    rule.remove()
    assert await peer.receive(ProduceResponse, 9)


async def test_a_spent_silence_still_holds_what_it_held(
    broker: MemoryBroker, network: MemoryNetwork, peer: Peer
) -> None:
    broker.silence("Produce", times=1)
    await peer.send(produce_request(("t", 0, batch([b"held"]))))
    await broker.requests_arrived("Produce")
    other = Peer(await network.open_stream("memory", 9092))
    await other.produce("t", batch([b"passed"]))
    broker.resume()
    await peer.receive(ProduceResponse, 9)
    assert [record.value for record in broker.records("t")] == [b"passed", b"held"]
    await other.stream.aclose()


async def test_a_held_connection_can_be_cut(broker: MemoryBroker, peer: Peer) -> None:
    broker.silence()
    await peer.send(produce_request(("t", 0, batch())))
    await broker.requests_arrived("Produce")
    broker.disconnect_all()
    assert await peer.receive(ProduceResponse, 9) is None
    assert broker.records("t") == []


# ---------------------------------------------------------------------------------------------------------
# Connections


@pytest.mark.parametrize(("after", "written"), [("request", 0), ("append", 1)])
async def test_a_connection_is_dropped(
    broker: MemoryBroker, network: MemoryNetwork, peer: Peer, after: Any, written: int
) -> None:
    broker.drop_connections(after, "Produce")
    assert (await peer.metadata("t")) is not None
    assert await peer.produce("t", batch()) is None
    assert len(broker.records("t")) == written
    other = Peer(await network.open_stream("memory", 9092))
    assert await codes(other, 1) == [0]
    await other.stream.aclose()


async def test_a_connection_is_dropped_when_accepted(broker: MemoryBroker, network: MemoryNetwork) -> None:
    broker.drop_connections("accept", times=2)
    streams = [await network.open_stream("memory", 9092) for _ in range(2)]
    assert [await stream.receive_some() for stream in streams] == [b"", b""]
    stays = Peer(await network.open_stream("memory", 9092))
    assert (await stays.metadata("t")) is not None
    assert broker.connections_accepted == 3
    await stays.stream.aclose()


async def test_a_broker_that_does_not_listen(
    broker: MemoryBroker, network: MemoryNetwork, peer: Peer
) -> None:
    broker.stop_listening()
    with pytest.raises(ConnectionRefusedError, match="memory:9092"):
        await network.open_stream("memory", 9092)
    assert await codes(peer, 1) == [0]
    broker.start_listening()
    await (await network.open_stream("memory", 9092)).aclose()


async def test_connections_are_counted(broker: MemoryBroker, network: MemoryNetwork) -> None:
    peer = Peer(await network.open_stream("memory", 9092))
    await peer.metadata("t")
    assert broker.connections == 1
    assert repr(broker) == "<MemoryBroker memory:9092, 1 connections>"
    broker.disconnect_all()
    assert await peer.metadata("t") is None
    assert broker.connections == 0


async def test_a_session_that_is_not_renewed_ends(nursery: trio.Nursery, autojump_clock: Clock) -> None:
    broker = MemoryBroker(sasl_users={"ann": "secret"}, sasl_session_lifetime=60)
    peer = Peer(await MemoryNetwork(broker, nursery).open_stream("memory", 9092))

    async def authenticate() -> Any:
        await peer.call(SaslHandshakeRequest(version=1, mechanism="PLAIN"), SaslHandshakeResponse)
        request = SaslAuthenticateRequest(version=1, auth_bytes=b"\0ann\0secret")
        return await peer.call(request, SaslAuthenticateResponse)

    assert (await authenticate()).session_lifetime_ms == 60_000
    await trio.sleep(61)
    await authenticate()
    assert await peer.metadata("t") is not None
    await trio.sleep(61)
    assert await peer.metadata("t") is None
    assert autojump_clock.current_time() == 122.0
