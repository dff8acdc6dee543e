"""The life of a producer: what is delivered at its end, how long that takes, and which exception leaves."""

# ruff: noqa: PT017, SIM117  # the clock is for pytest-trio; producers live and die in blocks that raise

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import AsyncIterator
from typing import Any, NoReturn

import pytest
import trio
import trio.testing

import trio_kprod._errors as errors
from tests._fake_client import FakeClient, check_sums, open_fake, settle_down
from trio_kprod._client import LoopHost
from trio_kprod._core._reports import Opened, Settled
from trio_kprod._lifetime import STOP_GRACE
from trio_kprod._messages import VALUE, Entry
from trio_kprod._producer import Producer

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

NOTES = hasattr(BaseException, "add_note")

pytestmark = pytest.mark.usefixtures("own_thread")


# ---------------------------------------------------------------------------------------------------------
# Opening


async def test_the_body_begins_when_a_broker_has_answered(autojump_clock: object) -> None:
    client = FakeClient()
    async with open_fake(client) as producer:
        assert isinstance(producer, Producer)
        assert client.running
        assert repr(producer) == "<trio_kprod.Producer open: 0 queued, 0 waiting, 0 in flight>"
    assert not client.running
    assert repr(producer) == "<trio_kprod.Producer closed: 0 queued, 0 waiting, 0 in flight>"


async def test_opening_fails_with_the_clients_own_error_and_no_body(autojump_clock: object) -> None:
    failure = errors.ConnectFailed("localhost:1: refused")
    client = FakeClient(opening=failure)
    with pytest.raises(errors.ConnectFailed, match="localhost:1: refused") as caught:
        async with open_fake(client):
            pytest.fail("the body must not run")
    assert caught.value is failure
    assert caught.value.__cause__ is None
    assert not client.running


async def test_cancelling_the_opening_returns_at_once_and_leaves_nothing(autojump_clock: object) -> None:
    client = FakeClient(opening="never")
    with trio.move_on_after(3) as scope:
        async with open_fake(client):
            pytest.fail("the body must not run")
    assert scope.cancelled_caught
    assert not client.running
    assert client.stops


async def test_cancelled_opening_costs_the_grace_only_if_the_client_is_stuck(autojump_clock: object) -> None:
    start = trio.current_time()
    with trio.move_on_after(3):
        async with open_fake(FakeClient(opening="never")):
            pytest.fail("the body must not run")
    assert trio.current_time() == start + 3
    with trio.move_on_after(3):
        async with open_fake(FakeClient(opening="never", deaf=True)):
            pytest.fail("the body must not run")
    assert trio.current_time() == start + 3 + 3 + 1


async def test_a_crash_while_connecting_is_a_crash(autojump_clock: object) -> None:
    client = FakeClient(opening="never")
    client.crash(OSError("boom"))
    with pytest.raises(errors.ProducerCrashed) as caught:
        async with open_fake(client):
            pytest.fail("the body must not run")
    assert isinstance(caught.value.__cause__, OSError)


# ---------------------------------------------------------------------------------------------------------
# Leaving: everything is delivered


async def test_everything_accepted_is_delivered_at_the_end(autojump_clock: object) -> None:
    client = FakeClient(automatic=True)
    async with open_fake(client, max_queue_size=10, max_buffer_size=7) as producer:
        for number in range(100):
            await producer.send("topic", b"%d" % number)
    sent = [message[VALUE] for entries in client.submitted for message in entries]
    assert sent == [b"%d" % number for number in range(100)]
    assert producer.statistics().delivered == 100
    check_sums(producer)


async def test_the_end_waits_for_acknowledgements(autojump_clock: object) -> None:
    client = FakeClient()
    start = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def acknowledge() -> None:
            await trio.sleep(7)
            client.acknowledge()

        nursery.start_soon(acknowledge)
        async with open_fake(client) as producer:
            producer.send_nowait("topic", b"1")
        assert trio.current_time() == start + 7
    assert producer.undelivered == ()


