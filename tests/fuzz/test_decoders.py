"""Each target by hypothesis, for as long as a change may take. More of it: ``python -m tests.fuzz``."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.fuzz.decoders import DECODERS
from tests.fuzz.run import measure
from tests.fuzz.targets import Target

#: Hypothesis draws what our own generators ask for, so that it can find the smallest input that fails.
RANDOM = st.randoms(use_true_random=False)

#: The same inputs each time.
quick = settings(derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("target", DECODERS, ids=lambda target: target.name)
def test_what_is_no_response_is_refused_and_no_more(target: Target) -> None:
    """At a cost of time and memory that the size of the input bounds."""

    @settings(quick, max_examples=150)
    @given(RANDOM)
    def fuzz(rng: Random) -> None:
        measure(target, target.draw(rng))

    fuzz()
