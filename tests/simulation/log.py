"""A partition's log as one replica holds it, and what it remembers of the producers that wrote to it.

The rules are those of Kafka's ``ProducerStateManager`` and ``ProducerAppendInfo``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

#: How many batches of a producer a broker remembers (``ProducerStateEntry.NUM_BATCHES_TO_RETAIN``).
REMEMBERED = 5

#: Sequence numbers wrap around, also inside a batch.
SEQUENCES = 2**31

OUT_OF_ORDER, FENCED = 45, 47


@dataclass(eq=False, slots=True)
class Sealed:
    """What stands for the bytes of a record batch."""

    producer_id: int
    epoch: int
    sequence: int
    values: tuple[bytes, ...]
    size: int
    timestamp: float  # the latest of its records

    def __len__(self) -> int:
        return self.size

    def __str__(self) -> str:
        values = " ".join(value.decode() for value in self.values)
        return f"[{self.producer_id}/{self.epoch} #{self.sequence}: {values}]"


class Lapse(Enum):
    """How a broker came to know nothing, or less, of a producer it had known."""

    EXPIRED = "its state had expired"
    UNCLEAN = "an unclean election had cut its state off"
    RECREATED = "the topic had been deleted, and made anew under its name"


class Appended(NamedTuple):
    """A batch in a log; `lapse` if the broker took it because it had forgotten something."""

    sealed: Sealed
    lapse: Lapse | None


@dataclass(slots=True)
class State:
    """What a log remembers of one producer id."""

    epoch: int
    next: int
    timestamp: float
    lapse: Lapse | None
    ranges: deque[tuple[int, int, int]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))


class Log:
    """Batches, and the producer state that follows from them."""

    def __init__(self, batches: Iterable[Appended] = ()) -> None:
        self.batches: list[Appended] = []
        self.end = 0  # the next offset
        self.states: dict[int, State] = {}
        # The producers of which something was forgotten, with the epoch that was known by then.
        self.forgotten: dict[int, tuple[int, Lapse]] = {}
        # What was written by producers whose state has expired since: nobody would know a duplicate of it.
        self.unknown: set[bytes] = set()
        self.ever_written = False
        for sealed, lapse in batches:
            self._take(sealed, lapse)

    def values(self) -> list[bytes]:
        return [value for sealed, _ in self.batches for value in sealed.values]

    def check(self, sealed: Sealed, *, strict_start: bool) -> tuple[int, int]:
        """An error code, or 0 and the offset of the original if this is a duplicate (-1 if it is not)."""
        if sealed.producer_id < 0:
            return 0, -1
        first, state = sealed.sequence, self.states.get(sealed.producer_id)
        if state is None:
            # Any sequence is accepted of a producer without state; since KAFKA-15591 (`strict_start`) only 0
            # in a partition that never held a record.
            return (OUT_OF_ORDER if strict_start and not self.ever_written and first else 0), -1
        if sealed.epoch != state.epoch:
            if sealed.epoch < state.epoch:
                return FENCED, -1
            return (OUT_OF_ORDER if first else 0), -1
        # A duplicate is the same range of sequence numbers; nobody compares the content.
        for known, count, offset in state.ranges:
            if known == first and count == len(sealed.values):
                return 0, offset
        return (0 if first == state.next else OUT_OF_ORDER), -1

    def append(self, sealed: Sealed, *, stray: bool = False) -> int:
        """Append a batch that `check` let pass; return its first offset.

        It is `stray` if it was meant for a topic that was deleted, and landed in the new one by its name.
        """
        return self._take(sealed, Lapse.RECREATED if stray else self._lapse(sealed))

    def _lapse(self, sealed: Sealed) -> Lapse | None:
        state = self.states.get(sealed.producer_id)
        if state is not None and state.epoch == sealed.epoch:
            return state.lapse
        epoch, lapse = self.forgotten.get(sealed.producer_id, (-1, None))
        return lapse if sealed.epoch <= epoch else None

    def _take(self, sealed: Sealed, lapse: Lapse | None) -> int:
        base, count = self.end, len(sealed.values)
        self.batches.append(Appended(sealed, lapse))
        self.end += count
        self.ever_written = True
        if sealed.producer_id >= 0:
            state = self.states.get(sealed.producer_id)
            if state is None or state.epoch != sealed.epoch:
                state = self.states[sealed.producer_id] = State(sealed.epoch, 0, 0.0, lapse)
            state.lapse = lapse or state.lapse
            state.next = (sealed.sequence + count) % SEQUENCES
            state.timestamp = sealed.timestamp
            state.ranges.append((sealed.sequence, count, base))
        return base

    # ---- forgetting --------------------------------------------------------------------------------------

    def expire(self, before: float) -> list[int]:
        """Forget the producers whose last record bears a time stamp from `before` (KIP-854)."""
        gone = [producer for producer, state in self.states.items() if state.timestamp < before]
        for producer in gone:
            self.forget_from(self, producer, Lapse.EXPIRED)
            del self.states[producer]
        for sealed, _ in self.batches:
            if sealed.producer_id in gone:
                self.unknown.update(sealed.values)
        return gone

    def remainder(self, count: int, lapse: Lapse | None = None) -> Log:
        """A replica that holds the first `count` batches only: its state is what follows from those.

        `lapse` says why that is less than producers may rely on, if it is.
        """
        rest = Log(self.batches[:count])
        rest.ever_written = self.ever_written
        rest.forgotten = self.forgotten.copy()
        rest.unknown = self.unknown.copy()
        if lapse is not None:
            for producer in {sealed.producer_id for sealed, _ in self.batches[count:]}:
                rest.forget_from(self, producer, lapse)
        return rest

    def successor(self) -> Log:
        """The log of the topic that was made anew under the same name, where requests go by name."""
        empty = Log()
        for producer in {*self.states, *self.forgotten}:
            empty.forget_from(self, producer, Lapse.RECREATED)
        return empty

    def forget_from(self, former: Log, producer: int, lapse: Lapse) -> None:
        """Note that the `former` log knew more of a producer than this one."""
        state, known = former.states.get(producer), former.forgotten.get(producer, (-1, lapse))
        epoch = known[0] if state is None else max(state.epoch, known[0])
        self.forgotten[producer] = epoch, lapse
        mine = self.states.get(producer)
        if mine is not None:
            mine.lapse = lapse
