"""What a caller meets: accepting, refusing, waiting for room, and being told."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any, NamedTuple

import pytest
import trio
import trio.testing

import trio_kprod._errors as errors
from tests._fake_client import FakeClient, check_sums, open_fake, settle_down
from trio_kprod._core._reports import PartitionCount, Recovered, Stalled
from trio_kprod._messages import (
    HEADERS,
    KEY,
    PARTITION,
    RECORD_OVERHEAD,
    SIZE,
    TIMESTAMP_MS,
    TOPIC,
    VALUE,
    Item,
    Message,
    RecordMetadata,
    Undelivered,
)
from trio_kprod._producer import Producer

REFUSED = errors.Refused(87, "INVALID_RECORD")


def values(client: FakeClient) -> list[bytes | None]:
    return [message[VALUE] for entries in client.submitted for message in entries]


async def fill(producer: Producer, topic: str = "topic") -> int:
    """Send until there is no room, letting the delivery task take what it can."""
    count = 0
    while True:
        try:
            producer.send_nowait(topic, b"fill")
        except errors.BufferOverflow:
            await settle_down()
            try:
                producer.send_nowait(topic, b"fill")
            except errors.BufferOverflow:
                return count
        count += 1


# ---------------------------------------------------------------------------------------------------------
# send_nowait


async def test_send_nowait_is_no_checkpoint_and_queues(autojump_clock: object) -> None:
    async with open_fake(FakeClient(automatic=True)) as producer:
        with trio.testing.assert_no_checkpoints():
            producer.send_nowait("topic", b"1", key=b"k", headers=[("h", None)], partition=3, timestamp_ms=7)
        assert repr(producer) == "<trio_kprod.Producer open: 1 queued, 0 waiting, 0 in flight>"


async def test_the_message_arrives_as_it_was_given(autojump_clock: object) -> None:
    client = FakeClient(automatic=True)
    async with open_fake(client) as producer:
        producer.send_nowait("topic", b"1", key=b"k", headers=[("h", None)], partition=3, timestamp_ms=7)
    ((message,),) = client.submitted
    assert (message[TOPIC], message[VALUE], message[KEY]) == ("topic", b"1", b"k")
    assert (message[HEADERS], message[PARTITION], message[TIMESTAMP_MS]) == ((("h", None),), 3, 7)


async def test_a_burst_gets_exactly_the_queue(autojump_clock: object) -> None:
    """Not one more, also while the delivery task sleeps."""
    async with open_fake(FakeClient(automatic=True), max_queue_size=100) as producer:
        await settle_down()
        for _ in range(100):
            producer.send_nowait("topic", b"1")
        with pytest.raises(errors.BufferOverflow, match="the queue is full: max_queue_size=100") as caught:
            producer.send_nowait("topic", b"1")
        assert isinstance(caught.value, trio.WouldBlock)
        assert producer.statistics().accepted == 100
        await settle_down()
        producer.send_nowait("topic", b"1")


async def test_bytes_are_bounded_until_they_are_settled(autojump_clock: object) -> None:
    client = FakeClient()
    size = 1000 + RECORD_OVERHEAD
    limits: Any = {"max_buffer_bytes": 3 * size}
    async with open_fake(client, **limits) as producer:
        for _ in range(3):
            producer.send_nowait("topic", bytes(1000))
        with pytest.raises(errors.BufferOverflow, match=f"max_buffer_bytes={3 * size}"):
            producer.send_nowait("topic", bytes(1000))
        await settle_down()
        assert len(client.held) == 3, "no room is a reason to deliver"
        with pytest.raises(errors.BufferOverflow):
            producer.send_nowait("topic", b"")
        client.acknowledge(1)
        await settle_down()
        producer.send_nowait("topic", bytes(1000))
        check_sums(producer, client)
        client.automatic = True
        client.acknowledge()


async def test_bad_input_queues_nothing(autojump_clock: object) -> None:
    class Broken:
        def __hash__(self) -> int:
            raise RuntimeError("broken")

    async with open_fake(FakeClient()) as producer:
        for topic in ("", "a b", None, ["topic"], Broken()):
            with pytest.raises((TypeError, ValueError), match="topic must be"):
                producer.send_nowait(topic, b"1")  # type: ignore[arg-type]
            with pytest.raises((TypeError, ValueError, RuntimeError), match=r"topic must be|broken"):
                await producer.send(topic, b"1")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="value must be"):
            producer.send_nowait("topic", "1")
        with pytest.raises(ValueError, match="tuple among the values"):
            await producer.send_many("topic", [(b"1", b"2", b"3")])
        with pytest.raises(TypeError, match="values must be"):
            await producer.send_many("topic", b"123")
        with pytest.raises(TypeError, match="values must be"):
            await producer.send_many("topic", 5)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="topic must be"):
            await producer.send_many("", [])
        assert producer.statistics().accepted == 0


async def test_another_thread_is_told_the_way(autojump_clock: object) -> None:
    """Whether the delivery task sleeps or not."""
    told: list[threading.Thread] = []

    def call(producer: Producer) -> None:
        for action in (partial(producer.send_nowait, "topic", b"1"), producer.deliver_nowait, producer.abort):
            with pytest.raises(RuntimeError, match=r"trio\.from_thread"):
                action()
            told.append(threading.current_thread())

    async def in_another_run(producer: Producer) -> None:
        call(producer)

    async with open_fake(FakeClient(automatic=True)) as producer:
        for target in (lambda: call(producer), lambda: trio.run(in_another_run, producer)):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
        assert len(told) == 6
        producer.send_nowait("topic", b"1")
    assert producer.statistics().delivered == 1


# ---------------------------------------------------------------------------------------------------------
# send, and the line


async def test_async_methods_are_checkpoints(autojump_clock: object) -> None:
    async with open_fake(FakeClient(automatic=True)) as producer:
        for call in (
            lambda: producer.send("topic", b"1"),
            lambda: producer.send_many("topic", [b"1"]),
            lambda: producer.send_many("topic", []),
            lambda: producer.send_and_wait("topic", b"1"),
            producer.flush,
        ):
            with trio.testing.assert_checkpoints():
                await call()


async def test_send_waits_for_room_and_asks_for_delivery(autojump_clock: object) -> None:
    client = FakeClient()
    async with open_fake(client, max_queue_size=2, max_buffer_size=2) as producer:
        with trio.move_on_after(5) as scope:
            for _ in range(100):
                await producer.send("topic", b"1")
        assert scope.cancelled_caught
        assert producer.statistics().accepted == 4
        assert len(client.held) == 2
        client.automatic = True
        client.acknowledge()
        await producer.send("topic", b"1")
    assert producer.statistics().delivered == 5


async def test_waiters_are_served_in_order_and_nobody_overtakes(autojump_clock: object) -> None:
    client = FakeClient()
    async with open_fake(client, max_queue_size=1, max_buffer_size=1) as producer:
        await fill(producer)
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(producer.send, "topic", b"%d" % number)
                await settle_down()
            assert producer.statistics().tasks_waiting == 5
            for _ in range(5):
                client.acknowledge(1)
                with pytest.raises(errors.BufferOverflow):
                    producer.send_nowait("topic", b"overtakes")
                await settle_down()
                check_sums(producer, client)
            with pytest.raises(errors.BufferOverflow):
                producer.send_nowait("topic", b"overtakes")
            assert producer.statistics().tasks_waiting == 0
        client.automatic = True
        client.acknowledge()
    assert values(client) == [b"fill", b"fill", b"0", b"1", b"2", b"3", b"4"]


async def test_nobody_overtakes_a_large_message(autojump_clock: object) -> None:
    """Otherwise small ones could keep it out for ever."""
    client = FakeClient()
    limits: Any = {"max_buffer_bytes": 3200, "max_request_size": 1600}
    async with open_fake(client, **limits) as producer:
        for _ in range(3):
            producer.send_nowait("topic", bytes(900))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(producer.send, "topic", bytes(1400))
            await settle_down()
            with pytest.raises(errors.BufferOverflow, match="1 tasks wait"):
                producer.send_nowait("topic", b"small")
            nursery.start_soon(producer.send, "topic", b"small")
            await settle_down()
            client.acknowledge(1)
            await settle_down()
            assert producer.statistics().tasks_waiting == 2
            client.automatic = True
            client.acknowledge()
    assert [len(value or b"") for value in values(client)] == [900, 900, 900, 1400, 5]


async def test_a_line_for_bytes_never_comes_to_a_stop(autojump_clock: object) -> None:
    """What the one before it was admitted with has to be delivered, though nobody has asked since."""
    client = FakeClient()
    limits: Any = {"max_buffer_bytes": 3200, "max_request_size": 1600}
    async with open_fake(client, **limits) as producer:
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(producer.send, "topic", bytes(1400))
            for _ in range(4):
                await settle_down()
                assert len(client.held) == 2 or not nursery.child_tasks
                client.acknowledge(1)
        client.automatic = True
        client.acknowledge()


async def test_when_the_first_in_line_gives_up_the_next_may_fit(autojump_clock: object) -> None:
    client = FakeClient()
    limits: Any = {"max_buffer_bytes": 3200, "max_request_size": 1600}
    async with open_fake(client, **limits) as producer:
        for _ in range(2):
            producer.send_nowait("topic", bytes(1400))
        async with trio.open_nursery() as nursery:
            impatient = await nursery.start(sending, producer, bytes(1400))
            nursery.start_soon(producer.send, "topic", b"small")
            await settle_down()
            assert producer.statistics().tasks_waiting == 2
            impatient.cancel()
            await settle_down()
            assert producer.statistics().tasks_waiting == 0
            client.automatic = True
            client.acknowledge()


async def sending(
    producer: Producer,
    value: bytes,
    topic: str = "topic",
    *,
    task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED,
) -> None:
    with trio.CancelScope() as scope:
        task_status.started(scope)
        await producer.send(topic, value)


async def test_cancelling_at_every_step_never_splits_accepted_from_returned(autojump_clock: object) -> None:
    """Cancelled at the moment it is admitted, in both orders: raised means not accepted, and the reverse."""
    outcomes = set()
    for waits in (False, True):
        for steps in range(8):
            outcome = await cancelled_send(waits, steps)
            outcomes.add(outcome)
    assert outcomes == {True, False}


async def cancelled_send(waits: bool, steps: int) -> bool:
    client = FakeClient()
    returned = False
    async with open_fake(client, max_queue_size=1, max_buffer_size=1) as producer:
        if waits:
            await fill(producer)
        before = producer.statistics().accepted
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def send() -> None:
                    nonlocal returned
                    await producer.send("topic", b"1")
                    returned = True

                nursery.start_soon(send)
                for step in range(steps):
                    if step == 3 and waits:
                        client.acknowledge()
                    await trio.lowlevel.cancel_shielded_checkpoint()
                scope.cancel()
        await settle_down()
        assert producer.statistics().accepted - before == returned
        assert producer.statistics().tasks_waiting == 0
        client.automatic = True
        client.acknowledge()
    return returned


async def test_admitted_and_cancelled_in_the_same_tick_returns(autojump_clock: object) -> None:
    client = FakeClient()
    async with open_fake(client, max_queue_size=1, max_buffer_size=1) as producer:
        await fill(producer)
        async with trio.open_nursery() as nursery:
            scope = await nursery.start(sending, producer, b"late")
            await settle_down()
            client.reports.extend(client._settle_held(client.held, None, False))
            producer._delivery.turn()
            scope.cancel()
            await settle_down()
            assert not scope.cancelled_caught
        client.automatic = True
        client.acknowledge()
    assert values(client)[-1] == b"late"


async def test_a_thousand_waiters_one_cancelled_then_closed(autojump_clock: object) -> None:
    record: list[str] = []

    async def send(producer: Producer) -> None:
        try:
            await producer.send("topic", b"1")
        except errors.ProducerClosed:
            record.append("closed")
        except trio.Cancelled:
            record.append("cancelled")
            raise

    client = FakeClient()
    async with trio.open_nursery() as nursery:  # noqa: SIM117  # the tasks outlive the producer
        async with open_fake(client, max_queue_size=1, max_buffer_size=1) as producer:
            await fill(producer)
            scope = trio.CancelScope()
            for number in range(1000):
                nursery.start_soon(in_scope if number == 500 else without_scope, scope, send, producer)
            await settle_down()
            scope.cancel()
            await settle_down()
            assert record == ["cancelled"]
            client.automatic = True
            client.reports.extend(client._settle_held(client.held, None, False))
    assert record.count("closed") == 999
    assert len(record) == 1000


async def in_scope(scope: trio.CancelScope, call: Callable[..., Awaitable[None]], *args: Any) -> None:
    with scope:
        await call(*args)


async def without_scope(_: trio.CancelScope, call: Callable[..., Awaitable[None]], *args: Any) -> None:
    await call(*args)


async def test_a_topic_that_only_a_waiting_task_wants_is_not_forgotten(autojump_clock: object) -> None:
    client = FakeClient()
    async with open_fake(client, max_queue_size=1, max_buffer_size=1) as producer:
        await fill(producer)
        async with trio.open_nursery() as nursery:
            scope = await nursery.start(sending, producer, b"late", "wanted")
            nursery.start_soon(sending, producer, b"later", "wanted")
            await settle_down()
            producer._topics._forget_idle()
            assert "wanted" in producer._topics
            scope.cancel()
            await settle_down()
            client.automatic = True
            client.acknowledge()
    assert producer._topics["wanted"].is_idle


# ---------------------------------------------------------------------------------------------------------
# Ctrl-C


SENDS_ONE = ["send_nowait", "send", "send_tracked_nowait", "send_tracked"]


@pytest.mark.parametrize("name", [*SENDS_ONE, "send_many", "send_and_wait", "deliver_nowait", "abort"])
def test_an_interrupt_at_any_line_leaves_no_call_half_done(name: str) -> None:
    """If it raises, nothing was queued; and what was queued is not forgotten by the delivery task."""
    line = 0
    reached = True
    while reached:
        line += 1
        reached = trio.run(interrupted_at, name, line, clock=trio.testing.MockClock(autojump_threshold=0))
    assert line > 5


async def interrupted_at(name: str, line: int) -> bool:
    """Whether this number of lines of the package ran in the call; Ctrl-C comes before the last of them."""
    interrupt = InterruptAtLine(line)
    raised = returned = False
    async with open_fake(FakeClient(automatic=True), delivery_threshold=1) as producer:
        try:
            sys.settrace(interrupt)
            await call(producer, name)
            sys.settrace(None)
            returned = True
            await trio.lowlevel.checkpoint()  # where it is raised that was put off
        except KeyboardInterrupt:
            sys.settrace(None)
            raised = True
        assert raised == interrupt.done
        if name in SENDS_ONE:
            assert producer.statistics().accepted == returned
        await trio.sleep(1)
        assert producer.statistics().delivered == producer.statistics().accepted
    return interrupt.done


async def call(producer: Producer, name: str) -> None:
    if name in ("deliver_nowait", "abort"):
        getattr(producer, name)()
    elif name in ("send_nowait", "send_tracked_nowait"):
        getattr(producer, name)("topic", b"1")
    else:
        await getattr(producer, name)("topic", [b"1"] if name == "send_many" else b"1")


class InterruptAtLine:
    """A trace function that sends SIGINT when this number of lines of the package have run."""

    def __init__(self, line: int) -> None:
        self._left = line
        self.done = False

    def __call__(self, frame: FrameType, event: str, arg: object) -> Any:
        if "trio_kprod" not in frame.f_code.co_filename:
            return None
        if event == "line":
            self._left -= 1
            if self._left == 0:
                self.done = True
                sys.settrace(None)
                signal.raise_signal(signal.SIGINT)
                return None
        return self


# ---------------------------------------------------------------------------------------------------------
# What `send_many` takes


class Pair(NamedTuple):
    """A tuple by another name."""

    key: bytes
    value: bytes


async def test_the_items_of_send_many(autojump_clock: object) -> None:
    client = FakeClient(automatic=True)
    mixed = [
        b"value",
        Pair(b"key", b"of a pair"),
        (b"key", None),
        Item(b"of an item"),
        Item(b"value", b"key", [("name", None)], 3, 7),
        Item(key=b"deleted"),
    ]
    async with open_fake(client) as producer:
        assert await producer.send_many("topic", mixed) == 6
    sent = [message for entries in client.submitted for message in entries]
    assert [(one[VALUE], one[KEY]) for one in sent] == [
        (b"value", None),
        (b"of a pair", b"key"),
        (None, b"key"),
        (b"of an item", None),
        (b"value", b"key"),
        (None, b"deleted"),
    ]
    assert [(one[HEADERS], one[PARTITION]) for one in sent] == [((), None)] * 4 + [
        ((("name", None),), 3),
        ((), None),
    ]
    assert sent[4][TIMESTAMP_MS] == 7
    assert sent[3][TIMESTAMP_MS] > 1_000_000_000_000


@pytest.mark.parametrize(
    ("item", "error", "text"),
    [
        (Item(), ValueError, "must not both be None"),
        (Item(5), TypeError, "value must be bytes or None"),
        (Item(b"1", "key"), TypeError, "key must be bytes or None"),
        (Item(b"1", headers=[("name", "text")]), TypeError, r"headers\[0\]\[1\]"),  # type: ignore[list-item]
        (Item(b"1", partition=-1), ValueError, "partition must be"),
        (Item(b"1", timestamp_ms=-1), ValueError, "timestamp_ms must be"),
        (Message("topic", "text", None, (), None, 0, 0), TypeError, "value must be bytes"),  # type: ignore[arg-type]
        ((b"1",), ValueError, r"must be a pair \(key, value\)"),
        ((b"1", b"2", b"3"), ValueError, r"must be a pair \(key, value\)"),
    ],
)
async def test_an_item_that_is_wrong(
    autojump_clock: object, item: Any, error: type[Exception], text: str
) -> None:
    """It is checked as the arguments of `send` are; those before it are accepted."""
    async with open_fake(FakeClient(automatic=True)) as producer:
        with pytest.raises(error, match=text):
            await producer.send_many("topic", [b"good", item, b"never"])
        assert producer.statistics().accepted == 1


async def test_items_go_through_the_serializers(autojump_clock: object) -> None:
    """A tuple as a value needs an item, as a plain one is a pair."""
    client = FakeClient(automatic=True)
    async with open_fake(client, key_serializer=str.encode, value_serializer=repr_bytes) as producer:
        await producer.send_many("topic", [("key", 5), Item((1, 2), key="key"), Item(None, key="key")])
    assert [(one[KEY], one[VALUE]) for entries in client.submitted for one in entries] == [
        (b"key", b"5"),
        (b"key", b"(1, 2)"),
        (b"key", None),
    ]


def repr_bytes(value: object) -> bytes:
    return repr(value).encode()


async def test_what_was_undelivered_is_sent_again_as_it_was(autojump_clock: object) -> None:
    """Its key and value are bytes already, so the serializers are not called; the topic is the caller's."""
    client = FakeClient()
    async with open_fake(client, key_serializer=str.encode, value_serializer=repr_bytes) as producer:
        producer.send_nowait("topic", 5, key="key", headers=[("name", b"1")], partition=3, timestamp_ms=7)
        producer.deliver_nowait()
        await settle_down()
        client.fail(REFUSED)
        with pytest.raises(errors.DeliveryFailed) as caught:
            await producer.flush()
        client.automatic = True
        await producer.send_many("again", [one.message for one in caught.value.undelivered])
    first, again = (entries[0] for entries in client.submitted)
    assert again[TOPIC] == "again"
    assert again[VALUE:SIZE] == first[VALUE:SIZE]
    assert again[VALUE:TIMESTAMP_MS] == (b"5", b"key", (("name", b"1"),), 3)


