"""`send` in a loop: when other tasks get their turn, and who of several senders."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from math import inf
from typing import Any

import pytest
import trio

from tests._fake_client import FakeClient, open_fake
from trio_kprod import Producer
from trio_kprod._messages import VALUE
from trio_kprod._turns import LONGEST_TURN
from trio_kprod.testing import open_memory_producer

#: What a send takes here: a turn has twenty, and one more at either end.
TICK = LONGEST_TURN / 20
TICKS = 20 + 2


class TickingClock(trio.abc.Clock):
    """Time passes only when somebody asks for it: the producer does so once a message, trio once a pass."""

    now = 0.0

    def start_clock(self) -> None: ...

    def current_time(self) -> float:
        self.now += TICK
        return self.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return deadline if deadline == inf else 0


class Steps(trio.abc.Instrument):
    """How often and how long a task has the loop, from one schedule point to the next.

    Attributes:
        taken: by each task, how many.
        longest (int): in ticks.
    """

    def __init__(self, clock: TickingClock) -> None:
        self.taken: Counter[trio.lowlevel.Task] = Counter()
        self.longest = 0
        self._clock = clock
        self._since = clock.now

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.taken[task] += 1
        self._since = self._clock.now

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.longest = max(self.longest, round((self._clock.now - self._since) / TICK))

    @property
    def mine(self) -> int:
        return self.taken[trio.lowlevel.current_task()]


@pytest.fixture
def clock() -> TickingClock:
    """pytest-trio runs a test by it that asks for it by name."""
    return TickingClock()


@pytest.fixture
async def steps(clock: TickingClock) -> AsyncIterator[Steps]:
    watching = Steps(clock)
    trio.lowlevel.add_instrument(watching)
    yield watching
    trio.lowlevel.remove_instrument(watching)


def open_roomy(client: FakeClient | None = None) -> Any:
    """A producer without anything to wait for."""
    return open_fake(client or FakeClient(automatic=True), max_queue_size=100_000, max_buffer_size=100_000)


Send = Callable[[Producer, bytes], Awaitable[object]]
SENDS: dict[str, Send] = {
    "send": lambda producer, value: producer.send("topic", value),
    "send_tracked": lambda producer, value: producer.send_tracked("topic", value),
}


@pytest.fixture(params=SENDS)
def send(request: pytest.FixtureRequest) -> Send:
    return SENDS[request.param]


@asynccontextmanager
async def beside_another_task() -> AsyncGenerator[list[None], None]:
    """The turns that the other one has had."""
    turns: list[None] = []

    async def take_turns() -> None:
        while True:
            turns.append(None)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_turns)
        yield turns
        nursery.cancel_scope.cancel()


async def test_a_loop_gives_way_every_half_millisecond(clock: TickingClock, steps: Steps, send: Send) -> None:
    """But not at each message: that would take longer than all else."""
    async with open_roomy() as producer, beside_another_task() as turns:
        for _ in range(2_000):
            await send(producer, b"1")
        assert steps.longest <= TICKS
        assert steps.mine <= 2_000 / 20 * 1.2
        assert len(turns) >= 2_000 / 20 * 0.8


async def test_cancellation_is_noticed_at_the_next_call(
    clock: TickingClock, steps: Steps, send: Send
) -> None:
    """Also where no other task would get its turn; and nothing is queued then."""
    async with open_roomy() as producer:
        await send(producer, b"1")
        before = steps.mine
        with trio.CancelScope() as scope:
            await send(producer, b"2")
            assert steps.mine == before
            scope.cancel()
            await send(producer, b"3")
        assert scope.cancelled_caught
        assert producer.statistics().accepted == 2


async def test_a_deadline_ends_a_loop(clock: TickingClock) -> None:
    """trio looks at deadlines only when tasks give way."""
    async with open_roomy() as producer:
        with trio.move_on_at(clock.now + 100 * TICK) as scope:
            for _ in range(1_000):
                await producer.send("topic", b"1")
        assert scope.cancelled_caught
        assert producer.statistics().accepted <= 100 + 20


async def test_who_sends_now_and_then_gives_way_each_time(
    clock: TickingClock, steps: Steps, send: Send
) -> None:
    """As long as there is more than half a millisecond between."""
    async with open_roomy() as producer:
        for _ in range(10):
            clock.now += 1.1 * LONGEST_TURN
            before = steps.mine
            await send(producer, b"1")
            assert steps.mine == before + 1


async def test_in_virtual_time_each_call_gives_way(autojump_clock: object, send: Send) -> None:
    """Its clock stands still while tasks run, so half a millisecond would never be over."""
    async with open_memory_producer() as producer, beside_another_task() as turns:
        for _ in range(500):
            await send(producer, b"1")
        assert len(turns) >= 500 - 1  # it may begin behind the first


@pytest.mark.parametrize("threshold", [0, 3])
async def test_a_loop_does_not_fill_a_small_queue(clock: TickingClock, threshold: int, send: Send) -> None:
    """It gives way when the queue is half full, so that nobody has to wait while the buffer has room."""
    waiting: list[int] = []
    client = FakeClient()
    client.on_submit = lambda: waiting.append(producer.statistics().tasks_waiting)
    settings: Any = {"max_queue_size": 6, "max_buffer_size": 1_000, "delivery_threshold": threshold}
    async with open_fake(client, **settings) as producer:
        for _ in range(200):
            await send(producer, b"1")
        assert len(client.held) + producer.statistics().waiting + producer.statistics().queued == 200
        assert bool(client.held) == bool(threshold)
        assert not any(waiting)
        client.automatic = True
        client.acknowledge()


async def test_who_waits_for_room_gives_way(clock: TickingClock, steps: Steps, send: Send) -> None:
    """However little time has passed."""
    client = FakeClient()
    async with open_fake(client, max_queue_size=1, max_buffer_size=1) as producer:
        producer.send_nowait("topic", b"in the buffer")
        producer.deliver_nowait()
        await trio.testing.wait_all_tasks_blocked()
        await send(producer, b"in the queue")
        client.automatic = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, producer, b"waits")
            await trio.testing.wait_all_tasks_blocked()
            assert producer.statistics().tasks_waiting == 1
            client.acknowledge()


@pytest.mark.parametrize(("tasks", "each", "together"), [(2, 200, 10), (5, 100, 4), (1_000, 5, 1)])
async def test_senders_share_their_time(
    clock: TickingClock, tasks: int, each: int, together: int, send: Send
) -> None:
    """The more of them, the less has each before the next is served. Messages stay in order."""
    called: list[bytes] = []
    client = FakeClient(automatic=True)

    async def sender(number: int) -> None:
        for _ in range(each):
            called.append(b"%d" % number)
            await send(producer, called[-1])

    async with open_roomy(client) as producer, trio.open_nursery() as nursery:
        for number in range(tasks):
            nursery.start_soon(sender, number)
    assert [message[VALUE] for entries in client.submitted for message in entries] == called
    assert unfairness(called, tasks, each) <= 2 * (together + 1)  # trio turns the order of tasks round


def unfairness(called: list[bytes], tasks: int, each: int) -> int:
    """By how many messages any task was ever ahead of another, until the first had none left."""
    counts: Counter[bytes] = Counter({b"%d" % number: 0 for number in range(tasks)})
    worst = 0
    for number, name in enumerate(called):
        counts[name] += 1
        if counts[name] == each:
            break
        if number % (1 + tasks // 10) == 0:
            worst = max(worst, max(counts.values()) - min(counts.values()))
    return worst


async def test_two_producers_in_one_task(clock: TickingClock, steps: Steps) -> None:
    """Time passes for both."""
    async with open_roomy() as one, open_roomy() as other:
        for _ in range(500):
            await one.send("topic", b"1")
            await other.send("topic", b"2")
        assert steps.longest <= TICKS


async def test_a_producer_for_each_of_two_tasks(clock: TickingClock, steps: Steps) -> None:
    """Each has its own half millisecond."""

    async def sender(producer: Producer) -> None:
        for _ in range(500):
            await producer.send("topic", b"1")

    async with open_roomy() as one, open_roomy() as other:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sender, one)
            nursery.start_soon(sender, other)
        assert steps.longest <= TICKS
