"""Each target by hypothesis, for as long as a change may take. More of it: ``python -m tests.fuzz``."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.fuzz.all_targets import TARGETS, work
from tests.fuzz.decoders import DECODERS
from tests.fuzz.measures import Work, check_memory
from tests.fuzz.run import check, is_async, measure
from tests.fuzz.targets import Target

#: Hypothesis draws what our own generators ask for, so that it can find the smallest input that fails.
RANDOM = st.randoms(use_true_random=False)

#: The same inputs each time.
quick = settings(derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("target", DECODERS, ids=lambda target: target.name)
def test_what_is_no_response_is_refused_and_no_more(target: Target) -> None:
    """At a cost of time and memory that the size of the input bounds."""

    @settings(quick, max_examples=250)
    @given(RANDOM)
    def fuzz(rng: Random) -> None:
        measure(target, target.draw(rng))

    fuzz()


@pytest.mark.parametrize(
    "target", [target for target in TARGETS if target not in DECODERS], ids=lambda target: target.name
)
def test_the_connection_ends_and_nothing_else(target: Target) -> None:
    @settings(quick, max_examples=50)
    @given(RANDOM)
    def fuzz(rng: Random) -> None:
        check(target, target.draw(rng))

    fuzz()


def test_the_command_counts_and_names_what_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    tally = work(("frames", 0, 300))
    assert (tally.target, tally.inputs, sum(tally.outcomes.values())) == ("frames", 300, 300)
    assert not tally.crashes
    assert tally.peak > 0

    def fails(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("tests.fuzz.decoders.decode", fails)
    tally = work(("produce", 7, 10))
    assert [number for number, _ in tally.crashes] == [7, 8, 9]
    assert "a bug" in tally.crashes[0][1]


@pytest.mark.parametrize(("lines", "copied"), [(10**6, 0), (0, 10**7)])
def test_too_much_work_is_noticed(lines: int, copied: int) -> None:
    done = Work()
    done.lines, done.copied = lines, copied
    with pytest.raises(AssertionError, match="for 100 bytes"):
        done.check(100)
    with pytest.raises(AssertionError, match="allocated for 100 bytes"):
        check_memory(10**7, 100)


def test_which_targets_need_a_loop() -> None:
    assert {target.name for target in TARGETS if is_async(target)} == {
        "sasl",
        "connection",
        "producer",
        "embedded_broker",
    }
