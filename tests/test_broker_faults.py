"""What brokers answer when something is wrong with them, with a topic or with a message.

Nearly all of it in virtual time: an outage of a quarter of a minute takes none.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import trio

import trio_kprod
from tests.scripted_cluster import Asked, Close, ScriptedCluster, framed, open_on
from trio_kprod._client._brokers import ProduceConnection
from trio_kprod._client._produce_codec import ProduceExchange
from trio_kprod._core._core import ProduceCore
from trio_kprod.testing import MemoryBroker, open_memory_producer

Clock = trio.testing.MockClock

pytestmark = pytest.mark.usefixtures("own_thread")


def values(broker: MemoryBroker, topic: str = "t") -> list[bytes | None]:
    return [record.value for record in broker.records(topic)]


def told(error: trio_kprod.DeliveryFailed) -> list[tuple[bytes | None, bool]]:
    """The value of each message that was not delivered, and whether it may have been written."""
    return [(one.message.value, one.maybe_written) for one in error.undelivered]


def go_down(broker: MemoryBroker) -> None:
    broker.stop_listening()
    broker.disconnect_all()


# ---------------------------------------------------------------------------------------------------------
# Opening


async def test_nobody_listens(autojump_clock: Clock) -> None:
    """Told at `connect_timeout`, with the cause; the block is not entered."""
    broker = MemoryBroker()
    broker.stop_listening()
    with pytest.raises(trio_kprod.ConnectFailed, match="refused") as caught:
        async with open_memory_producer(broker, connect_timeout=3):
            pytest.fail("must not be entered")
    assert trio.current_time() == 3
    assert set(caught.value.causes) == {"memory:9092"}


async def test_somebody_listens_after_a_while(autojump_clock: Clock) -> None:
    broker = MemoryBroker()
    broker.stop_listening()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def come_up() -> None:
            await trio.sleep(20)
            broker.start_listening()

        async with open_memory_producer(broker) as producer:
            assert 20 <= trio.current_time() <= 21
            await producer.send_and_wait("t", b"x")


async def test_a_silent_listener(autojump_clock: Clock) -> None:
    broker = MemoryBroker()
    broker.silence()
    with pytest.raises(trio_kprod.ConnectFailed, match="memory:9092: ApiVersions: no response"):
        async with open_memory_producer(broker, connect_timeout=3):
            pytest.fail("must not be entered")
    assert trio.current_time() == 3


@pytest.mark.parametrize("api", ["ApiVersions", "Metadata"])
async def test_a_silent_server_does_not_hide_a_good_one(api: str, autojump_clock: Clock) -> None:
    """Not even if it is quicker to accept; each is asked by itself."""
    cluster = ScriptedCluster()

    async def script(asked: Asked) -> None:
        await trio.sleep(math.inf if asked.api == api else 0)

    async def slow(_: Asked) -> None:
        await trio.sleep(0.1)

    cluster.nodes[1].script, cluster.nodes[2].script = script, slow
    async with open_on(cluster, bootstrap=[1, 2]) as producer:
        assert trio.current_time() == pytest.approx(0.2)
        await producer.send_and_wait("t", b"x", partition=1)


async def test_a_server_that_comes_up_beside_a_silent_one(autojump_clock: Clock) -> None:
    """Others are tried again while one attempt takes its time."""
    cluster = ScriptedCluster()

    async def silent(_: Asked) -> None:
        await trio.sleep_forever()

    cluster.nodes[1].script, cluster.nodes[2].listening = silent, False
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def come_up() -> None:
            await trio.sleep(2)
            cluster.nodes[2].listening = True

        async with open_on(cluster, bootstrap=[1, 2]):
            assert trio.current_time() <= 3


async def test_a_refusal_ends_the_opening_although_another_server_is_silent(autojump_clock: Clock) -> None:
    """The others have a second."""
    cluster = ScriptedCluster(sasl_users={"ada": "right"})

    async def silent(_: Asked) -> None:
        await trio.sleep_forever()

    cluster.nodes[1].script = silent
    with pytest.raises(trio_kprod.ConnectFailed, match=r"cannot connect: .*authentication failed"):
        async with open_on(cluster, bootstrap=[1, 2], **sasl("wrong")):
            pytest.fail("must not be entered")
    assert trio.current_time() == 1


def sasl(password: str) -> dict[str, Any]:
    return {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "ada",
        "sasl_plain_password": password,
    }


# ---------------------------------------------------------------------------------------------------------
# Outages


async def test_after_an_outage_all_is_delivered_within_two_seconds(autojump_clock: Clock) -> None:
    broker = MemoryBroker(partitions=3)
    async with open_memory_producer(broker, delivery_threshold=1) as producer:
        await producer.send_and_wait("t", b"0", key=b"k")
        go_down(broker)
        for number in range(1, 31):
            producer.send_nowait("t", b"%d" % number, key=b"k")
            await trio.sleep(0.5)
        broker.start_listening()
        with trio.fail_after(2):
            await producer.flush()
    assert values(broker) == [b"%d" % number for number in range(31)]


async def test_an_outage_longer_than_the_delivery_timeout(autojump_clock: Clock) -> None:
    """Told at the deadline, not written; later messages are delivered."""
    broker = MemoryBroker()
    async with open_memory_producer(broker, delivery_timeout=5, delivery_threshold=1) as producer:
        await producer.send_and_wait("t", b"before")
        go_down(broker)
        await trio.testing.wait_all_tasks_blocked()  # the client has noticed
        start = trio.current_time()
        with pytest.raises(trio_kprod.DeliveryFailed) as caught:
            await producer.send_and_wait("t", b"during")
        assert trio.current_time() - start <= 5.1
        assert told(caught.value) == [(b"during", False)]
        assert isinstance(caught.value.undelivered[0].cause, trio_kprod.DeliveryTimedOut)
        broker.start_listening()
        with trio.fail_after(2):
            await producer.send_and_wait("t", b"after")
    assert values(broker) == [b"before", b"after"]


async def test_an_answer_later_than_the_delivery_timeout(autojump_clock: Clock) -> None:
    """Perhaps written, and it is; later messages of this and of other topics are delivered."""
    broker = MemoryBroker()
    async with open_memory_producer(broker, delivery_timeout=5, request_timeout_ms=8000) as producer:
        await producer.send_and_wait("t", b"before")
        rule = broker.silence("Produce", topic="t")
        with pytest.raises(trio_kprod.DeliveryFailed) as caught:
            await producer.send_and_wait("t", b"during")
        assert told(caught.value) == [(b"during", True)]
        rule.remove()
        with trio.fail_after(2):
            await producer.send_and_wait("t", b"after")
            await producer.send_and_wait("u", b"after")
    assert values(broker) == [b"before", b"during", b"after"]


async def test_a_topic_whose_answers_are_late_for_ever_holds_up_no_other(autojump_clock: Clock) -> None:
    cluster = ScriptedCluster()

    async def silent(asked: Asked) -> None:
        await trio.sleep(math.inf if asked.api == "Produce" else 0)

    async with open_on(cluster, delivery_timeout=5, request_timeout_ms=2000, shutdown_timeout=1) as producer:
        await producer.partitions_for("t")
        cluster.nodes[2].script = silent
        for _ in range(3):
            with pytest.raises(trio_kprod.DeliveryFailed) as caught:
                await producer.send_and_wait("t", b"x", partition=1)
            assert told(caught.value) == [(b"x", True)]
            with trio.fail_after(0.1):
                await producer.send_and_wait("t", b"y", partition=0)


async def test_stopping_takes_no_time(autojump_clock: Clock) -> None:
    """No longer than the drain may take, though there is no connection whose end could wake the client."""
    broker = MemoryBroker()
    with pytest.raises(trio_kprod.DeliveryFailed) as caught:
        async with open_memory_producer(broker, shutdown_timeout=5) as producer:
            await producer.send_and_wait("t", b"before")
            go_down(broker)
            await trio.testing.wait_all_tasks_blocked()  # the client has noticed
            producer.send_nowait("t", b"during")
    assert trio.current_time() == pytest.approx(5)
    assert told(caught.value) == [(b"during", False)]


async def test_a_restart_while_nothing_is_to_be_sent(autojump_clock: Clock) -> None:
    """Nobody calls on a broker without need, and the next message finds it."""
    broker = MemoryBroker()
    async with open_memory_producer(broker) as producer:
        await producer.send_and_wait("t", b"before")
        go_down(broker)
        accepted = broker.connections_accepted
        await trio.sleep(60)
        broker.start_listening()
        await trio.sleep(60)
        assert broker.connections_accepted == accepted
        with trio.fail_after(0.1):
            await producer.send_and_wait("t", b"after")


async def test_nobody_is_called_on_without_need(autojump_clock: Clock) -> None:
    """Not even a listener that closes each connection at once."""
    broker = MemoryBroker()
    async with open_memory_producer(broker) as producer:
        await producer.send_and_wait("t", b"before")
        broker.drop_connections("accept", times=None)
        broker.disconnect_all()
        accepted = broker.connections_accepted
        await trio.sleep(250)
        assert broker.connections_accepted == accepted
        broker.clear_faults()


async def test_a_frozen_broker_that_thaws(autojump_clock: Clock) -> None:
    """What was asked before it froze may be written long after; all of it is there once, and in order."""
    broker = MemoryBroker(partitions=2)
    async with open_memory_producer(broker, delivery_threshold=1) as producer:
        await producer.send_and_wait("t", b"0", partition=0)
        broker.silence()
        for number in range(1, 8):
            producer.send_nowait("t", b"%d" % number, partition=0)
            await trio.sleep(10)
        broker.resume()
        with trio.fail_after(12):
            await producer.flush()
    assert values(broker) == [b"%d" % number for number in range(8)]


async def test_each_outage_is_told_without_acknowledgements_too(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A message that is written ends the old troubles."""
    broker = MemoryBroker()
    async with open_memory_producer(broker, acks=0, delivery_threshold=1) as producer:
        await producer.send_and_wait("t", b"before")
        for number in range(4):
            await trio.sleep(60)
            go_down(broker)
            producer.send_nowait("t", b"%d" % number)
            await trio.sleep(5)
            broker.start_listening()
            with trio.fail_after(2):
                await producer.flush()
        assert producer._delivery._client._brokers.trouble() is None
    warnings = [one for one in caplog.records if one.levelno == logging.WARNING and "refused" in one.message]
    assert len(warnings) == 4
    assert values(broker) == [b"before", b"0", b"1", b"2", b"3"]


