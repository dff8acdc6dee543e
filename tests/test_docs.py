"""The pages of `docs/`: what they show runs, and prints what they say.

A block of Python is one of three: a whole program (it calls `trio.run`), which is run, and prints what the
block of text right behind it shows (``…`` stands for anything); tests, which are run; or a fragment, which is
compiled. A program that cannot run here stands behind a comment ``<!-- not run: the reason -->``.
"""

from __future__ import annotations

import ast
import inspect
import math
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import aiokafka
import kafka
import pytest
import trio
import trio.testing

import trio_kprod
import trio_kprod.testing
from tests.schema_registry import open_registry
from tests.test_readme import functions_of
from trio_kprod._core._error_codes import TABLE
from trio_kprod._core._hints import _HINTS
from trio_kprod._settings import _config, _security
from trio_kprod._settings._other_clients import other, plain

PROJECT = Path(__file__).parent.parent
DOCS = PROJECT / "docs"
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


@pytest.fixture(scope="module")
def registry() -> Iterator[str]:
    with open_registry() as address:
        yield address


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_is_python(block: Block) -> None:
    """Also those that need a service around them."""
    compile(block.code, str(block), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


@pytest.mark.parametrize("block", [one for one in BLOCKS if one.is_program], ids=str)
def test_programs_print_what_is_shown(block: Block, tmp_path: Path, registry: str) -> None:
    """Each as a program of its own."""
    env = {
        **os.environ,
        "PYTHONPATH": str(Path(trio_kprod.__file__).parent.parent),
        "SCHEMA_REGISTRY": registry,
    }
    ended = subprocess.run(
        [sys.executable, "-c", block.code],
        env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    if block.shown is not None:
        shown = re.escape(block.shown).replace("…", ".*")
        if not re.fullmatch(shown, ended.stdout):
            assert ended.stdout == block.shown  # which says where


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
    documented = set(re.findall(r"^\.\. auto\w+:: (?:[\w.]+\.)?(\w+)(?:\(\))?$", reference, re.MULTILINE))
    assert set(trio_kprod.__all__) - {"__version__"} - documented == set()
    assert set(trio_kprod.testing.__all__) - documented == set()


# -- what tables say ---------------------------------------------------------------------------------------


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text("utf-8")


def rows(text: str) -> list[list[str]]:
    """The cells of every table row that begins with code."""
    table = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table]
    return [row for row in cells if row[0].startswith("`")]


def settings() -> dict[str, list[str]]:
    """The rows of the tables of settings, by name."""
    table = [row for row in rows(page("settings")) if len(row) == 4]
    named = {row[0].strip("`"): row for row in table}
    assert len(named) == len(table)
    return named


def defaults() -> dict[str, Any]:
    """Every setting with its default, as `open_producer` has it."""
    signature = inspect.signature(trio_kprod.open_producer)
    named = {name: one.default for name, one in signature.parameters.items() if name != "client_config"}
    client = {name: option.default for name, option in _config._CONFIG.items()}
    return {**named, **client, **{name: default for name, (default, _) in _security.OPTIONS.items()}}


def test_the_settings_are_all_of_them_with_their_defaults() -> None:
    """Each once, with the default written as Python has it."""
    known = {"math": math, "socket": socket}
    assert {name: eval(row[1].strip("`"), known) for name, row in settings().items()} == defaults()


def test_the_units_are_right() -> None:
    """Milliseconds where kafka-python's name says so, and nowhere else."""
    units: Mapping[str, str] = {name: row[2] for name, row in settings().items()}
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


def test_extras_that_are_named_exist() -> None:
    project = (PROJECT / "pyproject.toml").read_text("utf-8")
    text = " ".join(one.read_text("utf-8") for one in PAGES)
    for extra in set(re.findall(r"trio_kprod\[([a-z]+)\]", text)):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra


def test_the_methods_are_the_producers() -> None:
    """Every public one is on the page of the first ten minutes."""
    named = set(re.findall(r"`(?:await )?(\w+)\(", page("first-ten-minutes")))
    public = {name for name in vars(trio_kprod.Producer) if not name.startswith("_")}
    assert public - named == {"undelivered"}


def test_the_causes_are_the_packages_errors() -> None:
    _, _, table = page("promises").partition("| cause | ")
    causes = [row[0].strip("`") for row in rows(table)]
    assert len(causes) == 6
    assert all(issubclass(getattr(trio_kprod, cause), trio_kprod.ProducerError) for cause in causes)


def test_every_hint_is_in_the_handbook() -> None:
    """Beside the name of the error and its code."""
    cells = {row[0]: row[-1] for row in rows(page("when-kafka-fails"))}
    for code, hint in _HINTS.items():
        assert cells[f"`{TABLE[code].name}` ({code})"] == hint


def test_what_the_handbook_quotes_is_what_is_said() -> None:
    """Each piece of a symptom is in a text of the package, or is the operating system's."""
    package = Path(trio_kprod.__file__).parent
    trees = [ast.parse(path.read_text("utf-8")) for path in package.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    texts = [node.value for node in nodes if isinstance(node.value, str)]
    theirs = [
        "[Errno 111] Connection refused",
        "[Errno -2] Name or service not known",
        "Too many open files",
        "CERTIFICATE_VERIFY_FAILED",
    ]
    symptoms = [
        quoted
        for row in rows(page("when-kafka-fails"))
        if " (" not in row[0] and len(row) > 2
        for quoted in re.findall("`([^`]+)`", row[0])
    ]
    assert len(symptoms) > 15
    for quoted in symptoms:
        for piece in re.split(r"…|HOST: |HOST|Produce|: |\b\d+ s\b|\(\)", quoted):
            said = piece.strip()
            known = any(said in text for text in [*texts, *theirs]) or hasattr(trio_kprod, said)
            assert known, f"{said!r} of {quoted!r}"


# -- what the pages for users of other clients say ---------------------------------------------------------

COMING_FROM = ("ruby-kafka", "kafka-python", "aiokafka", "confluent-kafka")


def names(cell: str) -> list[str]:
    return re.findall(r"`([\w.]+)[`=]", cell)


@pytest.mark.parametrize("client", COMING_FROM)
def test_their_settings_become_what_is_said(client: str) -> None:
    """As `settings_from` has it, or it says why there is none."""
    table = page(f"from-{client}").partition("\n## Setting by setting\n")[2].partition("\n## ")[0]
    ours = defaults()
    told = [row for row in rows(table) if len(row) == 4]
    assert len(told) > 10
    for theirs, _, here, *_ in told:
        for name in names(theirs):
            row = other(name)
            if row is None:
                assert plain(name) in ours, name
                assert "none" in here or plain(name) in names(here) or here == "see above", name
            elif row.translate is not None and set(names(here)) & set(ours):
                assert [one for one in names(here) if one in row.instead] or "follows" in here, name


@pytest.mark.parametrize("client", COMING_FROM)
def test_what_is_ours_on_their_pages_exists(client: str) -> None:
    """Calls in the column for what is here are those of the producer, or of the package."""
    table = page(f"from-{client}").partition("\n## Call by call\n")[2].partition("\n## ")[0]
    calls = {name for row in rows(table) for name in re.findall(r"producer\.(\w+)\(", row[1])}
    assert calls
    assert calls <= set(vars(trio_kprod.Producer))


def test_every_setting_of_kafka_python_is_told() -> None:
    said = names(page("from-kafka-python"))
    assert set(kafka.KafkaProducer.DEFAULT_CONFIG) - set(said) == set()


def test_every_setting_of_aiokafka_is_told() -> None:
    theirs = inspect.signature(aiokafka.AIOKafkaProducer.__init__).parameters.keys() - {"self"}
    assert theirs - set(names(page("from-aiokafka"))) == set()


def test_every_event_of_ruby_kafka_has_its_hook() -> None:
    """Those that a producer has, as the hooks' docstrings name them."""
    table = page("from-ruby-kafka").partition("\n## Event by event\n")[2].partition("\n## ")[0]
    for event, hook, _ in rows(table):
        documented = inspect.getdoc(getattr(trio_kprod.Instrument, hook.strip("`"))) or ""
        assert f"`{event}`" in documented
    assert len(rows(table)) == 12


def test_every_test_that_is_named_exists() -> None:
    for one in [*PAGES, PROJECT / "SECURITY.md", PROJECT / "tests/README.md"]:
        for module, name in re.findall(r"`([\w/]+\.py)::(\w+)`", one.read_text("utf-8")):
            assert name in functions_of(module), f"{one.name}: {module} has no {name}"


@pytest.mark.parametrize("when", ["when", "always"])
def test_every_guarantee_names_its_test(when: str) -> None:
    _, _, table = page("promises").partition(f"| {when} | ")
    lines = table.partition("\n\n")[0].splitlines()[2:]
    assert len(lines) > 5
    shown = [line.split("|")[-2].strip() for line in lines]
    assert all("::" in one or one.startswith("the same") for one in shown)


def test_links_to_files_lead_somewhere() -> None:
    """``repo:PATH`` is a file of the project."""
    links = [link for one in PAGES for link in re.findall(r"\]\(repo:([^)#]+)\)", one.read_text("utf-8"))]
    assert links
    assert [link for link in links if not (PROJECT / link).exists()] == []
