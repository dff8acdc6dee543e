"""Two thousand histories of a producer and a cluster that misbehaves."""

from __future__ import annotations

import pytest

from tests.simulation.run import fast_sealing, run


@pytest.mark.parametrize("first", range(0, 2000, 100))
def test_every_promise_holds(first: int) -> None:
    with fast_sealing():
        for seed in range(first, first + 100):
            try:
                run(seed)
            except Exception as error:
                raise AssertionError(f"python -m tests.simulation {seed}") from error
