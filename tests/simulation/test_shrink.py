"""A schedule is shrunk to what its failure needs."""

from __future__ import annotations

from collections.abc import Sequence

from tests.simulation.shrink import shrink


def test_only_what_is_needed_is_kept_in_order() -> None:
    assert shrink(range(100), lambda rest: {17, 42, 90} <= set(rest)) == [17, 42, 90]


def test_of_the_rest_nothing_can_be_left_out() -> None:
    def fails(rest: Sequence[int]) -> bool:
        return sum(rest) >= 100

    kept = shrink(range(50), fails)
    assert fails(kept)
    assert not any(fails([*kept[:place], *kept[place + 1 :]]) for place in range(len(kept)))


def test_if_nothing_is_needed_nothing_is_kept() -> None:
    assert shrink(range(10), lambda rest: True) == []
    assert shrink([], lambda rest: True) == []
