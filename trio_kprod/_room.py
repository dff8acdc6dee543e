"""The bounded queue between senders and the delivery task: which messages come in, and which tasks wait.

Two bounds hold for all: the count of messages that are *queued* (`max_queue_size`), and the bytes of all
that are *unsettled* (`max_buffer_bytes`: queued, waiting and in flight). A message takes its bytes when it is
accepted and gives them back when it is settled.

A third bound keeps topics from harming each other. A topic is *limited* until a message of it is acknowledged
for the first time, and whenever the client reports that it is stalled. All limited topics together share half
of the buffer, in messages and in bytes. The largest message takes at most the other half of the bytes, so
what limited topics hold always leaves room for it. When the share is used up, a topic may still have a single
message, as long as that leaves room for the largest one: a topic that does not exist must not keep another
from its first acknowledgement.

Tasks that wait for room have numbers, in the order in which they came, and a queue for each topic. The lowest
number is admitted first, but a task whose topic is beyond the share of limited topics holds up no task of
another topic. A newcomer never overtakes a waiting task that the share would admit.

Waiting tasks are admitted here, on their behalf: a message is either in the queue or not, and a task whose
message is in the queue can no longer be cancelled. That is why the queue is not trio's memory channel, where
the item of a sleeping sender or receiver is neither in nor out.
"""

from __future__ import annotations

import heapq
import itertools
import sys
from collections import OrderedDict, deque
from collections.abc import Callable
from math import inf
from operator import attrgetter
from typing import TYPE_CHECKING

import trio

from ._counters import RoomCounters, TopicCounters
from ._errors import BufferOverflow
from ._messages import ACCEPTED_AT, RUN, SIZE
from ._waiting import Wait

if TYPE_CHECKING:
    from ._ledger import Ledger
    from ._messages import Entry
    from ._settings import Settings

#: The bound of a closed queue, which takes no message.
_CLOSED = -1


class TopicAccount(TopicCounters):
    """What the producer knows of one topic: how much of it is unsettled, and whether it makes progress."""

    __slots__ = ("acknowledged", "askers", "partitions", "stalled", "trouble", "waiters")

    def __init__(self, name: str, max_message_size: int) -> None:
        self.name: str = name
        self.max_message_size: int = max_message_size
        self.unsettled: int = 0
        self.unsettled_bytes: int = 0
        self.acknowledged: bool = False  # since it was first used, or since it stalled
        self.stalled: bool = False  # as the client reports
        self.trouble: BaseException | None = None  # why it stalls, if that is known
        self.limited: bool = True  # not acknowledged, or stalled: `accept` looks at this for every message
        self.waiters: OrderedDict[Waiter, None] = OrderedDict()
        self.partitions: int = 0  # 0 until the client has reported it
        self.askers: list[Asker] = []

    @property
    def is_idle(self) -> bool:
        return not (self.unsettled or self.waiters or self.askers)

    def answer(self, error: Callable[[], BaseException | None]) -> None:
        """Wake those who asked for the number of partitions; `error` says why it is not known, or None."""
        for asker in self.askers:
            asker.end(error())
        self.askers.clear()


class Asker(Wait):
    """A task that waits for the number of partitions of a topic."""

    __slots__ = ()


class Waiter(Wait):
    """A task that waits for room, and its message."""

    __slots__ = ("message", "number", "topic")

    def __init__(self, message: Entry, topic: TopicAccount, number: int) -> None:
        super().__init__()
        self.message = message
        self.topic = topic
        self.number = number

    @property
    def is_first(self) -> bool:
        """Whether it is the next of its topic. It is not once it was admitted or cancelled."""
        return next(iter(self.topic.waiters), None) is self