@pytest.mark.parametrize("deaf", [False, True])
@pytest.mark.parametrize("handed_over", [False, True])
async def test_shutdown_timeout_bounds_the_end(autojump_clock: object, deaf: bool, handed_over: bool) -> None:
    """Whatever the client does: at most one second more."""
    client = FakeClient(deaf=deaf)
    client.handed_over = handed_over
    start = trio.current_time()
    with pytest.raises(errors.DeliveryFailed) as caught:
        async with open_fake(client, shutdown_timeout=5, max_buffer_size=2) as producer:
            for _ in range(5):
                producer.send_nowait("topic", b"1")
    assert trio.current_time() == start + 5 + deaf
    assert [one.maybe_written for one in caught.value.undelivered] == [handed_over] * 2 + [False] * 3
    assert all(isinstance(one.cause, errors.DeliveryAborted) for one in caught.value.undelivered)
    assert producer.undelivered == caught.value.undelivered
    assert client.held == []
    check_sums(producer)


async def test_acknowledgements_that_arrive_while_stopping_count(autojump_clock: object) -> None:
    class Late(FakeClient):
        def stop(self, why: str) -> None:
            self.acknowledge()
            super().stop(why)

    async with open_fake(Late(), shutdown_timeout=5) as producer:
        producer.send_nowait("topic", b"1")
    assert producer.statistics().delivered == 1


async def test_acknowledgements_that_arrive_while_it_is_abandoned_count(autojump_clock: object) -> None:
    class Late(FakeClient):
        def abandon(self) -> list[Settled]:
            self.acknowledge()
            return super().abandon()

    async with open_fake(Late(deaf=True), shutdown_timeout=5) as producer:
        producer.send_nowait("topic", b"1")
    assert producer.statistics().delivered == 1


async def test_an_outer_cancellation_reaches_the_body_at_once_and_all_is_delivered(
    autojump_clock: object,
) -> None:
    client = FakeClient()
    start = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def acknowledge() -> None:
            with trio.CancelScope(shield=True):
                await trio.sleep(10)
                client.acknowledge()

        nursery.start_soon(acknowledge)
        with trio.move_on_after(3) as outer:
            async with open_fake(client) as producer:
                for _ in range(6):
                    producer.send_nowait("topic", b"1")
                try:
                    await trio.sleep_forever()
                finally:
                    assert trio.current_time() == start + 3
                    producer.send_nowait("topic", b"the body's last words")
        assert outer.cancelled_caught
        assert trio.current_time() == start + 10
    assert producer.statistics().delivered == 7


async def test_after_an_outer_cancellation_the_drain_is_bounded_too(
    autojump_clock: object, caplog: Any
) -> None:
    start = trio.current_time()
    with trio.move_on_after(3) as outer:
        async with open_fake(FakeClient(), shutdown_timeout=5) as producer:
            producer.send_nowait("topic", b"1")
            await trio.sleep_forever()
    assert outer.cancelled_caught
    assert trio.current_time() == start + 8
    assert len(producer.undelivered) == 1
    assert "1 message not delivered" in caplog.text


async def test_tasks_that_wait_when_the_end_begins(autojump_clock: object) -> None:
    """In `send` they are refused; in `flush` and `send_and_wait` they get the outcome."""
    client = FakeClient()
    record: list[Any] = []

    async def send(producer: Producer) -> None:
        with pytest.raises(errors.ProducerClosed):
            await producer.send("topic", b"2")
        record.append("refused")

    async def flush(producer: Producer) -> None:
        await producer.flush()
        record.append("flushed")

    async def send_and_wait(producer: Producer) -> None:
        metadata = await producer.send_and_wait("topic", b"0")
        record.append(metadata.offset)

    async def partitions_for(producer: Producer) -> None:
        with pytest.raises(errors.ProducerClosed):
            await producer.partitions_for("topic")

    async with trio.open_nursery() as nursery:
        async with open_fake(client, max_queue_size=1, max_buffer_size=1) as producer:
            nursery.start_soon(send_and_wait, producer)
            await settle_down()
            producer.send_nowait("topic", b"1")
            nursery.start_soon(flush, producer)
            nursery.start_soon(send, producer)
            nursery.start_soon(partitions_for, producer)
            await settle_down()
            client.automatic = True
            nursery.start_soon(lambda: _later(client.acknowledge))
        assert record == ["refused", 0, "flushed"]
    check_sums(producer)


async def _later(action: Any) -> None:
    await trio.sleep(1)
    action()


