"""What the README promises is so: its commands, its example, its links; and what tests/README.md names."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import trio_kprod

TESTS = Path(__file__).parent
PROJECT = TESTS.parent
README = (PROJECT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    """The code blocks in a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_it_is_one_screen() -> None:
    """Everything else has a page."""
    assert len(README.splitlines()) <= 90


def test_the_two_commands() -> None:
    """One line each, with a virtual environment of its own, and with what is there."""
    assert blocks("sh")[0].splitlines() == [
        f"python3 -m venv .venv && .venv/bin/pip install -q '.[{extra}]' && .venv/bin/python {what}"
        for extra, what in (("examples", "examples/quickstart.py"), ("test", "-m pytest -q"))
    ]
    assert (PROJECT / "examples" / "quickstart.py").is_file()


def test_the_first_example_prints_what_is_shown() -> None:
    """As a program of its own."""
    env = {**os.environ, "PYTHONPATH": str(Path(trio_kprod.__file__).parent.parent)}
    ended = subprocess.run(
        [sys.executable, "-c", blocks("python")[0]],
        env=env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (ended.stdout, ended.stderr) == (blocks("text")[0], "")


def test_links_work_wherever_it_is_shown() -> None:
    """A package index does not know our files, so links are whole; those into the project lead somewhere."""
    project = (PROJECT / "pyproject.toml").read_text("utf-8")
    (home,) = re.findall('^Homepage = "([^"]+)"', project, re.MULTILINE)
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert [link for link in links if not link.startswith("https://")] == []
    ours = [link.removeprefix(home) for link in links if link.startswith(home)]
    assert len(ours) > 5
    for link in ours:
        kind, path = re.fullmatch(r"/(blob|tree)/main/([^#]+)", link).groups()  # type: ignore[union-attr]
        there = PROJECT / path
        assert there.is_dir() if kind == "tree" else there.is_file(), link


def test_every_test_that_is_named_exists() -> None:
    """Those that show how a fault ends."""
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", (TESTS / "README.md").read_text("utf-8"))
    assert named
    for module, name in set(named):
        assert name in functions_of(module), f"{module} has no {name}"


def functions_of(module: str) -> set[str]:
    """The names of its functions."""
    tree = ast.parse((TESTS / module).read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


def test_no_fault_is_left_out() -> None:
    """Each is in the table, or it says why not."""
    text = (TESTS / "README.md").read_text("utf-8")
    numbers = {int(number) for number in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    assert set(range(1, 79)) - numbers == {74, 76, 77}
    assert "Not among the tests: 74, 76 and 77" in text
