"""When messages leave, what flush waits for, who is told of a failure, and what instruments see."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import trio

import trio_kprod._errors as errors
from tests._fake_client import FakeClient, check_sums, open_fake, settle_down
from trio_kprod._core._reports import Observed
from trio_kprod._instruments import HOOKS, Instrument
from trio_kprod._messages import RECORD_OVERHEAD, TOPIC, VALUE, Undelivered
from trio_kprod._producer import Producer

REFUSED = errors.Refused(87, "INVALID_RECORD")

pytestmark = pytest.mark.usefixtures("own_thread")


def sizes(client: FakeClient) -> list[int]:
    return [len(entries) for entries in client.submitted]


def failed(error: errors.DeliveryFailed) -> list[bytes | None]:
    return [one.message.value for one in error.undelivered]


# ---------------------------------------------------------------------------------------------------------
# When messages leave


async def test_nothing_leaves_by_itself(autojump_clock: object) -> None:
    client = FakeClient(automatic=True)
    async with open_fake(client) as producer:
        producer.send_nowait("topic", b"1")
        await trio.sleep(80_000)
        assert client.submitted == []
        assert producer.statistics().queued + producer.statistics().waiting == 1
        assert producer.statistics().oldest_age == 80_000
    assert sizes(client) == [1]


async def test_the_queue_is_emptied_when_it_is_half_full(autojump_clock: object) -> None:
    """Not at each message: that would switch tasks for each. And early enough that it never overflows."""
    async with open_fake(FakeClient(automatic=True), max_queue_size=10) as producer:
        await settle_down()
        seen = []
        for number in range(6):
            await producer.send("topic", b"%d" % number)
            await settle_down()
            seen.append((producer.statistics().queued, producer.statistics().waiting))
        # The first one is taken at once, because it is to be warned of if nobody asks for its delivery.
        assert seen == [(0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (0, 6)]


@pytest.mark.parametrize("threshold", [1, 3])
async def test_the_threshold(autojump_clock: object, threshold: int) -> None:
    client = FakeClient(automatic=True)
    async with open_fake(client, delivery_threshold=threshold) as producer:
        for number in range(1, 10):
            producer.send_nowait("topic", b"1")
            await settle_down()
            assert sum(sizes(client)) == number // threshold * threshold
            check_sums(producer, client)


async def test_the_interval_runs_from_the_first_message_that_waits(autojump_clock: object) -> None:
    client = FakeClient(automatic=True)
    async with open_fake(client, delivery_interval=10) as producer:
        start = trio.current_time()
        times: list[float] = []
        client.on_submit = lambda: times.append(trio.current_time() - start)
        await trio.sleep(5)
        producer.send_nowait("topic", b"1")  # at 5: due at 15
        await trio.sleep(6)
        producer.send_nowait("topic", b"2")  # at 11: goes with the first
        await trio.sleep(7)
        assert times == [15]
        producer.send_nowait("topic", b"3")  # at 18, would be due at 28
        await trio.sleep(4)
        producer.deliver_nowait()  # at 22: disarmed
        await trio.sleep(4)
        producer.send_nowait("topic", b"4")  # at 26: due at 36
        await trio.sleep(100)
        assert times == [15, 22, 36]
    assert sizes(client) == [2, 1, 1]


@pytest.mark.parametrize("interval", [math.inf, 1e12])
async def test_an_endless_interval_never_fires_and_ends_promptly(
    autojump_clock: object, interval: float
) -> None:
    client = FakeClient(automatic=True)
    async with open_fake(client, delivery_interval=interval) as producer:
        producer.send_nowait("topic", b"1")
        await trio.sleep(80_000)
        assert client.submitted == []


async def test_ticks_do_not_pile_up_behind_a_slow_delivery(autojump_clock: object) -> None:
    client = FakeClient()
    async with open_fake(client, delivery_interval=1, max_buffer_size=3, max_queue_size=3) as producer:
        for _ in range(6):
            await producer.send("topic", b"1")
        await trio.sleep(100)
        assert sizes(client) == [3]
        client.acknowledge()
        await trio.sleep(100)
        assert sizes(client) == [3, 3]
        client.automatic = True
        client.acknowledge()


async def test_deliver_takes_what_is_queued_at_the_call(autojump_clock: object) -> None:
    client = FakeClient(automatic=True)
    async with open_fake(client) as producer:
        producer.send_nowait("topic", b"1")
        await settle_down()
        producer.send_nowait("topic", b"2")
        producer.deliver_nowait()
        await settle_down()
        assert sizes(client) == [2]
        producer.send_nowait("topic", b"3")
        await settle_down()
        assert sizes(client) == [2]


async def test_deliver_is_not_lost_with_a_full_queue(autojump_clock: object) -> None:
    """The rest follows as room appears, with what has come since; what comes then has to be asked for."""
    client = FakeClient()
    async with open_fake(client, max_queue_size=4, max_buffer_size=3) as producer:
        for _ in range(7):
            await producer.send("topic", b"1")
        producer.deliver_nowait()
        await settle_down()
        assert sizes(client) == [3]
        client.acknowledge()
        await settle_down()
        producer.send_nowait("topic", b"8")
        client.acknowledge()
        await settle_down()
        assert sizes(client) == [3, 3, 2]
        client.acknowledge()
        producer.send_nowait("topic", b"9")
        await settle_down()
        assert sizes(client) == [3, 3, 2]
        assert producer.statistics().waiting == 1
        client.automatic = True
        client.acknowledge()


async def test_a_full_buffer_delivers_and_fills_the_queue(autojump_clock: object) -> None:
    client = FakeClient()
    async with open_fake(client, max_queue_size=2, max_buffer_size=3) as producer:
        for _ in range(3):
            await producer.send("topic", b"1")
        await settle_down()
        assert sizes(client) == [3]
        for _ in range(2):
            producer.send_nowait("topic", b"1")
        await settle_down()
        now = producer.statistics()
        assert (now.queued, now.waiting, now.in_flight) == (2, 0, 3)
        with pytest.raises(errors.BufferOverflow):
            producer.send_nowait("topic", b"1")
        client.automatic = True
        client.acknowledge()


async def test_a_send_that_finds_no_room_asks_for_delivery(autojump_clock: object) -> None:
    """Though the buffer has room for all of the queue."""
    for waits in (False, True):
        client = FakeClient(automatic=True)
        async with open_fake(client, max_queue_size=3) as producer:
            for _ in range(3):
                producer.send_nowait("topic", b"1")
            if waits:
                await producer.send("topic", b"1")
            else:
                with pytest.raises(errors.BufferOverflow):
                    producer.send_nowait("topic", b"1")
            await settle_down()
            assert sum(sizes(client)) >= 3


# ---------------------------------------------------------------------------------------------------------
# flush


async def test_flush_waits_for_what_was_accepted_before_and_for_nothing_else(autojump_clock: object) -> None:
    client = FakeClient()
    async with open_fake(client) as producer:
        producer.send_nowait("topic", b"1")
        await settle_down()
        producer.send_nowait("topic", b"2")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(producer.flush)
            await settle_down()
            producer.send_nowait("topic", b"3")
            producer.deliver_nowait()
            await settle_down()
            assert [message[VALUE] for message in client.held] == [b"1", b"2", b"3"]
            client.acknowledge(1)
            await settle_down()
            assert nursery.child_tasks
            client.acknowledge(1)
            await settle_down()
            assert not nursery.child_tasks
        client.automatic = True
        client.acknowledge()


async def test_flush_covers_messages_still_in_a_full_queue(autojump_clock: object) -> None:
    client = FakeClient()
    async with open_fake(client, max_queue_size=4, max_buffer_size=3) as producer:
        for _ in range(7):
            await producer.send("topic", b"1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(producer.flush)
            for _ in range(7):
                await settle_down()
                assert nursery.child_tasks
                client.acknowledge(1)
                await settle_down()
                producer.send_nowait("topic", b"more")
            await settle_down()
            assert not nursery.child_tasks
        client.automatic = True
        client.acknowledge()


async def test_flush_raises_what_failed_before_and_during(autojump_clock: object) -> None:
    client = FakeClient()
    async with open_fake(client) as producer:
        producer.send_nowait("topic", b"before")
        producer.deliver_nowait()
        await settle_down()
        client.fail(REFUSED)
        await settle_down()
        assert [one.message.value for one in producer.undelivered] == [b"before"]
        producer.send_nowait("topic", b"during")
        async with trio.open_nursery() as nursery:

            async def flush() -> None:
                with pytest.raises(errors.DeliveryFailed) as caught:
                    await producer.flush()
                assert failed(caught.value) == [b"before", b"during"]

            nursery.start_soon(flush)
            await settle_down()
            client.fail(REFUSED)
        assert producer.undelivered == ()
        await producer.flush()


async def test_flushes_at_the_same_time_are_all_told(autojump_clock: object) -> None:
    client = FakeClient()
    record: list[Any] = []

    async def flush(producer: Producer, name: str) -> None:
        with pytest.raises(errors.DeliveryFailed) as caught:
            await producer.flush()
        record.append((name, failed(caught.value)))

    async with open_fake(client) as producer:
        async with trio.open_nursery() as nursery:
            for name in ("1", "2"):
                producer.send_nowait("topic", name.encode())
                nursery.start_soon(flush, producer, name)
                await settle_down()
            nursery.start_soon(flush, producer, "3")
            await settle_down()
            client.fail(REFUSED)
        assert sorted(record) == [("1", [b"1"]), ("2", [b"1", b"2"]), ("3", [b"1", b"2"])]


async def test_a_message_behind_the_mark_is_not_the_flushs(autojump_clock: object) -> None:
    client = FakeClient()
    with pytest.raises(errors.DeliveryFailed) as caught:
        async with open_fake(client) as producer:
            producer.send_nowait("topic", b"1")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(producer.flush)
                await settle_down()
                producer.send_nowait("topic", b"2")
                producer.deliver_nowait()
                await settle_down()
                client.fail(REFUSED, messages=client.held[1:])
                await settle_down()
                client.acknowledge()
    assert failed(caught.value) == [b"2"]


async def test_a_cancelled_flush_passes_on_what_it_would_have_told(autojump_clock: object) -> None:
    client = FakeClient()
    told: list[Undelivered] = []
    async with open_fake(client, on_undelivered=told.append) as producer:
        producer.send_nowait("topic", b"1")
        producer.send_nowait("topic", b"2")
        with trio.move_on_after(1):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(producer.flush)
                await settle_down()
                client.fail(REFUSED, messages=client.held[:1])
                await settle_down()
                assert told == []
                assert len(producer.undelivered) == 1
        assert [one.message.value for one in told] == [b"1"]
        assert producer.undelivered == ()
        client.automatic = True
        client.acknowledge()


async def test_a_cancelled_flush_leaves_it_to_the_other_one(autojump_clock: object) -> None:
    client = FakeClient()
    told: list[Undelivered] = []

    async def flush(producer: Producer) -> None:
        with pytest.raises(errors.DeliveryFailed) as caught:
            await producer.flush()
        assert failed(caught.value) == [b"1"]

    async with open_fake(client, on_undelivered=told.append) as producer:
        producer.send_nowait("topic", b"1")
        producer.send_nowait("topic", b"2")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flush, producer)
            with trio.move_on_after(1):
                nursery.start_soon(_fail_first_later, client)
                await producer.flush()
            assert told == []
            client.acknowledge()
    assert told == []


async def _fail_first_later(client: FakeClient) -> None:
    await settle_down()
    client.fail(REFUSED, messages=client.held[:1])


async def test_flush_of_nothing_is_a_checkpoint_where_cancelling_loses_nothing(
    autojump_clock: object,
) -> None:
    client = FakeClient()
    with pytest.raises(errors.DeliveryFailed) as caught:
        async with open_fake(client) as producer:
            producer.send_nowait("topic", b"1")
            producer.deliver_nowait()
            await settle_down()
            client.fail(REFUSED)
            await settle_down()
            with trio.move_on_after(0) as scope:
                await producer.flush()
            assert scope.cancelled_caught
    assert failed(caught.value) == [b"1"]


async def test_a_flush_with_nothing_to_wait_for_tells_or_leaves_it_to_others(autojump_clock: object) -> None:
    """Cancelled at any step: what it does not raise is not lost."""
    outcomes: set[tuple[int, int]] = set()
    for steps in range(6):
        client = FakeClient()
        raised: list[errors.DeliveryFailed] = []

        async def flush(producer: Producer, raised: list[errors.DeliveryFailed]) -> None:
            try:
                await producer.flush()
            except errors.DeliveryFailed as error:
                raised.append(error)

        try:
            async with open_fake(client) as producer:
                producer.send_nowait("topic", b"1")
                producer.deliver_nowait()
                await settle_down()
                client.fail(REFUSED)
                await settle_down()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(flush, producer, raised)
                    for _ in range(steps):
                        await trio.lowlevel.cancel_shielded_checkpoint()
                    nursery.cancel_scope.cancel()
        except errors.DeliveryFailed as error:
            outcomes.add((len(raised), len(error.undelivered)))
        else:
            outcomes.add((len(raised), 0))
    assert outcomes == {(0, 1), (1, 0)}


# ---------------------------------------------------------------------------------------------------------
# on_undelivered, and what is kept


async def test_on_undelivered_may_send(autojump_clock: object) -> None:
    client = FakeClient()
    producer: Producer

    def dead_letter(undelivered: Undelivered) -> None:
        check_sums(producer)
        producer.send_nowait("dead-letters", undelivered.message.value)

    async with open_fake(client, on_undelivered=dead_letter) as producer:
        producer.send_nowait("topic", b"1")
        producer.deliver_nowait()
        await settle_down()
        client.fail(REFUSED)
        client.automatic = True
        await settle_down()
        await producer.flush()
    assert client.submitted[-1][0][TOPIC] == "dead-letters"
    assert producer.statistics().delivered == 1


async def test_on_undelivered_may_abort(autojump_clock: object) -> None:
    client = FakeClient()
    told: list[Undelivered] = []
    producer: Producer

    def give_up(undelivered: Undelivered) -> None:
        told.append(undelivered)
        producer.abort()

    async with open_fake(client, on_undelivered=give_up, max_buffer_size=2) as producer:
        for _ in range(4):
            producer.send_nowait("topic", b"1")
        await settle_down()
        client.fail(REFUSED, messages=client.held[:1])
    assert len(told) == 4
    check_sums(producer)


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
async def test_on_undelivered_that_raises_keeps_the_message(
    autojump_clock: object, caplog: Any, error: type[BaseException]
) -> None:
    told: list[Undelivered] = []

    def broken(undelivered: Undelivered) -> None:
        told.append(undelivered)
        raise error("mine")

    client = FakeClient()
    with pytest.raises(errors.DeliveryFailed) as caught:
        async with open_fake(client, on_undelivered=broken) as producer:
            for value in (b"1", b"2"):
                producer.send_nowait("topic", value)
            producer.deliver_nowait()
            await settle_down()
            client.fail(REFUSED)
            await settle_down()
            producer.send_nowait("topic", b"3")
            with trio.move_on_after(1):
                await producer.flush()  # what it would have told of is not passed on a second time
            client.acknowledge()
    assert failed(caught.value) == [b"1", b"2"]
    assert caplog.text.count("on_undelivered raised") == 2
    assert len(told) == 2


async def test_what_is_kept_is_bounded_and_the_rest_is_logged_and_counted(
    autojump_clock: object, caplog: Any
) -> None:
    client = FakeClient()
    async with open_fake(client, max_queue_size=2, max_buffer_size=3, delivery_threshold=1) as producer:
        for number in range(9):
            await producer.send("topic", b"%d" % number)
            await settle_down()
            client.fail(REFUSED)
            await settle_down()
        assert len(producer.undelivered) == 5
        with pytest.raises(errors.DeliveryFailed) as caught:
            await producer.flush()
        assert failed(caught.value) == [b"0", b"1", b"2", b"3", b"4"]
        assert caught.value.omitted == 4
        assert "9 messages not delivered" in str(caught.value)
        assert caplog.text.count("no room to keep it") == 4
        await producer.flush()
    check_sums(producer)


async def test_nothing_is_handed_over_to_a_client_that_is_behind(autojump_clock: object) -> None:
    """It would only wait there; meanwhile the senders have all of the queue and the buffer."""
    client = FakeClient()
    async with open_fake(client, delivery_threshold=1, max_queue_size=4, max_buffer_size=6) as producer:
        client.behind = True
        for number in range(10):
            await producer.send("topic", b"%d" % number)
        await settle_down()
        assert client.submitted == []
        with pytest.raises(errors.BufferOverflow):
            producer.send_nowait("topic", b"10")
        client.catch_up()
        await settle_down()
        assert [len(entries) for entries in client.submitted] == [6]
        client.automatic = True
        client.acknowledge()
    assert producer.statistics().delivered == 10


async def test_a_flush_waits_for_a_client_that_is_behind(autojump_clock: object) -> None:
    client = FakeClient(automatic=True)
    async with trio.open_nursery() as nursery, open_fake(client) as producer:
        client.behind = True
        producer.send_nowait("topic", b"1")
        nursery.start_soon(producer.flush)
        await settle_down()
        assert client.submitted == []
        client.catch_up()
    assert producer.statistics().delivered == 1


async def test_the_kept_are_bounded_in_bytes(autojump_clock: object) -> None:
    limits: Any = {"max_buffer_bytes": 3000}
    client = FakeClient()
    with pytest.raises(errors.DeliveryFailed) as caught:
        async with open_fake(client, delivery_threshold=1, **limits) as producer:
            for _ in range(4):
                producer.send_nowait("topic", bytes(1000))
                await settle_down()
                client.fail(REFUSED)
                await settle_down()
    assert (len(caught.value.undelivered), caught.value.omitted) == (2, 2)


# ---------------------------------------------------------------------------------------------------------
# Statistics and instruments


async def test_statistics_at_each_step(autojump_clock: object) -> None:
    client = FakeClient()
    size = RECORD_OVERHEAD + 1
    async with open_fake(client) as producer:
        producer.send_nowait("topic", b"1")
        producer.send_nowait("topic", b"2")
        now = producer.statistics()
        assert (now.accepted, now.queued, now.unsettled_bytes, now.oldest_age) == (2, 2, 2 * size, 0)
        await trio.sleep(3)
        assert producer.statistics().oldest_age == 3
        producer.deliver_nowait()
        await settle_down()
        client.acknowledge(1)
        client.fail(REFUSED)
        await settle_down()
        now = producer.statistics()
        assert (now.delivered, now.undelivered, now.delivered_bytes, now.undelivered_bytes) == (
            1,
            1,
            size,
            size,
        )
        assert now.oldest_age is None
        with pytest.raises(errors.DeliveryFailed):
            await producer.flush()


class Recorder(Instrument):
    """Overrides every hook but those of `test_following`."""

    def __init__(self) -> None:
        self.record: list[tuple[str, dict[str, Any]]] = []
        for name in set(HOOKS) - {"opened", "closed", "sending", "accepted", "rejected", "settled"}:
            setattr(self, name, partial(self._note, name))

    def _note(self, name: str, **payload: Any) -> None:
        self.record.append((name, payload))

    def names(self) -> list[str]:
        return [name for name, _ in self.record]

    def payloads(self, name: str) -> list[dict[str, Any]]:
        return [payload for one, payload in self.record if one == name]


async def test_what_instruments_see(autojump_clock: object) -> None:
    client = FakeClient()
    recorder = Recorder()
    size = RECORD_OVERHEAD + 1
    async with open_fake(client, instruments=[recorder], max_queue_size=2, max_buffer_size=2) as producer:
        await settle_down()
        producer.send_nowait("topic", b"1")
        producer.send_nowait("topic", b"2")
        with pytest.raises(errors.BufferOverflow):
            producer.send_nowait("topic", b"3")
        await trio.sleep(2)
        client.acknowledge(1)
        await trio.sleep(3)
        client.fail(REFUSED)
        client.report(Observed("connected", {"broker": "here:9092"}))
        await settle_down()
        with pytest.raises(errors.DeliveryFailed):
            await producer.flush()
    assert recorder.record == [
        ("enqueue_message", {"topic": "topic", "queue_size": 1, "max_queue_size": 2}),
        ("enqueue_message", {"topic": "topic", "queue_size": 2, "max_queue_size": 2}),
        ("buffer_overflow", {"topic": "topic"}),
        (
            "produce_messages",
            {
                "message_count": 2,
                "message_bytes": 2 * size,
                "buffer_size": 2,
                "max_buffer_size": 2,
                "queue_size": 0,
                "max_queue_size": 2,
            },
        ),
        ("buffer_full", {"buffer_size": 2, "max_buffer_size": 2}),
        (
            "ack_messages",
            {"topic": "topic", "partition": 0, "base_offset": 0, "message_count": 1, "delay": 2.0},
        ),
        (
            "undelivered",
            {
                "topic": "topic",
                "partition": 0,
                "message_count": 1,
                "cause": REFUSED,
                "maybe_written": False,
            },
        ),
        ("error", {"error": REFUSED}),
        (
            "deliver_messages",
            {
                "message_count": 2,
                "delivered_message_count": 1,
                "attempts": 1,
                "duration": 5.0,
                "error": REFUSED,
            },
        ),
        ("connected", {"broker": "here:9092"}),
    ]


async def test_hooks_may_ask_for_the_counts(autojump_clock: object) -> None:
    """What they are told of is counted already."""
    client = FakeClient(automatic=True)
    producer: Producer
    seen: list[tuple[str, int]] = []

    class Asking(Instrument):
        def deliver_messages(self, **payload: Any) -> None:
            check_sums(producer)
            seen.append(("deliver", producer.statistics().delivered))

        def ack_messages(self, **payload: Any) -> None:
            check_sums(producer)
            seen.append(("ack", producer.statistics().delivered))

    async with open_fake(client, instruments=[Asking()]) as producer:
        producer.send_nowait("topic", b"1")
        await producer.flush()
    assert seen == [("ack", 1), ("deliver", 1)]


@pytest.mark.parametrize("hook", HOOKS)
async def test_a_hook_that_raises_what_is_no_exception_harms_no_message(
    autojump_clock: object, hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(**payload: Any) -> None:
        raise SystemExit(1)

    instrument = Instrument()
    setattr(instrument, hook, broken)
    client = FakeClient()
    with pytest.raises(errors.DeliveryFailed) as caught:
        async with open_fake(
            client, instruments=[instrument], max_queue_size=2, max_buffer_size=2
        ) as producer:
            producer.send_nowait("topic", b"1")
            producer.send_nowait("topic", b"2")
            with pytest.raises(errors.BufferOverflow):
                producer.send_nowait("topic", b"3")
            await settle_down()
            client.acknowledge(1)
            client.fail(errors.DeliveryAborted("dropped"))
            client.report(*(Observed(name, {}) for name in HOOKS))
            await settle_down()
    assert failed(caught.value) == [b"2"]
    assert producer.statistics().delivered == 1
    assert caplog.text.count(f"in its hook {hook}; it is told nothing any more") == 1


async def test_instruments_hear_of_dropped_messages(autojump_clock: object) -> None:
    client = FakeClient()
    recorder = Recorder()
    with pytest.raises(errors.DeliveryFailed):
        async with open_fake(
            client, instruments=[recorder], max_buffer_size=2, shutdown_timeout=1
        ) as producer:
            for _ in range(5):
                producer.send_nowait("topic", b"1")
    assert sum(payload["message_count"] for payload in recorder.payloads("drop_messages")) == 5


async def test_a_delivery_cut_by_a_flush_is_still_one_delivery(autojump_clock: object) -> None:
    client = FakeClient()
    recorder = Recorder()
    async with open_fake(client, instruments=[recorder], max_queue_size=3, max_buffer_size=3) as producer:
        for number in range(5):
            await producer.send("topic", b"%d" % number)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                producer.flush
            )  # its mark is in the queue, before the last of the next delivery
            await settle_down()
            producer.send_nowait("topic", b"5")
            client.acknowledge()
            await settle_down()
            client.automatic = True
            client.acknowledge()
    assert [payload["message_count"] for payload in recorder.payloads("deliver_messages")] == [3, 3]


async def test_what_the_buffer_has_no_room_for_is_part_of_the_next_delivery(autojump_clock: object) -> None:
    """Also where a flush was asked for in between."""
    client = FakeClient()
    recorder = Recorder()
    async with open_fake(client, instruments=[recorder], max_queue_size=7, max_buffer_size=2) as producer:
        for number in range(7):
            producer.send_nowait("topic", b"%d" % number)
            if number == 4:
                producer._delivery.begin_flush()
        for _ in range(7):
            await settle_down()
            client.acknowledge(1)
        await settle_down()
        assert producer.statistics().delivered == 7
    counts = [
        (payload["message_count"], payload["delivered_message_count"])
        for payload in recorder.payloads("deliver_messages")
    ]
    assert sum(count for count, _ in counts) == 7
    assert all(count == delivered <= 2 for count, delivered in counts)


async def test_waiting_senders_enqueue_when_they_are_admitted(autojump_clock: object) -> None:
    client = FakeClient(automatic=True)
    recorder = Recorder()
    async with open_fake(client, instruments=[recorder], max_queue_size=1, max_buffer_size=1) as producer:
        for _ in range(4):
            await producer.send("topic", b"1")
    assert recorder.names().count("enqueue_message") == 4
    assert recorder.names().count("ack_messages") == 4
