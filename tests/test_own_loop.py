"""The client as a task of the user's loop: what is different there from a thread of its own."""

from __future__ import annotations

import signal
import socket
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import trio_kprod
from tests import cycles
from tests.modes import OpenProducer
from trio_kprod import Instrument, Undelivered
from trio_kprod.testing import Broker, MemoryBroker, open_broker, open_memory_producer

INVALID_RECORD = 87


@pytest.fixture
def broker() -> Iterator[Broker]:
    with open_broker() as broker:
        yield broker


async def test_it_needs_no_thread(broker: Broker) -> None:
    """Of the client, that is; trio looks names up in a thread, which ends by itself."""
    async with trio_kprod.open_producer(broker.bootstrap_servers, own_thread=False) as producer:
        record = await producer.send_and_wait("t", b"x")
        assert cycles.running_clients() == 0
    assert [one.offset for one in broker.records("t")] == [record.offset]


async def test_a_message_alone_needs_no_turn_of_the_delivery_task(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves in the call that asks for it; its outcome is told where the response is read."""
    async with open_memory_producer() as producer:
        await producer.send_and_wait("t", b"0")
        await trio.testing.wait_all_tasks_blocked()
        wakes: list[str] = []
        monkeypatch.setattr(producer._delivery, "wake", lambda: wakes.append("wake"))
        await producer.send_and_wait("t", b"1")
        assert wakes == []
        monkeypatch.undo()


async def test_a_cancelled_scope_around_it_does_not_reach_the_delivery(broker: Broker) -> None:
    with trio.CancelScope() as scope:
        async with trio_kprod.open_producer(broker.bootstrap_servers, own_thread=False) as producer:
            producer.send_nowait("t", b"x")
            scope.cancel()
    assert scope.cancelled_caught is False
    assert [one.value for one in broker.records("t")] == [b"x"]


async def test_on_undelivered_may_send_where_the_outcome_is_told(autojump_clock: MockClock) -> None:
    """It runs in the client's task then, in the middle of a turn."""
    broker = MemoryBroker()
    told: list[bytes | None] = []

    def send_again(undelivered: Undelivered) -> None:
        told.append(undelivered.message.value)
        producer.send_nowait("good", undelivered.message.value)
        producer.deliver_nowait()

    async with open_memory_producer(broker, on_undelivered=send_again) as producer:
        await producer.send_and_wait("good", b"first")
        await producer.send_and_wait("bad", b"first")
        broker.answer("Produce", INVALID_RECORD, topic="bad")
        producer.send_nowait("bad", b"x")
        producer.deliver_nowait()
        await trio.testing.wait_all_tasks_blocked()
    assert told == [b"x"]
    assert [one.value for one in broker.records("good")] == [b"first", b"x"]


async def test_a_partitioner_may_use_its_producer(autojump_clock: MockClock) -> None:
    """A step of the client calls it. What it asks for is done after that step."""

    def partitioner(key: bytes | None, every: Sequence[int], available: Sequence[int]) -> int:
        if key != b"from within":
            producer.send_nowait("t", b"2", key=b"from within")
            producer.deliver_nowait()
        return 0

    broker = MemoryBroker()
    async with open_memory_producer(broker, partitioner=partitioner) as producer:
        await producer.send_and_wait("t", b"1")
    assert [one.value for one in broker.records("t")] == [b"1", b"2"]


async def test_a_partitioner_may_abort_its_producer(autojump_clock: MockClock) -> None:
    def partitioner(key: bytes | None, every: Sequence[int], available: Sequence[int]) -> int:
        producer.abort()
        return 0

    broker = MemoryBroker()
    with pytest.raises(trio_kprod.DeliveryFailed) as caught:
        async with open_memory_producer(broker, partitioner=partitioner) as producer:
            producer.send_nowait("t", b"x")
    assert [one.maybe_written for one in caught.value.undelivered] == [False]
    assert broker.records("t") == []


async def test_a_bug_in_a_turn_is_a_crash_wherever_the_turn_is_made(autojump_clock: MockClock) -> None:
    """`deliver_nowait` itself does not raise it."""

    def broken() -> None:
        raise ZeroDivisionError("a bug")

    with pytest.raises(trio_kprod.ProducerCrashed) as caught:
        async with open_memory_producer() as producer:
            await producer.send_and_wait("t", b"0")
            producer._delivery.read_reports = broken  # type: ignore[method-assign]
            producer.send_nowait("t", b"1")
            producer.deliver_nowait()
            await trio.sleep_forever()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_who_runs_where(
    broker: Broker, own_thread: bool, open_producer: OpenProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partitioner in the client's loop, what tells and encodes in the user's, look-ups in neither."""
    ran: defaultdict[str, set[int]] = defaultdict(set)

    def note(what: str) -> None:
        ran[what].add(threading.get_ident())

    class Noting(Instrument):
        def connected(self, *, broker: str) -> None:
            note("instrument")

    def partitioner(key: bytes | None, every: Sequence[int], available: Sequence[int]) -> int:
        note("partitioner")
        if key == b"bad":
            raise ValueError(key)
        return 0

    def serializer(value: bytes) -> bytes:
        note("serializer")
        return value

    def look_up(host: Any, port: Any, family: int, kind: int, proto: int, flags: int) -> Any:
        if not flags & socket.AI_NUMERICHOST:  # that needs no server, so trio does it at once
            note("look-up")
        return getaddrinfo(host, port, family, kind, proto, flags)

    getaddrinfo = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    async with open_producer(
        broker.bootstrap_servers.replace("127.0.0.1", "localhost"),
        partitioner=partitioner,
        value_serializer=serializer,
        instruments=[Noting()],
        on_undelivered=lambda _: note("on_undelivered"),
    ) as producer:
        producer.send_nowait("t", b"x", key=b"bad")
        await producer.send_and_wait("t", b"x", key=b"good")
    user = {threading.get_ident()}
    assert ran["instrument"] == ran["on_undelivered"] == ran["serializer"] == user
    assert (ran["partitioner"] == user) is not own_thread
    assert ran["look-up"]
    assert ran["look-up"].isdisjoint(user | ran["partitioner"])


async def test_hooks_run_in_the_call_that_asks_for_delivery(
    autojump_clock: MockClock, own_thread: bool
) -> None:
    """With a thread, always in the delivery task."""
    told: list[trio.lowlevel.Task] = []

    class Noting(Instrument):
        def produce_messages(self, **_: object) -> None:
            told.append(trio.lowlevel.current_task())

    async with open_memory_producer(instruments=[Noting()]) as producer:
        await producer.send_and_wait("t", b"0")
        await trio.testing.wait_all_tasks_blocked()
        told.clear()
        producer.send_nowait("t", b"1")
        producer.deliver_nowait()
        await producer.flush()
    assert len(told) == 1
    assert (told[0] is trio.lowlevel.current_task()) is not own_thread


async def test_a_task_that_holds_the_loop_delays_responses(broker: Broker) -> None:
    """The message is in the log, but there is nobody to read the response."""
    async with trio_kprod.open_producer(broker.bootstrap_servers, own_thread=False) as producer:
        await producer.send_and_wait("t", b"0")
        await trio.testing.wait_all_tasks_blocked()
        producer.send_nowait("t", b"1")
        producer.deliver_nowait()
        broker.wait_records("t", 2)
        assert producer.statistics().delivered == 1
        await producer.flush()
        assert producer.statistics().delivered == 2


async def test_a_task_that_holds_the_loop_delays_timeouts(mock_clock: MockClock) -> None:
    broker = MemoryBroker()
    async with open_memory_producer(broker, delivery_timeout=10, on_undelivered=lambda _: None) as producer:
        await producer.send_and_wait("t", b"0")
        broker.silence("Produce")
        producer.send_nowait("t", b"1")
        producer.deliver_nowait()
        mock_clock.jump(1000)  # as if it had computed for so long
        assert producer.statistics().undelivered == 0
        await trio.testing.wait_all_tasks_blocked()
        assert producer.statistics().undelivered == 1


async def test_a_task_that_holds_the_loop_puts_off_the_end(mock_clock: MockClock) -> None:
    broker = MemoryBroker()
    broker.silence("Produce")

    async def hold() -> None:
        await broker.requests_arrived("Produce")  # nothing has asked for delivery before
        mock_clock.jump(1000)

    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold)
        with pytest.raises(trio_kprod.DeliveryFailed):
            async with open_memory_producer(broker, shutdown_timeout=5) as producer:
                producer.send_nowait("t", b"x")
    assert trio.current_time() == begun + 1000


async def test_a_mock_clock_rules_its_timeouts(autojump_clock: MockClock) -> None:
    """Those of the thread go by real time."""
    broker = MemoryBroker()
    async with open_memory_producer(broker, delivery_timeout=3600) as producer:
        await producer.send_and_wait("t", b"0")
        broker.stop_listening()
        broker.disconnect_all()
        begun = trio.current_time()
        with pytest.raises(trio_kprod.DeliveryFailed):
            await producer.send_and_wait("t", b"1")
        assert trio.current_time() - begun == pytest.approx(3600, abs=1)


async def test_the_memory_producer_has_no_thread() -> None:
    with pytest.raises(ValueError, match="own_thread"):
        open_memory_producer(own_thread=True)
    threads = threading.active_count()
    async with open_memory_producer(own_thread=False) as producer:
        await producer.send_and_wait("t", b"x")
    assert threading.active_count() == threads


def test_ctrl_c_in_a_task_of_trios_reaches_the_main_task(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a connection is opened; a task of ours is protected from it."""
    original = trio.open_tcp_stream
    calls = 0

    async def interrupted(host: str, port: int) -> trio.SocketStream:
        nonlocal calls
        calls += 1
        if calls == 2:  # the first is that of the opening
            async with trio.open_nursery() as nursery:
                nursery.start_soon(press)
        return await original(host, port)

    async def press() -> None:
        signal.raise_signal(signal.SIGINT)

    async def main() -> None:
        async with trio_kprod.open_producer(broker.bootstrap_servers, own_thread=False) as producer:
            producer.send_nowait("t", b"x")
            await producer.flush()
            await trio.sleep_forever()

    monkeypatch.setattr(trio, "open_tcp_stream", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert [one.value for one in broker.records("t")] == [b"x"]


def test_ctrl_c_waits_for_a_partitioner(broker: Broker) -> None:
    """The client, which calls it, is protected. So Ctrl-C does not end one that never returns."""
    returned: list[bool] = []

    def partitioner(key: bytes | None, every: Sequence[int], available: Sequence[int]) -> int:
        signal.raise_signal(signal.SIGINT)
        returned.append(True)
        return 0

    async def main() -> None:
        options: Any = {"own_thread": False, "partitioner": partitioner}
        async with trio_kprod.open_producer(broker.bootstrap_servers, **options) as producer:
            await producer.send_and_wait("t", b"x")
            await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert returned == [True]
    assert [one.value for one in broker.records("t")] == [b"x"]
