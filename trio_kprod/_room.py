"""The bounded memory channel between senders and the delivery task: who may come in, and who waits.

Two bounds hold: the count of messages that are *queued* (`max_queue_size`), and the bytes of all that are
*unsettled* (`max_buffer_bytes`: queued, waiting and in flight). Bytes are taken when a message is accepted
and given back when it is settled.

Whoever awaits room stands in one line, first come, first served; nobody overtakes it, also not by
`send_nowait`. So the count, the bytes and the quota below are one rule, and a message is either in the queue
or not: those in the line are admitted here, on behalf of the sender, which then cannot be cancelled any more.
That is why it is not trio's memory channel, in which a sleeping sender's or receiver's item is neither; and
to put a message into that and to take it out again would cost half as much as all else that is done here.

Topics that are *stalled* together hold at most half of the buffer. Beyond that, their senders leave the
line for their own topic's, so that they hold up no other; when there is room for them they return to the
front, in the order in which they came.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

import trio

from ._errors import BufferOverflow
from ._messages import ACCEPTED_AT, RUN, SIZE
from ._waiting import Wait

if TYPE_CHECKING:
    from ._ledger import Ledger
    from ._messages import Entry
    from ._settings import Settings


class TopicAccount:
    """What the producer knows of one topic: how much of it is unsettled, and whether it is stalled."""

    __slots__ = (
        "askers",
        "name",
        "parked",
        "partitions",
        "stalled",
        "unsettled",
        "unsettled_bytes",
        "waiters",
    )

    def __init__(self, name: str) -> None:
        self.name: str = name
        self.unsettled: int = 0
        self.unsettled_bytes: int = 0
        self.stalled: bool = False
        self.waiters: int = 0  # how many wait for room, in the line or parked
        self.parked: list[Waiter] = []
        self.partitions: int = 0  # 0 as long as nobody has told
        self.askers: list[Asker] = []

    @property
    def is_idle(self) -> bool:
        return not (self.unsettled or self.stalled or self.waiters or self.askers)

    def answer(self, error: Callable[[], BaseException | None]) -> None:
        """Wake those who asked for the number of partitions; `error` says why it is not known, or None."""
        for asker in self.askers:
            asker.error = error()
            asker.end()
        self.askers.clear()


class Asker(Wait):
    """A task that waits to hear how many partitions a topic has."""

    __slots__ = ("error",)

    def __init__(self) -> None:
        super().__init__()
        self.error: BaseException | None = None


class Waiter(Wait):
    """A task that waits for room, and the message it holds in its hand."""

    __slots__ = ("error", "message", "topic")

    def __init__(self, message: Entry, topic: TopicAccount) -> None:
        super().__init__()
        self.message = message
        self.topic = topic
        self.error: BaseException | None = None


class Room:
    """The queue, its bounds, and the line before it.

    Attributes:
        wake_at (float): call `wake` when so many messages are queued.
        unsettled_bytes (int): what the accepted and not yet settled ones hold.
        short_of_bytes (bool): a message did not fit in, and nothing was settled since.
    """

    def __init__(self, settings: Settings, ledger: Ledger, wake: Callable[[], object]) -> None:
        self.wake_at = inf
        self._wake = wake
        self._ledger = ledger
        self._queue: deque[Entry] = deque()
        self._max_queue_size = settings.max_queue_size
        self._max_bytes = settings.max_buffer_bytes
        self._quota = max(1, settings.max_buffer_size // 2)
        self._quota_bytes = settings.max_buffer_bytes // 2
        self._line: OrderedDict[Waiter, None] = OrderedDict()
        self._stalled: dict[TopicAccount, None] = {}
        self._stalled_count = 0
        self._stalled_bytes = 0
        self.taken: int = 0  # how many of the accepted messages have left the queue
        self.unsettled_bytes: int = 0
        self.tasks_waiting: int = 0
        self.short_of_bytes: bool = False

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def accepted(self) -> int:
        """How many messages ever came in: the running number of the next one."""
        return self.taken + len(self._queue)

    @property
    def queued_since(self) -> float | None:
        """When the oldest message in the queue was accepted."""
        return self._queue[0][ACCEPTED_AT] if self._queue else None

    # -- coming in -----------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def accept(self, message: Entry, topic: TopicAccount, *, first_in_line: bool = False) -> bool:
        """Queue the message, or return False: there is no room, or others wait for it."""
        size = message[SIZE]
        if self._line and not first_in_line:
            return False
        if topic.stalled and (topic.parked or not self._within_quota(size)):
            return False
        held = self.unsettled_bytes + size
        if held > self._max_bytes:
            self.short_of_bytes = True
            return False
        queued = len(self._queue) + 1
        if queued > self._max_queue_size:
            return False
        self._queue.append(message)
        self.unsettled_bytes = held
        topic.unsettled += 1
        topic.unsettled_bytes += size
        if topic.stalled:
            self._stalled_count += 1
            self._stalled_bytes += size
        if queued >= self.wake_at:
            self._wake()
        return True

    def _within_quota(self, size: int) -> bool:
        return self._stalled_count < self._quota and self._stalled_bytes + size <= self._quota_bytes

    def refusal(self, message: Entry, topic: TopicAccount) -> BufferOverflow:
        """Why `accept` returned False."""
        if topic.parked or (topic.stalled and not self._within_quota(message[SIZE])):
            text = (
                f"topic {topic.name!r} makes no progress, and stalled topics may hold half of the buffer only"
            )
        elif self.queued >= self._max_queue_size:
            text = f"the queue is full: max_queue_size={self._max_queue_size} messages"
        elif self.unsettled_bytes + message[SIZE] > self._max_bytes:
            text = f"{self.unsettled_bytes} bytes are not yet settled: max_buffer_bytes={self._max_bytes}"
        else:
            text = f"{self.tasks_waiting} tasks wait for room in send() before you"
        return BufferOverflow(f"no room for a message to {topic.name!r}: {text}")

    # -- the line ------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def wait_for_room(self, message: Entry, topic: TopicAccount) -> None:
        """Stand in line until the message is in the queue; if Cancelled leaves, it never will be."""
        waiter = Waiter(message, topic)
        self._line[waiter] = None
        self._count_waiter(topic, 1)
        self.admit()
        await waiter.wait(withdraw=lambda: self._leave_line(waiter))
        if waiter.error is not None:
            raise waiter.error

    def admit(self) -> bool:
        """Let in whoever there is room for, in order; whether anybody came in."""
        if not self.tasks_waiting:
            return False
        self._unpark()
        before = self.accepted
        while self._line:
            waiter = next(iter(self._line))
            topic = waiter.topic
            if topic.parked or (topic.stalled and not self._within_quota(waiter.message[SIZE])):
                del self._line[waiter]
                topic.parked.append(waiter)
            elif self.accept((*waiter.message[:RUN], self._ledger.run), topic, first_in_line=True):
                del self._line[waiter]
                self._call(waiter)
            else:
                break
        return self.accepted > before

    def _call(self, waiter: Waiter, error: BaseException | None = None) -> None:
        self._count_waiter(waiter.topic, -1)
        waiter.error = error
        waiter.end()

    def _count_waiter(self, topic: TopicAccount, change: int) -> None:
        self.tasks_waiting += change
        topic.waiters += change

    def _unpark(self) -> None:
        """Put those whose topics have room again before all others: they have waited longest."""
        for topic in self._stalled:
            if topic.parked and self._within_quota(topic.parked[0].message[SIZE]):
                self._return_to_line(topic)

    def _return_to_line(self, topic: TopicAccount) -> None:
        for waiter in reversed(topic.parked):
            self._line[waiter] = None
            self._line.move_to_end(waiter, last=False)
        topic.parked.clear()

    def _leave_line(self, waiter: Waiter) -> None:
        self._count_waiter(waiter.topic, -1)
        if waiter in self._line:
            del self._line[waiter]
        else:
            waiter.topic.parked.remove(waiter)
        self.admit()  # it may have been the one that did not fit

    def turn_away(self, error: Callable[[], Exception]) -> None:
        """Nobody comes in any more: each that waits gets an error of its own."""
        for topic in self._stalled:
            self._return_to_line(topic)
        while self._line:
            waiter, _ = self._line.popitem(last=False)
            self._call(waiter, error())

    # -- going out -----------------------------------------------------------------------------------

    def take(self, count: int) -> list[Entry]:
        """The next `count` messages of the queue, which must be there."""
        leave = self._queue.popleft
        self.taken += count
        return [leave() for _ in range(count)]

    def relabel(self, run: int, new: int) -> None:
        """Those in the queue that are of this run are of a new one now."""
        moved: list[Entry] = []
        while self._queue and self._queue[0][RUN] == run:
            moved.append((*self._queue.popleft()[:RUN], new))
        self._queue.extendleft(reversed(moved))

    def release(self, topic: TopicAccount, count: int, size: int) -> None:
        """`count` messages of the topic are settled."""
        self.unsettled_bytes -= size
        self.short_of_bytes = False
        topic.unsettled -= count
        topic.unsettled_bytes -= size
        if topic.stalled:
            self._stalled_count -= count
            self._stalled_bytes -= size

    def stalled(self, topic: TopicAccount) -> None:
        if not topic.stalled:
            topic.stalled = True
            self._stalled[topic] = None
            self._stalled_count += topic.unsettled
            self._stalled_bytes += topic.unsettled_bytes

    def recovered(self, topic: TopicAccount) -> None:
        if topic.stalled:
            self._return_to_line(topic)
            topic.stalled = False
            del self._stalled[topic]
            self._stalled_count -= topic.unsettled
            self._stalled_bytes -= topic.unsettled_bytes
