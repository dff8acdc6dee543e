"""Which faults come when: decided by the seed alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random
from typing import NamedTuple


class Kind(NamedTuple):
    """How often a kind of fault comes, beside the others, and how many seconds it lasts."""

    weight: int
    shortest: float = 0.0
    longest: float = 0.0


class Fault(NamedTuple):
    """One fault.

    Attributes:
        number: from 1.
        kind: the name of what happens.
        seconds: how long it lasts.
        pause: seconds of peace before it.
        where: what chooses the node or the partition, modulo how many there are.
    """

    number: int
    kind: str
    seconds: float
    pause: float
    where: int


#: Seconds of peace between two faults, at the least and at the most.
PAUSES = (2.0, 25.0)


def schedule(seed: int, kinds: Mapping[str, Kind]) -> Iterator[Fault]:
    """Faults without end; the same for the same seed and kinds."""
    random = Random(f"faults {seed}")
    names, weights = list(kinds), [kind.weight for kind in kinds.values()]
    number = 0
    while True:
        number += 1
        (name,) = random.choices(names, weights)
        kind = kinds[name]
        seconds = round(random.uniform(kind.shortest, kind.longest), 1)
        yield Fault(number, name, seconds, round(random.uniform(*PAUSES), 1), random.randrange(2**16))
