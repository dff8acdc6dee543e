"""Rights that are given, missing and taken while messages are sent: told with what to grant, and obeyed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio

import trio_kprod
from tests.kafka.admin import allow, forbid, forbid_all
from tests.kafka.cluster import PATIENCE, Cluster
from tests.kafka.conftest import own
from tests.kafka.helpers import until
from tests.kafka.history import Acks, History, number_of
from tests.kafka.listeners import PASSWORD, USER, sasl
from tests.kafka.load import sending
from tests.kafka.node import RIGHTS


@pytest.fixture(scope="module")
def guarded() -> Iterator[Cluster]:
    """A node that asks what `USER` may do; whoever comes without a log-in may do all."""
    yield from own(1, listeners={"SASL": sasl("PLAIN")}, **RIGHTS)


@pytest.fixture(autouse=True)
def no_rights_are_left(guarded: Cluster) -> Iterator[None]:
    """Each test begins without any: one to write to a topic, whichever, is one to idempotence (KIP-679)."""
    yield
    forbid_all(guarded)


def open_producer(cluster: Cluster, history: History, **settings: Any) -> Any:
    """A producer of `USER`."""
    return history.open_producer(
        cluster.servers("SASL"),
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="PLAIN",
        sasl_plain_username=USER,
        sasl_plain_password=PASSWORD,
        delivery_threshold=20,
        delivery_interval=0.1,
        shutdown_timeout=PATIENCE,
        **settings,
    )


async def change(what: Any, *arguments: Any) -> None:
    """Give or take a right, in a thread."""
    await trio.to_thread.run_sync(what, *arguments)


@pytest.mark.parametrize("acks", [1, "all"])
async def test_write_is_given_taken_and_given_again(
    guarded: Cluster, history: History, acks: Acks, caplog: pytest.LogCaptureFixture
) -> None:
    """What is refused meanwhile is told as not written, with its reason; the rest is delivered."""
    topic = guarded.new_topic(partitions=2)
    allow(guarded, "WRITE", topic)
    async with (
        open_producer(guarded, history, acks=acks, topic_timeout=1) as producer,
        sending(history, producer, topic) as going_on,
    ):
        await going_on.more()
        await change(forbid, guarded, "WRITE", topic)
        await until(lambda: len(history.told) > 100)
        await change(allow, guarded, "WRITE", topic)
        await history.recovers(producer, topic)
        await going_on.more()
    assert "grant the operation Write on the topic" in caplog.text
    assert all("TOPIC_AUTHORIZATION_FAILED" in str(one.cause) for one in history.told)
    assert not any(one.maybe_written for one in history.told)
    history.check(guarded, topic, acks)


async def test_write_is_taken_and_nobody_waits_for_an_answer(
    guarded: Cluster, history: History, caplog: pytest.LogCaptureFixture
) -> None:
    """With ``acks=0`` Kafka refuses by ending the connection, and what was on its way is lost."""
    topic = guarded.new_topic()
    allow(guarded, "WRITE", topic)
    async with (
        open_producer(guarded, history, acks=0, topic_timeout=1) as producer,
        sending(history, producer, topic) as going_on,
    ):
        await going_on.more()
        await change(forbid, guarded, "WRITE", topic)
        await until(lambda: "grant the operation Write on the topic" in caplog.text)
        await change(allow, guarded, "WRITE", topic)
        allowed_at = history.sent
        while not await read_beyond(guarded, topic, allowed_at):
            await going_on.more(50)
    history.check(guarded, topic, 0, may_be=["lost"])


async def read_beyond(kafka: Cluster, topic: str, number: int) -> bool:
    """Whether the log has a message that was sent after this one."""
    records = await trio.to_thread.run_sync(kafka.read, topic)
    return any(number_of(one.value) > number for one in records)


@pytest.mark.parametrize("acks", [0, 1, "all"])
async def test_a_topic_that_may_not_even_be_seen(
    guarded: Cluster, history: History, acks: Acks, caplog: pytest.LogCaptureFixture
) -> None:
    """Told as refused, not as missing; another topic is not held up, and a right is used once it is there."""
    hidden, other = guarded.new_topic(), guarded.new_topic()
    allow(guarded, "WRITE", other)
    async with (
        open_producer(guarded, history, acks=acks, topic_timeout=1) as producer,
        sending(history, producer, other) as going_on,
    ):
        await history.send(producer, hidden)
        await until(lambda: bool(history.told))
        await going_on.more()
        await change(allow, guarded, "WRITE", hidden)
        await history.recovers(producer, hidden)
        while not await read_beyond(guarded, hidden, 0):
            await history.send(producer, hidden)
    assert "TOPIC_AUTHORIZATION_FAILED" in str(history.told[0].cause)
    assert f"topic '{hidden}': TOPIC_AUTHORIZATION_FAILED (29); grant the operation Write" in caplog.text
    history.check(guarded, hidden, acks)
    history.check(guarded, other, acks)


async def test_a_topic_that_may_be_seen_only(guarded: Cluster, history: History) -> None:
    """The broker refuses each batch."""
    topic = guarded.new_topic()
    allow(guarded, "DESCRIBE", topic)
    async with open_producer(guarded, history, acks=1) as producer:
        for _ in range(100):
            await history.send(producer, topic)
    assert len(history.told) == 100
    assert all("TOPIC_AUTHORIZATION_FAILED" in str(one.cause) for one in history.told)
    history.check(guarded, topic, 1)


async def test_idempotence_is_not_granted(guarded: Cluster, history: History) -> None:
    """Told with both ways out; then the right is there, and it is the topic that is told; then all is."""
    topic = guarded.new_topic()
    allow(guarded, "DESCRIBE", topic)
    async with open_producer(guarded, history) as producer:
        await send_until(lambda: is_told(history, "no broker gave a producer id"), history, producer, topic)
        assert "CLUSTER_AUTHORIZATION_FAILED" in str(history.told[-1].cause)
        assert "without idempotence, acks=1, none is needed" in str(history.told[-1].cause)
        await change(allow, guarded, "IDEMPOTENT_WRITE")
        await send_until(lambda: is_told(history, "TOPIC_AUTHORIZATION_FAILED"), history, producer, topic)
        await change(allow, guarded, "WRITE", topic)
        await history.recovers(producer, topic)
    history.check(guarded, topic)


def is_told(history: History, words: str) -> bool:
    """Whether the last message that was told has such a cause."""
    return bool(history.told) and words in str(history.told[-1].cause)


async def send_until(
    condition: Callable[[], bool], history: History, producer: trio_kprod.Producer, topic: str
) -> None:
    """Send until it holds: a right is at work a little after it was given, and so is its end."""
    with trio.fail_after(PATIENCE):
        while not condition():
            await history.send(producer, topic)
            await trio.sleep(0.01)
