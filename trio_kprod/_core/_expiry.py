"""Messages are given up `delivery_timeout` seconds after they were accepted, wherever they wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING

from .._errors import DeliveryTimedOut, explained
from .._messages import ACCEPTED_AT, Entry, total_size
from ._responses import give_up

if TYPE_CHECKING:
    from ._partition import Partition
    from ._topic import Topic

#: Messages of a topic that are due are looked for no more often than this, in seconds.
EXPIRY_PACE = 0.01


class Expiry:
    """Gives up the messages of one topic when their time is over."""

    def __init__(self, topic: Topic) -> None:
        self._topic = topic
        self._shared = topic.shared
        self._timeout = topic.shared.rules.delivery_timeout
        self._looks_at = inf  # when a timer is set for

    def watch(self, messages: Iterable[Entry]) -> None:
        """Messages came in. Not in the order of acceptance: tasks that waited for room submit later."""
        if self._timeout < inf:
            self._look_at(_oldest(messages) + self._timeout)

    def _look_at(self, when: float) -> None:
        if when < self._looks_at:
            self._looks_at = when
            self._shared.outbox.call_at(when, self._look)

    def _look(self) -> None:
        now = self._shared.outbox.now
        if now < self._looks_at:
            return  # an earlier look, for an older message, has done this
        self._looks_at = inf
        due = now - self._timeout
        topic = self._topic
        for room, partition in topic.rooms():
            self._give_up_waiting(room, due, partition)
        for partition in topic.partitions:
            for batch in list(partition.batches):
                if batch in partition.batches and _oldest(batch.entries) <= due:
                    give_up(batch, self._error(partition))
        self._shared.outbox.wake(topic.partitions)
        remaining = [_oldest(room) for room, _ in topic.rooms() if room]
        remaining += [_oldest(batch.entries) for one in topic.partitions for batch in one.batches]
        if remaining:
            # Not once for each message: looking through all of them takes its time.
            self._look_at(max(min(remaining) + self._timeout, now + EXPIRY_PACE))

    def _error(self, partition: Partition | None) -> DeliveryTimedOut:
        error = DeliveryTimedOut(f"not acknowledged within {self._timeout:g} s of the call")
        return explained(error, self._topic.trouble_of(partition))

    def _give_up_waiting(self, room: deque[Entry], due: float, partition: Partition | None) -> None:
        expired = [message for message in room if message[ACCEPTED_AT] <= due]
        if not expired:
            return
        gone = set(map(id, expired))
        kept = [message for message in room if id(message) not in gone]
        room.clear()
        room.extend(kept)
        size = total_size(expired)
        if room is self._topic.keyless.messages:
            self._topic.keyless.size -= size
        if partition is not None:
            partition.queue_bytes -= size
        index = -1 if partition is None else partition.index
        self._topic.settle(expired, partition=index, error=self._error(partition))


def _oldest(messages: Iterable[Entry]) -> float:
    return min(message[ACCEPTED_AT] for message in messages)
