"""The measures of endurance, small: what does not depend on the machine; and how targets are told."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.__main__ import NOTES
from benchmarks.endurance.measures import CPU, DISORDER, GROWN, LINES, LOST, Scale, run
from benchmarks.endurance.page import NAME, missed, page
from benchmarks.endurance.rows import GOALS, Row, keep, kept, table
from benchmarks.harness.results import DIRECTORY

TINY = Scale(seconds=0.5, messages=20_000, topics=50, tasks=50, sends=10)
STARTER = """
import time
from benchmarks.harness.remote import RemoteBroker
if __name__ == "__main__":
    broker = RemoteBroker()
    print(broker.pid, flush=True)
    time.sleep(3600)
"""
ROW = Row(
    "down", "thread", "embedded broker", {}, {CPU: 0.4, GROWN: 9.0, LINES: 3.5, "lines": 51, LOST: 0}, 1.0
)


@pytest.mark.parametrize("measure", list(dict.fromkeys(goal.measure for goal in GOALS)))
def test_what_holds_on_every_machine(measure: str) -> None:
    """One client each; `--quick` has both."""
    figures = run(measure, None, measure in ("down", "many", "tasks"), TINY)
    row = Row(measure, "", "", {}, figures, 0.0)
    assert row.missed(quick=True) == []
    assert {goal.figure for goal in GOALS if goal.measure == measure} <= set(figures)


def test_a_broker_elsewhere_ends_with_the_process_that_started_it() -> None:
    """Also where that is killed. It has a session of its own: a shell that ends would thaw what is frozen."""
    with subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert os.getsid(pid) == pid
        starter.kill()
        # It holds this end of the pipe open as long as it lives.
        assert starter.stdout.read() == ""


def test_a_goal_that_is_missed_is_told() -> None:
    """In a quick run only what is exact."""
    assert ROW.missed() == ["down, thread: MiB grown", "down, thread: lines"]
    assert ROW.missed(quick=True) == ["down, thread: lines"]
    assert [line[1:] for line in table([ROW]).rows][:2] == [
        ["CPU %", "0.4", "<= 5", "met"],
        ["MiB grown", "9", "<= 5", "MISSED"],
    ]


def test_rows_are_kept_in_the_place_of_older_ones(tmp_path: Path) -> None:
    newer = replace(ROW, figures={**ROW.figures, CPU: 0.5})
    other = Row("idle", "loop", "", {}, {CPU: 0.1, GROWN: 0.0, LOST: 0}, 1.0)
    keep([ROW], tmp_path)
    keep([newer, other], tmp_path)
    assert kept(tmp_path) == [other, newer]
    assert "| down, thread | CPU % | 0.5 | <= 5 | met |" in page(tmp_path)


def test_what_was_moved_is_out_of_order() -> None:
    row = Row("tasks", "loop", "", {}, {DISORDER: 1, LOST: 0}, 0.0)
    assert row.missed(quick=True) == ["tasks, loop: out of order"]


def test_every_missed_target_is_explained() -> None:
    explained = " ".join(NOTES.read_text("utf-8").split())
    assert [name for name in missed(kept(DIRECTORY)) if name not in explained] == []


def test_the_page_is_made_of_what_is_kept() -> None:
    """As `python -m benchmarks --docs` makes it."""
    assert NOTES.with_name(NAME).read_text("utf-8") == page(DIRECTORY)