async def test_closed_means_closed(autojump_clock: object) -> None:
    async with open_fake(FakeClient(automatic=True)) as producer:
        pass
    with pytest.raises(errors.ProducerClosed):
        producer.send_nowait("topic", b"1")
    with pytest.raises(trio.ClosedResourceError):
        await producer.send("topic", b"1")
    with pytest.raises(errors.ProducerClosed):
        await producer.send_many("topic", [])
    with pytest.raises(errors.ProducerClosed):
        await producer.send_and_wait("topic", b"1")
    with pytest.raises(errors.ProducerClosed):
        await producer.flush()
    with pytest.raises(errors.ProducerClosed):
        await producer.partitions_for("topic")
    with pytest.raises(errors.ProducerClosed):
        producer.deliver_nowait()
    producer.abort()
    assert producer.statistics().accepted == 0


# ---------------------------------------------------------------------------------------------------------
# Which exception leaves


class Custom(Exception):
    pass


BODIES = [
    ValueError("mine"),
    KeyboardInterrupt(),
    SystemExit(3),
    GeneratorExit(),
    StopAsyncIteration("mine"),
    trio.TooSlowError(),
    trio.WouldBlock(),
    ExceptionGroup("mine", [ValueError(1), ExceptionGroup("inner", [KeyError(2)])]),
    BaseExceptionGroup("mine", [KeyboardInterrupt(), ValueError(1)]),
    errors.DeliveryFailed([]),
]


@pytest.mark.parametrize("error", BODIES, ids=lambda error: type(error).__name__)
async def test_the_bodys_exception_leaves_as_it_was(autojump_clock: object, error: BaseException) -> None:
    client = FakeClient(automatic=True)
    try:
        async with open_fake(client) as producer:
            producer.send_nowait("topic", b"1")
            raise error.with_traceback(None)
    except BaseException as caught:
        assert caught is error
        assert caught.__cause__ is None
        assert caught.__context__ is None
        assert not getattr(caught, "__notes__", [])
        frames = [frame.filename for frame in traceback.extract_tb(caught.__traceback__)]
        assert frames == [__file__]
    else:
        pytest.fail("nothing was raised")
    assert producer.statistics().delivered == 1


async def test_raise_from_keeps_cause_and_context(autojump_clock: object) -> None:
    with pytest.raises(Custom) as caught:
        async with open_fake(FakeClient()):
            try:
                raise ValueError("cause")
            except ValueError as error:
                raise Custom from error
    assert isinstance(caught.value.__cause__, ValueError)


async def test_the_users_own_nursery_makes_the_users_own_group(autojump_clock: object) -> None:
    async def fail() -> None:
        raise ValueError("child")

    with pytest.raises(ExceptionGroup) as caught:
        async with open_fake(FakeClient()), trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            await trio.sleep_forever()
    assert [type(one) for one in caught.value.exceptions] == [ValueError]


async def test_a_timeout_inside_and_one_outside(autojump_clock: object) -> None:
    with pytest.raises(trio.TooSlowError):
        async with open_fake(FakeClient()):
            with trio.fail_after(1):
                await trio.sleep(2)
    with pytest.raises(trio.TooSlowError):
        with trio.fail_after(1):
            async with open_fake(FakeClient()):
                await trio.sleep(2)


async def test_return_break_and_continue_in_the_body(autojump_clock: object) -> None:
    async def returns() -> int:
        async with open_fake(FakeClient()):
            return 5
        raise AssertionError("an exception was swallowed")

    assert await returns() == 5
    for number in range(3):
        async with open_fake(FakeClient()):
            if number == 1:
                break
            continue
    assert number == 1


async def test_nested_producers(autojump_clock: object) -> None:
    """The crash of one is not the crash of the other, and both are drained."""
    inner, outer = FakeClient(), FakeClient(automatic=True)
    with pytest.raises(errors.ProducerCrashed):
        async with open_fake(outer) as first:
            first.send_nowait("topic", b"1")
            async with open_fake(inner):
                inner.crash(Custom())
                await trio.sleep_forever()
    assert first.statistics().delivered == 1


