"""The whole producer, over sockets or in virtual time, and all that trio can do to its scope.

What the scope does step by step is in `test_scope`, over a client that does what the test says.
"""

# ruff: noqa: PT017, SIM117  # producers live and die in blocks that raise

from __future__ import annotations

import asyncio
import gc
import inspect
import queue
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import trio_kprod
import trio_kprod._intake
from tests import cycles
from tests.modes import OpenProducer
from trio_kprod import Producer, Undelivered
from trio_kprod.testing import Broker, MemoryBroker, open_broker, open_memory_producer

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

if TYPE_CHECKING:
    import outcome

#: Real seconds within which everything here must have ended; it takes a fraction of one.
PATIENCE = 20


@pytest.fixture
def broker() -> Iterator[Broker]:
    with open_broker() as broker:
        yield broker


def values(broker: Broker | MemoryBroker, topic: str = "t") -> list[bytes | None]:
    return [record.value for record in broker.records(topic)]


# ---------------------------------------------------------------------------------------------------------
# What the body raises


BODIES: dict[str, Callable[[], BaseException]] = {
    "ValueError": lambda: ValueError("mine"),
    "group": lambda: ExceptionGroup("mine", [ValueError(1), ExceptionGroup("inner", [KeyError(2)])]),
    "group with interrupt": lambda: BaseExceptionGroup("mine", [KeyboardInterrupt(), ValueError(1)]),
    "SystemExit": lambda: SystemExit(3),
    "GeneratorExit": GeneratorExit,
    "StopAsyncIteration": lambda: StopAsyncIteration("mine"),
    "KeyboardInterrupt": KeyboardInterrupt,
    "TooSlowError": trio.TooSlowError,
    "WouldBlock": trio.WouldBlock,
    "asyncio's cancellation": asyncio.CancelledError,
    "DeliveryFailed": lambda: trio_kprod.DeliveryFailed([]),
    "ProducerCrashed": lambda: trio_kprod.ProducerCrashed("mine"),
}


@pytest.mark.parametrize("kind", BODIES)
async def test_the_bodys_exception_leaves_as_it_was_and_all_is_delivered(
    broker: Broker, kind: str, open_producer: OpenProducer
) -> None:
    error = BODIES[kind]()
    try:
        async with open_producer(broker.bootstrap_servers) as producer:
            producer.send_nowait("t", b"x")
            raise error
    except BaseException as caught:
        assert caught is error
        assert (caught.__cause__, caught.__context__) == (None, None)
        assert not getattr(caught, "__notes__", [])
    else:
        pytest.fail("nothing was raised")
    assert values(broker) == [b"x"]
    assert cycles.running_clients() == 0


async def test_an_exception_of_the_body_and_one_of_its_clean_up(
    broker: Broker, open_producer: OpenProducer
) -> None:
    """Python's own chain is not touched."""
    with pytest.raises(KeyError) as caught:
        async with open_producer(broker.bootstrap_servers):
            try:
                raise ValueError("first")
            finally:
                raise KeyError("second")
    assert isinstance(caught.value.__context__, ValueError)


async def test_a_cancelled_body_may_raise_something_else(autojump_clock: MockClock) -> None:
    with trio.move_on_after(1) as scope, pytest.raises(ValueError, match="mine"):
        async with open_memory_producer():
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("mine")
    assert not scope.cancelled_caught


# ---------------------------------------------------------------------------------------------------------
# Cancellation. Each case opens the scope, cancels it after 3 s, and says what it expects of its own scopes.

Block = Callable[[], Awaitable[None]]


async def a_deadline_around_it(block: Block) -> None:
    with trio.move_on_after(3) as scope:
        await block()
    assert scope.cancelled_caught


async def a_timeout_around_it(block: Block) -> None:
    with pytest.raises(trio.TooSlowError):
        with trio.fail_after(3):
            await block()


async def a_nursery_around_it(block: Block) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(block)
        await trio.sleep(3)
        nursery.cancel_scope.cancel()


async def a_sibling_that_fails(block: Block) -> None:
    async def fail() -> None:
        await trio.sleep(3)
        raise KeyError("sibling")

    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(block)
            nursery.start_soon(fail)
    assert [type(error) for error in caught.value.exceptions] == [KeyError]


