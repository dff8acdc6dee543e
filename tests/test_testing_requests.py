"""The embedded broker's answers, request by request, over in-memory streams."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from kafka.net.sasl.plain import SaslMechanismPlain
from kafka.net.sasl.scram import SaslMechanismScram
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
from trio_kprod.testing import Code, MemoryBroker, MemoryNetwork, open_memory_producer


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker(topics={"t": 2})


@pytest.fixture
async def peer(broker: MemoryBroker, nursery: trio.Nursery) -> AsyncIterator[Peer]:
    stream = await MemoryNetwork(broker, nursery).open_stream("memory", 9092)
    yield Peer(stream)
    await stream.aclose()


# ---------------------------------------------------------------------------------------------------------
# ApiVersions


@pytest.mark.parametrize("version", range(5))
async def test_api_versions_in_every_version(peer: Peer, version: int) -> None:
    answer = await peer.call(ApiVersionsRequest(version=version), ApiVersionsResponse)
    served = {api.api_key: (api.min_version, api.max_version) for api in answer.api_keys}
    assert answer.error_code == 0
    assert served[0] == (0, 13)
    assert served[3] == (0, 13)


async def test_api_versions_too_new_is_answered_in_version_0(peer: Peer) -> None:
    # The header of a request from the future: flexible, so that it ends in an empty tag buffer.
    header = b"\x00\x12\x00\x63" + b"\x00\x00\x00\x07" + b"\xff\xff" + b"\x00"
    await peer.stream.send_all(len(header).to_bytes(4, "big") + header)
    peer._correlation_id = 7
    answer = await peer.receive(ApiVersionsResponse, 0)
    assert answer.error_code == Code.UNSUPPORTED_VERSION
    assert [(api.api_key, api.min_version, api.max_version) for api in answer.api_keys] == [(18, 0, 4)]


async def test_api_versions_of_an_older_broker(nursery: trio.Nursery) -> None:
    """KIP-511: the answer to a version that is too new says which are not, and the connection stays."""
    broker = MemoryBroker(max_versions={"ApiVersions": 2})
    peer = Peer(await MemoryNetwork(broker, nursery).open_stream("memory", 9092))
    await peer.send(ApiVersionsRequest(version=4))
    answer = await peer.receive(ApiVersionsResponse, 0)
    assert answer.error_code == Code.UNSUPPORTED_VERSION
    assert [(api.api_key, api.min_version, api.max_version) for api in answer.api_keys] == [(18, 0, 2)]
    again = await peer.call(ApiVersionsRequest(version=2), ApiVersionsResponse)
    assert again.error_code == 0
    assert {0, 3, 18} <= {api.api_key for api in again.api_keys}


async def test_our_producer_speaks_to_an_older_broker(autojump_clock: trio.testing.MockClock) -> None:
    broker = MemoryBroker(max_versions={"ApiVersions": 0})
    async with open_memory_producer(broker) as producer:
        await producer.send_and_wait("t", b"v")
    assert [record.value for record in broker.records("t")] == [b"v"]
    assert broker.requests["ApiVersions"] > 1


# ---------------------------------------------------------------------------------------------------------
# Metadata


@pytest.mark.parametrize("version", range(14))
async def test_metadata_in_every_version(peer: Peer, version: int) -> None:
    answer = await peer.metadata("t", version=version)
    (broker,) = answer.brokers
    assert (broker.host, broker.port) == ("memory", 9092)
    (topic,) = answer.topics
    assert (topic.error_code, topic.name) == (0, "t")
    assert [(part.partition_index, part.leader_id) for part in topic.partitions] == [
        (0, broker.node_id),
        (1, broker.node_id),
    ]
    assert (topic.topic_id is not None) == (version >= 10)


@pytest.mark.parametrize(("version", "topics"), [(0, []), (1, None), (9, None)])
async def test_metadata_of_all_topics(peer: Peer, version: int, topics: Any) -> None:
    answer = await peer.call(MetadataRequest(version=version, topics=topics), MetadataResponse)
    assert [topic.name for topic in answer.topics] == ["t"]


async def test_metadata_of_no_topic(peer: Peer) -> None:
    assert (await peer.metadata()).topics == []


async def test_metadata_creates_a_topic(broker: MemoryBroker, peer: Peer) -> None:
    (topic,) = (await peer.metadata("new")).topics
    assert (topic.error_code, len(topic.partitions)) == (0, 1)
    assert broker.topics == {"t": 2, "new": 1}


async def test_metadata_creates_nothing_if_the_client_does_not_want_it(
    broker: MemoryBroker, peer: Peer
) -> None:
    (topic,) = (await peer.metadata("new", create=False)).topics
    assert topic.error_code == Code.UNKNOWN_TOPIC_OR_PARTITION
    assert broker.topics == {"t": 2}


async def test_metadata_creates_nothing_if_the_broker_does_not(nursery: trio.Nursery) -> None:
    broker = MemoryBroker(auto_create_topics=False)
    peer = Peer(await MemoryNetwork(broker, nursery).open_stream("memory", 9092))
    (topic,) = (await peer.metadata("new")).topics
    assert topic.error_code == Code.UNKNOWN_TOPIC_OR_PARTITION
    await peer.stream.aclose()


@pytest.mark.parametrize("name", ["", "a/b", "..", "x" * 250])
async def test_metadata_of_an_illegal_name(peer: Peer, name: str) -> None:
    (topic,) = (await peer.metadata(name)).topics
    assert topic.error_code == Code.INVALID_TOPIC_EXCEPTION


@pytest.mark.parametrize("version", [10, 11, 12, 13])
async def test_metadata_by_topic_id(peer: Peer, version: int) -> None:
    (known,) = (await peer.metadata("t", version=12)).topics
    by_id = MetadataRequest.MetadataRequestTopic
    asked = [
        by_id(version=version, name=None, topic_id=topic_id)
        for topic_id in (known.topic_id, uuid.UUID(int=5))
    ]
    answer = await peer.call(MetadataRequest(version=version, topics=asked), MetadataResponse)
    assert [(topic.error_code, topic.name or None) for topic in answer.topics] == [
        (0, "t"),
        (Code.UNKNOWN_TOPIC_ID, None),
    ]


async def test_the_advertised_address_can_be_changed(broker: MemoryBroker, peer: Peer) -> None:
    broker.advertise("proxy", 1)
    (node,) = (await peer.metadata()).brokers
    assert (node.host, node.port) == ("proxy", 1)
    assert broker.bootstrap_servers == "proxy:1"


# ---------------------------------------------------------------------------------------------------------
# Produce


@pytest.mark.parametrize("version", range(3, 14))
async def test_produce_in_every_version(broker: MemoryBroker, peer: Peer, version: int) -> None:
    (topic,) = (await peer.metadata("t", version=12)).topics
    topic_id = topic.topic_id if version >= 13 else None
    answer = await peer.produce("t", batch(), version=version, partition=1, topic_id=topic_id)
    assert (answer.index, answer.error_code, answer.base_offset) == (1, 0, 0)
    assert [record.partition for record in broker.records("t")] == [1]


@pytest.mark.parametrize("version", [0, 2])
async def test_an_old_produce_ends_the_connection(peer: Peer, version: int) -> None:
    assert await peer.call(produce_request(("t", 0, batch()), version=version), ProduceResponse) is None


@pytest.mark.parametrize(("topic", "partition"), [("u", 0), ("t", 2), ("t", -1)])
async def test_produce_to_what_there_is_not(peer: Peer, topic: str, partition: int) -> None:
    answer = await peer.produce(topic, batch(), partition=partition)
    assert (answer.error_code, answer.base_offset) == (Code.UNKNOWN_TOPIC_OR_PARTITION, -1)


async def test_produce_by_the_id_of_a_recreated_topic(broker: MemoryBroker, peer: Peer) -> None:
    (old,) = (await peer.metadata("t", version=12)).topics
    broker.delete_topic("t")
    broker.create_topic("t")
    answer = await peer.produce("t", batch(), version=13, topic_id=old.topic_id)
    assert (answer.error_code, answer.base_offset) == (Code.UNKNOWN_TOPIC_ID, -1)
    assert broker.records("t") == []


async def test_one_refused_partition_does_not_harm_another(peer: Peer) -> None:
    answer = await peer.call(produce_request(("u", 0, batch()), ("t", 0, batch())), ProduceResponse)
    codes = {topic.name: topic.partition_responses[0].error_code for topic in answer.responses}
    assert codes == {"u": Code.UNKNOWN_TOPIC_OR_PARTITION, "t": 0}


async def test_a_partition_twice_in_a_request_counts_once_and_last(broker: MemoryBroker, peer: Peer) -> None:
    request = produce_request(("t", 0, batch([b"first"])), ("t", 0, batch([b"last"])))
    answer = await peer.call(request, ProduceResponse)
    assert [len(topic.partition_responses) for topic in answer.responses] == [1]
    assert [record.value for record in broker.records("t")] == [b"last"]


async def test_record_errors_are_told(broker: MemoryBroker, peer: Peer) -> None:
    broker.create_topic("compacted", compacted=True)
    answer = await peer.produce("compacted", batch([b"1", b"2"]))
    assert answer.error_code == Code.INVALID_RECORD
    assert [error.batch_index for error in answer.record_errors] == [0, 1]
    assert answer.error_message


async def test_acks_0_is_not_answered(broker: MemoryBroker, peer: Peer) -> None:
    await peer.send(produce_request(("t", 0, batch()), acks=0))
    (topic,) = (await peer.metadata("t")).topics  # the first answer is that to the second request
    assert topic.name == "t"
    assert len(broker.records("t")) == 1


async def test_acks_0_refused_ends_the_connection(peer: Peer) -> None:
    assert await peer.call(produce_request(("u", 0, batch()), acks=0), ProduceResponse) is None


async def test_acks_other_than_three_are_refused(peer: Peer) -> None:
    answer = await peer.call(produce_request(("t", 0, batch()), acks=2), ProduceResponse)
    assert answer.responses[0].partition_responses[0].error_code == Code.INVALID_REQUIRED_ACKS


async def test_requests_sent_together_are_answered_in_order(broker: MemoryBroker, peer: Peer) -> None:
    for _ in range(20):
        await peer.send(produce_request(("t", 0, batch())))
    answers = [await peer.receive(ProduceResponse, 9) for _ in range(20)]
    assert [answer.responses[0].partition_responses[0].base_offset for answer in answers] == list(range(20))
    assert broker.requests["Produce"] == 20


@pytest.mark.parametrize("version", range(6))
async def test_producer_ids_are_fresh(peer: Peer, version: int) -> None:
    request = InitProducerIdRequest(version=version, transactional_id=None, transaction_timeout_ms=0)
    answers = [await peer.call(request, InitProducerIdResponse) for _ in range(2)]
    assert [(answer.error_code, answer.producer_epoch) for answer in answers] == [(0, 0), (0, 0)]
    assert answers[0].producer_id != answers[1].producer_id


async def test_transactions_are_refused(peer: Peer) -> None:
    request = InitProducerIdRequest(version=4, transactional_id="mine", transaction_timeout_ms=1000)
    assert (await peer.call(request, InitProducerIdResponse)).error_code == Code.INVALID_REQUEST


# ---------------------------------------------------------------------------------------------------------
# Reading


def fetch_request(offset: int, *, version: int = 12, max_wait_ms: int = 0, topic_id: Any = None) -> Any:
    """A Fetch request for partition 0 of topic t."""
    topic = FetchRequest.FetchTopic
    part = topic.FetchPartition(
        version=version, partition=0, fetch_offset=offset, partition_max_bytes=1 << 20
    )
    return FetchRequest(
        version=version,
        max_wait_ms=max_wait_ms,
        min_bytes=1,
        max_bytes=1 << 20,
        topics=[topic(version=version, topic="t", topic_id=topic_id, partitions=[part])],
    )


@pytest.mark.parametrize("version", range(4, 17))
async def test_fetch_in_every_version(peer: Peer, version: int) -> None:
    (topic,) = (await peer.metadata("t", version=12)).topics
    await peer.produce("t", batch([b"1", b"2"]))
    request = fetch_request(0, version=version, topic_id=topic.topic_id if version >= 13 else None)
    answer = await peer.call(request, FetchResponse)
    part = answer.responses[0].partitions[0]
    assert (part.error_code, part.high_watermark) == (0, 2)
    assert part.records == batch([b"1", b"2"])


async def test_fetch_beyond_the_end(peer: Peer) -> None:
    answer = await peer.call(fetch_request(1), FetchResponse)
    assert answer.responses[0].partitions[0].error_code == Code.OFFSET_OUT_OF_RANGE


async def test_fetch_waits_no_longer_than_asked(peer: Peer, autojump_clock: trio.testing.MockClock) -> None:
    answer = await peer.call(fetch_request(0, max_wait_ms=500), FetchResponse)
    assert not answer.responses[0].partitions[0].records
    assert autojump_clock.current_time() == 0.5


async def test_fetch_is_answered_when_records_come(
    broker: MemoryBroker, peer: Peer, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    writer = Peer(await MemoryNetwork(broker, nursery).open_stream("memory", 9092))
    await peer.send(fetch_request(0, max_wait_ms=500))
    await trio.sleep(0.2)
    await writer.produce("t", batch())
    answer = await peer.receive(FetchResponse, 12)
    assert answer.responses[0].partitions[0].records
    assert autojump_clock.current_time() == 0.2
    await writer.stream.aclose()


@pytest.mark.parametrize("version", range(1, 11))
async def test_offsets_in_every_version(peer: Peer, version: int) -> None:
    await peer.produce("t", batch([b"1", b"2"], timestamp_ms=100))
    await peer.produce("t", batch(timestamp_ms=200))
    topic = ListOffsetsRequest.ListOffsetsTopic
    parts = [
        topic.ListOffsetsPartition(version=version, partition_index=0, timestamp=time_ms)
        for time_ms in (-1, -2, -3, 150, 201)
    ]
    asked = [topic(version=version, name="t", partitions=parts)]
    request = ListOffsetsRequest(version=version, replica_id=-1, isolation_level=0, topics=asked)
    answer = await peer.call(request, ListOffsetsResponse)
    assert [part.offset for part in answer.topics[0].partitions] == [3, 0, 2, 2, -1]


@pytest.mark.parametrize(
    ("topic", "partition", "offset", "code"),
    [
        ("t", 0, 3, Code.OFFSET_OUT_OF_RANGE),
        ("t", 9, 0, Code.UNKNOWN_TOPIC_OR_PARTITION),
        ("u", 0, 0, Code.UNKNOWN_TOPIC_OR_PARTITION),
    ],
)
async def test_fetch_where_nothing_is(
    peer: Peer, topic: str, partition: int, offset: int, code: Code
) -> None:
    asked = FetchRequest.FetchTopic
    part = asked.FetchPartition(version=12, partition=partition, fetch_offset=offset, partition_max_bytes=99)
    request = FetchRequest(
        version=12,
        max_wait_ms=60_000,
        min_bytes=1,
        max_bytes=99,
        topics=[asked(version=12, topic=topic, partitions=[part])],
    )
    answer = await peer.call(request, FetchResponse)
    assert answer.responses[0].partitions[0].error_code == code


async def test_fetch_sessions_are_not_known(peer: Peer) -> None:
    request = FetchRequest(version=12, max_wait_ms=60_000, min_bytes=1, max_bytes=99, session_id=5, topics=[])
    answer = await peer.call(request, FetchResponse)
    assert answer.error_code == Code.FETCH_SESSION_ID_NOT_FOUND


async def test_offsets_where_nothing_is(peer: Peer) -> None:
    asked = ListOffsetsRequest.ListOffsetsTopic
    part = asked.ListOffsetsPartition(version=7, partition_index=9, timestamp=-1)
    request = ListOffsetsRequest(
        version=7, replica_id=-1, topics=[asked(version=7, name="t", partitions=[part])]
    )
    answer = await peer.call(request, ListOffsetsResponse)
    assert answer.topics[0].partitions[0].error_code == Code.UNKNOWN_TOPIC_OR_PARTITION


# ---------------------------------------------------------------------------------------------------------
# Topics


@pytest.mark.parametrize("version", range(2, 8))
async def test_topics_are_created(broker: MemoryBroker, peer: Peer, version: int) -> None:
    topic = CreateTopicsRequest.CreatableTopic
    config = topic.CreatableTopicConfig(version=version, name="cleanup.policy", value="compact")
    asked = [
        topic(
            version=version,
            name=name,
            num_partitions=count,
            replication_factor=1,
            assignments=[],
            configs=configs,
        )
        for name, count, configs in (("new", 3, [config]), ("t", 1, []), ("a/b", 1, []), ("zero", 0, []))
    ]
    answer = await peer.call(CreateTopicsRequest(version=version, topics=asked), CreateTopicsResponse)
    assert [result.error_code for result in answer.topics] == [
        0,
        Code.TOPIC_ALREADY_EXISTS,
        Code.INVALID_TOPIC_EXCEPTION,
        Code.INVALID_PARTITIONS,
    ]
    assert broker.topics == {"t": 2, "new": 3}
    assert (await peer.produce("new", batch())).error_code == Code.INVALID_RECORD


@pytest.mark.parametrize("version", range(1, 7))
async def test_topics_are_deleted(broker: MemoryBroker, peer: Peer, version: int) -> None:
    names = ["t", "u"]
    if version >= 6:
        topics = [DeleteTopicsRequest.DeleteTopicState(version=version, name=name) for name in names]
        request = DeleteTopicsRequest(version=version, topics=topics, timeout_ms=1000)
    else:
        request = DeleteTopicsRequest(version=version, topic_names=names, timeout_ms=1000)
    answer = await peer.call(request, DeleteTopicsResponse)
    assert [result.error_code for result in answer.responses] == [0, Code.UNKNOWN_TOPIC_OR_PARTITION]
    assert broker.topics == {}


async def test_topics_are_only_checked_if_that_is_asked(broker: MemoryBroker, peer: Peer) -> None:
    """`validate_only`; and what the broker does not know is named."""
    topic = CreateTopicsRequest.CreatableTopic
    unknown = topic.CreatableTopicConfig(version=5, name="made.up", value="1")
    placed = topic.CreatableReplicaAssignment(version=5, partition_index=0, broker_ids=[0])
    asked = [
        topic(version=5, name="fine", num_partitions=-1, replication_factor=1),
        topic(version=5, name="placed", num_partitions=-1, replication_factor=-1, assignments=[placed]),
        topic(version=5, name="odd", num_partitions=1, replication_factor=1, configs=[unknown]),
    ]
    request = CreateTopicsRequest(version=5, topics=asked, validate_only=True)
    answer = await peer.call(request, CreateTopicsResponse)
    assert [one.error_code for one in answer.topics] == [0, 0, Code.INVALID_CONFIG]
    assert answer.topics[2].error_message == "Not known to this broker: made.up"
    assert broker.topics == {"t": 2}


async def test_the_limit_of_a_topic_can_be_changed(broker: MemoryBroker, peer: Peer) -> None:
    broker.alter_topic("t", max_message_bytes=10)
    assert (await peer.produce("t", batch())).error_code == Code.MESSAGE_TOO_LARGE
    broker.alter_topic("t", max_message_bytes=None)
    assert (await peer.produce("t", batch())).error_code == 0
    with pytest.raises(KeyError):
        broker.alter_topic("u", max_message_bytes=10)


# ---------------------------------------------------------------------------------------------------------
# Connections


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xff\xff\xff",
        b"\x7f\xff\xff\xff",
        b"\x00\x00\x00\x00",
        b"\x00\x00\x00\x08\x00\x00\x00\x09\x00\x00\x00\x01",
        b"\x00\x00\x00\x08\x00\x63\x00\x00\x00\x00\x00\x01",
        b"\x00\x00\x00\x10\x00\x03\x00\x09\x00\x00\x00\x01\xff\xff\x00\x7f\x7f\x7f\x7f\x7f",
    ],
)
async def test_bad_bytes_end_their_connection_only(broker: MemoryBroker, peer: Peer, data: bytes) -> None:
    async with trio.open_nursery() as nursery:
        bad = await MemoryNetwork(broker, nursery).open_stream("memory", 9092)
        await bad.send_all(data)
        assert await bad.receive_some() == b""
    assert (await peer.metadata("t")).topics[0].error_code == 0


async def test_a_request_beyond_the_limit_ends_the_connection(nursery: trio.Nursery) -> None:
    broker = MemoryBroker(max_request_bytes=1000)
    peer = Peer(await MemoryNetwork(broker, nursery).open_stream("memory", 9092))
    assert await peer.produce("t", batch([b"x" * 2000])) is None


async def test_sasl_on_a_listener_without_it(peer: Peer) -> None:
    answer = await peer.call(SaslHandshakeRequest(version=1, mechanism="PLAIN"), SaslHandshakeResponse)
    assert answer.error_code == Code.ILLEGAL_SASL_STATE


async def test_nothing_is_answered_before_authentication(nursery: trio.Nursery) -> None:
    broker = MemoryBroker(sasl_users={"ann": "secret"})
    network = MemoryNetwork(broker, nursery)
    peer = Peer(await network.open_stream("memory", 9092))
    assert (await peer.call(ApiVersionsRequest(version=3), ApiVersionsResponse)).error_code == 0
    assert await peer.metadata("t") is None


async def authenticate(peer: Peer, mechanism: str, user: str, password: str) -> Any:
    """Go through a mechanism as kafka-python does; gives the last answer."""
    await peer.call(SaslHandshakeRequest(version=1, mechanism=mechanism), SaslHandshakeResponse)
    client_class = SaslMechanismPlain if mechanism == "PLAIN" else SaslMechanismScram
    client = client_class(sasl_mechanism=mechanism, sasl_plain_username=user, sasl_plain_password=password)
    while True:
        request = SaslAuthenticateRequest(version=2, auth_bytes=client.auth_bytes())
        answer = await peer.call(request, SaslAuthenticateResponse)
        if answer.error_code:
            return answer
        client.receive(answer.auth_bytes)
        if client.is_done():
            return answer


MECHANISMS = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_a_user_with_the_right_password_is_served(nursery: trio.Nursery, mechanism: str) -> None:
    broker = MemoryBroker(sasl_users={"ann": "secret"})
    peer = Peer(await MemoryNetwork(broker, nursery).open_stream("memory", 9092))
    assert (await authenticate(peer, mechanism, "ann", "secret")).error_code == 0
    assert await peer.metadata("t") is not None
    await peer.stream.aclose()


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize(
    ("user", "password"), [("ann", "wrong"), ("ann", ""), ("bob", "secret"), ("bob", "")]
)
async def test_a_wrong_password_is_told_and_ends_the_connection(
    nursery: trio.Nursery, mechanism: str, user: str, password: str
) -> None:
    broker = MemoryBroker(sasl_users={"ann": "secret"})
    peer = Peer(await MemoryNetwork(broker, nursery).open_stream("memory", 9092))
    answer = await authenticate(peer, mechanism, user, password)
    assert answer.error_code == Code.SASL_AUTHENTICATION_FAILED
    assert "Authentication failed" in answer.error_message
    assert await peer.metadata("t") is None


async def test_authentication_without_handshake_is_refused(nursery: trio.Nursery) -> None:
    broker = MemoryBroker(sasl_users={"ann": "secret"})
    peer = Peer(await MemoryNetwork(broker, nursery).open_stream("memory", 9092))
    request = SaslAuthenticateRequest(version=2, auth_bytes=b"\0ann\0secret")
    answer = await peer.call(request, SaslAuthenticateResponse)
    assert answer.error_code == Code.ILLEGAL_SASL_STATE


async def test_an_unknown_mechanism_is_told_the_known_ones(nursery: trio.Nursery) -> None:
    broker = MemoryBroker(sasl_users={"ann": "secret"})
    peer = Peer(await MemoryNetwork(broker, nursery).open_stream("memory", 9092))
    answer = await peer.call(SaslHandshakeRequest(version=1, mechanism="NONE"), SaslHandshakeResponse)
    assert answer.error_code == Code.UNSUPPORTED_SASL_MECHANISM
    assert answer.mechanisms == ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
    assert await peer.metadata("t") is None


@pytest.mark.parametrize("address", [("memory", 1), ("other", 9092)])
async def test_nobody_listens_elsewhere(
    broker: MemoryBroker, nursery: trio.Nursery, address: tuple[str, int]
) -> None:
    with pytest.raises(ConnectionRefusedError, match=f"{address[0]}:{address[1]}"):
        await MemoryNetwork(broker, nursery).open_stream(*address)


async def test_an_older_broker_serves_no_newer_version(nursery: trio.Nursery) -> None:
    broker = MemoryBroker(topics={"t": 1}, max_versions={"Produce": 12})
    peer = Peer(await MemoryNetwork(broker, nursery).open_stream("memory", 9092))
    answer = await peer.call(ApiVersionsRequest(version=3), ApiVersionsResponse)
    assert {api.api_key: api.max_version for api in answer.api_keys}[0] == 12
    assert (await peer.produce("t", batch(), version=12)).error_code == 0
    assert await peer.produce("t", batch(), version=13, topic_id=uuid.uuid4()) is None