async def test_a_connection_that_the_broker_closes_unused_is_no_trouble(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Brokers do that after ten minutes."""
    caplog.set_level(logging.DEBUG, "trio_kprod")
    broker = MemoryBroker()
    async with open_memory_producer(broker, connections_max_idle_ms=3600_000) as producer:
        await producer.send_and_wait("t", b"before")
        await trio.sleep(600)
        broker.disconnect_all()
        await trio.sleep(600)
        assert producer._delivery._client._brokers.trouble() is None
        with trio.fail_after(0.01):  # it is reconnected to at once
            await producer.send_and_wait("t", b"after")
    closed = [one.levelname for one in caplog.records if "the broker closed the connection" in one.message]
    assert closed == ["DEBUG", "DEBUG"]
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


@pytest.mark.parametrize("acks", [0, 1, "all"])
async def test_the_core_hears_of_each_produce_connection_that_ends(
    acks: Any, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of one on which nothing waits: a broker may close it to say that it leads no longer."""
    told = []

    def lost(self: ProduceCore, node: int, requests: Any, cause: BaseException) -> None:
        told.append((node, list(requests)))
        original(self, node, requests, cause)

    original = ProduceCore.lost
    monkeypatch.setattr(ProduceCore, "lost", lost)
    cluster = ScriptedCluster()
    async with open_on(cluster, acks=acks) as producer:
        for partition in (0, 1):
            await producer.send_and_wait("t", b"x", partition=partition)
        await trio.sleep(60)
        cluster.nodes[2].cut()
        await trio.testing.wait_all_tasks_blocked()
        assert told == [(2, [])]


async def test_a_leader_that_moves_without_acknowledgements(autojump_clock: Clock) -> None:
    """The old one closes the connection, which is its only way to say so; what is written by then is lost."""
    cluster = ScriptedCluster()
    async with open_on(cluster, acks=0, delivery_threshold=1) as producer:
        for number in range(400):
            if number == 100:
                cluster.lead(2, partition=0)
            await producer.send("t", b"%d" % number, partition=0)
            await trio.sleep(0.01)
        await producer.flush()
    arrived = cluster.values("t", 0)
    assert len(arrived) >= 390
    assert arrived[-1] == b"399"


async def test_requests_on_their_way_when_the_broker_dies(autojump_clock: Clock) -> None:
    broker = MemoryBroker(partitions=4)
    async with open_memory_producer(broker, delivery_threshold=1) as producer:
        await producer.partitions_for("t")
        for after_append in (True, False):
            broker.delay("Produce", 5, after_append=after_append, times=None)
            for partition in range(4):
                producer.send_nowait("t", b"%d" % partition, partition=partition)
                await trio.sleep(0.1)
            go_down(broker)
            broker.clear_faults()
            broker.start_listening()
            with trio.fail_after(2):
                await producer.flush()
    assert values(broker) == [b"0", b"0", b"1", b"1", b"2", b"2", b"3", b"3"]


async def test_an_acknowledgement_that_comes_with_the_end_counts(autojump_clock: Clock) -> None:
    cluster = ScriptedCluster(nodes=1)

    async def answer_and_close(asked: Asked) -> None:
        if asked.api == "Produce":
            raise Close(framed(await asked.good_frame()))

    async with open_on(cluster) as producer:
        cluster.nodes[1].script = answer_and_close
        for number in range(10):
            assert (await producer.send_and_wait("t", b"x")).offset == number
    assert cluster.nodes[1].requests["Produce"] == 10


async def test_an_acknowledgement_that_comes_with_the_stop_counts(autojump_clock: Clock) -> None:
    broker = MemoryBroker()
    scope = open_memory_producer(broker)
    client = scope._client
    post = client._steps.post_and_run

    def stop_at_the_answer(*event: Any) -> None:
        client.stop("it was stopped")
        post(*event)

    client._steps.post_and_run = stop_at_the_answer  # type: ignore[assignment,method-assign]
    with pytest.raises(trio_kprod.ProducerCrashed):  # as nobody told it to
        async with scope as producer:
            assert (await producer.send_and_wait("t", b"x")).offset == 0
            await trio.sleep_forever()


@pytest.mark.parametrize("reads", [False, True])
async def test_what_waits_for_a_silent_leader_keeps_within_the_bound(
    reads: bool, autojump_clock: Clock
) -> None:
    """Its messages expire, and others take their place, in the queue or in flight."""
    cluster = ScriptedCluster(nodes=1, partitions=20)
    (node,) = cluster.nodes.values()
    if not reads:
        cluster.stream_pair = trio.testing.lockstep_stream_pair  # which takes what the other side reads
    bound, most = 100_000, 0
    async with open_on(
        cluster,
        delivery_threshold=1,
        delivery_timeout=1,
        max_buffer_bytes=bound,
        max_request_size=10_000,
        shutdown_timeout=1,
        on_undelivered=lambda _: None,
    ) as producer:
        await producer.send_and_wait("t", b"before")
        node.behave_like(say_nothing)
        for number in range(400):
            with suppress(trio_kprod.BufferOverflow):
                producer.send_nowait("t", bytes(2000), partition=number % 20)
            await trio.sleep(0.05)
            (connection,) = producer._delivery._client._brokers._produce.values()
            most = max(most, bytes_held(connection))
    assert 0 < most <= bound + 2 * 10_000  # and what is being written


def bytes_held(connection: ProduceConnection) -> int:
    """The bytes that a connection keeps alive."""
    held = 0
    exchanges = {*connection._connection.queued, *connection._connection._in_flight.exchanges}
    for exchange in exchanges:
        assert isinstance(exchange, ProduceExchange)
        held += sum(len(batch.data or b"") for batch in exchange.request.batches)
        held += len(exchange.unwritten or b"")
    return held


async def test_questions_do_not_wait_behind_messages(autojump_clock: Clock) -> None:
    """A broker answers a connection in order, and messages may wait for a frozen follower."""
    broker = MemoryBroker(partitions=20)
    async with open_memory_producer(broker, delivery_threshold=1) as producer:
        await producer.partitions_for("t")
        broker.silence("Produce")
        for partition in range(20):
            producer.send_nowait("t", b"x", partition=partition)
            await trio.sleep(0.01)
        with trio.fail_after(0.1):
            assert len(await producer.partitions_for("new")) == 20
        broker.resume()


# ---------------------------------------------------------------------------------------------------------
# Credentials


async def test_credentials_refused_later(autojump_clock: Clock) -> None:
    """Messages wait for better times: an account can be restored. Other brokers' messages do not."""
    cluster = ScriptedCluster(sasl_users={"ada": "right"}, sasl_session_lifetime=10)
    node = cluster.nodes[2]

    async def refuse(asked: Asked) -> bytes | None:
        if asked.api != "SaslAuthenticate":
            return None
        response = await asked.good()
        response.error_code, response.error_message = 58, "account closed"
        raise Close(framed(asked.encode(response)))

    async with open_on(cluster, delivery_threshold=1, **sasl("right")) as producer:
        await producer.send_and_wait("t", b"before", partition=1)
        node.behave_like(refuse)
        await trio.sleep(20)
        producer.send_nowait("t", b"during", partition=1)
        with trio.fail_after(1):
            await producer.send_and_wait("t", b"meanwhile", partition=0)
        await trio.sleep(20)
        assert 1 <= node.accepted <= 60
        node.behave_like(None)
        with trio.fail_after(2):
            await producer.flush()
    assert cluster.values("t", 1) == [b"before", b"during"]


async def test_what_is_given_up_without_credentials_says_so(autojump_clock: Clock) -> None:
    broker = MemoryBroker(sasl_users={"ada": "right"}, sasl_session_lifetime=10)
    with pytest.raises(trio_kprod.DeliveryFailed, match="authentication failed: account closed") as caught:
        async with open_memory_producer(broker, shutdown_timeout=5, **sasl("right")) as producer:
            await producer.send_and_wait("t", b"before")
            broker.answer("SaslAuthenticate", error=58, times=None, message="account closed")
            await trio.sleep(30)
            producer.send_nowait("t", b"during")
    assert told(caught.value) == [(b"during", False)]


# ---------------------------------------------------------------------------------------------------------
# Topics and leaders


async def test_a_topic_that_is_missing_fails_and_delays_no_other(autojump_clock: Clock) -> None:
    broker = MemoryBroker(auto_create_topics=False, topics={"t": 1})
    async with open_memory_producer(broker, topic_timeout=10, delivery_threshold=1) as producer:
        producer.send_nowait("missing", b"x")
        with trio.fail_after(0.1):
            await producer.send_and_wait("t", b"y")
        with pytest.raises(trio_kprod.DeliveryFailed) as caught:
            await producer.flush()
        assert 10 <= trio.current_time() <= 12
    assert told(caught.value) == [(b"x", False)]
    assert isinstance(caught.value.undelivered[0].cause, trio_kprod.UnknownTopic)


async def test_an_outage_does_not_count_against_a_topic(autojump_clock: Clock) -> None:
    broker = MemoryBroker(auto_create_topics=False)
    async with open_memory_producer(broker, topic_timeout=10, delivery_threshold=1) as producer:
        producer.send_nowait("t", b"x")
        await trio.sleep(3)
        go_down(broker)
        await trio.sleep(60)
        broker.start_listening()
        await trio.sleep(3)
        broker.create_topic("t")
        with trio.fail_after(1.1):
            await producer.flush()
    assert values(broker) == [b"x"]


async def test_a_topic_created_after_the_first_message(autojump_clock: Clock) -> None:
    broker = MemoryBroker(auto_create_topics=False)
    async with open_memory_producer(broker, delivery_threshold=1) as producer:
        producer.send_nowait("t", b"x")
        await trio.sleep(10)
        broker.create_topic("t")
        with trio.fail_after(1.1):
            await producer.flush()
    assert values(broker) == [b"x"]


@pytest.mark.parametrize("code", [3, 5, 6, 9, 15, -1, 999])
@pytest.mark.parametrize("partition", [None, 0])
async def test_metadata_that_is_wrong_for_a_while_delays_its_topic_only(
    code: int, partition: int | None, autojump_clock: Clock
) -> None:
    broker = MemoryBroker(topics={"t": 1, "u": 1})
    rule = broker.answer("Metadata", error=code, topic="t", partition=partition, times=None)
    async with open_memory_producer(broker, delivery_threshold=1) as producer:
        producer.send_nowait("t", b"x")
        with trio.fail_after(0.1):
            await producer.send_and_wait("u", b"y")
        await trio.sleep(3)
        rule.remove()
        with trio.fail_after(1.1):
            await producer.flush()
    assert (values(broker), values(broker, "u")) == ([b"x"], [b"y"])


@pytest.mark.parametrize("code", [17, 29])
async def test_metadata_that_refuses_a_topic_fails_its_messages_only(
    code: int, autojump_clock: Clock
) -> None:
    """At once; and what comes later is tried on its own account."""
    broker = MemoryBroker(topics={"t": 1, "u": 1})
    rule = broker.answer("Metadata", error=code, topic="t", times=None)
    async with open_memory_producer(broker) as producer:
        with trio.fail_after(0.1):
            with pytest.raises(trio_kprod.DeliveryFailed) as caught:
                await producer.send_and_wait("t", b"x")
            await producer.send_and_wait("u", b"y")
        rule.remove()
        await producer.send_and_wait("t", b"z")
    assert told(caught.value) == [(b"x", False)]
    assert (values(broker), values(broker, "u")) == ([b"z"], [b"y"])


async def test_a_topic_deleted_after_it_was_known(autojump_clock: Clock) -> None:
    broker = MemoryBroker(auto_create_topics=False, topics={"t": 2, "u": 1})
    async with open_memory_producer(broker, topic_timeout=10, delivery_threshold=1) as producer:
        await producer.send_and_wait("t", b"before")
        broker.delete_topic("t")
        producer.send_nowait("t", b"after")
        with trio.fail_after(0.1):
            await producer.send_and_wait("u", b"1")
        with pytest.raises(trio_kprod.DeliveryFailed) as caught:
            await producer.flush()
        await producer.send_and_wait("u", b"2")
        broker.create_topic("t", 2)
        with trio.fail_after(2):
            await producer.send_and_wait("t", b"made anew")
    assert told(caught.value) == [(b"after", False)]
    assert values(broker, "u") == [b"1", b"2"]
    assert values(broker) == [b"made anew"]


async def test_partitions_that_are_added_are_used(autojump_clock: Clock) -> None:
    broker = MemoryBroker(topics={"t": 1})
    async with open_memory_producer(broker, metadata_max_age_ms=60_000, delivery_threshold=1) as producer:
        await producer.send_and_wait("t", b"before")
        broker.add_partitions("t", 4)
        assert (await producer.send_and_wait("t", b"asked for", partition=3)).partition == 3
        await trio.sleep(61)
        for number in range(100):
            await producer.send_and_wait("t", b"%d" % number)
    assert {record.partition for record in broker.records("t")} == {0, 1, 2, 3}


async def test_partitions_that_are_added_are_found_by_age(autojump_clock: Clock) -> None:
    broker = MemoryBroker(topics={"t": 1})
    async with open_memory_producer(broker, metadata_max_age_ms=60_000) as producer:
        await producer.send_and_wait("t", b"before")
        broker.add_partitions("t", 4)
        await trio.sleep(61)
        for number in range(50):
            await producer.send_and_wait("t", b"%d" % number)
    assert {record.partition for record in broker.records("t")} == {0, 1, 2, 3}


async def test_a_leader_that_moves_keeps_the_order(autojump_clock: Clock) -> None:
    """There and back, with messages on their way all the time."""
    cluster = ScriptedCluster()
    async with open_on(cluster, delivery_threshold=1) as producer:
        for number in range(200):
            if number % 40 == 20:
                cluster.lead(number // 40 % 2 + 1, partition=0)
            await producer.send("t", b"%d" % number, partition=0)
            await trio.sleep(0.01)
        with trio.fail_after(2):
            await producer.flush()
    assert cluster.values("t", 0) == [b"%d" % number for number in range(200)]
    assert all(node.requests["Produce"] for node in cluster.nodes.values())


async def test_a_leader_that_moves_is_followed_by_its_own_hint(autojump_clock: Clock) -> None:
    """To an address of which no metadata told, and without asking for any."""
    cluster = ScriptedCluster()
    old, new = cluster.nodes.values()

    async def no_metadata(asked: Asked) -> None:
        await trio.sleep(math.inf if asked.api == "Metadata" else 0)

    async with open_on(cluster, shutdown_timeout=1) as producer:
        await producer.send_and_wait("t", b"before", partition=0)
        old.script = new.script = no_metadata
        new.address = ("elsewhere", 9092)
        cluster.lead(new.id, partition=0)
        with trio.fail_after(0.1):
            await producer.send_and_wait("t", b"after", partition=0)
    assert (old.requests["Produce"], new.requests["Produce"]) == (2, 1)


async def test_a_leader_that_is_gone_for_good(autojump_clock: Clock) -> None:
    """Its successor is found, though the one that is gone is still called on."""
    cluster = ScriptedCluster()
    async with open_on(cluster, delivery_threshold=1) as producer:
        await producer.send_and_wait("t", b"before", partition=1)
        cluster.nodes[2].listening = False
        cluster.nodes[2].cut()
        producer.send_nowait("t", b"after", partition=1)
        await trio.sleep(10)
        cluster.lead(1, partition=1)
        with trio.fail_after(2):
            await producer.flush()
    assert cluster.values("t", 1) == [b"before", b"after"]


async def test_a_broker_that_is_cut_off_is_not_believed_for_ever(autojump_clock: Clock) -> None:
    """It goes on telling of a leader that is gone; another is asked then."""
    cluster = ScriptedCluster(nodes=3)
    cut_off, gone = cluster.nodes[1], cluster.nodes[2]

    async def stale(asked: Asked) -> bytes | None:
        if asked.api != "Metadata":
            return None
        response = await asked.good()
        for topic in response.topics:
            for partition in topic.partitions:
                partition.leader_id, partition.leader_epoch = 2, 0
        return framed(asked.encode(response))

    async with open_on(cluster, bootstrap=[1], delivery_threshold=1) as producer:
        await producer.send_and_wait("t", b"before", partition=1)
        cut_off.script = stale
        gone.listening = False
        gone.cut()
        cluster.lead(3, partition=1)
        producer.send_nowait("t", b"after", partition=1)
        with trio.fail_after(15):
            await producer.flush()
    assert cluster.values("t", 1) == [b"before", b"after"]


async def say_nothing(_: Asked) -> None:
    """What a broker does that is frozen, or gone with its machine."""
    await trio.sleep_forever()


async def test_asking_others_in_vain_delays_no_question(autojump_clock: Clock) -> None:
    """A topic has no leader, since a broker is gone with its machine; another topic is new."""
    cluster = ScriptedCluster()

    async with open_on(cluster, bootstrap=[1], delivery_threshold=1, shutdown_timeout=1) as producer:
        await producer.send_and_wait("t", b"before", partition=1)
        cluster.nodes[2].script = say_nothing
        cluster.nodes[2].cut()
        cluster.lead(-1, partition=1)
        producer.send_nowait("t", b"waits", partition=1)
        for number in range(30):
            await trio.sleep(1)
            with trio.fail_after(1.5):
                await producer.send_and_wait(f"new{number}", b"x", partition=0)
        assert cluster.nodes[2].requests["ApiVersions"] > 2
        cluster.nodes[2].script = None
        cluster.lead(2, partition=1)
        with trio.fail_after(12):
            await producer.flush()
    assert cluster.values("t", 1) == [b"before", b"waits"]


async def test_metadata_of_a_new_topic_does_not_wait_for_a_frozen_broker(autojump_clock: Clock) -> None:
    cluster = ScriptedCluster()

    async with open_on(cluster, bootstrap=[1], delivery_threshold=1, shutdown_timeout=1) as producer:
        await producer.send_and_wait("t", b"x", partition=1)
        cluster.nodes[1].script = say_nothing
        with trio.fail_after(1.5):
            await producer.send_and_wait("new", b"x", partition=1)


# ---------------------------------------------------------------------------------------------------------
# Answers to messages

NOT_WRITTEN = [3, 5, 6, 8, 9, 14, 15, 16, 19, 72, 74, 75, 89, 100, 103]
PERHAPS = [7, 13, 20, 56]
FINAL = [17, 21, 29, 31, 35, 42, 43, 44, 48, 49, 51, 53, 76, 90, 120]


@pytest.mark.parametrize("code", [*NOT_WRITTEN, *PERHAPS, -1, 2, 999])
async def test_an_error_that_passes_costs_nothing_but_time(code: int, autojump_clock: Clock) -> None:
    """Delivered once and in order."""
    broker = MemoryBroker()
    async with open_memory_producer(broker, delivery_threshold=1) as producer:
        await producer.send_and_wait("t", b"before")
        broker.answer("Produce", error=code, topic="t", times=2)
        for number in range(5):
            producer.send_nowait("t", b"%d" % number)
        with trio.fail_after(0.1):
            await producer.send_and_wait("u", b"other")
        with trio.fail_after(2):
            await producer.flush()
    assert values(broker) == [b"before", b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("code", [*PERHAPS, -1, 999, 3, 6, 19])
async def test_an_error_after_the_append_makes_no_duplicate(code: int, autojump_clock: Clock) -> None:
    broker = MemoryBroker()
    broker.answer("Produce", error=code, after_append=True, times=2)
    async with open_memory_producer(broker) as producer:
        assert (await producer.send_and_wait("t", b"x")).offset in (0, -1)
    assert values(broker) == [b"x"]


async def test_a_shortage_of_replicas_of_a_minute(autojump_clock: Clock) -> None:
    broker = MemoryBroker()
    rule = broker.answer("Produce", error=19, times=None)
    async with open_memory_producer(broker, delivery_threshold=1) as producer:
        producer.send_nowait("t", b"x")
        await trio.sleep(60)
        assert rule.hits <= 60 / 0.8 + 10
        rule.remove()
        with trio.fail_after(1.1):
            await producer.flush()
    assert values(broker) == [b"x"]


@pytest.mark.parametrize("code", FINAL)
async def test_an_error_that_is_final_fails_its_message_only(code: int, autojump_clock: Clock) -> None:
    """Whatever else is on its way to the same partition, to another and to another topic is delivered."""
    broker = MemoryBroker(topics={"t": 2, "u": 1})
    async with open_memory_producer(broker, delivery_threshold=1) as producer:
        await producer.send_and_wait("t", b"before", partition=0)
        broker.answer("Produce", error=code, topic="t", partition=0)
        waiting = [("t", b"refused", 0), ("t", b"other", 1), ("u", b"other", 0)]
        for topic, value, partition in waiting:
            producer.send_nowait(topic, value, partition=partition)
            await trio.lowlevel.checkpoint()
        with pytest.raises(trio_kprod.DeliveryFailed) as caught:
            await producer.flush()
        await producer.send_and_wait("t", b"after", partition=0)
    assert told(caught.value) == [(b"refused", False)]
    cause = caught.value.undelivered[0].cause
    assert isinstance(cause, trio_kprod.Refused)
    assert cause.code == code
    assert values(broker) == [b"before", b"after", b"other"]
    assert values(broker, "u") == [b"other"]


@pytest.mark.parametrize("code", [45, 47, 59])
async def test_an_answer_that_doubts_the_sequence_loses_nothing(code: int, autojump_clock: Clock) -> None:
    broker = MemoryBroker()
    async with open_memory_producer(broker, delivery_threshold=1) as producer:
        await producer.send_and_wait("t", b"before")
        broker.answer("Produce", error=code, times=3)
        producer.send_nowait("t", b"x")
        with trio.fail_after(3):
            await producer.flush()
        await producer.send_and_wait("t", b"after")
    assert values(broker) == [b"before", b"x", b"after"]


@pytest.mark.parametrize("code", [32, 87])
async def test_a_listed_record_fails_alone(code: int, autojump_clock: Clock) -> None:
    broker = MemoryBroker()
    broker.answer("Produce", error=code, record_errors=[(1, "no"), (3, "nor this")])
    with pytest.raises(trio_kprod.DeliveryFailed) as caught:
        async with open_memory_producer(broker) as producer:
            for number in range(5):
                producer.send_nowait("t", b"%d" % number)
    assert told(caught.value) == [(b"1", False), (b"3", False)]
    assert values(broker) == [b"0", b"2", b"4"]


async def test_a_record_too_large_for_the_topic_fails_alone(autojump_clock: Clock) -> None:
    """Its batch is halved until it stands alone."""
    broker = MemoryBroker()
    broker.create_topic("t", max_message_bytes=2000)
    with pytest.raises(trio_kprod.DeliveryFailed) as caught:
        async with open_memory_producer(broker) as producer:
            for number in range(20):
                producer.send_nowait("t", bytes([number]) * (3000 if number == 7 else 100))
    (failed,) = caught.value.undelivered
    assert (failed.message.value, failed.maybe_written) == (b"\7" * 3000, False)
    assert isinstance(failed.cause, trio_kprod.Refused)
    assert failed.cause.code == 10
    assert values(broker) == [bytes([number]) * 100 for number in range(20) if number != 7]


async def test_a_throttle_longer_than_requests_may_take(autojump_clock: Clock) -> None:
    """It is obeyed (KIP-219), costs no connection, and does not hold up the end."""
    cluster = ScriptedCluster(nodes=1)
    (node,) = cluster.nodes.values()

    async def throttle(asked: Asked) -> bytes | None:
        if asked.api != "Produce":
            return None
        response = await asked.good()
        response.throttle_time_ms = 90_000
        return framed(asked.encode(response))

    with pytest.raises(trio_kprod.DeliveryFailed) as caught:
        async with open_on(cluster, shutdown_timeout=5, request_timeout_ms=30_000) as producer:
            await producer.send_and_wait("t", b"before")
            node.behave_like(throttle)
            for number in range(3):
                start = trio.current_time()
                await producer.send_and_wait("t", b"%d" % number)
                assert trio.current_time() - start == (90 if number else 0)
            assert node.accepted == 0
            start = trio.current_time()
            producer.send_nowait("t", b"late")
    assert trio.current_time() - start == pytest.approx(5)
    assert told(caught.value) == [(b"late", False)]
    assert cluster.values("t") == [b"before", b"0", b"1", b"2"]


async def test_a_throttled_producer_is_slower_and_loses_nothing(autojump_clock: Clock) -> None:
    cluster = ScriptedCluster(nodes=1)

    async def throttle(asked: Asked) -> bytes | None:
        if asked.api != "Produce":
            return None
        response = await asked.good()
        response.throttle_time_ms = 1000
        return framed(asked.encode(response))

    async with open_on(cluster, delivery_threshold=1) as producer:
        cluster.nodes[1].script = throttle
        start = trio.current_time()
        for number in range(5):
            await producer.send_and_wait("t", b"%d" % number)
        assert 4 <= trio.current_time() - start <= 5.1
    assert cluster.values("t") == [b"%d" % number for number in range(5)]


# ---------------------------------------------------------------------------------------------------------
# Producer ids


async def test_no_producer_id_for_a_minute(autojump_clock: Clock) -> None:
    """Asked for at a pace, and then all is delivered."""
    broker = MemoryBroker()
    rule = broker.answer("InitProducerId", error=15, times=None)
    async with open_memory_producer(broker, delivery_threshold=1) as producer:
        producer.send_nowait("t", b"x")
        await trio.sleep(60)
        assert rule.hits <= 60 / 0.8 + 10
        rule.remove()
        with trio.fail_after(1.1):
            await producer.flush()
    assert values(broker) == [b"x"]


async def test_without_a_producer_id_messages_expire_all_the_same(autojump_clock: Clock) -> None:
    broker = MemoryBroker()
    rule = broker.answer("InitProducerId", error=15, times=None)
    async with open_memory_producer(broker, delivery_timeout=5) as producer:
        with pytest.raises(trio_kprod.DeliveryFailed) as caught:
            await producer.send_and_wait("t", b"x")
        assert trio.current_time() <= 5.1
        rule.remove()
        with trio.fail_after(1.1):
            await producer.send_and_wait("t", b"y")
    assert told(caught.value) == [(b"x", False)]


@pytest.mark.parametrize("code", [29, 31, 53])
async def test_a_producer_id_that_is_refused_fails_what_waits(code: int, autojump_clock: Clock) -> None:
    """With the broker's reason; what comes later is tried on its own account."""
    broker = MemoryBroker()
    broker.answer("InitProducerId", error=code)
    async with open_memory_producer(broker) as producer:
        with pytest.raises(trio_kprod.DeliveryFailed) as caught:
            await producer.send_and_wait("t", b"x")
        await producer.send_and_wait("t", b"y")
    assert told(caught.value) == [(b"x", False)]
    assert values(broker) == [b"y"]


def without_producer_ids(how: str) -> Callable[[Asked], Any]:
    async def script(asked: Asked) -> bytes | None:
        if asked.api == "ApiVersions" and how == "lacks it":
            response = await asked.good()
            response.api_keys = [one for one in response.api_keys if one.api_key != 22]
            return framed(asked.encode(response))
        if asked.api == "InitProducerId" and how == "closes":
            raise Close
        if asked.api == "InitProducerId" and how == "refuses it":
            response = await asked.good()
            response.error_code, response.producer_id = 31, -1
            return framed(asked.encode(response))
        return None

    return script


async def test_a_broker_that_closes_at_large_requests(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """As at ``socket.request.max.bytes``: requests get smaller, which is told once, with what to look at."""

    async def script(asked: Asked) -> bytes | None:
        if asked.api == "Produce" and len(asked.frame) > 50_000:
            raise Close
        return None

    cluster = ScriptedCluster(nodes=1)
    cluster.nodes[1].behave_like(script)
    sent = [b"%0500d" % number for number in range(400)]
    async with open_on(cluster, shutdown_timeout=60) as producer:
        for value in sent:
            producer.send_nowait("t", value)
    assert values(cluster.store) == sent
    (shrunk,) = {one.getMessage() for one in caplog.records if "requests are kept to" in one.getMessage()}
    assert "socket.request.max.bytes" in shrunk


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("lacks it", r"UNSUPPORTED_VERSION \(35\): "),
        ("refuses it", r"CLUSTER_AUTHORIZATION_FAILED \(31\): "),
        ("closes", ""),
    ],
)
async def test_a_broker_that_gives_no_producer_id(
    how: str, text: str, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The cause is told once a minute, with what to do, and is in the error; no storm of connections."""
    advice = rf"{text}no broker gave a producer id; without idempotence, acks=1, none is needed"
    cluster = ScriptedCluster(nodes=1)
    (node,) = cluster.nodes.values()
    node.behave_like(without_producer_ids(how))
    with pytest.raises(trio_kprod.DeliveryFailed, match=advice) as caught:
        async with open_on(cluster, delivery_threshold=1, shutdown_timeout=5) as producer:
            producer.send_nowait("t", b"x")
            await trio.sleep(600)
            assert node.accepted <= (700 if how == "closes" else 4)
            producer.send_nowait("t", b"y")
    assert told(caught.value) == [(b"x", False), (b"y", False)]
    warnings = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert 9 <= len([one for one in warnings if re.search(f"^InitProducerId: {advice}", one)]) <= 11
    assert len(warnings) <= (30 if how == "closes" else 13)


async def test_no_producer_id_is_told_again_when_the_cause_changes(
    autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """And no longer when one was given."""
    broker = MemoryBroker()
    rule = broker.answer("InitProducerId", error=15, times=None)
    async with open_memory_producer(broker, delivery_threshold=1) as producer:
        brokers = producer._delivery._client._brokers
        producer.send_nowait("t", b"x")
        await trio.sleep(10)
        rule.remove()
        rule = broker.answer("InitProducerId", error=14, times=None)
        await trio.sleep(10)
        assert "InitProducerId: COORDINATOR_LOAD_IN_PROGRESS (14)" in str(brokers.trouble())
        rule.remove()
        await producer.flush()
        assert brokers.trouble() is None
    told_of = [re.findall(r"InitProducerId: .* \((\d+)\)", one.getMessage()) for one in caplog.records]
    assert told_of == [["15"], ["14"], []]  # and the end


# ---------------------------------------------------------------------------------------------------------
# What messages hold


async def test_no_value_and_an_empty_one_are_two_things(autojump_clock: Clock) -> None:
    broker = MemoryBroker()
    async with open_memory_producer(broker) as producer:
        producer.send_nowait("t", None, key=b"k")
        producer.send_nowait("t", b"", key=b"k")
        producer.send_nowait("t", b"", key=b"")
        producer.send_nowait("t", b"x", headers=[("a", None), ("a", b"")])
    arrived = [(record.key, record.value, record.headers) for record in broker.records("t")]
    assert sorted(arrived, key=repr) == sorted(
        [(b"k", None, ()), (b"k", b"", ()), (b"", b"", ()), (None, b"x", (("a", None), ("a", b"")))], key=repr
    )
    assert [one[1] for one in arrived if one[0] == b"k"] == [None, b""]


async def test_a_key_of_900_kib(autojump_clock: Clock) -> None:
    broker = MemoryBroker(partitions=3)
    key = b"k" * 900 * 1024
    async with open_memory_producer(broker) as producer:
        await producer.send_and_wait("t", None, key=key)
    assert [record.key for record in broker.records("t")] == [key]


async def test_what_a_serializer_returned_may_change_later(autojump_clock: Clock) -> None:
    """It is copied at the call. (A value that can change is refused where there is no serializer.)"""
    buffer = bytearray(b"at the call")

    def serialize(_: object) -> bytes:
        return buffer  # type: ignore[return-value]

    broker = MemoryBroker()
    async with open_memory_producer(broker, value_serializer=serialize) as producer:
        producer.send_nowait("t", "anything")
        buffer[:] = b"much later "
    assert values(broker) == [b"at the call"]


async def test_a_serializer_that_raises_queues_nothing(autojump_clock: Clock) -> None:
    def serialize(value: str) -> bytes:
        return value.encode("ascii")

    broker = MemoryBroker()
    async with open_memory_producer(broker, value_serializer=serialize) as producer:
        with pytest.raises(ValueError, match="value_serializer failed"):
            producer.send_nowait("t", "ä")
        assert producer.statistics().accepted == 0
        producer.send_nowait("t", "a")
    assert values(broker) == [b"a"]


def raising(*_: Any) -> int:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    "partitioner", [raising, lambda *_: 99, lambda *_: -1, lambda *_: "0", lambda *_: None]
)
async def test_a_partitioner_that_fails_fails_its_message_only(
    partitioner: Callable[..., Any], autojump_clock: Clock
) -> None:
    def for_some(key: bytes | None, everywhere: Any, available: Any) -> Any:
        return partitioner(key, everywhere, available) if key == b"bad" else 1

    broker = MemoryBroker(partitions=2)
    with pytest.raises(trio_kprod.DeliveryFailed) as caught:
        async with open_memory_producer(broker, partitioner=for_some) as producer:
            for key in (b"good", b"bad", b"fine"):
                producer.send_nowait("t", key, key=key)
    assert told(caught.value) == [(b"bad", False)]
    assert isinstance(caught.value.undelivered[0].cause, trio_kprod.PartitioningFailed)
    assert values(broker) == [b"good", b"fine"]


async def test_a_partition_that_there_is_not_is_an_outcome(autojump_clock: Clock) -> None:
    """It cannot be known at the call."""
    broker = MemoryBroker(partitions=2)
    with pytest.raises(trio_kprod.DeliveryFailed, match="partitions 0 to 1, not 99") as caught:
        async with open_memory_producer(broker) as producer:
            producer.send_nowait("t", b"x", partition=99)
            producer.send_nowait("t", b"y", partition=1)
    assert told(caught.value) == [(b"x", False)]
    assert values(broker) == [b"y"]