async def two_scopes_around_it_at_once(block: Block) -> None:
    with trio.move_on_after(3) as outer:
        with trio.move_on_after(3):
            await block()
    assert outer.cancelled_caught


async def cancelled_again_while_it_drains(block: Block) -> None:
    with trio.move_on_after(6) as outer, trio.move_on_after(4):
        async with trio.open_nursery() as nursery:

            async def cancel_again_and_again() -> None:
                with trio.CancelScope(shield=True):
                    await trio.sleep(3)
                    for _ in range(5):
                        nursery.cancel_scope.cancel()
                        await trio.sleep(1)

            nursery.start_soon(cancel_again_and_again)
            await block()
    assert outer.cancelled_caught


async def a_shield_between_it_and_the_cancelled_one(block: Block) -> None:
    """Only the inner deadline reaches it."""
    with trio.move_on_after(1) as outer:
        with trio.move_on_after(3, shield=True) as inner:
            await block()
    assert inner.cancelled_caught
    assert not outer.cancelled_caught


@pytest.mark.parametrize(
    "case",
    [
        a_deadline_around_it,
        a_timeout_around_it,
        a_nursery_around_it,
        a_sibling_that_fails,
        two_scopes_around_it_at_once,
        cancelled_again_while_it_drains,
        a_shield_between_it_and_the_cancelled_one,
    ],
    ids=lambda case: case.__name__,
)
@pytest.mark.usefixtures("own_thread")
@pytest.mark.parametrize("answers", ["late", "never"])
async def test_cancelled_from_every_side(
    autojump_clock: MockClock, case: Callable[[Block], Awaitable[None]], answers: str
) -> None:
    """The body at once, the delivery by its own deadline only, which starts but once."""
    broker = MemoryBroker()
    reached: list[float] = []
    producers: list[Producer] = []
    start = trio.current_time()

    async def block() -> None:
        async with open_memory_producer(broker, shutdown_timeout=20) as producer:
            producers.append(producer)
            for number in range(6):
                producer.send_nowait("t", b"%d" % number)
            await broker.records_arrived("t", 0)
            broker.delay("Produce", 10) if answers == "late" else broker.silence("Produce")
            try:
                await trio.sleep_forever()
            finally:
                reached.append(trio.current_time() - start)
                producer.send_nowait("t", b"last words")

    await case(block)
    (producer,) = producers
    now = producer.statistics()
    assert reached == [pytest.approx(3)]
    if answers == "late":
        assert values(broker) == [b"0", b"1", b"2", b"3", b"4", b"5", b"last words"]
        assert (now.delivered, now.undelivered) == (7, 0)
    else:
        assert (now.delivered, now.undelivered) == (0, 7)
        assert len(producer.undelivered) == 7
        assert trio.current_time() - start == pytest.approx(23)


async def test_cancelling_over_sockets(broker: Broker, open_producer: OpenProducer) -> None:
    with trio.CancelScope() as scope:
        async with open_producer(broker.bootstrap_servers) as producer:
            for number in range(6):
                producer.send_nowait("t", b"%d" % number)
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert len(values(broker)) == 6


async def test_a_deadline_inside_is_the_bodys_own_affair(autojump_clock: MockClock) -> None:
    broker = MemoryBroker()
    broker.delay("Produce", 10)
    async with open_memory_producer(broker) as producer:
        with trio.move_on_after(3) as inside:
            await producer.send_and_wait("t", b"slow")
        assert inside.cancelled_caught
        await producer.send_and_wait("t", b"next")
    assert values(broker) == [b"slow", b"next"]


@pytest.mark.usefixtures("own_thread")
async def test_timeouts_of_producers_in_each_other_add_up_to_their_sum(autojump_clock: MockClock) -> None:
    """Those side by side do not."""
    broker = MemoryBroker()
    nested = partial(_nested, broker)
    for shape, expected in ((nested, 3 + 5 + 5), (partial(_side_by_side, broker), 3 + 5)):
        start = trio.current_time()
        broker.silence("Produce")
        with trio.move_on_after(3) as outer, trio.move_on_after(4):
            await shape()
        assert outer.cancelled_caught
        assert trio.current_time() - start == pytest.approx(expected)
        broker.clear_faults()


async def _fill_and_wait(broker: MemoryBroker) -> None:
    async with open_memory_producer(broker, shutdown_timeout=5) as producer:
        producer.send_nowait("t", b"x")
        await trio.sleep_forever()


