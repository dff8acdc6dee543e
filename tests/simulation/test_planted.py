"""The simulation finds the bugs that are planted in the core, those that are found soon.

How many seeds each needs: ``python -m tests.simulation.planted``.
"""

from __future__ import annotations

from math import inf

import pytest

from tests.simulation.planted import BUGS, Bug, hunt


@pytest.mark.parametrize(
    "bug", [bug for bug in BUGS.values() if bug.within is not None], ids=lambda bug: bug.name
)
def test_a_planted_bug_is_found(bug: Bug) -> None:
    assert bug.within is not None
    found = hunt(bug, range(bug.within))
    assert found.broken < inf, found


def test_each_planted_bug_says_what_it_would_do() -> None:
    assert all(bug.harm for bug in BUGS.values())
