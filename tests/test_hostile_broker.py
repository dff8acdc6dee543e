"""A hostile broker costs its own connections and nothing more.

Whatever it says: the other brokers' partitions are delivered at once, what is meant for its own is delivered
when it behaves again, nothing is told wrongly, and it is called on at the pace of reconnects.
"""

from __future__ import annotations

import copy
import itertools
import logging
import random
import tracemalloc
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
import trio
from kafka.protocol.metadata import ApiVersionsResponse, MetadataResponse
from kafka.protocol.producer import ProduceResponse

import trio_kprod
from tests.fuzz.measures import counting
from tests.scripted_cluster import Asked, Close, Script, ScriptedCluster, framed, open_on
from tests.scripted_peer import Peer, make_endpoints, serving
from trio_kprod._client._exchange import Frames, decode_api
from trio_kprod._client._protocol import cluster_metadata

HONEST, HOSTILE = 1, 2

#: How long it goes on. Connections are a second apart at last, with up to 20 % of jitter, after a few
#: quicker ones; and that for questions and for batches each.
DURATION = 6
MOST_CONNECTIONS = 2 * (DURATION / 0.8 + 8)

Clock = trio.testing.MockClock


# ---------------------------------------------------------------------------------------------------------
# What it does


def raw(data: bytes) -> Script:
    """Bytes instead of each answer."""

    async def reply(_: Asked) -> bytes:
        return data

    return reply


def body(data: bytes) -> Script:
    """An answer with the right header and these bytes behind it."""

    async def reply(asked: Asked) -> bytes:
        response_class = asked.request.header.get_response_class()
        flexible = response_class.flexible_version_q(asked.request.API_VERSION) and asked.api != "ApiVersions"
        header = asked.request.header.correlation_id.to_bytes(4, "big") + b"\0" * flexible
        return framed(header + data)

    return reply


def altered(change: Callable[[Any], object]) -> Script:
    """A good answer, changed."""

    async def reply(asked: Asked) -> bytes:
        response = await asked.good()
        change(response)
        return framed(asked.encode(response))

    return reply


def altered_bytes(change: Callable[[bytes], bytes]) -> Script:
    """The same for the frame as it is on the wire."""

    async def reply(asked: Asked) -> bytes:
        return change(framed(await asked.good_frame()))

    return reply


def last_words(change: Callable[[Any], object]) -> Script:
    """A good answer, changed, and then the end."""

    async def reply(asked: Asked) -> bytes:
        response = await asked.good()
        change(response)
        raise Close(framed(asked.encode(response)))

    return reply


def each_topic(**fields: Any) -> Callable[[Any], None]:
    """Fields of each topic of a MetadataResponse."""

    def change(response: Any) -> None:
        for topic in response.topics:
            setting(**fields)(topic)

    return change


async def silence(_: Asked) -> bytes:
    await trio.sleep_forever()
    raise AssertionError


async def close(_: Asked) -> bytes:
    raise Close


async def half_and_close(asked: Asked) -> bytes:
    raise Close(framed(await asked.good_frame())[:-3])


def setting(**fields: Any) -> Callable[[Any], None]:
    def change(response: Any) -> None:
        for name, value in fields.items():
            setattr(response, name, value)

    return change


def each_partition(**fields: Any) -> Callable[[Any], None]:
    """Fields of each partition of a ProduceResponse."""

    def change(response: Any) -> None:
        for topic in response.responses:
            for partition in topic.partition_responses:
                setting(**fields)(partition)

    return change


def yes_and_no(response: Any) -> None:
    """Two answers for each partition: that it is written, and that it is too large."""
    for topic in response.responses:
        refused = [copy.copy(partition) for partition in topic.partition_responses]
        for partition in refused:
            partition.error_code, partition.base_offset = 10, -1
        topic.partition_responses = topic.partition_responses + refused


def other_topic(response: Any) -> None:
    for topic in response.responses:
        topic.topic_id = uuid.uuid4()


def brokers(*addresses: tuple[int, str | None, int]) -> Callable[[Any], None]:
    def change(response: Any) -> None:
        response.brokers = [
            MetadataResponse.MetadataResponseBroker(
                version=response.API_VERSION, node_id=node, host=host, port=port
            )
            for node, host, port in addresses
        ]

    return change


