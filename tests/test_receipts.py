"""Receipts: the outcome of one message, asked for at any time; and who else is told of a failure."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

import trio_kprod
import trio_kprod._errors as errors
from tests._fake_client import FakeClient, check_sums, open_fake, settle_down
from trio_kprod import Producer, Receipt, RecordMetadata, Undelivered
from trio_kprod.testing import MemoryBroker, open_memory_producer

REFUSED = errors.Refused(87, "INVALID_RECORD")

pytestmark = pytest.mark.usefixtures("own_thread")


def values(error: BaseException | None) -> list[bytes | None]:
    assert isinstance(error, errors.DeliveryFailed)
    return [one.message.value for one in error.undelivered]


async def failure_of(receipt: Receipt) -> list[bytes | None]:
    """What awaiting it tells of."""
    with pytest.raises(errors.DeliveryFailed) as caught:
        await receipt
    return values(caught.value)


def looked_at(receipt: Receipt) -> list[bytes | None]:
    """What looking at it tells of."""
    with pytest.raises(errors.DeliveryFailed) as caught:
        receipt.result()
    return values(caught.value)


async def fail(client: FakeClient) -> None:
    """Refuse all that was submitted."""
    client.fail(REFUSED)
    await settle_down()


# ---------------------------------------------------------------------------------------------------------
# Outcomes


async def test_a_loop_sends_and_looks_later(autojump_clock: object) -> None:
    """Neither threshold nor interval is set: the first await asks for delivery of all."""
    async with open_memory_producer(MemoryBroker()) as producer:
        receipts = [producer.send_tracked_nowait("topic", b"%d" % number) for number in range(100)]
        receipts += [await producer.send_tracked("topic", b"%d" % number) for number in range(100, 200)]
        assert not any(receipt.done for receipt in receipts)
        offsets = [(await receipt).offset for receipt in receipts]
        assert offsets == list(range(200))
        assert all(receipt.done for receipt in receipts)
        assert [receipt.result().offset for receipt in receipts] == offsets


async def test_several_tasks_await_it_and_several_times(autojump_clock: object) -> None:
    client, got = FakeClient(), list[RecordMetadata]()

    async def keep(receipt: Receipt) -> None:
        got.append(await receipt)
        got.append(await receipt)

    async with open_fake(client) as producer:
        receipt = producer.send_tracked_nowait("topic", b"1", timestamp_ms=7)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(keep, receipt)
            await settle_down()
            client.acknowledge()
    assert got == [RecordMetadata("topic", 0, 0, 7)] * 6


async def test_each_task_gets_an_error_of_its_own(autojump_clock: object) -> None:
    client, caught = FakeClient(), list[BaseException]()

    async def keep(receipt: Receipt) -> None:
        for _ in range(2):
            try:
                await receipt
            except errors.DeliveryFailed as error:
                caught.append(error)

    async with open_fake(client) as producer:
        receipt = producer.send_tracked_nowait("topic", b"1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep, receipt)
            nursery.start_soon(keep, receipt)
            await settle_down()
            client.fail(REFUSED)
        await producer.flush()  # the receipt has told
    assert [values(error) for error in caught] == [[b"1"]] * 4
    assert len(set(map(id, caught))) == 4


async def test_result_needs_an_outcome(autojump_clock: object) -> None:
    client = FakeClient(automatic=True)
    async with open_fake(client) as producer:
        receipt = producer.send_tracked_nowait("topic", b"1")
        with pytest.raises(trio.WouldBlock, match="no outcome yet"):
            receipt.result()
        await settle_down()
        assert not client.submitted, "to look is not to ask for delivery"
        assert not receipt.done
    assert receipt.done
    assert receipt.result().offset == 0


async def test_awaiting_is_a_checkpoint_also_after_the_outcome(autojump_clock: object) -> None:
    async with open_fake(FakeClient(automatic=True)) as producer:
        receipt = producer.send_tracked_nowait("topic", b"1")
        for _ in range(2):
            with trio.testing.assert_checkpoints():
                await receipt
    with trio.testing.assert_checkpoints():
        await receipt
    with trio.testing.assert_no_checkpoints():
        receipt.result()


async def test_send_tracked_is_a_checkpoint_and_the_other_is_not(autojump_clock: object) -> None:
    async with open_fake(FakeClient(automatic=True)) as producer:
        with trio.testing.assert_no_checkpoints():
            producer.send_tracked_nowait("topic", b"1")
        with trio.testing.assert_checkpoints():
            await producer.send_tracked("topic", b"1")


async def test_what_a_receipt_looks_like(autojump_clock: object) -> None:
    client = FakeClient()
    async with open_fake(client) as producer:
        delivered, refused = (producer.send_tracked_nowait("topic", b"1") for _ in range(2))
        assert repr(delivered) == "<trio_kprod.Receipt: no outcome yet>"
        producer.deliver_nowait()
        await settle_down()
        client.acknowledge(1)
        await fail(client)
        assert repr(delivered) == "<trio_kprod.Receipt: delivered to 'topic', partition 0, offset 0>"
        assert repr(refused) == "<trio_kprod.Receipt: not delivered: INVALID_RECORD (87)>"
        looked_at(refused)


async def test_a_send_that_raises_leaves_nothing_behind(autojump_clock: object) -> None:
    client = FakeClient()
    async with open_fake(client, max_queue_size=1, max_buffer_size=1) as producer:
        with pytest.raises(TypeError, match="value must be"):
            producer.send_tracked_nowait("topic", 5)
        with pytest.raises(TypeError, match="value must be"):
            await producer.send_tracked("topic", 5)
        first = producer.send_tracked_nowait("topic", b"1")
        with pytest.raises(errors.BufferOverflow):
            producer.send_tracked_nowait("topic", b"2")
        await settle_down()
        second = producer.send_tracked_nowait("topic", b"2")
        with trio.move_on_after(1) as scope:
            await producer.send_tracked("topic", b"3")
        assert scope.cancelled_caught
        assert len(producer._tracking._receipts) == 2
        client.automatic = True
        client.acknowledge()
        await first
        await second
        assert not producer._tracking
        check_sums(producer, client)


async def test_receipts_that_nobody_holds_are_not_kept(autojump_clock: object) -> None:
    """The producer knows those of unsettled messages only."""
    client = FakeClient()
    async with open_fake(client, delivery_threshold=1) as producer:
        producer.send_tracked_nowait("topic", b"1")
        await settle_down()
        assert len(producer._tracking._receipts) == 1
        client.acknowledge()
        await settle_down()
        assert not producer._tracking


# ---------------------------------------------------------------------------------------------------------
# Cancelled awaits


async def test_cancelling_an_await_changes_nothing(autojump_clock: object) -> None:
    client = FakeClient()
    async with open_fake(client) as producer:
        receipt = producer.send_tracked_nowait("topic", b"1")
        with trio.move_on_after(1) as scope:
            await receipt
        assert scope.cancelled_caught
        assert not receipt.done
        client.acknowledge()
        assert (await receipt).offset == 0


async def test_an_await_cancelled_before_it_begins_takes_nothing(autojump_clock: object) -> None:
    client = FakeClient()
    async with open_fake(client, delivery_threshold=1) as producer:
        receipt = producer.send_tracked_nowait("topic", b"1")
        await settle_down()
        await fail(client)
        with trio.CancelScope() as scope:
            scope.cancel()
            await receipt
        assert scope.cancelled_caught
        with pytest.raises(errors.DeliveryFailed) as caught:
            await producer.flush()
    assert values(caught.value) == [b"1"]


async def test_a_failure_and_a_cancellation_in_the_same_tick(autojump_clock: object) -> None:
    """Whichever is first: either the task is told, or the end of the block tells."""
    outcomes = set()
    for told_first in (True, False):
        client, told = FakeClient(), list[str]()
        try:
            async with open_fake(client) as producer:
                receipt = producer.send_tracked_nowait("topic", b"1")
                async with trio.open_nursery() as nursery:
                    scope = await nursery.start(awaiting, receipt, told)
                    await settle_down()
                    client.reports.extend(client._settle_held(client.held, REFUSED, False))
                    for act in (producer._delivery.turn, scope.cancel)[:: 1 if told_first else -1]:
                        act()
        except errors.DeliveryFailed:
            told.append("end")
        assert len(told) == 1
        outcomes.update(told)
    assert outcomes == {"task", "end"}


async def awaiting(
    receipt: Receipt,
    told: list[str],
    *,
    task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED,
) -> None:
    with trio.CancelScope() as scope:
        task_status.started(scope)
        try:
            await receipt
        except errors.DeliveryFailed:
            told.append("task")


# ---------------------------------------------------------------------------------------------------------
# Who tells of a failure


async def test_a_receipt_that_is_awaited_tells_and_nobody_else(autojump_clock: object) -> None:
    client, called = FakeClient(), list[Undelivered]()
    async with open_fake(client, on_undelivered=called.append) as producer:
        receipt = producer.send_tracked_nowait("topic", b"1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(failure_of, receipt)
            nursery.start_soon(producer.flush)
            await settle_down()
            client.fail(REFUSED)
        assert producer.undelivered == ()
    assert called == []


@pytest.mark.parametrize("look", [failure_of, looked_at])
async def test_a_receipt_that_is_asked_before_anybody_was_told_tells(
    autojump_clock: object, look: Callable[[Receipt], Any]
) -> None:
    client, called = FakeClient(), list[Undelivered]()
    async with open_fake(client, delivery_threshold=1, on_undelivered=called.append) as producer:
        receipts = [producer.send_tracked_nowait("topic", b"%d" % number) for number in range(3)]
        await settle_down()
        await fail(client)
        assert [one.message.value for one in producer.undelivered] == [b"0", b"1", b"2"]
        for number in (1, 0, 2):
            told = look(receipts[number])
            assert (told if look is looked_at else await told) == [b"%d" % number]
        assert producer.undelivered == ()
        await producer.flush()
    assert called == []
    assert looked_at(receipts[0]) == [b"0"], "it can be asked again, and after the block"


async def test_a_failure_that_nobody_asked_for_is_told_by_the_next_flush(autojump_clock: object) -> None:
    """And the receipt still knows."""
    client, called = FakeClient(), list[Undelivered]()
    async with open_fake(client, on_undelivered=called.append) as producer:
        receipt = producer.send_tracked_nowait("topic", b"1")
        producer.send_nowait("topic", b"not tracked")
        producer.deliver_nowait()
        await settle_down()
        await fail(client)
        assert [one.message.value for one in called] == [b"not tracked"]
        with pytest.raises(errors.DeliveryFailed) as caught:
            await producer.flush()
        assert values(caught.value) == [b"1"]
        assert await failure_of(receipt) == [b"1"]
        await producer.flush()
    assert len(called) == 1


async def test_a_flush_that_waits_tells_unless_the_receipt_is_asked_before(autojump_clock: object) -> None:
    client = FakeClient()
    async with open_fake(client) as producer:
        receipts = [producer.send_tracked_nowait("topic", b"%d" % number) for number in range(2)]
        producer.send_nowait("topic", b"last")

        async def flush() -> None:
            with pytest.raises(errors.DeliveryFailed) as caught:
                await producer.flush()
            assert values(caught.value) == [b"1"]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flush)
            await settle_down()
            client.fail(REFUSED, messages=client.held[:2])
            await settle_down()
            assert looked_at(receipts[0]) == [b"0"]
            client.acknowledge()


async def test_a_cancelled_flush_leaves_it_to_the_receipt(autojump_clock: object) -> None:
    client, called = FakeClient(), list[Undelivered]()
    async with open_fake(client, on_undelivered=called.append) as producer:
        receipt = producer.send_tracked_nowait("topic", b"1")
        producer.send_nowait("topic", b"last")
        with trio.move_on_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(producer.flush)
                await settle_down()
                client.fail(REFUSED, messages=client.held[:1])
        assert called == []
        assert looked_at(receipt) == [b"1"]
        client.acknowledge()


async def test_the_end_of_the_block_tells_of_what_nobody_asked_for(autojump_clock: object) -> None:
    client = FakeClient()
    with pytest.raises(errors.DeliveryFailed) as caught:
        async with open_fake(client, delivery_threshold=1) as producer:
            receipts = [producer.send_tracked_nowait("topic", b"%d" % number) for number in range(2)]
            await settle_down()
            await fail(client)
            assert looked_at(receipts[0]) == [b"0"]
    assert values(caught.value) == [b"1"]
    assert looked_at(receipts[1]) == [b"1"]
    assert [one.message.value for one in producer.undelivered] == [b"1"], "what the end told of stays"


async def test_the_callback_gets_what_nobody_asked_for_when_the_block_is_left(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    """What failed before, and what fails then. It may send as always: that is delivered, too."""
    client, called, box = FakeClient(), list[bytes | None](), list[Producer]()

    def on_undelivered(one: Undelivered) -> None:
        called.append(one.message.value)
        box[0].send_nowait("dead-letters", one.message.value)

    async with open_fake(client, on_undelivered=on_undelivered) as producer:
        box.append(producer)
        asked, _ = (producer.send_tracked_nowait("topic", b"%d" % number) for number in range(2))
        producer.deliver_nowait()
        await settle_down()
        await fail(client)
        looked_at(asked)
        producer.send_tracked_nowait("topic", b"later")
        client.on_submit = lambda: None if client.held else trio.lowlevel.spawn_system_task(refuse, client)
    assert called == [b"1", b"later"]
    letters = [one[1] for entries in client.submitted for one in entries if one[0] == "dead-letters"]
    assert letters == [b"1", b"later"]
    assert caplog.text == ""


async def refuse(client: FakeClient) -> None:
    """What goes to the topic is refused, all else is acknowledged."""
    client.fail(REFUSED, messages=[one for one in client.held if one[0] == "topic"])
    client.automatic = True
    client.acknowledge()


async def test_while_the_block_is_left_a_receipt_that_is_awaited_still_tells(autojump_clock: object) -> None:
    client, called = FakeClient(), list[Undelivered]()
    async with trio.open_nursery() as nursery:  # noqa: SIM117  # the task runs while the block is left
        async with open_fake(client, on_undelivered=called.append) as producer:
            nursery.start_soon(failure_of, producer.send_tracked_nowait("topic", b"1"))
            await settle_down()
            client.on_submit = lambda: client.fail(REFUSED)
            producer.send_tracked_nowait("topic", b"2")
            trio.lowlevel.spawn_system_task(fail, client)
    assert [one.message.value for one in called] == [b"2"]


async def test_asked_in_the_callback_of_another_it_tells_and_is_not_called_for(
    autojump_clock: object,
) -> None:
    client, called = FakeClient(), list[bytes | None]()
    receipts: list[Receipt] = []

    def on_undelivered(one: Undelivered) -> None:
        called.append(one.message.value)
        assert looked_at(receipts[1]) == [b"1"]
        assert looked_at(receipts[0]) == [b"0"], "its own"

    async with open_fake(client, delivery_threshold=1, on_undelivered=on_undelivered) as producer:
        receipts += [producer.send_tracked_nowait("topic", b"%d" % number) for number in range(2)]
        await settle_down()
        await fail(client)
    assert called == [b"0"]
    assert producer.undelivered == ()


async def test_a_flush_that_waits_while_the_block_is_left_tells_of_it(autojump_clock: object) -> None:
    """The callback is for what no task waits for."""
    client, called, caught = FakeClient(), list[Undelivered](), list[BaseException]()

    async def flush(producer: Producer) -> None:
        try:
            await producer.flush()
        except errors.DeliveryFailed as error:
            caught.append(error)

    async with trio.open_nursery() as nursery:  # noqa: SIM117  # the task runs while the block is left
        async with open_fake(client, on_undelivered=called.append) as producer:
            producer.send_tracked_nowait("topic", b"1")
            producer.send_nowait("topic", b"last")
            nursery.start_soon(flush, producer)
            await settle_down()
            client.fail(REFUSED, messages=client.held[:1])
            await settle_down()
            client.acknowledge()
    assert [values(error) for error in caught] == [[b"1"]]
    assert called == []


async def test_what_is_kept_for_receipts_is_bounded(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    client = FakeClient()
    with pytest.raises(errors.DeliveryFailed) as caught:
        async with open_fake(client, max_queue_size=2, max_buffer_size=2, delivery_threshold=1) as producer:
            for number in range(6):
                receipt = producer.send_tracked_nowait("topic", b"%d" % number)
                await settle_down()
                await fail(client)
            assert looked_at(receipt) == [b"5"], "the receipt still knows"
    assert (values(caught.value), caught.value.omitted) == ([b"0", b"1", b"2", b"3"], 2)
    assert caplog.text.count("no room to keep it") == 2


async def test_beyond_the_bound_the_callback_is_called_at_once(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    client, called = FakeClient(), list[Undelivered]()
    async with open_fake(
        client, max_queue_size=2, max_buffer_size=2, delivery_threshold=1, on_undelivered=called.append
    ) as producer:
        for number in range(6):
            producer.send_tracked_nowait("topic", b"%d" % number)
            await settle_down()
            await fail(client)
        assert [one.message.value for one in called] == [b"4", b"5"]
    assert len(called) == 6
    assert caplog.text == ""


# ---------------------------------------------------------------------------------------------------------
# Ends of the producer


async def test_given_up_at_the_end(autojump_clock: object) -> None:
    client = FakeClient()
    with pytest.raises(errors.DeliveryFailed):
        async with open_fake(client, shutdown_timeout=1) as producer:
            receipt = producer.send_tracked_nowait("topic", b"1")
    with pytest.raises(errors.DeliveryFailed) as caught:
        await receipt
    assert isinstance(caught.value.undelivered[0].cause, errors.DeliveryAborted)


async def test_a_crash_ends_every_receipt(autojump_clock: object, caplog: pytest.LogCaptureFixture) -> None:
    client = FakeClient()
    crashed: list[BaseException] = []

    async def keep(receipt: Receipt) -> None:
        try:
            await receipt
        except errors.ProducerCrashed as error:
            crashed.append(error)

    async with trio.open_nursery() as nursery:
        with pytest.raises(errors.ProducerCrashed):
            async with open_fake(client) as producer:
                receipt = producer.send_tracked_nowait("topic", b"1")
                nursery.start_soon(keep, receipt)
                await settle_down()
                client.held.clear()  # nobody knows any more
                client.crash(ValueError("a bug"))
                await trio.sleep_forever()
    with pytest.raises(errors.ProducerCrashed, match="a bug") as caught:
        receipt.result()
    assert repr(receipt) == "<trio_kprod.Receipt: the producer crashed>"
    assert len({id(caught.value), id(crashed[0])}) == 2


def test_in_another_run_it_tells_what_it_knows_and_waits_for_nothing() -> None:
    async def main() -> Receipt:
        async with open_memory_producer() as producer:
            pending = producer.send_tracked_nowait("topic", b"1")
            await trio.to_thread.run_sync(trio.run, refused, pending)
            assert not pending.done
        return pending

    async def refused(receipt: Receipt) -> None:
        with pytest.raises(RuntimeError, match="the trio run that opened it"):
            await receipt

    async def wait(receipt: Receipt) -> RecordMetadata:
        return await receipt

    receipt = trio.run(main)
    assert receipt.result() == trio.run(wait, receipt)


async def test_send_and_wait_that_is_cancelled_gives_the_failure_to_the_callback(
    autojump_clock: object,
) -> None:
    """At once, as nobody holds its receipt."""
    client, called = FakeClient(), list[Undelivered]()
    async with open_fake(client, on_undelivered=called.append) as producer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(producer.send_and_wait, "topic", b"1")
            await settle_down()
            # In the same tick: the task has not run yet when the message fails.
            nursery.cancel_scope.cancel()
            client.reports.extend(client._settle_held(client.held, REFUSED, False))
            producer._delivery.turn()
        assert [one.message.value for one in called] == [b"1"]


async def test_a_follower_and_a_receipt_agree(autojump_clock: object) -> None:
    seen: list[tuple[int, RecordMetadata | None]] = []

    class Following(trio_kprod.Instrument):
        def settled(self, *, number: int, record: RecordMetadata | None, **_: object) -> None:
            seen.append((number, record))

    client = FakeClient()
    async with open_fake(
        client, instruments=(Following(),), logger=logging.getLogger("tests"), delivery_threshold=1
    ) as producer:
        receipt = producer.send_tracked_nowait("topic", b"1")
        producer.send_nowait("topic", b"2")
        await settle_down()
        client.acknowledge()
        await settle_down()
        assert seen[0] == (0, receipt.result())
        assert [number for number, _ in seen] == [0, 1]
