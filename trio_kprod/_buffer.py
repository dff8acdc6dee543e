"""The buffer: messages that were taken from the queue and are not settled.

They are *waiting* until they are submitted to the client, and *in flight* from then on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ._messages import ACCEPTED_AT, Entry, total_size
from ._outcomes import Trigger

if TYPE_CHECKING:
    from ._client import Client
    from ._instruments import Instruments
    from ._ledger import Ledger
    from ._room import Room
    from ._settings import Settings


class Buffer:
    """Attributes: `waiting` (list[Entry]), and `in_flight` (int), the number of those in flight."""

    def __init__(
        self,
        settings: Settings,
        room: Room,
        ledger: Ledger,
        instruments: Instruments,
        clock: Callable[[], float],
    ) -> None:
        self.waiting: list[Entry] = []
        self.in_flight = 0
        self._max_size = settings.max_buffer_size
        self._max_queue_size = settings.max_queue_size
        self._room = room
        self._ledger = ledger
        self._instruments = instruments
        self._clock = clock

    @property
    def room_left(self) -> int:
        return self._max_size - self.in_flight - len(self.waiting)

    @property
    def is_full(self) -> bool:
        """No room for another message, by count or by bytes."""
        return self.room_left <= 0 or self._room.short_of_bytes

    @property
    def first_waiting(self) -> int:
        """The position of the first message that waits."""
        return self._room.taken - len(self.waiting)

    def take(self, count: int) -> None:
        """Take up to `count` messages from the queue."""
        count = min(count, self._room.queued)
        if count <= 0:
            return
        messages = self._room.take(count)
        for run, start, _ in self._ledger.parts(messages):
            if run.since is None:
                run.since = messages[start][ACCEPTED_AT]
        self.waiting += messages
        if self._instruments.produce_messages:
            self._instruments.tell(
                "produce_messages",
                message_count=len(messages),
                message_bytes=total_size(messages),
                buffer_size=self.in_flight + len(self.waiting),
                max_buffer_size=self._max_size,
                queue_size=self._room.queued,
                max_queue_size=self._max_queue_size,
            )

    def submit(self, client: Client) -> None:
        """Give the client all that waits."""
        messages = self.waiting
        client.submit(messages)
        self.waiting = []
        self.in_flight += len(messages)
        self._ledger.cut(self._room.accepted)
        if self._instruments.deliver_messages:
            self._begin_trigger(messages)

    def _begin_trigger(self, messages: list[Entry]) -> None:
        """A run is part of one delivery only, but some of the last one may still be in the queue."""
        position = self._room.taken
        divided = self._ledger.cut(position)
        if divided != position:
            self._room.relabel(divided, position)
        trigger = Trigger(len(messages), self._clock())
        for run, _, _ in self._ledger.parts(messages):
            run.delivery = trigger

    def give_up(self) -> list[Entry]:
        """Take all that was never submitted, also from the queue. It is in flight until it is settled."""
        self.take(self._room.queued)
        self._ledger.cut(self._room.accepted)
        messages, self.waiting = self.waiting, []
        self.in_flight += len(messages)
        return messages

    def tell_full(self) -> None:
        if self._instruments.buffer_full:
            self._instruments.tell(
                "buffer_full",
                buffer_size=self.in_flight + len(self.waiting),
                max_buffer_size=self._max_size,
            )
