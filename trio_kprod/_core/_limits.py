"""How large a request each node takes, as far as the ends of connections tell.

A broker closes the connection without a response when a request is larger than its
``socket.request.max.bytes``. So a request that ends one connection after the other is made smaller, and what
comes after it to the same node is made that small from the start.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from ._actions import Shrunk

if TYPE_CHECKING:
    from ._outbox import Outbox

#: No limit is lower than this, in bytes: as large as batches of Java's producer are by default. (What ends
#: connections although it is smaller is halved all the same, each batch by itself.)
SMALLEST_LIMIT = 16_384

#: The client forgets a limit after this time, in seconds: the network may have been to blame, or the broker
#: may take more by now.
_REMEMBERED = 600.0

#: With ``acks=0``, a write is suspected if the connection ends within this time after it, in seconds.
_SOON = 1.0


class RequestLimits:
    """The limits of all nodes, in bytes of batches, before compression."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._limits: dict[int, tuple[int, float]] = {}  # by node, with the time until which each holds
        self._halved: set[int] = set()  # nodes that are limited because of a single batch
        self._passed: dict[int, int] = {}  # the largest request that a node answered lately
        self._too_large: dict[int, tuple[int, float]] = {}  # the smallest message given up, and until when
        self._unanswerable: dict[int, _Unanswerable] = {}

    def of(self, node: int) -> float:
        """How many bytes one request to a node may have; infinity if nothing is known."""
        if node not in self._limits:
            return inf
        limit, until = self._limits[node]
        if self._outbox.now >= until:
            self._forget(node)
            return inf
        return limit

    def lower(self, node: int, size: int, limit: int, *, until: float | None = None) -> None:
        """A request of `size` bytes ended one connection after the other; one of `limit` bytes may pass."""
        limit = max(limit, SMALLEST_LIMIT)
        if limit < min(self.of(node), size):
            self._limits[node] = limit, self._outbox.now + _REMEMBERED if until is None else until
            self._passed.pop(node, None)
            self._outbox.actions.append(Shrunk(node, size, limit))

    def halve(self, node: int, size: int, limit: int) -> None:
        """The same, for a batch that travelled alone."""
        self.lower(node, size, limit)
        self._halved.add(node)

    def has_halved(self, node: int) -> bool:
        """Whether batches to a node are limited, not only requests of several batches."""
        return self.of(node) < inf and node in self._halved

    def message_failed(self, node: int, size: int) -> None:
        """A message was given up because it ended connections. If requests as large pass, its size was not
        the reason, and the limits learned from it are wrong."""
        if size <= max(self._passed.get(node, 0), SMALLEST_LIMIT):
            self._forget(node)
        elif not self.is_too_large(node, size):
            self._too_large[node] = size, self._outbox.now + _REMEMBERED

    def is_too_large(self, node: int, size: int) -> bool:
        """Whether it is more than what passes, and at least half of a message that was given up lately."""
        failed, until = self._too_large.get(node, (inf, inf))
        return size > self._passed.get(node, 0) and size >= failed / 2 and self._outbox.now < until

    def responded(self, node: int, size: int) -> None:
        """A request of that size got a response, so that much passes."""
        self._passed[node] = max(size, self._passed.get(node, 0))

    def _forget(self, node: int) -> None:
        self._limits.pop(node, None)
        self._too_large.pop(node, None)
        self._passed.pop(node, None)
        self._halved.discard(node)

    # ---- without responses -------------------------------------------------------------------------------

    def written(self, node: int, size: int) -> None:
        """A request was written that gets no response."""
        known = self._unanswerable.setdefault(node, _Unanswerable())
        known.largest = max(known.largest, size)
        known.written_at = self._outbox.now

    def connection_ended(self, node: int, losses: int) -> None:
        """A connection ended, and everything that it was given had been written.

        If `losses` connections in a row ended soon after a write, the largest request on the last of them
        counts as the cause. That limit holds for good: to try such a request again would lose messages again,
        and nobody would be told.
        """
        known = self._unanswerable.get(node)
        if known is None or not known.largest:
            return
        known.losses = known.losses + 1 if self._outbox.now < known.written_at + _SOON else 0
        if known.losses >= losses:
            self.lower(node, known.largest, known.largest // 2, until=inf)
        known.largest = 0


class _Unanswerable:
    """What was written over the present connection to a node, and how many before it were lost in a row."""

    __slots__ = ("largest", "losses", "written_at")

    def __init__(self) -> None:
        self.largest = 0
        self.losses = 0
        self.written_at = 0.0
