"""The measures of endurance, small: what does not depend on the machine; and how targets are told."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.__main__ import NOTES
from benchmarks.endurance.measures import CPU, DISORDER, DOUBLED, GROWN, LINES, LOST, MEASURES, Scale, measure
from benchmarks.endurance.page import NAME, missed, page
from benchmarks.endurance.places import EMBEDDED, Place, open_place
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
    "down",
    "thread",
    "Apache Kafka 4.1.0",
    {},
    {CPU: 0.4, GROWN: 9.0, LINES: 3.5, "lines": 51, LOST: 0, DOUBLED: 0},
    1.0,
)


@pytest.mark.parametrize("name", MEASURES)
def test_what_holds_on_every_machine(name: str) -> None:
    """One client each; `--quick` has both."""
    with open_place(EMBEDDED) as place:
        assert_every_exact_goal_is_met(name, place)


def assert_every_exact_goal_is_met(name: str, place: Place) -> None:
    figures = measure(name, place, name in ("down", "many", "tasks"), TINY)
    row = Row(name, "", "", {}, figures, 0.0)
    assert row.missed(quick=True) == []
    assert {goal.figure for goal in GOALS if goal.measure == name} <= set(figures)


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
    """Those of a node and those of the embedded broker stand side by side."""
    newer = replace(ROW, figures={**ROW.figures, CPU: 0.5}, load=2.5)
    embedded = replace(ROW, kafka=EMBEDDED)
    other = Row("idle", "loop", "", {}, {CPU: 0.1, GROWN: 0.0, LOST: 0}, 1.0)
    keep([ROW, embedded], tmp_path)
    keep([newer, other], tmp_path)
    assert kept(tmp_path) == [other, newer, embedded]
    text = page(tmp_path)
    assert "| down, thread | CPU % | 0.5 | <= 5 | met |" in text
    assert "| down, thread, embedded | CPU % | 0.4 | <= 5 | met |" in text
    assert "where that was noted: down, thread: 2.5." in text


def test_what_was_moved_is_out_of_order() -> None:
    row = Row("tasks", "loop", "", {}, {DISORDER: 1, LOST: 0, DOUBLED: 0}, 0.0)
    assert row.missed(quick=True) == ["tasks, loop: out of order"]


def test_every_missed_target_is_explained() -> None:
    explained = " ".join(NOTES.read_text("utf-8").split())
    assert [name for name in missed(kept(DIRECTORY)) if name not in explained] == []


def test_the_page_is_made_of_what_is_kept() -> None:
    """As `python -m benchmarks --docs` makes it."""
    assert NOTES.with_name(NAME).read_text("utf-8") == page(DIRECTORY)
