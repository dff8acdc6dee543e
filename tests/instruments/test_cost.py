"""The benchmark of the instruments: each case runs, beside none."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from benchmarks.instruments import CASES, NONE, Round, one_round, table
from trio_kprod.testing import Broker


@pytest.mark.parametrize("name", CASES)
async def test_each_case_delivers(kafka_broker: Broker, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """And its instrument is heard to the end."""
    with ExitStack() as after:
        await one_round(kafka_broker.bootstrap_servers, CASES[name](after), 2_000)
    assert len(kafka_broker.records("events")) == 2_001
    assert "it is told nothing any more" not in caplog.text


def test_the_table_has_ratios() -> None:
    """Of medians, to none."""
    found = {NONE: [Round(1, 0.5), Round(9, 9), Round(1, 0.5)], "some": [Round(4, 1)]}
    assert table(found, 1_000_000).rows == [
        [NONE, "0.50", "1.00", "1.00"],
        ["some", "1.00", "2.00", "0.25"],
    ]
