"""Connections: a stream of bytes each, cut anywhere, and what a broker makes of what has arrived.

The client knows how many bytes it has written, the broker how many have arrived. A request of which the
last byte has not arrived does not exist for the broker; one that has arrived whole will be processed,
whatever becomes of the connection, as late as the broker likes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from tests.simulation.cluster import Piece, Place, Waiting
from trio_kprod._core._batch import Request
from trio_kprod._core._error_codes import PartitionResponse

#: What a request takes beside its batches.
_FRAME_OVERHEAD = 10

Answers = Mapping[Place, PartitionResponse]


class Frame:
    """A produce request as it stands in the stream of a connection, from byte `start` to before `end`."""

    __slots__ = ("client_waits", "end", "pieces", "request", "sent_at", "start")

    def __init__(self, request: Request, pieces: Sequence[Piece], start: int, sent_at: float) -> None:
        self.request = request
        self.pieces = pieces
        self.start = self.end = start
        self.move_to(start)
        self.sent_at = sent_at
        self.client_waits = True

    def move_to(self, start: int) -> None:
        self.start = start
        self.end = start + _FRAME_OVERHEAD + sum(piece.sealed.size for piece in self.pieces)

    @property
    def size(self) -> int:
        return self.end - self.start

    def __str__(self) -> str:
        return ", ".join(
            f"{piece.place.topic}-{piece.place.partition} {piece.sealed}" for piece in self.pieces
        )


class Work:
    """A request that a broker has begun to process; some of its batches may wait for replicas."""

    __slots__ = ("begun_at", "frame", "parts")

    def __init__(
        self, frame: Frame, parts: dict[Place, PartitionResponse | Waiting], begun_at: float
    ) -> None:
        self.frame = frame
        self.parts = parts
        self.begun_at = begun_at


class Connection:
    """One connection, from both ends. A broker processes its requests in order, one after the other."""

    def __init__(self, node: int) -> None:
        self.node = node
        self.length = 0  # bytes the client has to write, or has written
        self.written = 0
        self.arrived = 0
        self.under_way: deque[Frame] = deque()  # not whole at the broker yet
        self.inbox: deque[Frame] = deque()
        self.work: Work | None = None
        self.outbox: deque[tuple[Frame, Answers]] = deque()
        self.muted_until = 0.0  # throttled: the broker does not read on

    def send(self, request: Request, pieces: Sequence[Piece], now: float) -> None:
        frame = Frame(request, pieces, self.length, now)
        self.length = frame.end
        self.under_way.append(frame)

    def drop_withdrawn(self) -> None:
        """What the core gave up before its request was begun is not going to be written."""
        for frame in list(self.under_way):
            if not frame.request.write_started:
                left = {Place(one.partition.topic.name, one.partition.index) for one in frame.request.batches}
                frame.pieces = [piece for piece in frame.pieces if piece.place in left]
        self.under_way = deque(frame for frame in self.under_way if frame.pieces)
        end = self.written
        for frame in self.under_way:
            if not frame.request.write_started:
                frame.move_to(end)
            end = frame.end
        self.length = end

    def transfer(self, written: int, arrived: int) -> None:
        """So many bytes in all have been written, and have arrived, by now."""
        self.written, self.arrived = written, arrived
        for frame in self.under_way:
            if frame.start < written:
                frame.request.write_started = True
        while self.under_way and self.under_way[0].end <= arrived:
            self.inbox.append(self.under_way.popleft())

    def written_frames(self) -> list[Frame]:
        """The requests that were written whole, and nobody was told."""
        frames = [*self.inbox, *self.under_way]
        return [frame for frame in frames if frame.client_waits and frame.end <= self.written]

    def hand_next(self) -> None:
        """The client has marked the next request as handed over, and not come to write a byte of it."""
        for frame in self.under_way:
            if frame.start == self.written:
                frame.request.write_started = True

    def unanswered(self) -> list[Frame]:
        """What the client still waits for, in the order in which it was sent."""
        at_broker = [] if self.work is None else [self.work.frame]
        answered = [frame for frame, _ in self.outbox]
        frames = [*answered, *at_broker, *self.inbox, *self.under_way]
        return [frame for frame in frames if frame.client_waits]

    @property
    def busy(self) -> bool:
        """Whether the broker still has something to do for it."""
        return self.work is not None or bool(self.inbox)

    @property
    def oldest(self) -> float:
        """When the oldest request without answer was sent."""
        return min([frame.sent_at for frame in self.unanswered()], default=float("inf"))
