"""Who is told: flushes share one log of failures, and what they tell of is looked up when it is asked for."""

from __future__ import annotations

import copy
import logging
import pickle
import random
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
import trio

import trio_kprod._errors as errors
from tests._fake_client import FakeClient, open_fake, settle_down
from trio_kprod._instruments import Instruments
from trio_kprod._messages import Message, Undelivered
from trio_kprod._producer import Producer
from trio_kprod._settings import make_settings
from trio_kprod._telling import Failure, Flush, Teller

REFUSED = errors.Refused(87, "INVALID_RECORD")

pytestmark = pytest.mark.usefixtures("own_thread")


def undelivered(number: int) -> Undelivered:
    return Undelivered(Message("topic", b"%d" % number, None, (), None, 0, 37), False, REFUSED)


def values(error: BaseException | None) -> list[bytes | None]:
    if error is None:
        return []
    assert isinstance(error, errors.DeliveryFailed)
    return [one.message.value for one in error.undelivered]


def steps(work: Callable[[], object]) -> int:
    """How many bytecodes were run: a measure of work that is the same each time."""
    count = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


# ---------------------------------------------------------------------------------------------------------
# Work


async def failing_flushes(count: int) -> int:
    """The work of a turn in which the messages of this many tasks fail, each of which flushes."""
    client = FakeClient()
    async with open_fake(client) as producer:

        async def send_and_flush(number: int) -> None:
            await producer.send("topic", b"%d" % number)
            with pytest.raises(errors.DeliveryFailed):
                await producer.flush()

        async with trio.open_nursery() as nursery:
            for number in range(count):
                nursery.start_soon(send_and_flush, number)
            await settle_down()
            client.reports.extend(client._settle_held(client.held, REFUSED, False))
            return steps(producer._delivery.turn)
    raise AssertionError


async def test_the_work_for_failing_flushes_is_linear(autojump_clock: object) -> None:
    assert await failing_flushes(160) < 2.5 * await failing_flushes(80)


def make_teller(on_undelivered: Any = None, **settings: Any) -> Teller:
    from contextlib import nullcontext

    made = make_settings(on_undelivered=on_undelivered, **settings)
    return Teller(made, Instruments((), logging.getLogger("tests")), nullcontext)


def cancel_flushes(count: int) -> int:
    teller = make_teller(lambda _: None)
    flushes = [teller.begin_flush(number + 1) for number in range(count)]
    for number in range(count):
        teller.tell(undelivered(number), number)

    def cancel() -> None:
        for flush in flushes:
            teller.withdraw_flush(flush)
            teller.pass_on()

    return steps(cancel)


def test_the_work_for_cancelled_flushes_is_linear() -> None:
    assert cancel_flushes(160) < 2.5 * cancel_flushes(80)


def test_the_log_is_forgotten_even_if_there_always_is_a_flush() -> None:
    teller = make_teller()
    last = teller.begin_flush(0)
    for number in range(1000):
        following = teller.begin_flush(number + 1)
        teller.tell(undelivered(number), number)
        teller.end_flushes(last.mark)
        last = following
    assert len(teller._log._failures) < 10
    assert len(teller.kept) == 1


# ---------------------------------------------------------------------------------------------------------
# Who is told: against a plain model, in which each flush has a list of its own


class Model:
    """The rule without any thought for speed."""

    def __init__(self, calls: list[bytes | None], *, refuses: bool) -> None:
        self.flushes: dict[Flush, list[int]] = {}
        self.kept: dict[int, bool] = {}  # and whether `on_undelivered` has had its chance
        self.tracked: set[int] = set()  # those that have receipts which may be asked
        self.left = False
        self.calls = calls
        self.refuses = refuses

    def call(self, number: int) -> bool:
        self.calls.append(b"%d" % number)
        return not self.refuses

    def tell(self, number: int) -> None:
        covering = [flush for flush in self.flushes if number < flush.mark]
        waits = bool(covering) or (number in self.tracked and not self.left)
        if waits or not self.call(number):
            self.kept[number] = not waits
        for flush in covering:
            self.flushes[flush].append(number)

    def begin(self, flush: Flush) -> None:
        self.flushes[flush] = list(self.kept)

    def end(self, settled_before: int) -> dict[Flush, list[int]]:
        ending = [flush for flush in self.flushes if flush.mark <= settled_before]
        told = {flush: self.flushes.pop(flush) for flush in ending}
        for number in {number for numbers in told.values() for number in numbers}:
            self.kept.pop(number, None)
        return told

    def ask(self, number: int) -> None:
        """The receipt of a message that has failed tells, if nobody has told before."""
        if self.kept.pop(number, None) is not None:
            for numbers in self.flushes.values():
                if number in numbers:
                    numbers.remove(number)

    def leave(self) -> None:
        self.left = True
        self._pass_on([number for number in self.kept if number in self.tracked])

    def cancel(self, flush: Flush) -> None:
        passed = self.flushes.pop(flush)
        self._pass_on([number for number in passed if number not in self.tracked or self.left])

    def _pass_on(self, passed: list[int]) -> None:
        for number in passed:
            covered = any(number < flush.mark for flush in self.flushes)
            if not covered and self.kept.get(number) is False:
                self.kept[number] = True
                if self.call(number):
                    del self.kept[number]