async def test_items_wait_for_room(autojump_clock: object) -> None:
    client = FakeClient()
    async with (
        open_fake(client, max_queue_size=1, max_buffer_size=1) as producer,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(producer.send_many, "topic", [Item(b"%d" % number) for number in range(5)])
        await settle_down()
        assert producer.statistics().tasks_waiting == 1
        client.automatic = True
        client.acknowledge()
    assert values(client) == [b"0", b"1", b"2", b"3", b"4"]


# ---------------------------------------------------------------------------------------------------------
# Stalled topics


async def test_a_stalled_topic_holds_half_of_the_buffer_only(autojump_clock: object) -> None:
    client = FakeClient()
    async with open_fake(client, max_queue_size=10, max_buffer_size=10) as producer:
        for _ in range(2):
            producer.send_nowait("bad", b"1")
        producer.deliver_nowait()
        await settle_down()
        client.report(Stalled("bad"))
        await settle_down()
        for _ in range(3):
            producer.send_nowait("bad", b"1")
        with pytest.raises(errors.BufferOverflow, match="topic 'bad' makes no progress"):
            producer.send_nowait("bad", b"1")
        with trio.move_on_after(1) as scope:
            await producer.send("bad", b"1")
        assert scope.cancelled_caught
        for _ in range(15):
            await producer.send("good", b"1")
            good = [message for message in client.held if message[TOPIC] == "good"]
            client.report(*client._settle_held(good, None, False))
            await settle_down()
        check_sums(producer, client)
        client.report(Recovered("bad"))
        client.automatic = True
        client.acknowledge()
        await producer.send("bad", b"1")


async def test_a_waiter_for_a_stalled_topic_holds_up_no_other(autojump_clock: object) -> None:
    """And those for it keep their order, through parking and recovery."""
    client = FakeClient()
    async with open_fake(client, max_queue_size=4, max_buffer_size=4) as producer:
        for _ in range(2):
            producer.send_nowait("bad", b"first")
        producer.deliver_nowait()
        await settle_down()
        client.report(Stalled("bad"))
        await settle_down()
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(producer.send, "bad", b"%d" % number)
                await settle_down()
            assert producer.statistics().tasks_waiting == 3
            producer.send_nowait("good", b"good")
            await producer.send("good", b"good")
            assert producer.statistics().tasks_waiting == 3
            client.automatic = True
            client.report(Recovered("bad"))
            client.acknowledge()
            nursery.start_soon(producer.send, "bad", b"3")
    assert [value for value in values(client) if value != b"good"] == [b"first"] * 2 + [
        b"0",
        b"1",
        b"2",
        b"3",
    ]


async def test_nobody_overtakes_those_who_wait_for_a_stalled_topic(autojump_clock: object) -> None:
    client = FakeClient()
    limits: Any = {"max_buffer_bytes": 4000, "max_request_size": 2000}
    async with open_fake(client, **limits) as producer:
        producer.send_nowait("bad", bytes(1000))
        producer.deliver_nowait()
        await settle_down()
        client.report(Stalled("bad"))
        await settle_down()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(producer.send, "bad", bytes(1400))
            await settle_down()
            with pytest.raises(errors.BufferOverflow, match="topic 'bad' makes no progress"):
                producer.send_nowait("bad", b"small")
            client.automatic = True
            client.acknowledge()


async def test_what_a_stalled_topic_gives_back_it_may_take_again(autojump_clock: object) -> None:
    client = FakeClient()
    async with open_fake(client, max_queue_size=4, max_buffer_size=4) as producer:
        for _ in range(2):
            producer.send_nowait("bad", b"first")
        producer.deliver_nowait()
        await settle_down()
        client.report(Stalled("bad"))
        await settle_down()
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(producer.send, "bad", b"%d" % number)
                await settle_down()
            client.acknowledge(1)
            await settle_down()
            assert producer.statistics().tasks_waiting == 2
            client.automatic = True
            client.acknowledge()
            producer.deliver_nowait()
    assert values(client) == [b"first"] * 2 + [b"0", b"1", b"2"]


async def test_closing_turns_parked_senders_away(autojump_clock: object) -> None:
    client = FakeClient()
    async with trio.open_nursery() as nursery:  # noqa: SIM117  # the tasks outlive the producer
        async with open_fake(client, max_queue_size=4, max_buffer_size=2) as producer:
            producer.send_nowait("bad", b"1")
            await settle_down()
            client.report(Stalled("bad"))
            await settle_down()

            async def send() -> None:
                with pytest.raises(errors.ProducerClosed):
                    await producer.send("bad", b"1")

            nursery.start_soon(send)
            await settle_down()
            assert producer.statistics().tasks_waiting == 1
            producer._delivery.close()
            client.acknowledge()
            client.automatic = True


# ---------------------------------------------------------------------------------------------------------
# send_many


async def test_send_many_takes_values_and_pairs_sync_and_async(autojump_clock: object) -> None:
    async def stream() -> AsyncIterator[Any]:
        for number in range(5):
            await trio.lowlevel.checkpoint()
            yield (b"k", b"%d" % number)

    client = FakeClient(automatic=True)
    async with open_fake(client, max_queue_size=2, max_buffer_size=2) as producer:
        assert await producer.send_many("topic", [b"a", (b"k", b"b"), (b"k", None)]) == 3
        assert await producer.send_many("topic", stream()) == 5
    sent = [(message[KEY], message[VALUE]) for entries in client.submitted for message in entries]
    assert sent == [(None, b"a"), (b"k", b"b"), (b"k", None)] + [
        (b"k", b"%d" % number) for number in range(5)
    ]


async def test_send_many_interrupted_has_not_accepted_exactly_the_last_item(autojump_clock: object) -> None:
    pulled = 0

    def source() -> Iterator[bytes]:
        nonlocal pulled
        while True:
            pulled += 1
            yield b"1"

    client = FakeClient()
    async with open_fake(client, max_queue_size=3, max_buffer_size=4) as producer:
        with trio.move_on_after(1) as scope:
            await producer.send_many("topic", source())
        assert scope.cancelled_caught
        assert (pulled, producer.statistics().accepted) == (8, 7)
        with pytest.raises(TypeError):
            await producer.send_many("topic", ["wrong"])
        assert producer.statistics().accepted == 7
        client.automatic = True
        client.acknowledge()


async def test_send_many_lets_others_run_at_each_refill(autojump_clock: object) -> None:
    client = FakeClient(automatic=True)
    async with open_fake(client, max_queue_size=10, max_buffer_size=10) as producer:
        assert await producer.send_many("topic", [b"1"] * 1000) == 1000
        assert producer.statistics().delivered >= 980


# ---------------------------------------------------------------------------------------------------------
# send_and_wait


async def test_send_and_wait_returns_where_the_message_is(autojump_clock: object) -> None:
    client = FakeClient()
    async with open_fake(client) as producer, trio.open_nursery() as nursery:

        async def wait(number: int) -> None:
            metadata = await producer.send_and_wait("topic", b"%d" % number, timestamp_ms=number)
            assert metadata == RecordMetadata("topic", 0, number, number)

        for number in range(4):
            nursery.start_soon(wait, number)
            await settle_down()
        client.acknowledge(2)
        await settle_down()
        client.acknowledge()


async def test_a_failed_send_and_wait_tells_its_caller_and_nobody_else(autojump_clock: object) -> None:
    client = FakeClient()
    told: list[Undelivered] = []
    async with open_fake(client, on_undelivered=told.append) as producer, trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(errors.DeliveryFailed) as caught:
                await producer.send_and_wait("topic", b"1")
            assert [one.cause for one in caught.value.undelivered] == [REFUSED]

        nursery.start_soon(wait)
        nursery.start_soon(producer.flush)
        await settle_down()
        client.fail(REFUSED)
    assert told == []


async def test_a_cancelled_send_and_wait_passes_the_telling_on(autojump_clock: object) -> None:
    client = FakeClient()
    told: list[Undelivered] = []
    async with open_fake(client, on_undelivered=told.append) as producer:
        with trio.move_on_after(1):
            await producer.send_and_wait("topic", b"1")
        assert producer.statistics().in_flight == 1
        client.fail(REFUSED)
        await settle_down()
    assert [one.message.value for one in told] == [b"1"]


async def test_a_send_and_wait_cancelled_while_it_waits_for_room_queued_nothing(
    autojump_clock: object,
) -> None:
    client = FakeClient()
    async with open_fake(client, max_queue_size=1, max_buffer_size=1) as producer:
        accepted = await fill(producer)
        with trio.move_on_after(1):
            await producer.send_and_wait("topic", b"1")
        assert producer.statistics().accepted == accepted
        client.automatic = True
        client.acknowledge()


# ---------------------------------------------------------------------------------------------------------
# partitions_for


async def test_partitions_for_asks_once_and_remembers(autojump_clock: object) -> None:
    client = FakeClient()
    async with open_fake(client) as producer:
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                assert await producer.partitions_for("topic") == [0, 1, 2]

            nursery.start_soon(ask)
            nursery.start_soon(ask)
            await settle_down()
            client.report(PartitionCount("topic", 3), PartitionCount("of no interest", 1))
        with trio.testing.assert_checkpoints():
            assert await producer.partitions_for("topic") == [0, 1, 2]
        client.report(PartitionCount("topic", 4))
        await settle_down()
        assert await producer.partitions_for("topic") == [0, 1, 2, 3]
    assert client.asked == ["topic", "topic"]


async def test_partitions_for_tells_why_nobody_knows(autojump_clock: object) -> None:
    client = FakeClient()
    async with open_fake(client) as producer:
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(errors.UnknownTopic):
                    await producer.partitions_for("topic")

            nursery.start_soon(ask)
            await settle_down()
            client.report(PartitionCount("topic", 0, errors.UnknownTopic("topic")))
        with trio.move_on_after(1) as scope:
            await producer.partitions_for("topic")
        assert scope.cancelled_caught
        with pytest.raises(ValueError, match="topic must be"):
            await producer.partitions_for("a b")


async def test_cancelled_and_failed_in_the_same_tick_somebody_is_told(autojump_clock: object) -> None:
    """In both orders, for both who wait for outcomes: either it raises what failed, or it passes that on."""
    for cancel_first in (False, True):
        for method in ("flush", "send_and_wait"):
            client = FakeClient()
            told: list[Undelivered] = []
            raised: list[errors.DeliveryFailed] = []
            async with open_fake(client, on_undelivered=told.append) as producer:

                async def call(method: str, producer: Producer, raised: list[errors.DeliveryFailed]) -> None:
                    try:
                        if method == "flush":
                            producer.send_nowait("topic", b"1")
                            await producer.flush()
                        else:
                            await producer.send_and_wait("topic", b"1")
                    except errors.DeliveryFailed as error:
                        raised.append(error)

                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(call, method, producer, raised)
                        await settle_down()
                        if cancel_first:
                            scope.cancel()
                        client.reports.extend(client._settle_held(client.held, REFUSED, False))
                        producer._delivery.turn()
                        scope.cancel()
                await settle_down()
            assert (len(raised), len(told)) == ((0, 1) if cancel_first else (1, 0))
