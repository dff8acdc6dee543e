"""``python -m tests.simulation``: what it prints, and its exit code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from unittest.mock import patch

import pytest

from tests.simulation.__main__ import main
from tests.simulation.run import draw, fast_sealing, replay
from tests.simulation.timeline import Timeline
from trio_kprod._core import _responses


@pytest.fixture
def planted() -> Iterator[None]:
    """Every transmission that ended in an error is taken for not written."""
    with patch.object(_responses, "may_have_appended", lambda answer: False):
        yield


def first_that_fails() -> int:
    with fast_sealing():
        for seed in range(1000):
            try:
                replay(*draw(seed))
            except AssertionError:
                return seed
    raise AssertionError("the bug is not found")


def test_a_seed_that_goes_well_is_told_with_its_timeline(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["3"]) == 0
    printed = capsys.readouterr().out
    for word in ("submits", "sends to node", "has processed", "hears from node", "settled", "all faults end"):
        assert word in printed
    assert printed.endswith("seed 3: every promise was kept\n")


def test_a_seed_is_always_the_same_run() -> None:
    told = []
    for _ in range(2):
        timeline = Timeline()
        with fast_sealing():
            replay(*draw(11), timeline)
        told.append(str(timeline))
    assert told[0] == told[1]


def test_a_seed_that_fails_is_explained_with_the_smallest_schedule(
    planted: None, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = first_that_fails()
    assert main([str(seed)]) == 1
    printed = capsys.readouterr().out
    assert re.match(rf"seed {seed}: Broken: ", printed)
    shrunk = re.search(r"The smallest schedule that fails so, (\d+) events of (\d+):", printed)
    assert shrunk is not None
    assert 0 < int(shrunk[1]) < int(shrunk[2])
    assert "settled" in printed
    assert re.search(rf"seed {seed}: Broken: .*\n$", printed)


def test_many_seeds_are_counted_with_what_is_excused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "200", "--first", "1000", "--jobs", "1"]) == 0
    assert re.search(r"^200 seeds, \d+/s, 0 violations; excused: ", capsys.readouterr().out, re.M)


def test_violations_among_many_are_told_and_explained(
    planted: None, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = first_that_fails()
    assert main(["--seeds", "1", "--first", str(seed), "--jobs", "1"]) == 1
    printed = capsys.readouterr().out
    assert printed.startswith(f"seed {seed}: Broken: ")
    assert "1 seeds" in printed
    assert "The smallest schedule" in printed


def test_time_can_be_limited(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seconds", "0", "--jobs", "1"]) == 0
    assert capsys.readouterr().out.startswith("0 seeds")
