"""From rounds to figures: the median of each, with the lowest and the highest, and ratios of medians."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from .job import Round

#: How many digits of each figure are kept: more would say nothing.
_DIGITS = 4

RATE = "messages/s"
CPU = "CPU us"
PEAK = "peak MiB"


class Spread(NamedTuple):
    """One figure of all rounds of one producer in one case."""

    median: float
    lowest: float
    highest: float

    def range(self, digits: int = 0) -> str:
        """From the lowest to the highest."""
        return f"{self.lowest:,.{digits}f} to {self.highest:,.{digits}f}"


#: By the figure's name; by the producer's; by the case's.
Row = dict[str, Spread]
Taken = dict[str, Row]
Found = dict[str, Taken]


def ack(percentile: str) -> str:
    """The name of the time until an acknowledgement, in milliseconds."""
    return f"ack {percentile} ms"


def late(percentile: str) -> str:
    """The name of the time by which the timer was late, in milliseconds."""
    return f"late {percentile} ms"


def summary(rounds: Sequence[Round]) -> Row:
    """What all rounds say together, of what each of them says."""
    every = [one.figures() for one in rounds]
    names = [name for name in every[0] if all(name in figures for figures in every)]
    return {name: _spread([figures[name] for figures in every]) for name in names}


def _spread(values: Sequence[float]) -> Spread:
    return Spread(*(float(f"{one:.{_DIGITS}g}") for one in (median(values), min(values), max(values))))


def ratio(taken: Taken, ours: str, theirs: str, name: str = RATE) -> float:
    """How many times theirs ours is, by the medians."""
    return taken[ours][name].median / taken[theirs][name].median


def by_case(found: Found, name: str) -> dict[str, dict[str, float]]:
    """Of each case, each producer's median: what a plot of bars shows."""
    return {case: {peer: row[name].median for peer, row in taken.items()} for case, taken in found.items()}
