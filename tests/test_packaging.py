"""The package as users get it: its version, its types, its public names."""

from __future__ import annotations

import importlib.metadata
import inspect
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

import trio_kprod

PACKAGE = Path(trio_kprod.__file__).parent
PROJECT = PACKAGE.parent


@pytest.fixture
def installed() -> importlib.metadata.Distribution:
    """What pip knows of the package; a bare checkout on the path is not installed."""
    try:
        return importlib.metadata.distribution("trio_kprod")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("trio_kprod is imported from a checkout that is not installed")


def project_file(name: str) -> str:
    path = PROJECT / name
    if not path.exists():
        pytest.skip(f"no {name} beside the package: it is not imported from its project's directory")
    return path.read_text("utf-8")


def test_installed_version_is_the_packages(installed: importlib.metadata.Distribution) -> None:
    """What pip shows is what the package says."""
    assert installed.version == trio_kprod.__version__


def test_version_stands_in_one_place() -> None:
    """Everything else takes it from there."""
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", trio_kprod.__version__)
    literal = f'"{trio_kprod.__version__}"'
    places = [path.name for path in sorted(PACKAGE.rglob("*.py")) if literal in path.read_text("utf-8")]
    assert places == ["_version.py"]
    assert 'dynamic = ["version"]' in project_file("pyproject.toml")


def test_changelog_begins_with_what_is_not_released_and_this_version() -> None:
    """A release is told to its users."""
    headings = re.findall(r"^## (\S+)", project_file("CHANGELOG.md"), re.MULTILINE)
    assert headings[:2] == ["[Unreleased]", trio_kprod.__version__]


def test_contributors_find_every_module() -> None:
    """In the table of CONTRIBUTING.md, each once, and nothing that is not there."""
    _, _, rest = project_file("CONTRIBUTING.md").partition("\n## Where what lives\n")
    table = [line.split("|")[1] for line in rest.partition("\n### ")[0].splitlines() if line.startswith("|")]
    named = [name for cell in table for name in re.findall(r"`([^`]+)`", cell)]
    modules = [path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py")]
    there = {module.as_posix().replace("__init__", "") for module in modules} - {""}
    assert sorted(named) == sorted(there)


def test_contributors_are_told_commands_that_there_are() -> None:
    """Those that are modules of this project."""
    commands = re.findall(r"python -m ((?:tests|benchmarks)[\w.]*)", project_file("CONTRIBUTING.md"))
    assert len(commands) > 5
    for command in commands:
        path = PROJECT / command.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), command


def test_every_file_of_tests_is_described() -> None:
    """In tests/README.md, before its table of faults."""
    text = project_file("tests/README.md").partition("\n## Faults\n")[0]
    described = [name.rstrip("/") for name in re.findall(r"`([\w*/]+(?:\.py|/))`", text)]
    described += [f"{name}.py" for name in re.findall(r"`python -m tests\.(\w+)", text)]
    there = {path.name for path in (PROJECT / "tests").iterdir() if path.suffix == ".py" or path.is_dir()}
    there -= {"__init__.py", "__pycache__", "conftest.py"}
    assert [name for name in there if not any(fnmatch(name, one) for one in described)] == []


def test_every_version_of_python_is_tried() -> None:
    """Those that pyproject.toml names are those of `.ci/run` and of the hosted CI."""
    named = set(re.findall(r":: Python :: (3\.\d+)", project_file("pyproject.toml")))
    (loop,) = re.findall(r"for minor in ([\d ]+); do", project_file(".ci/run"))
    assert {f"3.{minor}" for minor in loop.split()} == named
    assert set(re.findall(r"^ +(3\.\d+)$", project_file(".github/workflows/ci.yml"), re.MULTILINE)) == named


def test_types_are_shipped(installed: importlib.metadata.Distribution) -> None:
    """Type checkers look for py.typed beside the modules, in the installed package too."""
    assert (PACKAGE / "py.typed").is_file()
    shipped = {str(path) for path in installed.files or ()}
    if "trio_kprod/_version.py" in shipped:  # else installed as editable, which lists no modules
        assert "trio_kprod/py.typed" in shipped


def test_public_names_are_sorted_and_complete() -> None:
    """`__all__` names what is public, once and in order, and nothing else is in sight."""
    assert list(trio_kprod.__all__) == sorted(set(trio_kprod.__all__))
    visible = {
        name
        for name, value in vars(trio_kprod).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name != "annotations"
    }
    assert visible <= set(trio_kprod.__all__)


def test_public_names_say_where_they_are_imported_from() -> None:
    """Classes and functions call `trio_kprod` their home: in tracebacks, in docs and when pickled."""
    public = [getattr(trio_kprod, name) for name in trio_kprod.__all__]
    named = [value for value in public if inspect.isclass(value) or inspect.isfunction(value)]
    assert [value for value in named if value.__module__ != "trio_kprod"] == []
    assert [value for value in named if not inspect.getdoc(value)] == []
