"""While a request is in flight to a broker, messages for that broker gather, unless a batch is full.

If they are for another partition, each could leave at once in a request of its own. They wait for the
response instead, and leave together: fewer requests, and a shorter wait in all. They wait for a few
milliseconds at most, so that a slow network or a frozen follower does not hold them up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._batch import Request
    from ._outbox import Outbox
    from ._partition import Partition

#: A request holds others up for this time, in seconds: as long as Java's producer lingers (KIP-1030).
YOUNG = 0.005


class Gathering:
    """The requests in flight to each broker, and the partitions that wait for the response to one."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        # By node: when each request was sent, the latest one last; and which partitions wait.
        self._in_flight: dict[int, dict[Request, float]] = {}
        self._waiting: dict[int, dict[Partition, None]] = {}

    def begin(self, request: Request) -> None:
        """A request is sent."""
        self._in_flight.setdefault(request.node, {})[request] = self._outbox.now

    def end(self, request: Request) -> None:
        """It has its response, or will get none."""
        self._in_flight.get(request.node, {}).pop(request, None)
        if not self._young_until(request.node):
            self._release(request.node)

    def lost(self, node: int) -> None:
        """The connection has ended."""
        self._in_flight.pop(node, None)
        self._release(node)

    def must_wait(self, partition: Partition) -> bool:
        """Whether a batch that is not full has to wait. If so, the partition is woken when the wait is over.

        It waits for a request that was there when the wait began, not for those that follow it.
        """
        node = partition.leader
        until = self._young_until(node)
        partition.gathers_until = partition.gathers_until or until
        if not until or partition.gathers_until <= self._outbox.now:
            partition.gathers_until = 0.0
            return False
        if node not in self._waiting:
            self._waiting[node] = {}
            self._outbox.call_at(partition.gathers_until, lambda: self._release(node))
        self._waiting[node][partition] = None
        return True

    def _young_until(self, node: int) -> float:
        """When the latest request is no longer young; 0 if no request is young now."""
        latest = next(reversed(self._in_flight.get(node, {}).values()), None)
        if latest is None or latest + YOUNG <= self._outbox.now:
            return 0
        return latest + YOUNG

    def _release(self, node: int) -> None:
        self._outbox.wake(self._waiting.pop(node, ()))
