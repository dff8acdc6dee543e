"""What the README promises is so: its commands, its programs and its tables."""

from __future__ import annotations

import ast
import inspect
import math
import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import trio_kprod
from trio_kprod._settings import _config, _security

TESTS = Path(__file__).parent
PROJECT = TESTS.parent
README = (PROJECT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    """The code blocks in a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def section(heading: str) -> str:
    """What stands under a heading."""
    _, _, rest = README.partition(f"\n## {heading}\n")
    assert rest, f"no section {heading!r}"
    return rest.partition("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """The cells of every table row, without headings."""
    table = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table]
    return [row for row in cells if row[0].startswith("`")]


def test_the_two_commands() -> None:
    """One line each, with a virtual environment of its own, and with what is there."""
    assert blocks("sh")[0].splitlines() == [
        f"python3 -m venv .venv && .venv/bin/pip install -q '.[{extra}]' && .venv/bin/python {what}"
        for extra, what in (("examples", "examples/quickstart.py"), ("test", "-m pytest -q"))
    ]
    assert (PROJECT / "examples" / "quickstart.py").is_file()
    project = (PROJECT / "pyproject.toml").read_text("utf-8")
    for extra in set(re.findall(r"\[([a-z]+)\]'|trio_kprod\[([a-z]+)\]", README)):
        assert re.search(rf"^{''.join(extra)} = \[", project, re.MULTILINE), extra


def test_the_first_example_prints_what_is_shown() -> None:
    """As a program of its own."""
    env = {**os.environ, "PYTHONPATH": str(Path(trio_kprod.__file__).parent.parent)}
    ended = subprocess.run(
        [sys.executable, "-c", blocks("python")[0]],
        env=env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (ended.stdout, ended.stderr) == (blocks("text")[0], "")


def shown_tests() -> dict[str, Any]:
    """The tests that the README shows, by name."""
    found: dict[str, Any] = {}
    for block in blocks("python"):
        if "async def test_" in block:
            exec(compile(block, "README.md", "exec", dont_inherit=True), found)
    return {name: test for name, test in found.items() if name.startswith("test_")}


@pytest.mark.parametrize("name", sorted(shown_tests()))
def test_the_tests_shown_pass(name: str) -> None:
    """In virtual time, where they ask for it."""
    test = shown_tests()[name]
    if inspect.signature(test).parameters:
        clock = trio.testing.MockClock(autojump_threshold=0)
        trio.run(test, clock, clock=clock)
    else:
        trio.run(test)


@pytest.mark.parametrize("block", blocks("python"))
def test_every_block_is_python(block: str) -> None:
    """Also those that need a service around them."""
    compile(block, "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


def defaults() -> dict[str, Any]:
    """Every setting with its default, as `open_producer` has it."""
    signature = inspect.signature(trio_kprod.open_producer)
    named = {name: one.default for name, one in signature.parameters.items() if name != "client_config"}
    client = {name: option.default for name, option in _config._CONFIG.items()}
    return {**named, **client, **{name: default for name, (default, _) in _security.OPTIONS.items()}}


def test_the_settings_are_all_of_them_with_their_defaults() -> None:
    """Each once, with the default written as Python has it."""
    table = rows(section("Settings"))
    names = [row[0].strip("`") for row in table]
    assert len(names) == len(set(names))
    known = {"math": math, "socket": socket}
    assert {
        name: eval(row[1].strip("`"), known) for name, row in zip(names, table, strict=True)
    } == defaults()


def test_the_units_are_right() -> None:
    """Milliseconds where kafka-python's name says so, and nowhere else."""
    units: Mapping[str, str] = {row[0].strip("`"): row[2] for row in rows(section("Settings"))}
    assert {name for name, unit in units.items() if unit == "ms"} == {
        name for name in units if name.endswith("_ms")
    }
    times = {"interval", "timeout", "backoff"}
    assert {name for name, unit in units.items() if unit == "s"} == {
        name for name in units if name.rpartition("_")[2] in times
    }
    assert {name for name, unit in units.items() if unit == "bytes"} == {
        name for name in units if name.endswith("_bytes") or name in ("batch_size", "max_request_size")
    }


def test_the_methods_are_the_producers() -> None:
    """Every public one is in a table or named after them."""
    text = section("First example")
    named = set(re.findall(r"`(?:await )?(\w+)\(", text))
    public = {name for name in vars(trio_kprod.Producer) if not name.startswith("_")}
    assert named <= public
    assert public - named == {"undelivered"}


def test_the_causes_are_the_packages_errors() -> None:
    causes = [row[0].strip("`") for row in rows(section("Who learns of failures"))]
    assert len(causes) == 6
    assert all(issubclass(getattr(trio_kprod, cause), trio_kprod.ProducerError) for cause in causes)


def test_links_into_the_project_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (PROJECT / link).exists()] == []


@pytest.mark.parametrize("document", [PROJECT / "README.md", TESTS / "README.md"], ids=["users", "tests"])
def test_every_test_that_is_named_exists(document: Path) -> None:
    """Both name the tests that show what is promised."""
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", document.read_text("utf-8"))
    assert named
    for module, name in set(named):
        tree = ast.parse((TESTS / module).read_text("utf-8"))
        found = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
        assert name in found, f"{module} has no {name}"


def test_no_fault_is_left_out() -> None:
    """Each is in the table, or it says why not."""
    text = (TESTS / "README.md").read_text("utf-8")
    numbers = {int(number) for number in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    assert set(range(1, 79)) - numbers == {74, 76, 77}
    assert "Not staged: 74, 76 and 77" in text


@pytest.mark.parametrize("when", ["when", "always"])
def test_every_guarantee_names_its_test(when: str) -> None:
    _, _, table = section("The rules of delivery").partition(f"| {when} | ")
    lines = table.partition("\n\n")[0].splitlines()[2:]
    assert len(lines) > 5
    shown = [line.split("|")[-2].strip() for line in lines]
    assert all("::" in one or one.startswith("the same") for one in shown)
