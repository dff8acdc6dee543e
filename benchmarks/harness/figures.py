"""From rounds to figures: medians, and ratios of what was measured in the same round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from .job import Round
from .turns import Found

Measure = Callable[[Round], float]


def rate(done: Round) -> float:
    return done.rate


def cpu_us(done: Round) -> float:
    return done.cpu_us


def ack_ms(percentile: str) -> Measure:
    """Milliseconds until an acknowledgement."""
    return lambda done: (done.acks or {})[percentile] * 1e3


def late_ms(percentile: str) -> Measure:
    """Milliseconds by which the timer was late."""
    return lambda done: (done.lateness or {})[percentile] * 1e3


def extra(name: str, scale: float = 1.0) -> Measure:
    """What only this task measures."""
    return lambda done: done.extra[name] * scale


def middle(rounds: Sequence[Round], measure: Measure) -> float:
    """The median round's figure."""
    return median(measure(done) for done in rounds)


def ratio(ours: Sequence[Round], theirs: Sequence[Round], measure: Measure = rate) -> float:
    """How many times theirs ours is: the median of what each round says."""
    return median(measure(a) / measure(b) for a, b in zip(ours, theirs, strict=True))


def by_case(found: Found, measure: Measure) -> dict[str, dict[str, float]]:
    """Of each case, each producer's figure: what a plot of bars shows."""
    return {
        case: {peer: middle(rounds, measure) for peer, rounds in taken.items()}
        for case, taken in found.items()
    }