async def test_messages_not_delivered_raise_after_a_body_that_ended_well(autojump_clock: object) -> None:
    client = FakeClient()
    with pytest.raises(errors.DeliveryFailed) as caught:
        async with open_fake(client) as producer:
            producer.send_nowait("topic", b"1")
            producer.deliver_nowait()
            await settle_down()
            client.fail(errors.Refused(87, "INVALID_RECORD"))
    assert [one.message.value for one in caught.value.undelivered] == [b"1"]
    assert caught.value.__context__ is None


async def test_what_does_not_leave_is_logged_and_noted(autojump_clock: object, caplog: Any) -> None:
    client = FakeClient()
    with pytest.raises(Custom) as caught:
        async with open_fake(client) as producer:
            producer.send_nowait("topic", b"1")
            producer.deliver_nowait()
            await settle_down()
            client.fail(errors.Refused(87, "INVALID_RECORD"))
            raise Custom
    assert "1 message not delivered" in caplog.text
    if NOTES:
        (note,) = caught.value.__notes__
        assert "1 message not delivered" in note


# ---------------------------------------------------------------------------------------------------------
# Crashes


async def test_a_crash_cancels_the_body_and_settles_everything(autojump_clock: object) -> None:
    client = FakeClient()
    client.handed_over = True
    with pytest.raises(errors.ProducerCrashed) as caught:
        async with open_fake(client, max_buffer_size=1) as producer:
            for _ in range(3):
                producer.send_nowait("topic", b"1")
            producer.deliver_nowait()
            await settle_down()
            client.crash(Custom("bug"))
            try:
                await trio.sleep_forever()
            finally:
                with pytest.raises(errors.ProducerCrashed) as refused:
                    producer.send_nowait("topic", b"1")
                assert isinstance(refused.value.__cause__, Custom)
                with trio.CancelScope(shield=True), pytest.raises(errors.ProducerCrashed):
                    await producer.flush()
                check_sums(producer, client)
                assert repr(producer).startswith("<trio_kprod.Producer crashed")
    assert isinstance(caught.value.__cause__, Custom)
    assert [one.maybe_written for one in producer.undelivered] == [True, False, False]
    assert client.abandoned


async def test_the_bodys_own_exception_comes_before_a_crash(autojump_clock: object, caplog: Any) -> None:
    client = FakeClient()
    with pytest.raises(ValueError, match="mine"):
        async with open_fake(client):
            client.crash(Custom("bug"))
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("mine")
    assert "bug" in caplog.text


async def test_a_crash_comes_before_a_cancellation(autojump_clock: object) -> None:
    client = FakeClient()
    with trio.move_on_after(1) as outer, pytest.raises(errors.ProducerCrashed):
        async with open_fake(client):
            try:
                await trio.sleep_forever()
            finally:
                client.crash(Custom("bug"))
    assert not outer.cancelled_caught


async def test_a_crash_comes_before_a_cancellation_that_a_nursery_has_wrapped(autojump_clock: object) -> None:
    """Trio makes a group of the Cancelled of a nursery's tasks, which is no exception of the body's own."""
    client = FakeClient()
    with trio.move_on_after(1) as outer, pytest.raises(errors.ProducerCrashed):
        async with open_fake(client), trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                client.crash(Custom("bug"))
    assert not outer.cancelled_caught


async def test_a_group_with_more_than_cancellations_is_the_bodys_own(autojump_clock: object) -> None:
    async def fail_late() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("mine")

    client = FakeClient()
    with trio.move_on_after(1), pytest.raises(BaseExceptionGroup) as caught:
        async with open_fake(client), trio.open_nursery() as nursery:
            nursery.start_soon(fail_late)
            try:
                await trio.sleep_forever()
            finally:
                client.crash(Custom("bug"))
    assert caught.group_contains(ValueError, match="mine")


async def test_a_client_that_just_ends_is_a_crash(autojump_clock: object) -> None:
    client = FakeClient()
    with pytest.raises(errors.ProducerCrashed, match="ended without being told"):
        async with open_fake(client):
            client.end()
            await trio.sleep_forever()


