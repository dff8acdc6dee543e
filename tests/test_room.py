"""Who comes in: what limited topics leave to others, the order of those who wait, and a closed room."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

import trio_kprod
import trio_kprod._errors as errors
from tests._fake_client import FakeClient, check_sums, open_fake, settle_down
from trio_kprod._core import Recovered, Stalled
from trio_kprod._instruments import Instrument
from trio_kprod._messages import TOPIC, VALUE, Entry
from trio_kprod._producer import Producer
from trio_kprod.testing import MemoryBroker, open_memory_producer

NEW: Any = {"acknowledged": ()}
REFUSED = errors.Refused(87, "INVALID_RECORD")

pytestmark = pytest.mark.usefixtures("own_thread")


def of(client: FakeClient, topic: str) -> list[Entry]:
    return [message for message in client.held if message[TOPIC] == topic]


async def acknowledge(client: FakeClient, topic: str, count: int) -> None:
    client.report(*client._settle_held(of(client, topic)[:count], None, False))
    await settle_down()


async def fill(producer: Producer, topic: str) -> int:
    """Send until there is no room, letting the delivery task take what it can."""
    count, before = 0, -1
    while count > before:
        before = count
        try:
            while True:
                producer.send_nowait(topic, b"fill")
                count += 1
        except errors.BufferOverflow:
            await settle_down()
    return count


# ---------------------------------------------------------------------------------------------------------
# Limited topics


async def test_a_topic_that_does_not_exist_leaves_room_for_others(autojump_clock: MockClock) -> None:
    """From its first message on, also for others that are new: it need not be known to be missing."""
    broker = MemoryBroker(topics={"good": 1}, auto_create_topics=False)
    with pytest.raises(trio_kprod.DeliveryFailed) as caught:
        async with open_memory_producer(broker, max_queue_size=10, max_buffer_size=100) as producer:
            assert await fill(producer, "missing") == 50
            start = trio.current_time()
            for _ in range(200):
                await producer.send("good", b"1")
            await producer.send_and_wait("good", b"1")
            assert trio.current_time() - start < 1
            producer.abort()
    assert len(caught.value.undelivered) == 50


async def test_a_new_topic_is_limited_until_the_first_acknowledgement(autojump_clock: object) -> None:
    client = FakeClient()
    async with open_fake(client, **NEW, max_queue_size=10, max_buffer_size=10) as producer:
        assert await fill(producer, "new") == 5
        with pytest.raises(errors.BufferOverflow) as caught:
            producer.send_nowait("new", b"1")
        assert "topic 'new' has no acknowledged message yet" in str(caught.value)
        assert "use `await send`, which waits, or a larger max_buffer_size" in str(caught.value)
        await acknowledge(client, "new", 1)
        assert await fill(producer, "new") == 16  # of 20 places, 4 are taken
        client.automatic = True
        client.acknowledge()


async def test_a_failure_is_not_an_acknowledgement(autojump_clock: object) -> None:
    client = FakeClient()
    async with open_fake(client, **NEW, max_buffer_size=10, on_undelivered=lambda _: None) as producer:
        assert await fill(producer, "new") == 5
        client.fail(REFUSED)
        await settle_down()
        assert await fill(producer, "new") == 5
        client.automatic = True
        client.acknowledge()


async def test_what_waits_in_the_queue_counts(autojump_clock: object) -> None:
    client = FakeClient()
    async with open_fake(client, **NEW, max_queue_size=100, max_buffer_size=10) as producer:
        assert await fill(producer, "good") == 5
        await acknowledge(client, "good", 5)
        assert await fill(producer, "good") == 110
        client.report(Stalled("good"))
        await acknowledge(client, "good", 10)
        with pytest.raises(errors.BufferOverflow, match="topic 'good' makes no progress"):
            producer.send_nowait("good", b"1")
        assert await fill(producer, "new") == 1, "the share is one for all limited topics"
        client.automatic = True
        client.acknowledge()


async def test_all_limited_topics_share_one_half(autojump_clock: object) -> None:
    client = FakeClient()
    async with open_fake(client, **NEW, max_buffer_size=10) as producer:
        assert [await fill(producer, f"new{number}") for number in range(4)] == [5, 1, 1, 1]
        producer.deliver_nowait()
        await settle_down()
        await acknowledge(client, "new0", 1)
        assert await fill(producer, "new0") > 0
        client.automatic = True
        client.acknowledge()


async def test_a_stalled_topic_that_holds_most_of_the_buffer_does_not_keep_out_a_new_one(
    autojump_clock: object,
) -> None:
    client = FakeClient()
    async with open_fake(client, max_buffer_size=10) as producer:
        for _ in range(8):
            producer.send_nowait("bad", b"1")
        producer.deliver_nowait()
        await settle_down()
        client.report(Stalled("bad"))
        await settle_down()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(producer.send_many, "new", [b"1"] * 3)
            await settle_down()
            assert len(of(client, "new")) == 1
            await acknowledge(client, "new", 1)
            assert producer.statistics().tasks_waiting == 0
        client.automatic = True
        client.acknowledge()


async def test_first_messages_leave_room_for_the_largest_message(autojump_clock: object) -> None:
    client = FakeClient()
    async with open_fake(client, max_buffer_bytes=4000, max_request_size=1000) as producer:
        with pytest.raises(errors.BufferOverflow):
            for number in range(10):
                producer.send_nowait(f"new{number}", bytes(400))
        producer.send_nowait("good", bytes(800))
        assert producer.statistics().accepted == 7
        client.automatic = True
        producer.deliver_nowait()


async def test_a_stalled_topic_needs_an_acknowledgement_to_recover(autojump_clock: object) -> None:
    client = FakeClient()
    async with open_fake(client, max_buffer_size=10, on_undelivered=lambda _: None) as producer:
        for _ in range(4):
            producer.send_nowait("topic", b"1")
        producer.deliver_nowait()
        await settle_down()
        client.report(Stalled("topic"), Recovered("topic"))
        await settle_down()
        assert await fill(producer, "topic") == 1
        await acknowledge(client, "topic", 1)
        assert await fill(producer, "topic") > 5
        client.report(Stalled("topic"))
        await acknowledge(client, "topic", 1)
        assert await fill(producer, "topic") == 0, "one partition may make progress, and another not"
        client.report(Recovered("topic"))
        await settle_down()
        assert await fill(producer, "topic") > 0
        client.automatic = True
        client.acknowledge()


@pytest.mark.parametrize("bounds", [(1, 1), (1, 2), (5, 1)])
async def test_the_share_is_at_least_one_message(autojump_clock: object, bounds: tuple[int, int]) -> None:
    client = FakeClient(automatic=True)
    queue, buffer = bounds
    async with open_fake(client, **NEW, max_queue_size=queue, max_buffer_size=buffer) as producer:
        assert await producer.send_many("new", [b"%d" % number for number in range(10)]) == 10
        for _ in range(3):
            await producer.send("newer", b"1")
    assert producer.statistics().delivered == 13


async def test_a_new_topic_asks_for_delivery_as_soon_as_its_share_is_used_up(autojump_clock: object) -> None:
    """And has all of the buffer one acknowledgement later, so it is not slower than others."""
    client = FakeClient()
    opening = open_fake(client, **NEW, max_queue_size=10, max_buffer_size=100)
    async with opening as producer, trio.open_nursery() as nursery:
        nursery.start_soon(producer.send_many, "new", [b"1"] * 1000)
        await settle_down()
        assert len(client.held) == 50
        await acknowledge(client, "new", 1)
        await settle_down()
        assert len(client.held) == 100
        client.automatic = True
        client.acknowledge()
    assert producer.statistics().delivered == 1000


async def test_the_largest_message_fits_in_beside_limited_topics(autojump_clock: object) -> None:
    """However full they are: otherwise it would hold up all that stands behind it."""
    client = FakeClient()
    async with open_fake(client, max_buffer_bytes=4000) as producer:
        client.report(Stalled("bad"))
        await settle_down()
        for _ in range(10):
            with trio.move_on_after(1):
                await producer.send("bad", bytes(400))
        await producer.send("good", bytes(1800))
        check_sums(producer)
        client.automatic = True
        client.acknowledge()


# ---------------------------------------------------------------------------------------------------------
# The order of those who wait


async def waiting(nursery: trio.Nursery, producer: Producer, topic: str, *values: bytes) -> None:
    for value in values:
        nursery.start_soon(producer.send, topic, value)
        await settle_down()


async def test_first_come_first_served_also_after_a_recovery(autojump_clock: object) -> None:
    """Those whose topic was beyond the share keep their place among all."""
    client = FakeClient()
    async with open_fake(client, max_queue_size=1, max_buffer_size=2) as producer:
        client.report(Stalled("bad"))
        await settle_down()
        await producer.send("bad", b"bad")
        async with trio.open_nursery() as nursery:
            await waiting(nursery, producer, "bad", b"0")
            await waiting(nursery, producer, "good", b"1", b"2", b"3")
            await waiting(nursery, producer, "bad", b"4")
            await waiting(nursery, producer, "good", b"5")
            assert [message[VALUE] for message in client.held] == [b"bad", b"1"]
            assert producer.statistics().tasks_waiting == 4
            client.report(Recovered("bad"))
            await acknowledge(client, "bad", 1)
            client.automatic = True
            client.acknowledge()
    values = [message[VALUE] for entries in client.submitted for message in entries]
    assert values == [b"bad", b"1", b"2", b"0", b"3", b"4", b"5"]


async def test_a_newcomer_passes_those_beyond_the_share_but_no_others(autojump_clock: object) -> None:
    client = FakeClient()
    async with open_fake(client, max_queue_size=2, max_buffer_size=2) as producer:
        client.report(Stalled("bad"))
        await settle_down()
        await producer.send("bad", b"bad")
        async with trio.open_nursery() as nursery:
            await waiting(nursery, producer, "bad", b"0", b"1")
            for _ in range(3):
                producer.send_nowait("good", b"good")
                await settle_down()
            await waiting(nursery, producer, "good", b"2")
            client.report(*client._settle_held(of(client, "good"), None, False))
            with pytest.raises(errors.BufferOverflow):
                producer.send_nowait("good", b"overtakes")
            client.automatic = True
            client.acknowledge()


async def test_what_is_in_the_way_of_a_waiting_task_is_delivered(autojump_clock: object) -> None:
    """Nobody has asked for it since it was accepted, and the task would wait for ever."""
    client = FakeClient()
    async with open_fake(client, max_buffer_size=2, on_undelivered=lambda _: None) as producer:
        client.report(Stalled("bad"))
        await settle_down()
        await producer.send("bad", b"0")
        async with trio.open_nursery() as nursery:
            await waiting(nursery, producer, "bad", b"1", b"2")
            assert [message[VALUE] for message in client.held] == [b"0"]
            client.fail(ValueError("refused"))
            await settle_down()
            assert [message[VALUE] for message in client.held] == [b"1"]
            client.automatic = True
            client.acknowledge()


async def test_a_callback_does_not_overtake_those_whose_topic_has_just_recovered(
    autojump_clock: object,
) -> None:
    """They are admitted at the end of the turn in which the callback runs."""
    client, outcomes = FakeClient(), list[str]()

    def on_undelivered(_: object) -> None:
        try:
            producer.send_nowait("bad", b"overtakes")
        except errors.BufferOverflow as error:
            outcomes.append(str(error))

    async with open_fake(client, max_buffer_size=4, on_undelivered=on_undelivered) as producer:
        client.report(Stalled("bad"))
        await settle_down()
        assert await fill(producer, "bad") == 2
        async with trio.open_nursery() as nursery:
            await waiting(nursery, producer, "bad", b"0")
            producer.send_nowait("good", b"1")
            producer.deliver_nowait()
            await settle_down()
            client.reports.extend(client._settle_held(of(client, "bad"), None, False))
            client.reports.append(Recovered("bad"))
            client.fail(REFUSED)
            await settle_down()
            assert producer.statistics().tasks_waiting == 0
            client.automatic = True
            client.acknowledge()
    assert len(outcomes) == 1
    assert "1 tasks wait for room in send() before you" in outcomes[0]


async def test_waits_that_are_cancelled_again_and_again_leave_nothing_behind(autojump_clock: object) -> None:
    client = FakeClient()
    async with open_fake(client, max_queue_size=1, max_buffer_size=1) as producer:
        await fill(producer, "topic")
        async with trio.open_nursery() as nursery:
            await waiting(nursery, producer, "topic", b"first")
            for _ in range(300):
                with trio.move_on_after(1):
                    await producer.send("good", b"1")
            assert producer.statistics().tasks_waiting == 1
            assert len(producer._room._line) < 30
            client.automatic = True
            client.acknowledge()


# ---------------------------------------------------------------------------------------------------------
# The user's code runs between a check and what it is for


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("how", ["send_nowait", "send", "send_many", "send_and_wait"])
async def test_a_serializer_that_aborts_ends_its_own_send(
    autojump_clock: object, how: str, full: bool
) -> None:
    def serializer(value: bytes) -> bytes:
        if value == b"abort":
            producer.abort()
        return value

    bounds: Any = {"max_queue_size": 1, "max_buffer_size": 1} if full else {}
    with trio.fail_after(1):
        async with open_fake(
            FakeClient(), **bounds, value_serializer=serializer, on_undelivered=lambda _: None
        ) as producer:
            if full:
                await fill(producer, "topic")
            accepted = producer.statistics().accepted
            with pytest.raises(errors.ProducerClosed, match=r"abort\(\) was called"):
                if how == "send_nowait":
                    producer.send_nowait("topic", b"abort")
                elif how == "send_many":
                    await producer.send_many("topic", [b"abort"])
                else:
                    await getattr(producer, how)("topic", b"abort")
            assert producer.statistics().accepted == accepted


async def test_headers_that_abort_end_their_own_send(autojump_clock: object) -> None:
    producer: Producer

    class Headers(list[Any]):
        def __iter__(self) -> Any:
            producer.abort()
            return iter([])

    async with open_fake(FakeClient()) as producer:
        with pytest.raises(errors.ProducerClosed, match=r"abort\(\) was called"):
            await producer.send("topic", b"1", headers=Headers())
    assert producer.statistics().accepted == 0


async def test_an_iterable_that_aborts_ends_its_own_send_many(autojump_clock: object) -> None:
    producer: Producer

    def values() -> Any:
        yield b"1"
        producer.abort()
        yield b"2"

    with pytest.raises(errors.DeliveryFailed):
        async with open_fake(FakeClient()) as producer:
            with pytest.raises(errors.ProducerClosed, match=r"abort\(\) was called"):
                await producer.send_many("topic", values())
    assert producer.statistics().accepted == 1


@pytest.mark.parametrize("hook", ["produce_messages", "buffer_full"])
async def test_nothing_is_handed_over_after_a_hook_that_aborts(autojump_clock: object, hook: str) -> None:
    producer: Producer

    class Aborts(Instrument):
        pass

    setattr(Aborts, hook, lambda self, **payload: producer.abort())
    client = FakeClient()
    with pytest.raises(errors.DeliveryFailed) as caught:
        async with open_fake(client, max_buffer_size=1, instruments=[Aborts()]) as producer:
            producer.send_nowait("topic", b"1")
            await settle_down()
    assert client.submitted == []
    assert not caught.value.undelivered[0].maybe_written


async def test_what_a_hook_sends_after_the_turn_has_taken_is_seen(autojump_clock: object) -> None:
    class Counts(Instrument):
        def drop_messages(self, *, message_count: int) -> None:
            producer.send_nowait("topic", b"dropped")

    client = FakeClient()
    async with open_fake(client, delivery_threshold=1, instruments=[Counts()]) as producer:
        producer.send_nowait("topic", b"1")
        await settle_down()
        client.fail(errors.DeliveryAborted("as if"))
        await settle_down()
        assert [message[VALUE] for message in client.held] == [b"dropped"]
        with pytest.raises(errors.DeliveryFailed):
            client.automatic = True
            client.acknowledge()
            await producer.flush()


async def test_what_a_hook_asks_for_at_the_end_of_a_turn_is_not_lost(autojump_clock: object) -> None:
    class Asks(Instrument):
        def drop_messages(self, *, message_count: int) -> None:
            producer.deliver_nowait()

    client = FakeClient()
    with pytest.raises(errors.DeliveryFailed):
        async with open_fake(client, instruments=[Asks()]) as producer:
            producer.send_nowait("topic", b"1")
            producer.deliver_nowait()
            await settle_down()
            producer.send_nowait("topic", b"2")
            client.fail(errors.DeliveryAborted("as if"))
            await settle_down()
            assert [message[VALUE] for message in client.held] == [b"2"]
            client.acknowledge()


async def test_a_serializer_that_makes_the_topic_forgotten_does_no_harm(autojump_clock: object) -> None:
    """It sends to so many others that idle ones are dropped, its own as well."""

    def serializer(value: bytes) -> bytes:
        for number in range(10 if value == b"many" else 0):
            producer._topics[f"other{number}"]
        return value

    client = FakeClient(automatic=True)
    async with open_fake(client, value_serializer=serializer) as producer:
        producer._topics._limit = len(producer._topics)
        producer.send_nowait("topic", b"many")
        producer.send_nowait("topic", b"few")
        await producer.flush()
        check_sums(producer, client)
        assert producer._topics["topic"].unsettled == 0


async def test_a_topic_that_was_forgotten_is_limited_again(autojump_clock: object) -> None:
    client = FakeClient(automatic=True)
    async with open_fake(client, max_buffer_size=20) as producer:
        assert not producer._topics["topic"].limited
        producer._topics._forget_idle()
        assert producer._topics["topic"].limited
