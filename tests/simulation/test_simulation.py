"""Two hundred histories of a producer and a cluster that misbehaves, and those that once found a bug."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.simulation.run import fast_sealing, run


@pytest.fixture(autouse=True)
def _fast() -> Iterator[None]:
    with fast_sealing():
        yield


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_every_promise_holds(first: int) -> None:
    for seed in range(first, first + 20):
        run(seed)
