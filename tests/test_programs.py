"""Whole programs, each in a process of its own: signals, fork, the end of the interpreter, stray warnings.

All run in Python's development mode with every warning an error.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trio_kprod.testing import open_broker

ROOT = Path(__file__).parent.parent

#: Seconds that no program needs. What would be slow is an hour.
PATIENCE = 100

in_both = pytest.mark.parametrize("place", ["thread", "loop"])

STRICT = ("-X", "dev", "-W", "error")


def run(program: str, *arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *STRICT, *options, "-m", f"tests.programs.{program}", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=PATIENCE, check=False
    )


# ---------------------------------------------------------------------------------------------------------
# Signals


@in_both
@pytest.mark.parametrize(
    ("where", "in_the_log"),
    [("in_the_body", 3), ("in_the_drain", 0), ("twice", 0), ("while_it_connects", 0)],
)
def test_an_interrupt_ends_the_program_as_it_would_any_other(where: str, in_the_log: int, place: str) -> None:
    """By the signal itself, which shells show as 130: a bare KeyboardInterrupt, in no group."""
    ended = run("interrupted", where, place)
    assert ended.returncode == -signal.SIGINT, ended.stderr
    assert ended.stdout == f"{in_the_log} in the log\n"
    assert re.search(r"^KeyboardInterrupt$", ended.stderr, re.MULTILINE)
    assert "Group" not in ended.stderr
    assert "Warning" not in ended.stderr
    cut_short = where in ("in_the_drain", "twice")
    assert ended.stderr.count("3 messages not delivered, 3 of them perhaps written") >= cut_short
    assert ("not delivered" in ended.stderr) == cut_short


@in_both
def test_sigterm_without_a_handler_ends_it_at_once(place: str) -> None:
    """And the log has the beginning of what was sent, in each partition."""
    with open_broker(topics={"t": 2}) as broker:
        ended = run("terminated", broker.bootstrap_servers, place)
        records = broker.records("t")
    assert ended.returncode == -signal.SIGTERM, ended.stderr
    assert len(records) > 1000
    for partition in range(2):
        numbers = [int(record.value or b"") for record in records if record.partition == partition]
        assert numbers == list(range(partition, partition + 2 * len(numbers), 2))


@in_both
def test_an_interrupt_at_any_line_of_the_main_thread(place: str) -> None:
    ended = run("interrupt_sweep", "60", place)
    assert ended.returncode == 0, ended.stderr
    assert re.fullmatch(r"60 of \d+ lines, \d+ different ones\n", ended.stdout)
    assert ended.stderr == ""


# ---------------------------------------------------------------------------------------------------------
# Fork


@in_both
def test_a_forked_child_is_told_and_the_parent_delivers_all(place: str) -> None:
    with open_broker() as broker:
        ended = run(
            "forked",
            broker.bootstrap_servers,
            place,
            options=("-W", "ignore:This process:DeprecationWarning"),  # Python says not to do that
        )
        values = [record.value for record in broker.records("t")]
    assert (ended.returncode, ended.stderr) == (0, "")
    assert values == [b"before", b"queued", b"after"]


# ---------------------------------------------------------------------------------------------------------
# The end of runs and programs


def test_the_program_ends_though_its_worker_is_stuck() -> None:
    ended = run("abandoned")
    assert ended.returncode == 0
    assert re.fullmatch(r"the block has ended: 1 message not delivered; .*\n", ended.stderr)
    assert ended.stdout.startswith("1 message not delivered")
    assert ended.stdout.endswith("\n1 client still runs\n")


def test_a_worker_that_comes_back_after_the_run_is_silent_and_writes_nothing() -> None:
    ended = run("late")
    assert ended.returncode == 0
    assert re.fullmatch(r"the block has ended: 1 message not delivered; .*\n", ended.stderr)
    assert ended.stdout.endswith("\n0 in the log\n")


@in_both
def test_nothing_on_stderr_and_no_warning(place: str) -> None:
    ended = run("clean", place)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")


def test_a_fixture_drains_after_its_test_has_failed() -> None:
    """Pytest-trio does not cancel it. A crash reaches the test, and is reported."""
    command = [sys.executable, *STRICT, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider"]
    ended = subprocess.run(
        [*command, "tests/programs/fixture.py"],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == pytest.ExitCode.TESTS_FAILED, ended.stdout
    assert "ZeroDivisionError: the test's own" in ended.stdout
    assert re.search("ProducerCrashed.*a bug in the client", ended.stdout)
    assert re.findall(r"after the scope: (\d) in the log", ended.stdout) == ["3", "3", "0", "0"]
    assert re.search("^4 failed in ", ended.stdout, re.MULTILINE)
    assert ended.stderr == ""
