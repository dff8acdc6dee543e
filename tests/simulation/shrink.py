"""The smallest schedule that still fails: delta debugging (Zeller's ``ddmin``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def shrink(items: Sequence[Item], fails: Callable[[Sequence[Item]], bool]) -> list[Item]:
    """Leave out as much of `items` as can be while it still `fails`: of the rest, no single one can."""
    kept, size = list(items), max(1, len(items) // 2)
    while True:
        kept, shorter = _without_pieces(kept, size, fails)
        if size == 1 and not shorter:
            return kept
        size = max(1, size // 2)


def _without_pieces(
    items: list[Item], size: int, fails: Callable[[Sequence[Item]], bool]
) -> tuple[list[Item], bool]:
    """Leave out pieces of `size`, from the end, as what is last matters least to the others."""
    shorter, end = False, len(items)
    while end > 0:
        start = max(0, end - size)
        rest = items[:start] + items[end:]
        if fails(rest):
            items, shorter = rest, True
        end = start
    return items, shorter
