"""The measures of ``python -m benchmarks.endurance``, small, with a real node that is killed and frozen."""

from __future__ import annotations

import pytest

from benchmarks.endurance.measures import MEASURES
from benchmarks.endurance.places import Real
from tests.kafka.cluster import Cluster
from tests.test_endurance import assert_every_exact_goal_is_met


@pytest.mark.parametrize("name", MEASURES)
def test_what_holds_on_every_machine(breakable: Cluster, name: str) -> None:
    """One client each."""
    assert_every_exact_goal_is_met(name, Real(breakable))