async def _nested(broker: MemoryBroker) -> None:
    async with open_memory_producer(broker, shutdown_timeout=5) as producer:
        producer.send_nowait("t", b"x")
        await _fill_and_wait(broker)


async def _side_by_side(broker: MemoryBroker) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(_fill_and_wait, broker)


# ---------------------------------------------------------------------------------------------------------
# Opening


@contextmanager
def silent_listener() -> Iterator[tuple[str, socket.socket]]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield "{}:{}".format(*listener.getsockname()), listener


async def test_opening_cancelled_while_it_connects_leaves_nothing(open_producer: OpenProducer) -> None:
    """To somebody who accepts and says nothing. The other end sees it close."""
    with silent_listener() as (address, listener), trio.fail_after(PATIENCE):
        accepted: list[socket.socket] = []

        async def cancel_when_connected() -> None:
            accepted.append((await trio.to_thread.run_sync(listener.accept))[0])
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_when_connected)
            with trio.CancelScope() as scope:
                async with open_producer(address):
                    pytest.fail("the body must not run")
        assert scope.cancelled_caught
        assert cycles.running_clients() == 0
        with accepted[0] as peer:
            while await trio.to_thread.run_sync(peer.recv, 1000):
                pass


async def test_a_silent_listener_costs_the_connect_timeout(open_producer: OpenProducer) -> None:
    with silent_listener() as (address, _), trio.fail_after(PATIENCE):
        with pytest.raises(trio_kprod.ConnectFailed, match=address):
            async with open_producer(address, connect_timeout=0.2):
                pytest.fail("the body must not run")
    assert cycles.running_clients() == 0


