"""Importing the package: no warning, and nobody else's warnings are lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import trio_kprod

PROJECT = Path(trio_kprod.__file__).parents[1]


def python(*arguments: str, cwd: Path = PROJECT) -> subprocess.CompletedProcess[str]:
    """A program of its own, in which warnings are errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=cwd, env={**os.environ, "PYTHONPATH": str(PROJECT)}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip


def test_an_import_under_w_error() -> None:
    """kafka-python's own deprecation does not fail the import on Python 3.11 and 3.12."""
    ended = python("-c", "import trio_kprod, trio_kprod.testing")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_no_schema_is_loaded_later() -> None:
    """The import of the package has loaded all of them; a producer at work and other modules need no more."""
    code = """
import importlib.resources, pkgutil, sys
import trio, trio_kprod
from trio_kprod.testing import open_broker

def later(*_):
    raise AssertionError("a schema was loaded after the import")
importlib.resources.read_text = importlib.resources.open_text = later

async def main():
    async with open_broker() as broker:
        async with trio_kprod.open_producer(broker.bootstrap_servers, compression_type="gzip") as producer:
            await producer.send_and_wait("t", b"v")
trio.run(main)

import kafka
for package in ("kafka.net", "kafka.protocol", "kafka.record"):
    for module in pkgutil.walk_packages(__import__(package, fromlist=["_"]).__path__, package + "."):
        __import__(module.name)
"""
    ended = python("-c", code)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_filters_are_as_they_were() -> None:
    """The import changes no filter for good."""
    code = """
import warnings
before = list(warnings.filters)
import trio_kprod
assert warnings.filters == before
"""
    ended = python("-c", code)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_other_warnings_of_the_same_kind_are_seen_meanwhile() -> None:
    """A module that is imported in the same moment may still warn of the same function."""
    code = """
import sys, types, warnings
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "kafka":
            try:
                warnings.warn_explicit("read_text is deprecated", DeprecationWarning, "f", 1, "elsewhere")
            except DeprecationWarning:
                print("seen")
sys.meta_path.insert(0, Finder())
import trio_kprod
"""
    ended = python("-c", code)
    assert (ended.stdout, ended.stderr) == ("seen\n", "")


def test_a_users_tests_see_no_warning(tmp_path: Path) -> None:
    """Neither errors where warnings are errors, nor a summary of two hundred warnings."""
    (tmp_path / "test_it.py").write_text("import trio_kprod\ndef test(): trio_kprod.Producer\n", "utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", "utf-8")
    for options in ((), ("-W", "error")):
        command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
        ended = python(*command, cwd=tmp_path)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert "warning" not in ended.stdout
