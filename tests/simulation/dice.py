"""Dice that are quickly loaded: every event of a run has its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Side = TypeVar("Side")

_MASK = 2**64 - 1


class Dice:
    """A linear congruential generator (Knuth's MMIX), of which the upper bits are used.

    ``random.Random`` takes longer to seed than most events to happen.
    """

    def __init__(self, load: int) -> None:
        self.load(load)

    def load(self, load: int) -> None:
        """From here on, the same load gives the same numbers."""
        self._state = load
        self.random()

    def random(self) -> float:
        self._state = (self._state * 6364136223846793005 + 1442695040888963407) & _MASK
        return (self._state >> 11) / 2**53

    def choice(self, sides: Sequence[Side]) -> Side:
        return sides[int(self.random() * len(sides))]

    def between(self, low: int, high: int) -> int:
        """A whole number; both ends are possible."""
        return low + int(self.random() * (high - low + 1))