@pytest.mark.parametrize("refuses", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_the_same_are_told_as_with_a_list_for_each_flush(seed: int, refuses: bool) -> None:
    dice = random.Random(seed)
    expected: list[bytes | None] = []
    called: list[bytes | None] = []

    def on_undelivered(one: Undelivered) -> None:
        called.append(one.message.value)
        if refuses:
            raise ValueError("not now")

    teller, model = make_teller(on_undelivered), Model(expected, refuses=refuses)
    accepted, unsettled, failures = 0, list[int](), dict[int, Failure | None]()
    for step in range(120):
        what = dice.choice(["send", "send", "fail", "fail", "deliver", "flush", "cancel", "ask"])
        if step == 100:
            teller.expect_no_receipts()
            model.leave()
        if what == "send":
            unsettled.append(accepted)
            if dice.random() < 0.5:
                model.tracked.add(accepted)
            accepted += 1
        elif what == "ask" and failures:
            number = dice.choice(list(failures))
            failure = failures.pop(number)
            if failure is not None:
                teller.take_back(failure)
                model.ask(number)
        elif what == "flush":
            flush = teller.begin_flush(accepted)
            model.begin(flush)
        elif what == "cancel" and model.flushes:
            flush = dice.choice(list(model.flushes))
            teller.withdraw_flush(flush)
            teller.pass_on()
            model.cancel(flush)
        elif what in ("fail", "deliver") and unsettled:
            number = unsettled.pop(dice.randrange(len(unsettled)))
            if what == "fail":
                tracked = number in model.tracked
                failure = teller.tell(undelivered(number), number, tracked=tracked)
                if tracked:
                    failures[number] = failure
                model.tell(number)
        settled_before = min(unsettled, default=accepted)
        teller.end_flushes(settled_before)
        for flush, numbers in model.end(settled_before).items():
            assert flush.ended
            assert values(flush.error) == [b"%d" % number for number in numbers]
        assert called == expected
        assert [one.message.value for one in teller.kept] == [b"%d" % number for number in model.kept]


# ---------------------------------------------------------------------------------------------------------
# DeliveryFailed


def looked_up() -> errors.DeliveryFailed:
    return errors.DeliveryFailed.found_by(lambda: [undelivered(0), undelivered(1)], 3)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_delivery_failed_can_be_copied_and_pickled(duplicate: Callable[[Any], Any]) -> None:
    error = looked_up()
    error.mine = "kept"  # type: ignore[attr-defined]
    again = duplicate(error)
    assert isinstance(again, errors.DeliveryFailed)
    assert [one.message for one in again.undelivered] == [one.message for one in error.undelivered]
    assert (again.omitted, vars(again)["mine"], str(again), repr(again)) == (
        3,
        "kept",
        str(error),
        repr(error),
    )


def test_a_delivery_failed_looks_up_once() -> None:
    error = looked_up()
    assert isinstance(error.undelivered, tuple)
    assert error.undelivered is error.undelivered
    assert str(error).startswith("5 messages not delivered; the first, to 'topic': INVALID_RECORD (87)")


# ---------------------------------------------------------------------------------------------------------
# `on_undelivered` sends while the block is being left


def letters(client: FakeClient, topic: str) -> list[bytes | None]:
    return [one[1] for entries in client.submitted for one in entries if one[0] == topic]


def dead_letters(box: list[Producer]) -> Callable[[Undelivered], None]:
    return lambda one: box[0].send_nowait("dead-letters", one.message.value)


async def later(seconds: float, do: Callable[[], object]) -> None:
    await trio.sleep(seconds)
    do()


async def test_a_dead_letter_joins_the_drain(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    client, box = FakeClient(), list[Producer]()
    async with trio.open_nursery() as nursery:
        async with open_fake(client, on_undelivered=dead_letters(box)) as producer:
            box.append(producer)
            for number in range(3):
                producer.send_nowait("topic", b"%d" % number)
            nursery.start_soon(later, 5, lambda: client.fail(REFUSED))
            nursery.start_soon(later, 10, client.acknowledge)
            start = trio.current_time()
        assert trio.current_time() == start + 10
    assert letters(client, "dead-letters") == [b"0", b"1", b"2"]
    assert (producer.statistics().delivered, producer.statistics().undelivered) == (3, 3)
    assert producer.undelivered == ()
    assert caplog.text == ""


async def test_only_the_callback_may_send_while_the_block_is_left(autojump_clock: object) -> None:
    client, box, refused = FakeClient(), list[Producer](), 0

    def try_to_send() -> None:
        nonlocal refused
        with pytest.raises(errors.ProducerClosed):
            producer.send_nowait("topic", b"late")
        refused += 1

    async with trio.open_nursery() as nursery:  # noqa: SIM117  # the tasks run while the block is left
        async with open_fake(client, on_undelivered=dead_letters(box)) as producer:
            box.append(producer)
            producer.send_nowait("topic", b"1")
            nursery.start_soon(later, 4, try_to_send)
            nursery.start_soon(later, 5, lambda: client.fail(REFUSED))
            nursery.start_soon(later, 6, try_to_send)
            nursery.start_soon(later, 7, client.acknowledge)
    assert refused == 2


async def test_dead_letters_of_dead_letters_end_by_the_deadline(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    client, box = FakeClient(), list[Producer]()
    start = 0.0
    async with trio.open_nursery() as nursery:
        with pytest.raises(errors.DeliveryFailed) as caught:
            async with open_fake(client, on_undelivered=dead_letters(box), shutdown_timeout=20) as producer:
                box.append(producer)
                producer.send_nowait("topic", b"1")

                async def refuse_all() -> None:
                    while True:
                        await trio.sleep(3)
                        client.fail(REFUSED)

                nursery.start_soon(refuse_all)
                start = trio.current_time()
        assert trio.current_time() == start + 20
        nursery.cancel_scope.cancel()
    (last,) = caught.value.undelivered
    assert last.message.topic == "dead-letters"
    assert isinstance(last.cause, errors.DeliveryAborted)
    assert producer.statistics().accepted == 7
    assert "ProducerClosed" in caplog.text


@pytest.mark.parametrize("when", ["before", "within"])
async def test_after_an_abort_the_callback_may_not_send(
    autojump_clock: object, caplog: pytest.LogCaptureFixture, when: str
) -> None:
    client = FakeClient()

    def on_undelivered(one: Undelivered) -> None:
        if when == "within":
            producer.abort()
        producer.send_nowait("dead-letters", one.message.value)

    async with trio.open_nursery() as nursery:
        with pytest.raises(errors.DeliveryFailed) as caught:
            async with open_fake(client, on_undelivered=on_undelivered) as producer:
                producer.send_nowait("topic", b"1")
                if when == "before":
                    nursery.start_soon(later, 5, producer.abort)
                else:
                    nursery.start_soon(later, 5, lambda: client.fail(REFUSED))
    assert values(caught.value) == [b"1"]
    assert producer.statistics().accepted == 1
    reason = "abort" if when == "within" else "the producer's scope"
    with pytest.raises(errors.ProducerClosed, match=reason):
        producer.send_nowait("topic", b"2")
    assert "ProducerClosed" in caplog.text


async def test_a_dead_letter_of_a_flush_cancelled_in_the_drain(autojump_clock: object) -> None:
    """A flush that waits while the block is left passes on what it would have told of."""
    client, box, scope = FakeClient(), list[Producer](), trio.CancelScope()
    async with trio.open_nursery() as nursery:  # noqa: SIM117  # the tasks run while the block is left
        async with open_fake(client, on_undelivered=dead_letters(box)) as producer:
            box.append(producer)
            producer.send_nowait("topic", b"1")
            producer.send_nowait("topic", b"2")

            async def flush() -> None:
                with scope:
                    await producer.flush()

            nursery.start_soon(flush)
            await settle_down()
            nursery.start_soon(later, 5, lambda: client.fail(REFUSED, messages=client.held[:1]))
            nursery.start_soon(later, 6, scope.cancel)
            nursery.start_soon(later, 7, client.acknowledge)
    assert letters(client, "dead-letters") == [b"1"]
    assert producer.statistics().delivered == 2