class Room(RoomCounters):
    """The queue, its bounds, and the tasks that wait for room in it.

    Attributes:
        queue (deque[Entry]): the messages that were accepted and not taken, from left to right.
        taken (int): how many of the accepted messages have left the queue.
        short_of_bytes (bool): a message did not fit in, and nothing was settled since.
        closed: None while messages are accepted, else what makes the exception to raise instead.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        wake: Callable[[], object],
        admitted: Callable[[Entry, TopicAccount], object],
    ) -> None:
        self.wake_at: float = inf
        self.taken: int = 0
        self.unsettled_bytes: int = 0
        self.tasks_waiting: int = 0
        self.short_of_bytes: bool = False
        self.closed: Callable[[], Exception] | None = None
        self._wake = wake
        self._admitted = admitted
        self._ledger = ledger
        self.queue: deque[Entry] = deque()
        self._max_queue_size = min(settings.max_queue_size, sys.maxsize)
        self.bound: int = self._max_queue_size
        self.max_bytes: int = min(settings.max_buffer_bytes, sys.maxsize)
        self._share = max(1, settings.max_buffer_size // 2)
        self._share_bytes = settings.max_buffer_bytes // 2
        self._bytes_for_first = settings.max_buffer_bytes - settings.max_request_size
        self._limited_count = 0
        self._limited_bytes = 0
        self._numbers = itertools.count()
        # The first waiter of each topic, by number. Those of `_beyond` are not in it.
        self._line: list[tuple[int, Waiter]] = []
        self._beyond: dict[TopicAccount, None] = {}  # limited topics whose first waiter has to wait for share
        self._share_freed = False

    @property
    def queued(self) -> int:
        return len(self.queue)

    @property
    def accepted(self) -> int:
        """How many messages were ever accepted: the position of the next one."""
        return self.taken + len(self.queue)

    @property
    def queued_since(self) -> float | None:
        """When the oldest message in the queue was accepted."""
        try:
            return self.queue[0][ACCEPTED_AT]
        except IndexError:
            return None

    # -- coming in -----------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    def accept(
        self, message: Entry, topic: TopicAccount, *, first_in_line: bool = False, wake: bool = True
    ) -> bool:
        """Queue the message, or return False: there is no room, others wait for it, or this is closed.

        Without `wake` the caller sees to it that the delivery task looks at the message.
        """
        size = message[SIZE]
        if self._line and not first_in_line:
            return False
        if topic.limited and ((topic.waiters and not first_in_line) or not self._within_share(topic, size)):
            return False
        held = self.unsettled_bytes + size
        if held > self.max_bytes:
            self.short_of_bytes = True
            return False
        queued = len(self.queue) + 1
        if queued > self.bound:
            return False
        self.queue.append(message)
        self.unsettled_bytes = held
        topic.unsettled += 1
        topic.unsettled_bytes += size
        if topic.limited:
            self._limited_count += 1
            self._limited_bytes += size
        if wake and queued >= self.wake_at:
            self._wake()
        return True

    def _within_share(self, topic: TopicAccount, size: int) -> bool:
        if self._limited_count < self._share and self._limited_bytes + size <= self._share_bytes:
            return True
        return not topic.unsettled and self.unsettled_bytes + size <= self._bytes_for_first

    def refusal(self, message: Entry, topic: TopicAccount) -> Exception:
        """Why `accept` returned False."""
        if self.closed is not None:
            return self.closed()
        if topic.limited and (topic.waiters or not self._within_share(topic, message[SIZE])):
            state = "makes no progress" if topic.stalled else "has no acknowledged message yet"
            text = (
                f"topic {topic.name!r} {state}, and such topics share half of the buffer "
                f"({self._share} messages, {self._share_bytes} bytes): use `await send`, which waits, "
                f"or a larger max_buffer_size or max_buffer_bytes"
            )
        elif self.queued >= self._max_queue_size:
            text = f"the queue is full: max_queue_size={self._max_queue_size} messages"
        elif self.unsettled_bytes + message[SIZE] > self.max_bytes:
            text = f"{self.unsettled_bytes} bytes are not yet settled: max_buffer_bytes={self.max_bytes}"
        else:
            text = f"{self.tasks_waiting} tasks wait for room in send() before you"
        return BufferOverflow(f"no room for a message to {topic.name!r}: {text}")

    # -- waiting for room ----------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def wait_for_room(self, message: Entry, topic: TopicAccount) -> None:
        """Wait until the message is in the queue; if Cancelled leaves, it never will be."""
        if self.closed is not None:
            raise self.closed()
        waiter = Waiter(message, topic, next(self._numbers))
        topic.waiters[waiter] = None
        self.tasks_waiting += 1
        if waiter.is_first:
            self._line_up(waiter)
        await waiter.wait(withdraw=lambda: self._withdraw(waiter))

    def _line_up(self, waiter: Waiter) -> None:
        """Let the first waiter of a topic compete with those of others, unless it is beyond the share."""
        topic = waiter.topic
        if topic.limited and not self._within_share(topic, waiter.message[SIZE]):
            self._beyond[topic] = None
        else:
            heapq.heappush(self._line, (waiter.number, waiter))

    def _line_up_next(self, topic: TopicAccount) -> None:
        self._beyond.pop(topic, None)
        if topic.waiters:
            self._line_up(next(iter(topic.waiters)))

    def admit(self) -> bool:
        """Queue the messages of waiting tasks as far as there is room. Returns whether it queued any."""
        if not self.tasks_waiting:
            return False
        if self._share_freed:
            self._share_freed = False
            for topic in list(self._beyond):
                self._line_up_next(topic)
        before = self.accepted
        while self._line:
            _, waiter = self._line[0]
            topic = waiter.topic
            if not waiter.is_first:  # it was cancelled
                heapq.heappop(self._line)
            elif topic.limited and not self._within_share(topic, waiter.message[SIZE]):
                heapq.heappop(self._line)
                self._beyond[topic] = None
            elif self.accept((*waiter.message[:RUN], self._ledger.run), topic, first_in_line=True):
                heapq.heappop(self._line)
                self._remove(waiter)
                self._line_up_next(topic)
                waiter.end()
                self._admitted(waiter.message, topic)
            else:
                break
        return self.accepted > before

    def _remove(self, waiter: Waiter) -> None:
        del waiter.topic.waiters[waiter]
        self.tasks_waiting -= 1

    def _withdraw(self, waiter: Waiter) -> None:
        was_first = waiter.is_first
        self._remove(waiter)
        if was_first:
            self._line_up_next(waiter.topic)
        if len(self._line) > 2 * self.tasks_waiting + 16:  # mostly cancelled ones
            self._line = [entry for entry in self._line if entry[1].is_first]
            heapq.heapify(self._line)
        self.admit()  # it may have been the one that did not fit

    # -- closing -------------------------------------------------------------------------------------

    def close(self, refused: Callable[[], Exception]) -> None:
        """Accept nothing more. Each task that waits gets an exception of its own."""
        self.closed = refused
        self.shut()
        topics = {waiter.topic for _, waiter in self._line}.union(self._beyond)
        self._line.clear()
        self._beyond.clear()
        for waiter in sorted([one for topic in topics for one in topic.waiters], key=attrgetter("number")):
            self._remove(waiter)
            waiter.end(refused())

    def shut(self) -> None:
        """No message is within the bound any more."""
        self.bound = _CLOSED

    def reopen(self) -> None:
        self.closed = None
        self.bound = self._max_queue_size

    # -- going out -----------------------------------------------------------------------------------

    def take(self, count: int) -> list[Entry]:
        """The next `count` messages of the queue, which must be there."""
        leave = self.queue.popleft
        self.taken += count
        return [leave() for _ in range(count)]

    def relabel(self, run: int, new: int) -> None:
        """Move those messages in the queue that are in this run to a new one."""
        moved: list[Entry] = []
        while self.queue and self.queue[0][RUN] == run:
            moved.append((*self.queue.popleft()[:RUN], new))
        self.queue.extendleft(reversed(moved))

    def release(self, topic: TopicAccount, count: int, size: int) -> None:
        """`count` messages of the topic are settled."""
        self.unsettled_bytes -= size
        self.short_of_bytes = False
        self._share_freed = True
        topic.unsettled -= count
        topic.unsettled_bytes -= size
        if topic.limited:
            self._limited_count -= count
            self._limited_bytes -= size

    # -- which topics are limited --------------------------------------------------------------------

    def acknowledged(self, topic: TopicAccount) -> None:
        topic.acknowledged = True
        if topic.limited and not topic.stalled:
            self._unlimit(topic)

    def stalled(self, topic: TopicAccount) -> None:
        topic.stalled = True
        topic.acknowledged = False
        if not topic.limited:
            topic.limited = True
            self._limited_count += topic.unsettled
            self._limited_bytes += topic.unsettled_bytes

    def recovered(self, topic: TopicAccount) -> None:
        topic.stalled = False
        if topic.limited and topic.acknowledged:
            self._unlimit(topic)

    def _unlimit(self, topic: TopicAccount) -> None:
        topic.limited = False
        self._limited_count -= topic.unsettled
        self._limited_bytes -= topic.unsettled_bytes
        self._share_freed = True
        if topic in self._beyond:
            self._line_up_next(topic)
