"""Which accepted messages are still unsettled, in constant work for a batch.

Messages have running numbers (*positions*) in the order in which they were accepted. The ledger cuts them
into *segments*, runs of neighbours, and counts in each how many are unsettled; a message knows its segment.
A batch's messages mostly share one, so settling a batch is one subtraction, not one per message.

Segments end where somebody needs to know when all before is settled: at each hand-over, and at the mark
that a `flush` set. When every segment before the mark is empty, that flush is done.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from typing import Any

from ._messages import Message


class Segment:
    """A run of messages from position `start` on, of which `remaining` are unsettled."""

    __slots__ = ("delivery", "remaining", "since", "start")

    def __init__(self, start: int, since: float) -> None:
        self.start = start
        self.since = since  # when its first message was accepted
        self.remaining = 0
        self.delivery: Any = None  # the hand-over that it was part of, if somebody observes those


def _start(message: Message) -> int:
    return message.segment.start  # type: ignore[no-any-return]


class Ledger:
    """Attributes: `entered` (int), the position of the message that is entered next."""

    def __init__(self) -> None:
        self.entered = 0
        self._segments: OrderedDict[Segment, None] = OrderedDict()  # those with anything unsettled
        self._open: Segment | None = None
        self._marks: deque[int] = deque()

    def mark(self, position: int) -> None:
        """Cut before this position, which is at or after all that was entered and marked."""
        if position == self.entered:
            self.cut()
        elif not self._marks or self._marks[-1] < position:
            self._marks.append(position)

    def cut(self) -> None:
        """What is entered next begins a new segment."""
        self._open = None

    def until_cut(self) -> float:
        """How many messages may be entered at once: the next mark must not end up inside a segment."""
        return self._marks[0] - self.entered if self._marks else float("inf")

    def enter(self, messages: Sequence[Message]) -> Segment:
        """Note the next messages as unsettled, at most `until_cut` of them, at least one."""
        segment = self._open
        if segment is None:
            segment = self._open = Segment(self.entered, messages[0].accepted_at)
            self._segments[segment] = None
        for message in messages:
            message.segment = segment
        segment.remaining += len(messages)
        self.entered += len(messages)
        if self._marks and self._marks[0] == self.entered:
            self._marks.popleft()
            self.cut()
        return segment

    def settle(self, messages: Sequence[Message]) -> Iterator[tuple[Segment, int]]:
        """Note as settled, and tell how many of which segment.

        They stand in the order in which they were accepted, so those of a segment are neighbours.
        """
        at, end = 0, len(messages)
        while at < end:
            segment: Segment = messages[at].segment
            if messages[-1].segment is segment:
                until = end
            else:
                until = bisect_right(messages, segment.start, lo=at, key=_start)
            segment.remaining -= until - at
            if not segment.remaining:
                self._forget(segment)
            yield segment, until - at
            at = until

    def _forget(self, segment: Segment) -> None:
        del self._segments[segment]
        if segment is self._open:
            self._open = None

    def settled_before(self) -> int:
        """The position before which every message is settled."""
        return next(iter(self._segments)).start if self._segments else self.entered

    def oldest(self) -> float | None:
        """When the oldest unsettled message was accepted; of a segment, its first stands for all."""
        return next(iter(self._segments)).since if self._segments else None