def partitions(change: Callable[[list[Any]], list[Any]]) -> Callable[[Any], None]:
    """The partitions of each topic of a MetadataResponse."""

    def change_all(response: Any) -> None:
        for topic in response.topics:
            topic.partitions = change(topic.partitions)

    return change_all


def numbered(number: Callable[[int], int]) -> Callable[[Any], None]:
    def change(listed: list[Any]) -> list[Any]:
        for partition in listed:
            partition.partition_index = number(partition.partition_index)
        return listed

    return partitions(change)


def led_by(leader: int) -> Callable[[Any], None]:
    def change(listed: list[Any]) -> list[Any]:
        for partition in listed:
            partition.leader_id = leader
        return listed

    return partitions(change)


def unasked_topics(response: Any) -> None:
    topic = MetadataResponse.MetadataResponseTopic
    names = ["another", "", "..", "a b/c", "x" * 30_000, "\u2603"]
    response.topics += [
        topic(version=response.API_VERSION, error_code=0, name=name, partitions=[]) for name in names
    ]


def versions(*offered: tuple[int, int, int]) -> Callable[[Any], None]:
    def change(response: Any) -> None:
        response.api_keys = [
            ApiVersionsResponse.ApiVersion(
                version=response.API_VERSION, api_key=key, min_version=low, max_version=high
            )
            for key, low, high in offered
        ]

    return change


def all_versions(low: int, high: int) -> Callable[[Any], None]:
    return versions(*((key, low, high) for key in (0, 3, 17, 18, 22, 36)))


async def unsolicited(asked: Asked) -> bytes:
    return framed(await asked.good_frame()) + framed(b"\0\0\0\x09 and another thing")


async def another_api(asked: Asked) -> bytes:
    """To each request the answer to ApiVersions, with the number of the request."""
    response = ApiVersionsResponse(version=0, error_code=0, api_keys=[])
    return framed(asked.encode(response))


@dataclass
class Case:
    """One way to be hostile.

    `believable`: what it says of topics makes sense, so nobody else is asked. `lasting`: how long the effect
    lasts when it is over. `done`: how often it was done.
    """

    name: str
    apis: tuple[str, ...]
    script: Script
    believable: bool = False
    lasting: float = 0
    done: int = 0

    async def __call__(self, asked: Asked) -> bytes | None:
        if asked.api in self.apis:
            self.done += 1
            return await self.script(asked)
        if self.apis == ("ApiVersions",):
            raise Close  # so that a connection has to be made again
        return None


ANY = ("ApiVersions", "Metadata", "InitProducerId", "Produce")
PRODUCE, METADATA, VERSIONS = ("Produce",), ("Metadata",), ("ApiVersions",)
LIMIT = 100_000_000
RANDOM = random.Random(1)

