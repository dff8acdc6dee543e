"""The pages of `docs/`: what they show runs, and prints what they say.

A block of Python is one of three: a whole program (it calls `trio.run`), which is run, and prints what the
block of text right behind it shows; tests, which are run; or a fragment, which is compiled. A program that
cannot run here stands behind a comment ``<!-- not run: the reason -->``.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio
import trio.testing

import trio_kprod
import trio_kprod.testing

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(page for page in DOCS.glob("*.md"))

_block = re.compile(
    r"(?P<not_run><!-- not run: [^>]+ -->\n)?"
    r"^```python\n(?P<code>.*?)^```\n"
    r"(\n?```text\n(?P<text>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    page: str
    line: int
    code: str
    shown: str | None
    runs: bool

    @property
    def is_program(self) -> bool:
        return self.runs and "trio.run(" in self.code

    @property
    def has_tests(self) -> bool:
        return "def test_" in self.code

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks() -> list[Block]:
    found: list[Block] = []
    for page in PAGES:
        text = page.read_text("utf-8")
        for one in _block.finditer(text):
            line = text.count("\n", 0, one.start()) + 1
            found.append(Block(page.name, line, one["code"], one["text"], not one["not_run"]))
    return found


BLOCKS = blocks()


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_is_python(block: Block) -> None:
    """Also those that need a service around them."""
    compile(block.code, str(block), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


@pytest.mark.parametrize("block", [one for one in BLOCKS if one.is_program], ids=str)
def test_programs_print_what_is_shown(block: Block, tmp_path: Path) -> None:
    """Each as a program of its own."""
    env = {**os.environ, "PYTHONPATH": str(Path(trio_kprod.__file__).parent.parent)}
    ended = subprocess.run(
        [sys.executable, "-c", block.code],
        env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    if block.shown is not None:
        assert ended.stdout == block.shown


def shown_tests() -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for block in BLOCKS:
        if block.has_tests:
            names: dict[str, Any] = {}
            exec(compile(block.code, str(block), "exec", dont_inherit=True), names)
            found += [
                (f"{block.page}:{name}", one) for name, one in names.items() if name.startswith("test_")
            ]
    return found


@pytest.mark.parametrize(("name", "test"), shown_tests(), ids=[name for name, _ in shown_tests()])
def test_the_tests_shown_pass(name: str, test: Any) -> None:
    """In virtual time, where they ask for it."""
    if inspect.signature(test).parameters:
        clock = trio.testing.MockClock(autojump_threshold=0)
        trio.run(test, clock, clock=clock)
    else:
        trio.run(test)


def test_every_page_is_in_the_contents() -> None:
    index = (DOCS / "index.md").read_text("utf-8")
    listed = {line.strip() for line in index.splitlines()}
    assert {page.stem for page in PAGES} - listed == {"index"}


def test_everything_public_is_in_the_reference() -> None:
    """Each name of the package and of what it has for tests."""
    reference = (DOCS / "api.md").read_text("utf-8")
    documented = set(re.findall(r"^\.\. auto\w+:: (?:[\w.]+\.)?(\w+)$", reference, re.MULTILINE))
    assert set(trio_kprod.__all__) - {"__version__"} - documented == set()
    assert set(trio_kprod.testing.__all__) - documented == set()
