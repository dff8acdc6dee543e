"""What an administrator does to topics while messages are sent to them."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Literal

import pytest
import trio
from kafka.structs import TopicPartition

import trio_kprod
from tests.kafka.admin import configure_topic, create_partitions, elect_preferred, move
from tests.kafka.cluster import PATIENCE, Cluster, Record, wait_until
from tests.kafka.conftest import own
from tests.kafka.helpers import Load, load, until
from tests.kafka.history import History, number_of

Acks = Literal[0, 1, "all"]
EVERY_ACKS: tuple[Acks, ...] = (0, 1, "all")
EACH_ACKS = pytest.mark.parametrize("acks", EVERY_ACKS)


@pytest.fixture(scope="module")
def tidy() -> Iterator[Cluster]:
    """A node that looks every half a second for what may be removed, and does so."""
    yield from own(
        log_cleaner_backoff_ms="500",
        log_retention_check_interval_ms="500",
        log_initial_task_delay_ms="500",
        log_segment_delete_delay_ms="100",
    )


@EACH_ACKS
async def test_deleted_while_producing(
    tidy: Cluster, history: History, acks: Acks, caplog: pytest.LogCaptureFixture
) -> None:
    """Each message is told, but for those that the topic took with it; another topic goes on.

    With ``acks=0`` Kafka tells of an error by ending the connection, and what was on its way is lost.
    """
    topic, other = tidy.new_topic(partitions=2), tidy.new_topic()
    async with (
        trio_kprod.open_producer(
            tidy.bootstrap_servers,
            acks=acks,
            delivery_threshold=50,
            allow_auto_create_topics=False,
            topic_timeout=1,
            on_undelivered=history.note,
        ) as producer,
        load(history, producer, topic) as going_on,
        load(history, producer, other),
    ):
        await going_on.more()
        await trio.to_thread.run_sync(tidy.delete_topic, topic)
        await until(lambda: bool(history.told))
        await going_on.more()
    history.excuse_loss(topic)
    assert {one.message.topic for one in history.told} == {topic}
    assert "is the name right? create the topic" in caplog.text
    assert isinstance(history.told[-1].cause, trio_kprod.UnknownTopic)
    history.judge(topic, [])
    history.check(tidy, other, acks, may_be=["lost"] if acks == 0 else ())


@EACH_ACKS
async def test_deleted_and_made_again_while_producing(tidy: Cluster, history: History, acks: Acks) -> None:
    """What is accepted afterwards is there; with ``acks=0`` once the ended connection has told of it."""
    topic = tidy.new_topic(partitions=2)
    async with (
        trio_kprod.open_producer(
            tidy.bootstrap_servers,
            acks=acks,
            delivery_threshold=50,
            allow_auto_create_topics=False,
            metadata_max_age_ms=1_000,
            on_undelivered=history.note,
        ) as producer,
        load(history, producer, topic) as going_on,
    ):
        await going_on.more()
        await trio.to_thread.run_sync(tidy.delete_topic, topic)
        await going_on.more()
        await trio.to_thread.run_sync(tidy.create_topic, topic, 2)
        history.excuse_loss(topic)
        if acks == 0:
            await until_the_log_goes_on(tidy, topic, going_on, history)
            history.excuse_loss(topic)
        await going_on.more()
    history.check(tidy, topic, acks)


@EACH_ACKS
async def test_grown_while_producing(tidy: Cluster, history: History, acks: Acks) -> None:
    """The new partitions get their share, of what has a key and of what has none."""
    topic = tidy.new_topic()
    async with (
        trio_kprod.open_producer(
            tidy.bootstrap_servers,
            acks=acks,
            delivery_threshold=20,
            metadata_max_age_ms=500,
            on_undelivered=history.note,
        ) as producer,
        load(history, producer, topic) as going_on,
    ):
        await going_on.more()
        await trio.to_thread.run_sync(create_partitions, tidy, topic, 4)
        while await producer.partitions_for(topic) != [0, 1, 2, 3]:
            await going_on.more(50)
        await going_on.more(1_000)
    assert not history.told
    history.check(tidy, topic, acks)
    for kind in (True, False):
        assert len({one.partition for one in tidy.read(topic) if (one.key is None) == kind}) > 1


async def test_compacted_while_producing(tidy: Cluster, history: History) -> None:
    """The last message of each key stays."""
    topic = tidy.new_topic(cleanup_policy="compact", segment_ms="300", min_cleanable_dirty_ratio="0.01")
    last: dict[bytes, int] = {}
    async with trio_kprod.open_producer(
        tidy.bootstrap_servers, delivery_threshold=50, on_undelivered=history.note
    ) as producer:
        for number in itertools.count():
            key = b"key-%d" % (number % 5)
            last[key] = await history.send(producer, topic, key)
            await trio.sleep(0.001)
            if number % 500 == 499 and len(await read(tidy, topic)) < history.sent // 2:
                break
    history.excuse_loss(topic)
    assert not history.told
    history.check(tidy, topic)
    assert set(last.values()) <= {number_of(one.value) for one in tidy.read(topic)}


async def test_cut_by_retention_while_producing(tidy: Cluster, history: History) -> None:
    """What the log still has is its end, without a gap."""
    topic = tidy.new_topic(segment_ms="300", retention_ms="300")
    async with trio_kprod.open_producer(
        tidy.bootstrap_servers, delivery_threshold=50, on_undelivered=history.note
    ) as producer:
        async with load(history, producer, topic) as going_on:
            for _ in range(2):
                await going_on.more()
                before = history.sent
                while await first_offset(tidy, topic) < before:
                    await going_on.more(50)
        configure_topic(tidy, topic, retention_ms="-1")
        while not await read(tidy, topic):
            await history.send(producer, topic)
            await producer.flush()
    history.excuse_loss(topic)
    assert not history.told
    history.check(tidy, topic)
    assert_end_of_log(tidy, topic, history)


async def test_records_deleted_while_producing(tidy: Cluster, history: History) -> None:
    """All that there is, twice; a producer whose every record is gone is still known."""
    topic = tidy.new_topic()
    async with (
        trio_kprod.open_producer(
            tidy.bootstrap_servers, delivery_threshold=50, on_undelivered=history.note
        ) as producer,
        load(history, producer, topic) as going_on,
    ):
        for _ in range(2):
            await going_on.more()
            await trio.to_thread.run_sync(delete_records, tidy, topic)
            await going_on.more()
    history.excuse_loss(topic)
    assert not history.told
    history.check(tidy, topic)
    assert_end_of_log(tidy, topic, history)


def assert_end_of_log(kafka: Cluster, topic: str, history: History) -> None:
    """Each message has had an offset of its own, and the log holds the last of them."""
    (end,) = kafka.end_offsets(topic).values()
    assert end == history.sent
    offsets = [one.offset for one in kafka.read(topic)]
    assert offsets[0] > 0
    assert offsets == list(range(offsets[0], end))


async def test_time_stamps_become_the_brokers(tidy: Cluster, history: History) -> None:
    """The metadata of an acknowledged message tells the time that the log has."""
    topic = tidy.new_topic(message_timestamp_type="LogAppendTime")
    async with trio_kprod.open_producer(tidy.bootstrap_servers, on_undelivered=history.note) as producer:
        before = time.time_ns() // 1_000_000
        await history.send(producer, topic, timestamp_ms=1)
        await producer.flush()
        await trio.to_thread.run_sync(
            lambda: configure_topic(tidy, topic, message_timestamp_type="CreateTime")
        )
        while (await history.send(producer, topic, timestamp_ms=1)) < 1_000:
            await producer.flush()
            if (await read(tidy, topic))[-1].timestamp_ms == 1:
                break
    history.check(tidy, topic)
    times = [one.timestamp_ms for one in tidy.read(topic)]
    assert times[0] >= before
    assert times[-1] == 1


async def test_a_time_stamp_that_is_refused_fails_alone(tidy: Cluster, history: History) -> None:
    topic = tidy.new_topic(message_timestamp_before_max_ms="3600000")
    async with (
        trio_kprod.open_producer(
            tidy.bootstrap_servers, delivery_threshold=50, on_undelivered=history.note
        ) as producer,
        load(history, producer, topic) as going_on,
    ):
        await going_on.more()
        refused = await history.send(producer, topic, timestamp_ms=1)
        await going_on.more()
    (told,) = history.told
    assert number_of(told.message.value) == refused
    assert not told.maybe_written
    assert "INVALID_TIMESTAMP" in str(told.cause)
    history.check(tidy, topic)


async def test_moved_between_brokers_while_producing(three_nodes: Cluster, history: History) -> None:
    """From node to node; without ``acks="all"`` it may cost what the new leader has not got."""
    topics = [three_nodes.new_topic(partitions=2) for _ in EVERY_ACKS]
    async with load_by_each_acks(three_nodes, history, topics) as going_on:
        for nodes in ([1], [2], [3], [1]):
            await going_on.more()
            for topic in topics:
                await trio.to_thread.run_sync(move, three_nodes, topic, 0, nodes)
        await going_on.more()
    assert not history.told
    for acks, topic in zip(EVERY_ACKS, topics, strict=True):
        history.check(three_nodes, topic, acks, may_be=() if acks == "all" else ["lost", "duplicates"])


async def test_too_few_replicas_and_enough_again(three_nodes: Cluster, history: History) -> None:
    """With ``acks="all"`` messages wait for the third node; others need only the leader."""
    topics = [three_nodes.new_topic(replication_factor=3, min_insync_replicas="3") for _ in EVERY_ACKS]
    leaders = [three_nodes.leader(topic) for topic in topics]
    for topic in topics:  # the same leads all of them, so that a follower may be killed
        move(three_nodes, topic, 0, [leaders[0], *({1, 2, 3} - {leaders[0]})])
        elect_preferred(three_nodes, topic)
        wait_until(lambda: three_nodes.leader(topic) == leaders[0], "the same leads")  # noqa: B023
    async with load_by_each_acks(three_nodes, history, topics) as going_on:
        await going_on.more()
        three_nodes.kill(leaders[0] % 3 + 1)
        await going_on.more(3_000)
        await trio.to_thread.run_sync(three_nodes.restore)
        await going_on.more()
    assert not history.told
    for acks, topic in zip(EVERY_ACKS, topics, strict=True):
        history.check(three_nodes, topic, acks)


@asynccontextmanager
async def load_by_each_acks(
    kafka: Cluster, history: History, topics: Sequence[str]
) -> AsyncGenerator[Load, None]:
    """As `load`, with a producer and a topic for each `acks`."""
    async with AsyncExitStack() as stack:
        for acks, topic in zip(EVERY_ACKS, topics, strict=True):
            producer = await stack.enter_async_context(
                trio_kprod.open_producer(
                    kafka.bootstrap_servers,
                    acks=acks,
                    delivery_threshold=50,
                    shutdown_timeout=PATIENCE,
                    on_undelivered=history.note,
                )
            )
            going_on = await stack.enter_async_context(load(history, producer, topic))
        yield going_on


async def test_too_few_replicas_for_longer_than_messages_wait(
    three_nodes: Cluster, history: History, caplog: pytest.LogCaptureFixture
) -> None:
    """What is given up is told with the reason, and later messages are delivered."""
    topic = three_nodes.new_topic(replication_factor=3, min_insync_replicas="3")
    follower = three_nodes.leader(topic) % 3 + 1
    async with (
        trio_kprod.open_producer(
            three_nodes.bootstrap_servers,
            delivery_threshold=50,
            request_timeout_ms=1_000,
            delivery_timeout=3,
            shutdown_timeout=PATIENCE,
            on_undelivered=history.note,
        ) as producer,
        load(history, producer, topic) as going_on,
    ):
        await going_on.more()
        three_nodes.kill(follower)
        await until(lambda: len(history.told) > 300)
        await trio.to_thread.run_sync(three_nodes.restore)
        delivered = producer.statistics().delivered
        await until(lambda: producer.statistics().delivered > delivered)
        await going_on.more()
    assert "min.insync.replicas: are all brokers up?" in caplog.text
    # Not in each: a machine that is slow may also give up what was sent when all was well.
    assert any("NOT_ENOUGH_REPLICAS" in str(one.cause) for one in history.told)
    history.check(three_nodes, topic)


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
    async with trio_kprod.open_producer(
        cramped.bootstrap_servers,
        delivery_threshold=50,
        shutdown_timeout=PATIENCE,
        on_undelivered=history.note,
    ) as producer:
        await history.send(producer, topic)
        await producer.flush()
        async with load(history, producer, topic, size=5_000) as going_on:
            fill(ballast)
            await until(lambda: not cramped.nodes[0].running)
            await going_on.more()
            ballast.unlink()
            await trio.to_thread.run_sync(cramped.restore)
            await going_on.more()
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
    return await trio.to_thread.run_sync(kafka.read, topic)


async def first_offset(kafka: Cluster, topic: str) -> int:
    """Of the first record that partition 0 still has; the next one's if it has none."""
    return await trio.to_thread.run_sync(kafka.first_offset, topic)


async def until_the_log_goes_on(kafka: Cluster, topic: str, going_on: Load, history: History) -> None:
    """Wait until it has a message that is sent from now on."""
    now = history.sent
    while all(number_of(one.value) <= now for one in await read(kafka, topic)):
        await going_on.more(50)


def delete_records(kafka: Cluster, topic: str) -> None:
    """Remove all records of partition 0 that there are by now."""
    with kafka.admin() as admin:
        admin.delete_records({TopicPartition(topic, 0): kafka.end_offsets(topic)[0]})