CASES = [
    Case("http", ANY, raw(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")),
    Case("random bytes", ANY, raw(b"\x80" + RANDOM.randbytes(500))),
    *(Case(f"{size} random bytes as a body", ANY, body(RANDOM.randbytes(size))) for size in (5, 500)),
    Case("length 0x7fffffff", ANY, raw(b"\x7f\xff\xff\xff")),
    Case("length above the limit", ANY, raw((LIMIT + 1).to_bytes(4, "big"))),
    Case("length at the limit and then nothing", ANY, raw(LIMIT.to_bytes(4, "big")), lasting=30),
    Case("length -1", ANY, raw(b"\xff\xff\xff\xff")),
    Case("length 0", ANY, raw(bytes(4))),
    Case("closes", ANY, close),
    Case("silent", ANY, silence, lasting=30),
    Case("half a frame and the end", ANY, half_and_close),
    Case("half a frame and silence", ANY, altered_bytes(lambda frame: frame[:-3]), lasting=30),
    Case("short body", ANY, altered_bytes(lambda frame: framed(frame[4:-3]))),
    Case("wrong correlation id", ANY, altered_bytes(lambda frame: frame[:4] + b"\x55" + frame[5:])),
    Case("unsolicited answers", ANY, unsolicited),
    Case("answers another api", ANY, another_api),
    Case("produce: closes", PRODUCE, close),
    Case("produce: an error that passes, and closes", PRODUCE, last_words(each_partition(error_code=19))),
    Case("produce: not the leader, and closes", PRODUCE, last_words(each_partition(error_code=6))),
    Case("produce: silent", PRODUCE, silence, lasting=30),
    Case("produce: null array", PRODUCE, body(bytes(20))),
    Case("produce: array of 2**28", PRODUCE, body(b"\xff\xff\xff\xff\x0f" + bytes(20))),
    Case("produce: nothing", PRODUCE, altered(setting(responses=[]))),
    Case("produce: other partitions", PRODUCE, altered(each_partition(index=77))),
    Case("produce: negative partitions", PRODUCE, altered(each_partition(index=-1))),
    Case("produce: another topic", PRODUCE, altered(other_topic)),
    Case("produce: each partition twice", PRODUCE, altered(yes_and_no)),
    Case("produce: offset -5", PRODUCE, altered(each_partition(base_offset=-5))),
    Case("produce: offset 2**63-1", PRODUCE, altered(each_partition(base_offset=2**63 - 1))),
    Case("produce: offset -5 with an error", PRODUCE, altered(each_partition(base_offset=-5, error_code=10))),
    Case(
        "produce: 30 KB of text",
        PRODUCE,
        altered(each_partition(error_code=6, base_offset=-1, error_message="x\n" * 15_000)),
    ),
    Case("produce: throttled for -5 ms", PRODUCE, altered(setting(throttle_time_ms=-5)), believable=True),
    Case(
        "produce: throttled for an hour",
        PRODUCE,
        altered(setting(throttle_time_ms=3600_000, responses=[])),
        lasting=3600,
    ),
    Case("metadata: closes", METADATA, close),
    Case(
        "metadata: an error that passes, and closes",
        METADATA,
        last_words(each_topic(error_code=5, partitions=[])),
        believable=True,
    ),
    Case("metadata: silent", METADATA, silence, lasting=10),
    Case("metadata: null brokers", METADATA, body(bytes(4) + b"\0\0" + bytes(4) + b"\1" + bytes(9))),
    Case("metadata: null topics", METADATA, body(bytes(4) + b"\1\0" + bytes(4) + b"\0" + bytes(9))),
    Case("metadata: error", METADATA, altered(setting(error_code=129))),
    Case(
        "metadata: not UTF-8",
        METADATA,
        altered_bytes(lambda frame: frame.replace(b"node", b"\xff\xfe\xfd\xfc")),
    ),
    Case(
        "metadata: throttled for an hour",
        METADATA,
        altered(setting(throttle_time_ms=3600_000)),
        believable=True,
        lasting=30,
    ),
    Case("metadata: no brokers", METADATA, altered(setting(brokers=[])), believable=True),
    Case(
        "metadata: impossible addresses",
        METADATA,
        altered(brokers((1, "", 0), (2, "a\0b", 70000))),
        believable=True,
    ),
    Case("metadata: other brokers", METADATA, altered(brokers((-7, "x", -1), (7, "y", 1))), believable=True),
    Case("metadata: no topics", METADATA, altered(setting(topics=[])), believable=True),
    Case("metadata: topics not asked for", METADATA, altered(unasked_topics), believable=True),
    Case("metadata: no partitions", METADATA, altered(partitions(lambda _: [])), believable=True),
    Case(
        "metadata: each partition twice",
        METADATA,
        altered(partitions(lambda listed: listed * 2)),
        believable=True,
    ),
    Case(
        "metadata: negative partitions",
        METADATA,
        altered(numbered(lambda index: -1 - index)),
        believable=True,
    ),
    Case("metadata: far too many", METADATA, altered(numbered(lambda index: 10**6 + index)), believable=True),
    Case("metadata: leader 99", METADATA, altered(led_by(99)), believable=True),
    Case("metadata: leader -5", METADATA, altered(led_by(-5)), believable=True),
    Case("versions: closes", VERSIONS, close),
    Case("versions: silent", VERSIONS, silence, lasting=10),
    Case("versions: none", VERSIONS, altered(versions())),
    Case("versions: null", VERSIONS, body(b"\0\0\0" + bytes(9))),
    Case("versions: lowest above highest", VERSIONS, altered(all_versions(5, 2))),
    Case("versions: negative", VERSIONS, altered(all_versions(-5, -1))),
    Case("versions: far too high", VERSIONS, altered(all_versions(32766, 32767))),
    Case("versions: no Produce", VERSIONS, altered(versions((3, 0, 12), (18, 0, 4), (22, 0, 5)))),
    Case("versions: no Metadata", VERSIONS, altered(versions((0, 0, 12), (18, 0, 4), (22, 0, 5)))),
    Case("versions: refused for ever", VERSIONS, altered(setting(error_code=35, throttle_time_ms=10**9))),
    Case("versions: error", VERSIONS, altered(setting(error_code=-1))),
    Case("versions: 10 MB", VERSIONS, raw((10_000_000).to_bytes(4, "big") + bytes(100_000))),
]

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


# ---------------------------------------------------------------------------------------------------------
# What comes of it


@pytest.mark.usefixtures("own_thread")
@each_case
async def test_it_costs_its_own_connections_only(case: Case, autojump_clock: Clock) -> None:
    """Although it was the one to be asked questions."""
    cluster = ScriptedCluster()
    hostile = cluster.nodes[HOSTILE]
    async with open_on(cluster, bootstrap=[HOSTILE], delivery_threshold=1) as producer:
        for partition in (0, 1):
            await producer.send_and_wait("t", b"before", partition=partition)
        hostile.behave_like(case)
        producer.send_nowait("t", b"to the hostile one", partition=1)
        with trio.fail_after(0.1):
            await producer.send_and_wait("t", b"to the honest one", partition=0)
        if case.believable:
            producer.send_nowait("new", b"of a new topic", partition=0)
        else:
            with trio.fail_after(2):
                await producer.send_and_wait("new", b"of a new topic", partition=0)
        await trio.sleep(DURATION)
        assert hostile.accepted <= MOST_CONNECTIONS
        assert case.done
        hostile.behave_like(None)
        with trio.fail_after(case.lasting + 2):
            await producer.flush()
    assert cluster.values("t", 0) == [b"before", b"to the honest one"]
    assert cluster.values("t", 1) == [b"before", b"to the hostile one"]
    assert cluster.values("new") == [b"of a new topic"]
    assert [node.connections for node in cluster.nodes.values()] == [0, 0]


SOME = [
    *("http", "closes", "silent", "produce: nothing", "produce: offset -5", "metadata: closes"),
    *("metadata: no partitions", "metadata: leader 99", "versions: none", "versions: no Produce"),
]


@pytest.mark.usefixtures("own_thread")
@pytest.mark.parametrize("name", SOME)
async def test_when_all_are_hostile_everything_waits(name: str, autojump_clock: Clock) -> None:
    (case,) = (case for case in CASES if case.name == name)
    cluster = ScriptedCluster()
    nodes = cluster.nodes.values()
    async with open_on(cluster, delivery_threshold=1) as producer:
        for partition in (0, 1):
            await producer.send_and_wait("t", b"before", partition=partition)
        for node in nodes:
            node.behave_like(case)
        for topic in ("t", "new"):
            for partition in (0, 1):
                producer.send_nowait(topic, b"meanwhile", partition=partition)
        await trio.sleep(DURATION)
        assert all(node.accepted <= MOST_CONNECTIONS for node in nodes)
        assert case.done
        for node in nodes:
            node.behave_like(None)
        with trio.fail_after(case.lasting + 3):
            await producer.flush()
    assert cluster.values("t") == [b"before", b"meanwhile"] * 2
    assert cluster.values("new") == [b"meanwhile"] * 2


OPENING = [case for case in CASES if not case.believable and case.apis != PRODUCE]


@pytest.mark.parametrize("case", OPENING, ids=lambda case: case.name)
async def test_it_does_not_keep_others_from_being_found(case: Case, autojump_clock: Clock) -> None:
    cluster = ScriptedCluster()
    cluster.nodes[HOSTILE].behave_like(case)
    with trio.fail_after(3):
        async with open_on(cluster, bootstrap=[HOSTILE, HONEST]) as producer:
            await producer.send_and_wait("t", b"x", partition=0)


@pytest.mark.parametrize("case", OPENING, ids=lambda case: case.name)
async def test_alone_it_is_told_in_one_line_and_in_time(case: Case, autojump_clock: Clock) -> None:
    cluster = ScriptedCluster()
    cluster.nodes[HOSTILE].behave_like(case)
    with trio.fail_after(5.1), pytest.raises(trio_kprod.ConnectFailed) as caught:
        async with open_on(cluster, bootstrap=[HOSTILE], connect_timeout=5):
            pytest.fail("must not be entered")
    text = str(caught.value)
    assert "node2:9092: " in text
    assert "\n" not in text
    assert len(text) < 2000
    assert cluster.nodes[HOSTILE].accepted <= MOST_CONNECTIONS
    assert cluster.nodes[HOSTILE].connections == 0


# ---------------------------------------------------------------------------------------------------------
# More of it


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, cut or put in."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(changed) + 1)
        cut = rng.choice((0, 1, 4, rng.randrange(9)))
        put = rng.choice((b"", b"\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", rng.randbytes(cut or 1)))
        changed[at : at + cut] = put
    return bytes(changed)


@pytest.mark.usefixtures("own_thread")
@pytest.mark.parametrize("seed", range(12))
async def test_no_answer_whatever_is_a_crash(seed: int, autojump_clock: Clock) -> None:
    """Some of them make sense and are lies, so what becomes of the messages is open; but each is told."""
    rng = random.Random(seed)

    async def script(asked: Asked) -> bytes:
        good = await asked.good_frame()
        return framed(mutated(good, rng)) if rng.random() < 0.7 else framed(good)

    cluster = ScriptedCluster()
    undelivered: list[trio_kprod.Undelivered] = []
    with trio.fail_after(40):
        async with open_on(
            cluster, delivery_threshold=1, shutdown_timeout=5, on_undelivered=undelivered.append
        ) as producer:
            for node in cluster.nodes.values():
                node.behave_like(script)
            for number in range(6):
                producer.send_nowait(f"t{number % 2}", b"%d" % number, partition=number // 2 % 2)
            await trio.sleep(rng.choice((1, 3, 9)))
    statistics = producer.statistics()
    assert (statistics.accepted, statistics.delivered) == (6, 6 - len(undelivered))
    assert [node.connections for node in cluster.nodes.values()] == [0, 0]


async def test_each_of_many_partitions_waits_for_the_same_reconnects(autojump_clock: Clock) -> None:
    """A batch that killed two connections travels alone; all of them together do not make a storm."""
    cluster = ScriptedCluster(nodes=1, partitions=100)
    (node,) = cluster.nodes.values()
    async with open_on(cluster, delivery_threshold=1) as producer:
        await producer.partitions_for("t")
        node.behave_like(Case("", PRODUCE, close))
        for partition in range(100):
            producer.send_nowait("t", b"x", partition=partition)
        await trio.sleep(DURATION)
        assert node.accepted <= MOST_CONNECTIONS / 2
        node.behave_like(None)
        with trio.fail_after(2):
            await producer.flush()
    assert cluster.values("t") == [b"x"] * 100


#: How long each connection lasts, again and again; 0 for one that responds and closes.
SCHEDULES = [
    *([0], [0.5], [0.999], [1.0], [1.0, 0], [1.0, 0, 0], [1.0, 0, 0, 0], [1.0, 1.0, 0, 0], [2.0, 0, 0, 0]),
    *([3.0, 0, 0, 0, 0], [5.0, 0, 0, 0, 0, 0], [60.0, 0, 0, 0, 0, 0, 0], [1.0, 0.04, 1.0, 0.04, 0.04]),
]


@pytest.mark.usefixtures("own_thread")
@pytest.mark.parametrize("responds", [True, False])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
async def test_no_schedule_of_responses_and_ends_makes_a_storm(
    schedule: list[float], responds: bool, autojump_clock: Clock
) -> None:
    """Six connections in the first second, then two a second; and a second without one at most."""
    endpoints = make_endpoints()
    pace = endpoints.pace(("broker", 1))
    ends, begins = [0.0], []
    for lasts in schedule * 30:
        await pace.wait()
        pace.attempt()
        begins.append(trio.current_time())
        if responds:
            endpoints.responded(pace)
        await trio.sleep(lasts)
        pace.ended(lasts if responds else 0)
        ends.append(trio.current_time())
    for first, start in enumerate(begins):
        for count, begin in enumerate(begins[first:], 1):
            assert count <= 6 + 2 * (begin - start)
    assert max(begin - end for begin, end in zip(begins, ends, strict=False)) <= 1


@pytest.mark.usefixtures("own_thread")
async def test_a_leader_that_responds_and_closes_makes_no_storm(autojump_clock: Clock) -> None:
    """And when it behaves again, all is delivered within two seconds."""
    cluster = ScriptedCluster(nodes=1)
    (node,) = cluster.nodes.values()
    async with open_on(cluster, delivery_threshold=1, retry_backoff=0) as producer:
        await producer.send_and_wait("t", b"before")
        await trio.sleep(60)
        node.behave_like(Case("", PRODUCE, last_words(each_partition(error_code=19, base_offset=-1))))
        producer.send_nowait("t", b"meanwhile")
        await trio.sleep(1)
        assert node.accepted <= 6
        await trio.sleep(9)
        assert node.accepted <= 6 + 2 * 9
        node.behave_like(None)
        with trio.fail_after(2):
            await producer.flush()
    assert cluster.values("t") == [b"before", b"meanwhile"]


@pytest.mark.usefixtures("own_thread")
async def test_another_address_at_each_answer(autojump_clock: Clock) -> None:
    """There is no pace to learn for an address that was never seen before, but one for all of them."""
    cluster = ScriptedCluster()
    count = 0

    def rename(response: Any) -> None:
        nonlocal count
        count += 1
        brokers((1, f"one{count}", 1), (2, f"two{count}", 2))(response)

    async def script(asked: Asked) -> bytes | None:
        if asked.api == "Produce":
            raise Close
        return await altered(rename)(asked) if asked.api == "Metadata" else None

    async with open_on(cluster, delivery_threshold=1) as producer:
        await producer.send_and_wait("t", b"before", partition=0)
        for node in cluster.nodes.values():
            node.behave_like(script)
        cluster.attempts.clear()
        producer.send_nowait("t", b"meanwhile", partition=0)
        await trio.sleep(DURATION)
        assert len(cluster.attempts) <= DURATION / 0.05 + 10
        for node in cluster.nodes.values():
            node.behave_like(None)
        with trio.fail_after(2):
            await producer.flush()
    assert cluster.values("t") == [b"before", b"meanwhile"]


def test_a_leader_is_somewhere() -> None:
    """One whose address is not told is none, whatever epoch it is said to have. But there may be none."""
    topic = MetadataResponse.MetadataResponseTopic
    leaders = [
        topic.MetadataResponsePartition(version=12, partition_index=index, leader_id=leader, leader_epoch=9)
        for index, leader in enumerate((1, 2, 99, -5, -1))
    ]
    response = MetadataResponse(
        version=12, topics=[topic(version=12, error_code=0, name="t", partitions=leaders)]
    )
    brokers((1, "a", 1), (2, None, 2))(response)

    metadata = cluster_metadata(response)

    assert metadata.brokers == {1: ("a", 1)}
    read = [(one.leader, one.leader_epoch) for one in metadata.topics[0].partitions]
    assert read == [(1, 9), (-1, -1), (-1, -1), (-1, -1), (-1, 9)]


def test_addresses_that_are_gone_are_forgotten() -> None:
    endpoints = make_endpoints(bootstrap_servers=[("b", 1)])
    endpoints.pace(("b", 1))
    for number in range(1000):
        endpoints.learn({number: (f"name{number}", 1)})
        for address in endpoints.addresses.values():
            endpoints.pace(address)
            endpoints.pace(address, number)
    assert endpoints.addresses == {999: ("name999", 1)}
    assert {pace.address for pace in endpoints._paces.values()} == {("b", 1), ("name999", 1)}
    endpoints.learn({})
    assert endpoints.addresses == {999: ("name999", 1)}


@pytest.mark.parametrize("name", ["closes", "produce: closes"])
async def test_all_of_it_is_a_few_lines_in_the_log(
    name: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    (case,) = (case for case in CASES if case.name == name)
    cluster = ScriptedCluster(nodes=1)
    (node,) = cluster.nodes.values()
    async with open_on(cluster, delivery_threshold=1) as producer:
        await producer.send_and_wait("t", b"before")
        caplog.set_level(logging.INFO, "trio_kprod")
        caplog.clear()
        node.behave_like(case)
        producer.send_nowait("t", b"meanwhile")
        producer.send_nowait("new", b"meanwhile")
        await trio.sleep(2 * DURATION)
        warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert 1 <= len(warned) <= 4
        assert all(len(record.getMessage()) < 2000 for record in caplog.records)
        node.behave_like(None)


@pytest.mark.parametrize("code", [999, -1, -32768])
async def test_a_code_that_nobody_knows_may_mean_anything(code: int, autojump_clock: Clock) -> None:
    """Given up after ten attempts, as perhaps written, with the broker's words; others go on."""
    cluster = ScriptedCluster()
    node = cluster.nodes[HOSTILE]
    text = "\x1b[31m" + "x\n" * 15_000
    answer = altered(each_partition(error_code=code, base_offset=-1, error_message=text))
    async with open_on(cluster, delivery_threshold=1) as producer:
        node.behave_like(Case("", PRODUCE, answer))
        with pytest.raises(trio_kprod.DeliveryFailed) as caught:
            await producer.send_and_wait("t", b"refused", partition=1)
        assert node.requests["Produce"] == 10
        await producer.send_and_wait("t", b"accepted", partition=0)
    (failed,) = caught.value.undelivered
    assert failed.maybe_written
    assert isinstance(failed.cause, trio_kprod.Refused)
    assert (failed.cause.code, failed.cause.detail) == (code, text)


@pytest.mark.parametrize(
    "script",
    [
        altered(setting(producer_id=-1)),
        altered(setting(producer_id=-(2**63))),
        altered(setting(error_code=999)),
        altered(setting(error_code=15, producer_id=5)),
        body(b""),
        close,
        silence,
    ],
)
async def test_no_producer_id_to_be_had(script: Script, autojump_clock: Clock) -> None:
    """Then everything waits; a bad one is never used."""
    cluster = ScriptedCluster(nodes=1)
    (node,) = cluster.nodes.values()
    async with open_on(cluster, delivery_threshold=1) as producer:
        node.behave_like(Case("", ("InitProducerId",), script))
        producer.send_nowait("t", b"x")
        await trio.sleep(DURATION)
        assert 1 <= node.requests["InitProducerId"] <= DURATION / 0.8 + 8
        assert node.requests["Produce"] == 0
        node.behave_like(None)
        with trio.fail_after(11):
            await producer.flush()
    (batch,) = cluster.store.batches("t")
    assert batch.producer_id > 0


# ---------------------------------------------------------------------------------------------------------
# Lies that are news, which is acted on at once


def newer_leaders() -> Callable[[Any], None]:
    """I do not lead this, but I know who does, since just now, and where."""
    epochs = itertools.count(1)
    answer_class = ProduceResponse.TopicProduceResponse.PartitionProduceResponse

    def hint(version: int, index: int) -> Any:
        answer = answer_class(version=version, index=index, error_code=6, base_offset=-1)
        answer.tags = {"current_leader"}
        answer.current_leader = answer_class.LeaderIdAndEpoch(
            version=version, leader_id=HONEST, leader_epoch=next(epochs)
        )
        return answer

    def change(response: Any) -> None:
        version = response.API_VERSION
        for topic in response.responses:
            topic.partition_responses = [hint(version, one.index) for one in topic.partition_responses]
        response.tags = {"node_endpoints"}
        response.node_endpoints = [
            ProduceResponse.NodeEndpoint(version=version, node_id=HONEST, host="node1", port=9092, rack=None)
        ]

    return change


async def spoiled_id(asked: Asked) -> bytes | None:
    """There is one producer id only, and somebody else uses it."""
    if asked.api == "Produce":
        return await altered(each_partition(error_code=47, base_offset=-1))(asked)
    return await altered(setting(producer_id=1001))(asked) if asked.api == "InitProducerId" else None


def new_topic_ids(response: Any) -> None:
    for topic in response.topics:
        topic.topic_id = uuid.uuid4()


LIES: dict[str, Script] = {
    "newer leaders": Case("", PRODUCE, altered(newer_leaders())),
    "a spoiled id": spoiled_id,
    "new topic ids": Case("", METADATA, altered(new_topic_ids)),
}


@pytest.mark.parametrize("name", LIES)
async def test_news_at_each_answer_is_acted_on_at_a_pace(name: str, autojump_clock: Clock) -> None:
    """And the truth is believed when it is told again; where it looks like old news, by `topic_timeout`.

    (Some lies are final for a message.)
    """
    cluster = ScriptedCluster()
    nodes = cluster.nodes.values()
    count = 0

    async def counted(asked: Asked) -> bytes | None:
        nonlocal count
        count += 1
        assert count < 2000, "a storm"  # in virtual time it would never end
        return await LIES[name](asked)

    async with open_on(cluster, delivery_threshold=1, topic_timeout=5) as producer:
        await producer.send_and_wait("t", b"before", partition=0)
        for node in nodes:
            node.behave_like(counted)
            node.cut()
        producer.send_nowait("t", b"meanwhile", partition=0)
        await trio.sleep(DURATION)
        assert count <= 60 * DURATION
        for node in nodes:
            node.behave_like(None)
        with trio.fail_after(10):
            with suppress(trio_kprod.DeliveryFailed):
                await producer.flush()
            await producer.send_and_wait("t", b"after", partition=0)
    assert cluster.values("t", 0)[-1] == b"after"


# ---------------------------------------------------------------------------------------------------------
# What it costs


def test_a_frame_holds_no_more_than_has_come() -> None:
    frames = Frames(LIMIT)
    tracemalloc.start()
    try:
        assert list(frames.feed(LIMIT.to_bytes(4, "big"))) == []
        for _ in range(1000):
            assert list(frames.feed(bytes(100))) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_tagged_fields_are_read_in_linear_time() -> None:
    """Each of them has the rest of the frame copied, where kafka-python's fast decoder reads it."""
    broker = b"\0\0\0\x01" + b"\x02h" + b"\0\0\0\x01" + b"\0" + b"\x01\x63\x00"  # an unknown tag, no value
    count = b"\xa1\x9c\x01"  # 20,000 and one
    frame = bytes(4) + b"\0" + bytes(4) + count + broker * 20_000 + b"\0" + bytes(4) + b"\x01" + b"\0"
    with counting() as work:
        assert len(decode_api(MetadataResponse[12], frame).brokers) == 20_000
    work.check(len(frame))


async def test_an_error_keeps_nothing_of_what_was_received() -> None:
    """A hundred bytes of memory for each that came, for as long as somebody keeps the cause of a failure."""

    async def script(peer: Peer) -> None:
        number = (await peer.request()).header.correlation_id
        data = number.to_bytes(4, "big") + bytes(5) + b"\xff\xff\xff\x0f" + b"\x01" * 1_000_000
        await peer.stream.send_all(framed(data))
        await trio.sleep_forever()

    async with serving(script) as client:
        tracemalloc.start()
        try:
            client.ask()
            assert "cannot be decoded" in await client.loss()
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert kept < 2_000_000


async def test_memory_does_not_grow_with_the_answers(autojump_clock: Clock) -> None:
    cluster = ScriptedCluster(nodes=1)
    (node,) = cluster.nodes.values()
    async with open_on(cluster, delivery_threshold=1) as producer:
        await producer.send_and_wait("t", b"before")
        node.behave_like(Case("", PRODUCE, altered(each_partition(error_code=6, error_message="x" * 30_000))))
        producer.send_nowait("t", b"meanwhile")
        tracemalloc.start()
        try:
            await trio.sleep(3)
            before, _ = tracemalloc.get_traced_memory()
            await trio.sleep(10)
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after - before < 100_000  # some ten answers, of 30 KB each
        node.behave_like(None)