@pytest.fixture
def stuck_look_ups(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Looking up ``slow.invalid`` takes until the test is over; gives an event that says it has begun."""
    real = socket.getaddrinfo
    begun, over = threading.Event(), threading.Event()

    def look_up(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        flags = kwargs.get("flags", args[3] if len(args) > 3 else 0)
        if host in (b"slow.invalid", "slow.invalid") and not flags & socket.AI_NUMERICHOST:
            begun.set()
            over.wait()
        return real(host, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield begun
    over.set()


async def test_a_name_that_is_looked_up_for_ever_delays_no_other_broker(
    broker: Broker, stuck_look_ups: threading.Event, open_producer: OpenProducer
) -> None:
    with trio.fail_after(PATIENCE):
        async with open_producer(["slow.invalid:9092", broker.bootstrap_servers]) as producer:
            await producer.send_and_wait("t", b"x")
    assert stuck_look_ups.is_set()
    assert values(broker) == [b"x"]


async def test_a_name_that_is_looked_up_for_ever_does_not_delay_a_cancelled_opening(
    stuck_look_ups: threading.Event, open_producer: OpenProducer
) -> None:
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:

            async def cancel_when_stuck() -> None:
                await trio.to_thread.run_sync(stuck_look_ups.wait)
                scope.cancel()

            nursery.start_soon(cancel_when_stuck)
            with trio.CancelScope() as scope:
                async with open_producer("slow.invalid:9092"):
                    pytest.fail("the body must not run")
    assert scope.cancelled_caught
    assert cycles.running_clients() == 0


async def test_a_name_that_is_looked_up_for_ever_does_not_delay_the_end(
    broker: Broker, stuck_look_ups: threading.Event, own_thread: bool, open_producer: OpenProducer
) -> None:
    """In the loop, the thread for it is one of those that trio allows the program."""
    limiter = trio.to_thread.current_default_thread_limiter()
    servers = broker.bootstrap_servers
    broker.advertise("slow.invalid", 9092)
    with trio.fail_after(PATIENCE), pytest.raises(trio_kprod.DeliveryFailed) as caught:
        async with open_producer(servers, shutdown_timeout=0.1) as producer:
            producer.send_nowait("t", b"x")
            producer.deliver_nowait()
            await trio.to_thread.run_sync(stuck_look_ups.wait)
            assert (limiter.borrowed_tokens > 0) is not own_thread
    assert [one.maybe_written for one in caught.value.undelivered] == [False]
    assert cycles.running_clients() == 0


# ---------------------------------------------------------------------------------------------------------
# Crashes


def break_client(producer: Producer) -> None:
    """Have the next step of its client raise, in the client's loop."""

    def broken() -> NoReturn:
        raise ZeroDivisionError("a bug in the client")

    client = producer._delivery._client
    client._steps._decide = broken
    client._wake()


async def test_a_client_that_dies_crashes_its_own_scope_only(
    broker: Broker, open_producer: OpenProducer
) -> None:
    async with open_producer(broker.bootstrap_servers) as healthy:
        with trio.fail_after(PATIENCE), pytest.raises(trio_kprod.ProducerCrashed) as caught:
            async with open_producer(broker.bootstrap_servers) as producer:
                producer.send_nowait("t", b"lost")
                break_client(producer)
                await trio.sleep_forever()
        healthy.send_nowait("t", b"delivered")
    assert "a bug in the client" in repr(caught.value.__cause__)
    assert [(one.message.value, one.maybe_written) for one in producer.undelivered] == [(b"lost", False)]
    assert values(broker) == [b"delivered"]
    assert cycles.running_clients() == 0


@pytest.mark.usefixtures("own_thread")
async def test_of_many_producers_in_one_nursery_one_crashes(autojump_clock: MockClock) -> None:
    broker = MemoryBroker()
    outcomes: dict[int, str] = {}

    async def produce(number: int) -> None:
        try:
            async with open_memory_producer(broker) as producer:
                for _ in range(10):
                    await producer.send("t", b"%d" % number)
                    await trio.sleep(1)
                if number == 2:
                    break_client(producer)
                    await trio.sleep_forever()
        except trio_kprod.ProducerCrashed:
            outcomes[number] = "crashed"
        else:
            outcomes[number] = "delivered"

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(produce, number)
    assert outcomes == {0: "delivered", 1: "delivered", 2: "crashed", 3: "delivered", 4: "delivered"}
    written = Counter(values(broker))
    assert written == Counter({b"%d" % number: 10 for number in (0, 1, 3, 4)})


@pytest.mark.usefixtures("own_thread")
async def test_a_timer_that_fails_is_a_crash(autojump_clock: MockClock) -> None:
    with pytest.raises(trio_kprod.ProducerCrashed) as caught:
        async with open_memory_producer(delivery_interval=1) as producer:
            producer.send_nowait("t", b"x")
            producer._delivery.demand._deadline = "a bug"  # type: ignore[assignment]
            producer._delivery.demand._armed.set()
            await trio.sleep_forever()
    assert isinstance(caught.value.__cause__, TypeError)
    assert len(producer.undelivered) == 1


@pytest.mark.usefixtures("own_thread")
async def test_a_bug_in_the_drain_is_a_crash_too_and_ends_the_scope(autojump_clock: MockClock) -> None:
    def broken() -> NoReturn:
        raise ZeroDivisionError("a bug in the drain")

    with pytest.raises(trio_kprod.ProducerCrashed, match="a bug in the drain"):
        async with open_memory_producer() as producer:
            producer.send_nowait("t", b"x")
            producer._delivery.close = broken  # type: ignore[method-assign]
    assert len(producer.undelivered) == 1


# ---------------------------------------------------------------------------------------------------------
# The end


@pytest.mark.parametrize("count", [0, 1, 10])
@pytest.mark.usefixtures("own_thread")
@pytest.mark.parametrize("fault", ["down", "silent", "silent about metadata"])
async def test_leaving_a_dead_broker_takes_the_shutdown_timeout(
    autojump_clock: MockClock, count: int, fault: str
) -> None:
    """With nothing to deliver, one message, or all that a stalled topic may hold; and each is reported."""
    broker = MemoryBroker()
    before = trio.current_time()
    errors: list[trio_kprod.DeliveryFailed] = []
    try:
        async with open_memory_producer(
            broker, shutdown_timeout=5, max_queue_size=5, max_buffer_size=40
        ) as producer:
            producer._room.acknowledged(producer._intake.topic("t"))  # as if it had been used before
            break_broker(broker, fault)
            with trio.move_on_after(1):
                for _ in range(count):
                    await producer.send("t", b"x")
                await trio.sleep_forever()
    except trio_kprod.DeliveryFailed as error:
        errors.append(error)
    assert trio.current_time() - before == pytest.approx(1 + 5 * bool(count))
    assert sum(len(error.undelivered) for error in errors) == count
    assert producer.statistics().undelivered == count
    maybe = sum(one.maybe_written for one in producer.undelivered)
    assert maybe == (count if fault == "silent" else 0)


def break_broker(broker: MemoryBroker, fault: str) -> None:
    if fault == "down":
        broker.stop_listening()
        broker.disconnect_all()
    else:
        broker.silence("Produce" if fault == "silent" else "Metadata")


@pytest.mark.parametrize("count", [0, 1, 2000])
async def test_leaving_a_dead_broker_over_sockets(
    broker: Broker, count: int, open_producer: OpenProducer
) -> None:
    told = 0
    with trio.fail_after(PATIENCE):
        try:
            async with open_producer(broker.bootstrap_servers, shutdown_timeout=0.1) as producer:
                broker.stop_listening()
                broker.disconnect_all()
                await producer.send_many("t", [b"x"] * count)
        except trio_kprod.DeliveryFailed as error:
            told = len(error.undelivered)
    assert told == count - len(values(broker))
    assert cycles.running_clients() == 0


async def test_an_abandoned_worker_is_cut_off_while_it_is_still_stuck(broker: Broker) -> None:
    """Its connections are gone then, and when it comes back, nothing is done any more, by anybody."""
    calls = 0
    entered, over = threading.Event(), threading.Event()

    def stuck(key: bytes | None, partitions: Sequence[int], available: Sequence[int]) -> int:
        nonlocal calls
        calls += 1
        entered.set()
        over.wait()
        return 0

    with trio.fail_after(PATIENCE):
        try:
            with pytest.raises(trio_kprod.DeliveryFailed) as caught:
                async with trio_kprod.open_producer(
                    broker.bootstrap_servers, shutdown_timeout=0.1, partitioner=stuck
                ) as producer:
                    for number in range(3):
                        producer.send_nowait("t", b"x", key=b"%d" % number)
                    producer.deliver_nowait()
                    await trio.to_thread.run_sync(entered.wait)
            while broker.connections:
                await trio.lowlevel.checkpoint()
            assert cycles.running_clients() == 1
        finally:
            over.set()
        while cycles.running_clients():
            await trio.lowlevel.checkpoint()
    assert [one.maybe_written for one in caught.value.undelivered] == [False] * 3
    assert calls == 1
    assert values(broker) == []


async def test_leaving_after_abort_is_prompt(broker: Broker, open_producer: OpenProducer) -> None:
    """However long `shutdown_timeout` is, and whatever the broker does."""
    broker.silence("Produce")
    with trio.fail_after(PATIENCE), pytest.raises(trio_kprod.DeliveryFailed) as caught:
        async with open_producer(broker.bootstrap_servers, shutdown_timeout=1000) as producer:
            producer.send_nowait("t", b"x")
            producer.deliver_nowait()
            await broker.requests_arrived("Produce")
            producer.abort()
            producer.abort()
    producer.abort()
    assert [one.maybe_written for one in caught.value.undelivered] == [True]


async def test_a_slow_on_undelivered_delays_no_delivery(broker: Broker) -> None:
    """It holds up the loop that it runs in, until the message behind the one that failed is in the log."""
    seen: list[bytes | None] = []

    def slow(undelivered: Undelivered) -> None:
        broker.wait_records("t", 1)
        seen.append(undelivered.message.value)

    def partitioner(key: bytes | None, partitions: Sequence[int], available: Sequence[int]) -> int:
        if key == b"bad":
            raise ValueError("no")
        return 0

    async with trio_kprod.open_producer(
        broker.bootstrap_servers, on_undelivered=slow, partitioner=partitioner
    ) as producer:
        producer.send_nowait("t", b"1", key=b"bad")
        producer.send_nowait("t", b"2", key=b"good")
    assert seen == [b"1"]
    assert values(broker) == [b"2"]


@pytest.mark.usefixtures("own_thread")
async def test_on_undelivered_that_sends_again_at_the_end_is_refused_and_the_message_told(
    autojump_clock: MockClock,
) -> None:
    """It could go on for ever otherwise."""
    broker = MemoryBroker()
    producer: Producer

    def again(undelivered: Undelivered) -> None:
        producer.send_nowait("t", undelivered.message.value)

    with pytest.raises(trio_kprod.DeliveryFailed) as caught:
        async with open_memory_producer(broker, on_undelivered=again, shutdown_timeout=5) as producer:
            broker.silence("Produce")
            producer.send_nowait("t", b"x")
    assert [one.message.value for one in caught.value.undelivered] == [b"x"]
    assert producer.statistics().accepted == 1


# ---------------------------------------------------------------------------------------------------------
# Clocks and timers


async def test_a_mock_clock_that_jumps_ends_no_delivery(broker: Broker, autojump_clock: MockClock) -> None:
    """To it, a loop that waits for a thread is idle. The drain has its own, real, seconds."""
    broker.delay("Produce", 0.2)
    async with trio_kprod.open_producer(broker.bootstrap_servers) as producer:
        producer.send_nowait("t", b"x")
    assert values(broker) == [b"x"]


async def test_a_mock_clock_that_stands_still_does_not_keep_the_scope_open(
    broker: Broker, mock_clock: MockClock
) -> None:
    broker.silence("Produce")
    with pytest.raises(trio_kprod.DeliveryFailed):
        async with trio_kprod.open_producer(broker.bootstrap_servers, shutdown_timeout=0.1) as producer:
            producer.send_nowait("t", b"x")


async def test_ages_are_not_mixed_up_with_the_clock_of_the_loop(
    broker: Broker, mock_clock: MockClock, open_producer: OpenProducer
) -> None:
    """Neither is a `delivery_timeout`: it would pass at once if it began by one and ended by the other."""
    mock_clock.jump(1e9)
    async with open_producer(broker.bootstrap_servers, delivery_timeout=1000) as producer:
        producer.send_nowait("t", b"x")
        age = producer.statistics().oldest_age
        assert age is not None
        assert age < PATIENCE
    assert values(broker) == [b"x"]


@pytest.mark.usefixtures("own_thread")
@pytest.mark.parametrize("jump", [-3600, 3600])
async def test_a_wall_clock_that_jumps_moves_no_timer(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, jump: int
) -> None:
    broker = MemoryBroker()
    seconds, nanoseconds = time.time, time.time_ns
    async with open_memory_producer(broker, delivery_interval=10, delivery_timeout=30) as producer:
        producer.send_nowait("t", b"before")
        await trio.sleep(5)
        monkeypatch.setattr(time, "time", lambda: seconds() + jump)
        monkeypatch.setattr(time, "time_ns", lambda: nanoseconds() + jump * 10**9)
        monkeypatch.setattr(trio_kprod._intake, "time_ns", time.time_ns)
        producer.send_nowait("t", b"after")
        await trio.sleep(4.9)
        assert broker.records("t") == []
        await trio.sleep(0.2)
        assert values(broker) == [b"before", b"after"]
    before, after = (record.timestamp_ms for record in broker.records("t"))
    assert abs(after - before - jump * 1000) < PATIENCE * 1000


@pytest.mark.parametrize("interval", [-1, float("nan"), "1", None, True])
def test_an_interval_that_is_none_is_refused_at_the_call(interval: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="delivery_interval must be"):
        trio_kprod.open_producer(delivery_interval=interval)


async def test_an_interval_of_zero_is_off_and_does_not_spin(autojump_clock: MockClock) -> None:
    broker = MemoryBroker()
    async with open_memory_producer(broker, delivery_interval=0) as producer:
        producer.send_nowait("t", b"x")
        await trio.sleep(3600)  # a task that spins would not let the clock jump
        assert broker.records("t") == []
    assert values(broker) == [b"x"]


# ---------------------------------------------------------------------------------------------------------
# Other loops, other threads


class HostLoop:
    """A loop that knows nothing of trio: it calls whatever stands in its queue."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._outcome: outcome.Outcome[None] | None = None

    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        trio.lowlevel.start_guest_run(main, run_sync_soon_threadsafe=self.calls.put, done_callback=self._done)
        while self._outcome is None:
            self.calls.get(timeout=PATIENCE)()
        self._outcome.unwrap()

    def _done(self, result: outcome.Outcome[None]) -> None:
        self._outcome = result


def test_guest_mode(broker: Broker, open_producer: OpenProducer) -> None:
    """Also a message from one of the host's own callbacks, outside of any task."""
    host = HostLoop()

    async def main() -> None:
        async with open_producer(broker.bootstrap_servers) as producer:
            await producer.send_and_wait("t", b"from a task")
            sent = trio.Event()

            def call() -> None:
                producer.send_nowait("t", b"from the host")
                producer.deliver_nowait()
                sent.set()

            host.calls.put(call)
            await sent.wait()
            await broker.records_arrived("t", 2)
            producer.send_nowait("t", b"at the end")

    host.run(main)
    assert values(broker) == [b"from a task", b"from the host", b"at the end"]


async def test_another_thread_sends_by_the_way_it_is_told(
    broker: Broker, open_producer: OpenProducer
) -> None:
    token = trio.lowlevel.current_trio_token()

    def work(producer: Producer) -> None:
        trio.from_thread.run_sync(producer.send_nowait, "t", b"1", trio_token=token)
        trio.from_thread.run(producer.send, "t", b"2", trio_token=token)

    async with open_producer(broker.bootstrap_servers) as producer:
        await trio.to_thread.run_sync(work, producer)
    assert values(broker) == [b"1", b"2"]


def test_a_producer_in_an_async_generator_that_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    """Trio does not allow that; at least it says so, and what was accepted is delivered."""
    broker = MemoryBroker()

    async def generator() -> AsyncIterator[Producer]:
        async with open_memory_producer(broker) as producer:
            producer.send_nowait("t", b"x")
            yield producer

    async def main() -> None:
        async for producer in generator():  # noqa: B007
            break
        gc.collect()
        while "closed" not in repr(producer):
            await trio.lowlevel.checkpoint()

    def run() -> None:
        try:
            trio.run(main)
        except RuntimeError as error:  # it depends on what the run did next
            assert "yielding within a generator or async generator" in str(error)

    with pytest.warns(ResourceWarning, match="garbage collected before it had been exhausted"):
        run()
    assert "yielding within a generator or async generator" in caplog.text
    assert values(broker) == [b"x"]


# ---------------------------------------------------------------------------------------------------------
# Misuse of every public name


#: How to use each.
USES: dict[str, Callable[[Producer], Any]] = {
    "send_nowait": lambda producer: producer.send_nowait("t", b"x"),
    "send": lambda producer: producer.send("t", b"x"),
    "send_many": lambda producer: producer.send_many("t", [b"x"]),
    "send_tracked_nowait": lambda producer: producer.send_tracked_nowait("t", b"x"),
    "send_tracked": lambda producer: producer.send_tracked("t", b"x"),
    "send_and_wait": lambda producer: producer.send_and_wait("t", b"x"),
    "deliver_nowait": lambda producer: producer.deliver_nowait(),
    "flush": lambda producer: producer.flush(),
    "abort": lambda producer: producer.abort(),
    "partitions_for": lambda producer: producer.partitions_for("t"),
    "statistics": lambda producer: producer.statistics(),
    "undelivered": lambda producer: producer.undelivered,
}

#: What may be asked at any time and in any place.
ALWAYS = {"statistics", "undelivered"}

every_name = pytest.mark.parametrize("name", USES)


async def use(name: str, producer: Producer) -> None:
    result = USES[name](producer)
    if inspect.isawaitable(result):
        await result


def test_every_public_name_is_misused_here() -> None:
    assert set(USES) == {name for name in dir(Producer) if not name.startswith("_")}


def test_what_opens_a_producer_has_no_public_names_of_its_own() -> None:
    assert [name for name in dir(trio_kprod.open_producer()) if not name.startswith("_")] == []


@every_name
async def test_used_before_it_is_entered(name: str) -> None:
    opening: Any = open_memory_producer()
    with pytest.raises(RuntimeError, match=f"async with open_producer.* producer: producer.{name}$"):
        await use(name, opening)


@every_name
async def test_used_on_what_opened_it(name: str, autojump_clock: MockClock) -> None:
    opening: Any = open_memory_producer()
    async with opening:
        with pytest.raises(RuntimeError, match="as producer"):
            await use(name, opening)


@every_name
async def test_used_after_it_was_left(name: str, autojump_clock: MockClock) -> None:
    async with open_memory_producer() as producer:
        pass
    if name in ALWAYS | {"abort"}:
        await use(name, producer)
    else:
        with pytest.raises(trio_kprod.ProducerClosed, match="was left"):
            await use(name, producer)
    assert producer.statistics().accepted == 0


@every_name
async def test_used_after_abort(name: str, autojump_clock: MockClock) -> None:
    async with open_memory_producer() as producer:
        producer.abort()
        if name in ALWAYS | {"abort", "flush"}:
            await use(name, producer)
        else:
            with pytest.raises(trio_kprod.ProducerClosed, match=r"abort\(\) was called"):
                await use(name, producer)
    assert producer.statistics().accepted == 0


@pytest.mark.usefixtures("own_thread")
@every_name
async def test_used_after_a_crash(name: str, autojump_clock: MockClock) -> None:
    with pytest.raises(trio_kprod.ProducerCrashed):
        async with open_memory_producer() as producer:
            break_client(producer)
            with trio.CancelScope(shield=True):
                while producer._delivery.ending.crash is None:
                    await trio.lowlevel.checkpoint()
                if name in ALWAYS | {"abort"}:
                    await use(name, producer)
                else:
                    with pytest.raises(trio_kprod.ProducerCrashed, match="a bug in the client"):
                        await use(name, producer)
    assert producer.statistics().accepted == 0


@pytest.mark.usefixtures("own_thread")
@every_name
async def test_used_twice(name: str, autojump_clock: MockClock) -> None:
    """Nothing may be called once only, but for sending after `abort`."""
    async with open_memory_producer() as producer:
        for _ in range(2):
            await use(name, producer)
    now = producer.statistics()
    assert now.accepted == now.delivered == (2 if name.startswith("send") else 0)


@every_name
async def test_used_in_a_run_of_another_thread(name: str, autojump_clock: MockClock) -> None:
    async with open_memory_producer() as producer:
        with in_place(name):
            await trio.to_thread.run_sync(trio.run, use, name, producer)
        assert producer.statistics().accepted == 0
        await producer.send_and_wait("t", b"x")


@pytest.mark.parametrize(
    "name", [name for name in USES if not inspect.iscoroutinefunction(vars(Producer)[name])]
)
async def test_used_in_another_thread(name: str, autojump_clock: MockClock) -> None:
    async with open_memory_producer() as producer:
        with in_place(name):
            await trio.to_thread.run_sync(USES[name], producer)
        assert producer.statistics().accepted == 0
        await producer.send_and_wait("t", b"x")


@contextmanager
def in_place(name: str) -> Iterator[None]:
    """An error that says how to do it, unless the name may be used everywhere."""
    if name in ALWAYS:
        yield
    else:
        with pytest.raises(RuntimeError, match=r"trio\.from_thread\.run_sync"):
            yield


async def test_entered_twice_at_any_time(autojump_clock: MockClock) -> None:
    broker = MemoryBroker()
    broker.delay("ApiVersions", 5)
    opening = open_memory_producer(broker)

    async def enter() -> None:
        with pytest.raises(RuntimeError, match="can be opened once"):
            await opening.__aenter__()

    async with trio.open_nursery() as nursery:

        async def enter_meanwhile() -> None:
            await trio.sleep(1)
            await enter()

        nursery.start_soon(enter_meanwhile)
        async with opening as producer:
            await enter()
            await producer.send_and_wait("t", b"x")
    await enter()
    assert values(broker) == [b"x"]


async def test_entered_again_after_it_failed_to_open(autojump_clock: MockClock) -> None:
    broker = MemoryBroker()
    broker.stop_listening()
    opening = open_memory_producer(broker, connect_timeout=1)
    with pytest.raises(trio_kprod.ConnectFailed):
        await opening.__aenter__()
    with pytest.raises(RuntimeError, match="can be opened once"):
        await opening.__aenter__()
    with pytest.raises(RuntimeError, match="left already"):
        await opening.__aexit__(None, None, None)


async def test_never_entered_holds_nothing() -> None:
    """No descriptor, no thread, no warning when it goes away."""
    before = cycles.descriptors()
    opening: Any = trio_kprod.open_producer("localhost:9092")
    assert cycles.descriptors() == before
    del opening
    gc.collect()


# ---------------------------------------------------------------------------------------------------------
# Again and again


async def test_two_hundred_producers_leave_nothing_behind(own_thread: bool) -> None:
    """Of twenty the broker died after they had opened."""
    with open_broker() as broker, trio.fail_after(5 * PATIENCE):
        await cycles.cycle(broker, 5, own_thread=own_thread)
        before = cycles.left()
        await cycles.cycle(broker, 180, own_thread=own_thread)
        await cycles.cycle(broker, 20, own_thread=own_thread, dead=True)
        assert cycles.left() == before
    assert len(values(broker)) == 185
