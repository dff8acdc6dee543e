"""What an administrator does to topics while messages are sent to them."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import trio
from kafka.structs import TopicPartition

import trio_kprod
from tests.kafka.admin import configure_topic, create_partitions
from tests.kafka.cluster import PATIENCE, Cluster, Record
from tests.kafka.conftest import own
from tests.kafka.helpers import until
from tests.kafka.history import Acks, History, MayBe, number_of
from tests.kafka.load import Sending, sending, with_each

in_thread = trio.to_thread.run_sync


@pytest.fixture
def node(own_cluster: Cluster) -> Cluster:
    """One that looks often for what to remove."""
    return own_cluster


async def test_deleted_while_producing(node: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """Each message is told, but for those that the topic took with it; another topic goes on.

    With ``acks=0`` Kafka tells of an error by ending the connection, and what was on its way is lost.
    """
    await with_each(delete_while_producing, node, "all", 1, 0)
    assert "is the name right? create the topic" in caplog.text


async def delete_while_producing(node: Cluster, acks: Acks) -> None:
    topic, other = node.new_topic(partitions=2), node.new_topic()
    history = History("a topic is deleted")
    async with (
        history.open_producer(
            node.bootstrap_servers,
            acks=acks,
            delivery_threshold=50,
            allow_auto_create_topics=False,
            topic_timeout=1,
        ) as producer,
        sending(history, producer, topic) as going_on,
        sending(history, producer, other),
    ):
        await going_on.more()
        await in_thread(node.delete_topic, topic)
        await until(lambda: bool(history.told))
        await going_on.more()
    history.excuse_loss(topic)
    assert {one.message.topic for one in history.told} == {topic}
    assert isinstance(history.told[-1].cause, trio_kprod.UnknownTopic)
    history.judge(topic, [])
    may_be: Sequence[MayBe] = ["lost"] if acks == 0 else []
    await in_thread(history.check, node, other, acks, may_be)


async def test_deleted_and_made_again_while_producing(node: Cluster) -> None:
    """What is accepted afterwards is there; with ``acks=0`` once the ended connection has told of it."""
    await with_each(delete_and_make_again, node, "all", 1, 0)


async def delete_and_make_again(node: Cluster, acks: Acks) -> None:
    topic = node.new_topic(partitions=2)
    history = History("a topic is deleted and made again")
    async with (
        history.open_producer(
            node.bootstrap_servers,
            acks=acks,
            delivery_threshold=50,
            allow_auto_create_topics=False,
            metadata_max_age_ms=1_000,
        ) as producer,
        sending(history, producer, topic) as going_on,
    ):
        await going_on.more()
        await in_thread(node.delete_topic, topic)
        await going_on.more()
        await in_thread(node.create_topic, topic, 2)
        history.excuse_loss(topic)
        await history.recovers(producer, topic)
        if acks == 0:
            await until_the_log_goes_on(node, topic, going_on, history)
            history.excuse_loss(topic)
        await going_on.more()
    await in_thread(history.check, node, topic, acks)


async def test_grown_while_producing(node: Cluster) -> None:
    """The new partitions get their share, of what has a key and of what has none."""
    await with_each(grow_while_producing, node, "all", 1, 0)


async def grow_while_producing(node: Cluster, acks: Acks) -> None:
    topic = node.new_topic()
    history = History("a topic grows")
    async with (
        history.open_producer(
            node.bootstrap_servers, acks=acks, delivery_threshold=20, metadata_max_age_ms=500
        ) as producer,
        sending(history, producer, topic) as going_on,
    ):
        await going_on.more()
        await in_thread(create_partitions, node, topic, 4)
        since = trio.current_time()
        while await producer.partitions_for(topic) != [0, 1, 2, 3]:
            await going_on.more(50)
        await history.recovers(producer, topic, range(4), since=since)
        await going_on.more(500)
    assert not history.told
    await in_thread(history.check, node, topic, acks)
    log = await read(node, topic)
    for kind in (True, False):
        assert len({one.partition for one in log if (one.key is None) == kind}) > 1


async def test_compacted_while_producing(node: Cluster, history: History) -> None:
    """The last message of each key stays."""
    topic = node.new_topic(cleanup_policy="compact", segment_ms="300", min_cleanable_dirty_ratio="0.01")
    last: dict[bytes, int] = {}
    async with history.open_producer(node.bootstrap_servers, delivery_threshold=50) as producer:
        for number in itertools.count():
            key = b"key-%d" % (number % 5)
            last[key] = await history.send(producer, topic, key)
            await trio.sleep(0.001)
            if number % 500 == 499 and len(await read(node, topic)) < history.sent // 2:
                break
    history.excuse_loss(topic)
    assert not history.told
    history.check(node, topic)
    assert set(last.values()) <= {number_of(one.value) for one in node.read(topic)}


async def test_cut_by_retention_while_producing(node: Cluster, history: History) -> None:
    """What the log still has is its end, without a gap."""
    topic = node.new_topic(segment_ms="300", retention_ms="300")
    async with history.open_producer(node.bootstrap_servers, delivery_threshold=50) as producer:
        async with sending(history, producer, topic) as going_on:
            for _ in range(2):
                await going_on.more()
                before = history.sent
                while await first_offset(node, topic) < before:
                    await going_on.more(50)
        configure_topic(node, topic, retention_ms="-1")
        while not await read(node, topic):
            await history.send(producer, topic)
            await producer.flush()
    history.excuse_loss(topic)
    assert not history.told
    history.check(node, topic)
    assert_end_of_log(node, topic, history)


async def test_records_deleted_while_producing(node: Cluster, history: History) -> None:
    """All that there is, twice; a producer whose every record is gone is still known."""
    topic = node.new_topic()
    async with (
        history.open_producer(node.bootstrap_servers, delivery_threshold=50) as producer,
        sending(history, producer, topic) as going_on,
    ):
        for _ in range(2):
            await going_on.more()
            await in_thread(delete_records, node, topic)
            await going_on.more()
    history.excuse_loss(topic)
    assert not history.told
    history.check(node, topic)
    assert_end_of_log(node, topic, history)


def assert_end_of_log(kafka: Cluster, topic: str, history: History) -> None:
    """Each message has had an offset of its own, and the log holds the last of them."""
    (end,) = kafka.end_offsets(topic).values()
    assert end == history.sent
    offsets = [one.offset for one in kafka.read(topic)]
    assert offsets[0] > 0
    assert offsets == list(range(offsets[0], end))


async def test_time_stamps_become_the_brokers(node: Cluster, history: History) -> None:
    """The metadata of an acknowledged message tells the time that the log has."""
    topic = node.new_topic(message_timestamp_type="LogAppendTime")
    async with history.open_producer(node.bootstrap_servers) as producer:
        before = time.time_ns() // 1_000_000
        await history.send(producer, topic, timestamp_ms=1)
        await producer.flush()
        await in_thread(lambda: configure_topic(node, topic, message_timestamp_type="CreateTime"))
        while (await history.send(producer, topic, timestamp_ms=1)) < 1_000:
            await producer.flush()
            if (await read(node, topic))[-1].timestamp_ms == 1:
                break
    history.check(node, topic)
    times = [one.timestamp_ms for one in node.read(topic)]
    assert times[0] >= before
    assert times[-1] == 1


async def test_a_time_stamp_that_is_refused_fails_alone(node: Cluster, history: History) -> None:
    topic = node.new_topic(message_timestamp_before_max_ms="3600000")
    async with (
        history.open_producer(node.bootstrap_servers, delivery_threshold=50) as producer,
        sending(history, producer, topic) as going_on,
    ):
        await going_on.more()
        refused = await history.send(producer, topic, timestamp_ms=1)
        await going_on.more()
    (told,) = history.told
    assert number_of(told.message.value) == refused
    assert not told.maybe_written
    assert "INVALID_TIMESTAMP" in str(told.cause)
    history.check(node, topic)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root may mount a tmpfs")
    directory = tmp_path / "disk"
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", directory], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    yield directory
    subprocess.run(["umount", "--lazy", directory], check=True)


@pytest.fixture
def cramped(small_disk: Path) -> Iterator[Cluster]:
    """A node that keeps its topics there."""
    yield from own(data={1: small_disk})


async def test_a_disk_that_is_full_and_emptied_again(
    cramped: Cluster, small_disk: Path, history: History
) -> None:
    """Its node ends, as Kafka's do without a disk; what waits is delivered once there is room and a node."""
    topic = cramped.new_topic(partitions=2)
    ballast = small_disk / "ballast"
    async with history.open_producer(
        cramped.bootstrap_servers,
        delivery_threshold=50,
        shutdown_timeout=PATIENCE,
    ) as producer:
        await history.send(producer, topic)
        await producer.flush()
        async with sending(history, producer, topic, size=5_000) as going_on:
            fill(ballast)
            await until(lambda: not cramped.nodes[0].running)
            await going_on.more()
            ballast.unlink()
            await in_thread(cramped.restore)
            await history.recovers(producer, topic, range(2))
    assert not history.told
    history.check(cramped, topic)


def fill(file: Path) -> None:
    """Let `file` take all the room there is on its disk."""
    with file.open("wb", buffering=0) as opened:
        while True:
            try:
                opened.write(bytes(100_000))
            except OSError:
                return


async def read(kafka: Cluster, topic: str) -> list[Record]:
    """What is in the log by now, read in a thread."""
    return await in_thread(kafka.read, topic)


async def first_offset(kafka: Cluster, topic: str) -> int:
    """Of the first record that partition 0 still has; the next one's if it has none."""
    return await in_thread(kafka.first_offset, topic)


async def until_the_log_goes_on(kafka: Cluster, topic: str, going_on: Sending, history: History) -> None:
    """Wait until it has a message that is sent from now on."""
    now = history.sent
    while all(number_of(one.value) <= now for one in await read(kafka, topic)):
        await going_on.more(50)


def delete_records(kafka: Cluster, topic: str) -> None:
    """Remove all records of partition 0 that there are by now."""
    with kafka.admin() as admin:
        admin.delete_records({TopicPartition(topic, 0): kafka.end_offsets(topic)[0]})
