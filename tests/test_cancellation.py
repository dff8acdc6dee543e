"""Every public await, cancelled before each single step that any task takes meanwhile: nothing is half done.

Everything is in one loop, so the client and the broker take their steps in it, too. A sweep goes on until
the call ends before the cancellation comes; all that happens up to there is the same each time.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.chaos.run import chance
from trio_kprod import ClientConfig, DeliveryFailed, Producer, Undelivered
from trio_kprod.testing import MemoryBroker, open_memory_producer

POLICY_VIOLATION = 44
NOT_ENOUGH_REPLICAS = 19

pytestmark = pytest.mark.usefixtures("own_thread")


class Attempt(trio.abc.Instrument):
    """A try at something, cancelled before the so-many-th step of any task; 0 is before it begins.

    Attributes:
        scope (trio.CancelScope): what is cancelled.
        in_time (bool): it went on for so long, or longer.
    """

    def __init__(self, steps: int) -> None:
        self.scope = trio.CancelScope()
        self.in_time = False
        self._left = steps

    async def of(self, operation: Callable[[], Awaitable[object]]) -> None:
        with self.scope:
            self.begin()
            try:
                await operation()
            finally:
                self.end()

    def begin(self) -> None:
        trio.lowlevel.add_instrument(self)
        self._count()

    def end(self) -> None:
        trio.lowlevel.remove_instrument(self)

    @property
    def cancelled(self) -> bool:
        """Whether `Cancelled` left it."""
        return self.scope.cancelled_caught

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._count()

    def _count(self) -> None:
        if self._left == 0:
            self.in_time = True
            self.scope.cancel()
        self._left -= 1


def sweep(scenario: Callable[[Attempt], Awaitable[None]], *, stride: int = 1) -> None:
    """Run the scenario with ever later cancellations, until one comes too late."""
    tried = 0
    for steps in range(0, 10_000, stride):
        attempt = Attempt(steps)
        with chance(1):
            trio.run(_run, scenario, attempt, clock=MockClock(autojump_threshold=0))
        if not attempt.in_time:
            break
        tried += 1
    assert not attempt.cancelled
    assert tried > 1


async def _run(scenario: Callable[[Attempt], Awaitable[None]], attempt: Attempt) -> None:
    tasks = trio.lowlevel.current_statistics().tasks_living
    with trio.fail_after(300):
        await scenario(attempt)
    assert trio.lowlevel.current_statistics().tasks_living == tasks


def values(broker: MemoryBroker) -> list[bytes | None]:
    return [record.value for record in broker.records("a")]


@asynccontextmanager
async def crowded(**settings: Any) -> AsyncIterator[tuple[Producer, MemoryBroker]]:
    """A producer without room: one message in flight to a silent broker that resumes now, another queued."""
    broker = MemoryBroker(topics={"a": 1})
    options = {"max_queue_size": 1, "max_buffer_size": 1, "shutdown_timeout": 60, **settings}
    async with open_memory_producer(broker, **options) as producer:
        producer._room.acknowledged(producer._intake.topic("a"))
        broker.silence("Produce")
        producer.send_nowait("a", b"first")
        producer.deliver_nowait()
        await broker.requests_arrived("Produce")
        producer.send_nowait("a", b"second")
        assert producer.statistics().queued == 1
        broker.resume()
        yield producer, broker


# ---------------------------------------------------------------------------------------------------------
# Opening


@pytest.mark.parametrize("trouble", ["none", "sasl", "a lost connection"])
def test_open_leaves_nothing_behind(trouble: str) -> None:
    async def scenario(attempt: Attempt) -> None:
        broker = MemoryBroker()
        options: ClientConfig = {}
        if trouble == "sasl":
            broker = MemoryBroker(sasl_users={"ada": "secret"})
            options = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN"}
            options |= {"sasl_plain_username": "ada", "sasl_plain_password": "secret"}
        elif trouble == "a lost connection":
            broker.drop_connections("request", "Metadata")
        entered = False
        with attempt.scope:
            attempt.begin()
            try:
                async with open_memory_producer(broker, **options):
                    entered = True
                    attempt.end()
            finally:
                if not entered:
                    attempt.end()
        assert entered != attempt.cancelled
        assert broker.connections == 0

    sweep(scenario)


# ---------------------------------------------------------------------------------------------------------
# Sending


@pytest.mark.parametrize("room", [False, True])
def test_a_cancelled_send_has_queued_nothing(room: bool) -> None:
    async def scenario(attempt: Attempt) -> None:
        async with crowded(max_queue_size=10 if room else 1) as (producer, broker):
            await attempt.of(lambda: producer.send("a", b"third"))
            assert producer.statistics().tasks_waiting == 0
        rest = [] if attempt.cancelled else [b"third"]
        assert values(broker) == [b"first", b"second", *rest]
        assert producer.statistics().accepted == 2 + len(rest)

    sweep(scenario)


def test_those_behind_a_cancelled_send_get_their_turn() -> None:
    async def scenario(attempt: Attempt) -> None:
        async with crowded() as (producer, broker), trio.open_nursery() as nursery:

            async def both() -> None:
                nursery.start_soon(producer.send, "a", b"behind")
                await producer.send("a", b"third")

            await attempt.of(both)
        told = values(broker)
        assert told[:2] == [b"first", b"second"]
        assert set(told[2:]) == ({b"behind"} if attempt.cancelled else {b"third", b"behind"})
        assert len(told) == 4 - attempt.cancelled

    sweep(scenario)


@pytest.mark.parametrize("slow", [False, True])
def test_of_a_cancelled_send_many_exactly_the_last_item_pulled_was_not_accepted(slow: bool) -> None:
    async def scenario(attempt: Attempt) -> None:
        pulled: list[bytes] = []

        def items() -> Iterator[bytes]:
            for number in range(3):
                pulled.append(b"%d" % number)
                yield pulled[-1]

        async def slow_items() -> AsyncGenerator[bytes, None]:
            for item in items():
                await trio.lowlevel.checkpoint()
                yield item

        async with crowded() as (producer, broker), aclosing(slow_items()) as slow_values:
            await attempt.of(lambda: producer.send_many("a", slow_values if slow else items()))
        accepted = pulled[:-1] if attempt.cancelled else pulled
        assert values(broker) == [b"first", b"second", *accepted]

    sweep(scenario)


@pytest.mark.parametrize("room", [False, True])
def test_a_cancelled_send_and_wait_is_accepted_or_not_but_nothing_between(room: bool) -> None:
    async def scenario(attempt: Attempt) -> None:
        size = 10 if room else 1
        async with crowded(max_queue_size=size) as (producer, broker):
            await attempt.of(lambda: producer.send_and_wait("a", b"third"))
            accepted = producer.statistics().accepted == 3
        assert accepted or attempt.cancelled
        assert values(broker) == [b"first", b"second", *[b"third"] * accepted]
        assert producer.statistics().delivered == 2 + accepted

    sweep(scenario)


def test_of_a_send_and_wait_that_fails_one_is_told_cancelled_or_not() -> None:
    async def scenario(attempt: Attempt) -> None:
        told: list[Undelivered] = []
        broker = MemoryBroker(topics={"a": 1})
        broker.answer("Produce", POLICY_VIOLATION)

        async def fail() -> None:
            try:
                await producer.send_and_wait("a", b"bad")
            except DeliveryFailed as error:
                told.extend(error.undelivered)

        async with open_memory_producer(broker, on_undelivered=told.append) as producer:
            await attempt.of(fail)
        assert [one.message.value for one in told] == [b"bad"] * producer.statistics().accepted
        assert attempt.cancelled or producer.statistics().accepted

    sweep(scenario)


def test_a_cancelled_send_tracked_was_not_accepted_and_leaves_no_receipt() -> None:
    async def scenario(attempt: Attempt) -> None:
        async with crowded() as (producer, broker):
            await attempt.of(lambda: producer.send_tracked("a", b"third"))
            assert producer.statistics().accepted == 3 - attempt.cancelled
        assert not producer._tracking
        assert values(broker) == [b"first", b"second", *[b"third"] * (not attempt.cancelled)]

    sweep(scenario)


@pytest.mark.parametrize("early", [False, True])
def test_of_a_failure_whose_receipt_is_awaited_one_is_told_cancelled_or_not(early: bool) -> None:
    """Awaited before it fails, or after."""

    async def scenario(attempt: Attempt) -> None:
        told: dict[str, list[Undelivered]] = {"receipt": [], "callback": []}
        broker = MemoryBroker(topics={"a": 1})
        broker.answer("Produce", POLICY_VIOLATION)

        async def ask() -> None:
            try:
                await receipt
            except DeliveryFailed as error:
                told["receipt"] += error.undelivered

        async with open_memory_producer(broker, on_undelivered=told["callback"].append) as producer:
            receipt = producer.send_tracked_nowait("a", b"bad")
            if not early:
                producer.deliver_nowait()
                await trio.testing.wait_all_tasks_blocked()
                assert receipt.done
            await attempt.of(ask)
        assert [who for who, ones in told.items() for _ in ones] == [
            "callback" if attempt.cancelled else "receipt"
        ]
        assert receipt.done

    sweep(scenario)


# ---------------------------------------------------------------------------------------------------------
# Flushing, asking


@pytest.mark.parametrize("callback", [False, True])
def test_what_a_cancelled_flush_would_have_told_is_told_by_the_next_in_line(callback: bool) -> None:
    async def scenario(attempt: Attempt) -> None:
        broker = MemoryBroker(topics={"a": 1, "slow": 1})
        broker.answer("Produce", POLICY_VIOLATION, topic="a")
        broker.answer("Produce", NOT_ENOUGH_REPLICAS, topic="slow")
        told: dict[str, list[Undelivered]] = {"flush": [], "callback": [], "end": []}
        options: dict[str, Any] = {"on_undelivered": told["callback"].append} if callback else {}

        async def flush() -> None:
            try:
                await producer.flush()
            except DeliveryFailed as error:
                told["flush"] += error.undelivered

        try:
            async with open_memory_producer(broker, **options) as producer:
                producer.send_nowait("a", b"bad")
                producer.send_nowait("slow", b"good")  # so the flush goes on when the other has failed
                await attempt.of(flush)
        except DeliveryFailed as error:
            told["end"] += error.undelivered
        next_in_line = "callback" if callback else "end"
        assert [who for who, ones in told.items() for _ in ones] == [
            next_in_line if attempt.cancelled else "flush"
        ]

    sweep(scenario)


def test_a_flush_cancelled_although_nothing_is_to_wait_for_loses_nothing() -> None:
    async def scenario(attempt: Attempt) -> None:
        broker = MemoryBroker(topics={"a": 1})
        broker.answer("Produce", POLICY_VIOLATION)
        told: list[DeliveryFailed] = []

        async def flush() -> None:
            try:
                await producer.flush()
            except DeliveryFailed as error:
                told.append(error)

        try:
            async with open_memory_producer(broker, delivery_threshold=1) as producer:
                producer.send_nowait("a", b"bad")
                await trio.testing.wait_all_tasks_blocked()
                assert producer.statistics().undelivered
                await attempt.of(flush)
        except DeliveryFailed as error:
            told.append(error)
        assert [one.message.value for failed in told for one in failed.undelivered] == [b"bad"]

    sweep(scenario)


def test_a_cancelled_question_for_partitions_leaves_the_others() -> None:
    async def scenario(attempt: Attempt) -> None:
        broker = MemoryBroker(topics={"a": 3})
        answers: list[list[int]] = []

        async def ask() -> None:
            answers.append(await producer.partitions_for("a"))

        async with open_memory_producer(broker) as producer, trio.open_nursery() as nursery:

            async def both() -> None:
                nursery.start_soon(ask)
                await ask()

            await attempt.of(both)
        assert answers == [[0, 1, 2]] * (2 - attempt.cancelled)

    sweep(scenario)


# ---------------------------------------------------------------------------------------------------------
# Leaving


def test_leaving_delivers_and_tells_all_the_same() -> None:
    async def scenario(attempt: Attempt) -> None:
        broker = MemoryBroker(topics={"a": 1})
        broker.answer("Produce", POLICY_VIOLATION)
        told: tuple[Undelivered, ...] = ()
        with attempt.scope:
            try:
                async with open_memory_producer(broker, max_buffer_size=2) as producer:
                    producer._room.acknowledged(producer._intake.topic("a"))
                    for number in range(3):
                        producer.send_nowait("a", b"%d" % number)
                    attempt.begin()
            except DeliveryFailed as error:
                told = error.undelivered
            attempt.end()
        assert [one.message.value for one in told] == [b"0", b"1"]
        assert values(broker) == [b"2"]
        assert broker.connections == 0

    sweep(scenario)


def test_a_block_cancelled_anywhere_leaves_nothing_untold() -> None:
    async def scenario(attempt: Attempt) -> None:
        broker = MemoryBroker(topics={"a": 1})
        broker.answer("Produce", POLICY_VIOLATION, skip=1)
        producers: list[Producer] = []
        told: list[Undelivered] = []

        async def live() -> None:
            async with open_memory_producer(broker, max_queue_size=2, max_buffer_size=2) as producer:
                producers.append(producer)
                await producer.send_many("a", [b"0", b"1", b"2", b"3", b"4"])
                try:
                    await producer.send_and_wait("a", b"5")
                    await producer.send("a", b"6")
                    await producer.flush()
                except DeliveryFailed as error:
                    told.extend(error.undelivered)

        with suppress(DeliveryFailed):  # which carries what the attribute has as well
            await attempt.of(live)
        if producers:
            now = producers[0].statistics()
            failed = [one.message.value for one in (*told, *producers[0].undelivered)]
            accepted = [b"%d" % number for number in range(now.accepted)]
            assert sorted([*failed, *values(broker)], key=str) == accepted
            assert now.accepted == now.delivered + now.undelivered
        assert broker.connections == 0

    sweep(scenario, stride=5)