async def test_a_bug_in_the_delivery_task_lets_nobody_wait_for_ever(autojump_clock: object) -> None:
    """Even where the bookkeeping itself is what broke."""
    client = FakeClient()
    record: list[str] = []

    async def wait(name: str, call: Any, *args: Any) -> None:
        with trio.CancelScope(shield=True), pytest.raises((errors.ProducerCrashed, errors.DeliveryFailed)):
            await call(*args)
        record.append(name)

    start = trio.current_time()
    with pytest.raises(errors.ProducerCrashed):
        async with open_fake(client, max_queue_size=1, max_buffer_size=1) as producer:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait, "receipt", producer.send_and_wait, "topic", b"1")
                await settle_down()
                producer.send_nowait("topic", b"2")
                nursery.start_soon(wait, "flush", producer.flush)
                nursery.start_soon(wait, "line", producer.send, "topic", b"3")
                nursery.start_soon(wait, "partitions", producer.partitions_for, "topic")
                await settle_down()
                client.report(Settled("a topic nobody sent to", 0, 0, 0, client.held, 1, 1))
    assert sorted(record) == ["flush", "line", "partitions", "receipt"]
    assert trio.current_time() == start


async def test_where_nothing_can_be_settled_any_more_nobody_waits_for_ever(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    client = FakeClient()
    record: list[str] = []

    def broken(_: Settled) -> None:
        raise Custom("bug")

    async def wait(name: str, call: Any, *args: Any) -> None:
        with trio.CancelScope(shield=True), pytest.raises(errors.ProducerCrashed):
            await call(*args)
        record.append(name)

    with pytest.raises(errors.ProducerCrashed):
        async with open_fake(client) as producer, trio.open_nursery() as nursery:
            nursery.start_soon(wait, "receipt", producer.send_and_wait, "topic", b"1")
            await settle_down()
            nursery.start_soon(wait, "flush", producer.flush)
            await settle_down()
            producer._delivery.settle = broken  # type: ignore[method-assign, assignment]
            client.acknowledge()
    assert sorted(record) == ["flush", "receipt"]
    assert caplog.text.count("1 messages are not accounted for") == 1


async def test_what_was_taken_from_the_queue_and_lost_is_told_of_in_the_log(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: object) -> NoReturn:
        raise Custom("bug")

    with pytest.raises(errors.ProducerCrashed):
        async with open_fake(FakeClient()) as producer:
            producer._delivery._ledger.parts = broken  # type: ignore[method-assign, assignment]
            producer.send_nowait("topic", b"1")
            producer.deliver_nowait()
            await trio.sleep_forever()
    assert caplog.text.count("1 messages are not accounted for") == 1


class _NoThread(LoopHost):
    async def sleep(self, seconds: float) -> None:
        raise RuntimeError("can't start new thread")


async def test_without_a_thread_for_its_clock_the_end_delivers_all_the_same(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    client = FakeClient()
    opening = open_fake(client, shutdown_timeout=20)
    opening._host = _NoThread()
    async with trio.open_nursery() as nursery:
        async with opening as producer:
            producer.send_nowait("topic", b"1")

            async def acknowledge_later() -> None:
                await trio.sleep(19)
                client.acknowledge()

            nursery.start_soon(acknowledge_later)
    assert producer.statistics().delivered == 1
    assert "no thread for a clock, so 20 s go by" in caplog.text


async def test_without_a_thread_for_its_clock_the_end_still_has_a_deadline(autojump_clock: object) -> None:
    """Also where the client is stuck."""
    opening = open_fake(FakeClient(deaf=True), shutdown_timeout=20)
    opening._host = _NoThread()
    start = trio.current_time()
    with pytest.raises(errors.DeliveryFailed):
        async with opening as producer:
            producer.send_nowait("topic", b"1")
    assert trio.current_time() == start + 20 + STOP_GRACE
    assert len(producer.undelivered) == 1


async def test_a_crash_while_opening_does_not_reach_the_body(autojump_clock: object) -> None:
    class Confused(FakeClient):
        async def main(self) -> None:
            self.report(Opened(), Settled("a topic nobody sent to", 0, 0, 0, [], 1, 1))
            await self._over.wait()

    with pytest.raises(errors.ProducerCrashed):
        async with open_fake(Confused()):
            pytest.fail("the body must not run")


async def test_messages_that_the_client_has_lost_are_a_crash(autojump_clock: object) -> None:
    class Forgetful(FakeClient):
        def submit(self, entries: list[Entry]) -> None:
            pass

    with pytest.raises(errors.ProducerCrashed, match="1 messages are not accounted for"):
        async with open_fake(Forgetful()) as producer:
            producer.send_nowait("topic", b"1")


async def test_a_system_exit_in_the_client_is_a_crash_too(autojump_clock: object) -> None:
    client = FakeClient()
    with pytest.raises(errors.ProducerCrashed) as caught:
        async with open_fake(client):
            client.crash(SystemExit(1))
            await trio.sleep_forever()
    assert isinstance(caught.value.__cause__, SystemExit)


# ---------------------------------------------------------------------------------------------------------
# Giving up


async def test_abort_in_the_body(autojump_clock: object) -> None:
    client = FakeClient()
    start = trio.current_time()
    with pytest.raises(errors.DeliveryFailed) as caught:
        async with open_fake(client, max_buffer_size=1) as producer:
            producer.send_nowait("topic", b"1")
            producer.deliver_nowait()
            await settle_down()
            producer.send_nowait("topic", b"2")
            producer.abort()
            producer.abort()
            with pytest.raises(errors.ProducerClosed, match="abort"):
                producer.send_nowait("topic", b"3")
            await settle_down()
            assert len(producer.undelivered) == 2
            check_sums(producer, client)
            await trio.sleep(100)
    assert trio.current_time() == start + 100
    assert len(caught.value.undelivered) == 2


async def test_abort_ends_a_running_drain(autojump_clock: object) -> None:
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        with pytest.raises(errors.DeliveryFailed):
            async with open_fake(FakeClient()) as producer:
                producer.send_nowait("topic", b"1")
                nursery.start_soon(lambda: _later(producer.abort))
    assert trio.current_time() == start + 1


async def test_flush_after_abort_tells(autojump_clock: object) -> None:
    """Also when the client is stuck: a second later."""
    start = trio.current_time()
    async with open_fake(FakeClient(deaf=True)) as producer:
        producer.send_nowait("topic", b"1")
        producer.deliver_nowait()
        await settle_down()
        producer.abort()
        with pytest.raises(errors.DeliveryFailed):
            await producer.flush()
    assert trio.current_time() == start + 1


async def test_abort_turns_waiting_senders_away(autojump_clock: object) -> None:
    async def send(producer: Producer) -> None:
        with pytest.raises(errors.ProducerClosed):
            await producer.send("topic", b"2")

    with pytest.raises(errors.DeliveryFailed):
        async with open_fake(FakeClient(), max_queue_size=1, max_buffer_size=1) as producer:
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    producer.send_nowait("topic", b"1")
                    await settle_down()
                nursery.start_soon(send, producer)
                await settle_down()
                assert producer.statistics().tasks_waiting == 1
                producer.abort()
            assert producer.statistics().tasks_waiting == 0


# ---------------------------------------------------------------------------------------------------------
# Ctrl-C


def interrupt_self() -> None:
    signal.raise_signal(signal.SIGINT)


def test_an_interrupt_in_the_body_leaves_as_itself_and_all_is_delivered() -> None:
    client: FakeClient

    async def main() -> None:
        nonlocal client
        client = FakeClient(automatic=True)
        async with open_fake(client) as producer:
            producer.send_nowait("topic", b"1")
            interrupt_self()
            await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert len(client.submitted) == 1


def test_an_interrupt_in_the_drain_cuts_it_short(caplog: Any) -> None:
    async def main() -> None:
        start = trio.current_time()
        try:
            async with open_fake(FakeClient(deaf=True), shutdown_timeout=1000) as producer:
                producer.send_nowait("topic", b"1")
                trio.lowlevel.spawn_system_task(_later, interrupt_self)
        finally:
            assert trio.current_time() == start + 1 + 1
            assert len(producer.undelivered) == 1

    with pytest.raises(KeyboardInterrupt):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert "1 message not delivered" in caplog.text


def test_an_interrupt_in_the_drain_of_a_cancelled_body_is_not_lost() -> None:
    """Also where a nursery in the body has made a group of its Cancelled."""

    async def interrupt() -> None:
        await trio.sleep(2)
        interrupt_self()

    async def main() -> None:
        trio.lowlevel.spawn_system_task(interrupt)
        with trio.move_on_after(1):
            async with (
                open_fake(FakeClient(), shutdown_timeout=1000) as producer,
                trio.open_nursery() as nursery,
            ):
                producer.send_nowait("topic", b"1")
                nursery.start_soon(trio.sleep_forever)

    with pytest.raises(KeyboardInterrupt):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_an_interrupt_while_connecting() -> None:
    async def main() -> None:
        trio.lowlevel.spawn_system_task(_later, interrupt_self)
        async with open_fake(FakeClient(opening="never")):
            pytest.fail("the body must not run")

    with pytest.raises(KeyboardInterrupt):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


# ---------------------------------------------------------------------------------------------------------
# Misuse


async def test_opened_twice_is_an_error(autojump_clock: object) -> None:
    opening = open_fake(FakeClient())
    async with opening:
        with pytest.raises(RuntimeError, match="can be opened once"):
            await opening.__aenter__()
    with pytest.raises(RuntimeError, match="can be opened once"):
        async with opening:
            pytest.fail("the body must not run")


@pytest.mark.parametrize("error", [None, ValueError("mine")])
async def test_left_twice_is_an_error_and_tells_nothing_twice(
    autojump_clock: object, error: ValueError | None
) -> None:
    opening = open_fake(FakeClient(), shutdown_timeout=1)
    with pytest.raises(errors.DeliveryFailed):
        async with opening as producer:
            producer.send_nowait("topic", b"1")
    with pytest.raises(RuntimeError, match="left already"):
        await opening.__aexit__(type(error) if error else None, error, None)
    assert len(producer.undelivered) == 1


async def test_used_without_being_opened(autojump_clock: object) -> None:
    opening: Any = open_fake(FakeClient())
    with pytest.raises(RuntimeError, match="async with"):
        opening.send_nowait("topic", b"1")
    with pytest.raises(AttributeError, match="no attribute 'sendd'"):
        _ = opening.sendd
    with pytest.raises(RuntimeError, match="never opened"):
        await opening.__aexit__(None, None, None)
    with pytest.raises(RuntimeError, match="async with"), opening:
        pytest.fail("the body must not run")


def test_opened_outside_trio() -> None:
    async def create() -> Any:
        return FakeClient()

    client = trio.run(create)
    coroutine = open_fake(client).__aenter__()
    with pytest.raises(RuntimeError, match=r"inside trio\.run"):
        coroutine.send(None)


async def test_ten_producers_leave_no_task_behind(autojump_clock: object) -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    for _ in range(10):
        async with open_fake(FakeClient(automatic=True), delivery_interval=1) as producer:
            producer.send_nowait("topic", b"1")
    assert trio.lowlevel.current_statistics().tasks_living == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
async def test_a_forked_child_is_told_and_touches_nothing(autojump_clock: object) -> None:
    """The child leaves the scope as well; what it says comes back through a pipe.

    While the child lives, this process stands still: both have trio's wake-up socket, and whoever reads
    first takes what the other was to get.
    """
    client = FakeClient()
    reader, writer = os.pipe()
    child = False
    try:
        async with open_fake(client) as producer:
            producer.send_nowait("topic", b"1")
            await trio.testing.wait_all_tasks_blocked()
            child = (pid := os.fork()) == 0
            if child:
                with pytest.raises(RuntimeError, match="forked child"):
                    producer.send_nowait("topic", b"1")
                with pytest.raises(RuntimeError, match="forked child"):
                    producer.abort()
                with pytest.raises(RuntimeError, match="forked child"):
                    await producer.flush()
            else:
                os.close(writer)
                os.waitpid(pid, 0)  # noqa: ASYNC222  # standing still is the point
                client.automatic = True
        if child:
            os.write(writer, b"touched" if client.stops or client.submitted else b"fine")
    finally:
        if child:
            os._exit(0)
    with open(reader, "rb") as pipe:  # noqa: ASYNC230  # the child is gone
        assert pipe.read() == b"fine"
    assert producer.statistics().delivered == 1


async def test_a_fixture_like_generator_drains(autojump_clock: object) -> None:
    """As pytest-trio does it: the producer lives in one task, its user in another."""
    client = FakeClient(automatic=True)

    async def fixture() -> AsyncIterator[Producer]:
        async with open_fake(client) as producer:
            yield producer

    generator = fixture()
    producer = await generator.__anext__()
    producer.send_nowait("topic", b"1")
    with pytest.raises(StopAsyncIteration):
        await generator.__anext__()
    assert producer.statistics().delivered == 1
