"""The compiled parts of `speedups/`: when they are chosen, and that they do what the Python does."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

import trio_kprod
from trio_kprod import _speedups
from trio_kprod._core._records import encode_in_python
from trio_kprod._messages import BATCH_OVERHEAD, Entry
from trio_kprod.testing import speedups_in_use

NAME = "trio_kprod_speedups"
PROJECT = Path(__file__).parent.parent


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Installs a stand-in of that version, and chooses."""
    monkeypatch.delenv("TRIO_KPROD_PURE", raising=False)

    def choose(version: str) -> Any:
        monkeypatch.setitem(sys.modules, NAME, SimpleNamespace(__version__=version))
        return _speedups.find()

    return choose


# -- the choice --------------------------------------------------------------------------------------------


def test_the_right_version_is_used(chosen: Any) -> None:
    assert chosen(trio_kprod.__version__) is sys.modules[NAME]


def test_another_version_is_warned_of_and_not_used(chosen: Any) -> None:
    with pytest.warns(RuntimeWarning, match=r"version 0\.0\.1, but trio_kprod of version"):
        assert chosen("0.0.1") is None


def test_it_can_be_switched_off(chosen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIO_KPROD_PURE", "1")
    assert chosen(trio_kprod.__version__) is None


def test_nothing_is_said_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRIO_KPROD_PURE", raising=False)
    monkeypatch.setitem(sys.modules, NAME, None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _speedups.find() is None


def test_what_cannot_be_loaded_is_warned_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As it is when it was built for another system."""
    monkeypatch.delenv("TRIO_KPROD_PURE", raising=False)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    (tmp_path / f"{NAME}.py").write_text("from no_such_module import parts")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.warns(RuntimeWarning, match="cannot be loaded: No module named 'no_such_module'"):
        assert _speedups.find() is None


def test_it_is_told_which_is_in_use() -> None:
    """By a function, and by the command line."""
    assert speedups_in_use() == (_speedups.compiled is not None)
    printed = subprocess.run(
        [sys.executable, "-m", "trio_kprod", "--version"], capture_output=True, text=True, check=True
    ).stdout
    assert ("with speedups" in printed, "pure Python" in printed) == (
        speedups_in_use(),
        not speedups_in_use(),
    )


def test_both_distributions_have_one_version() -> None:
    """And the extra asks for just that one."""
    if not (PROJECT / "speedups").is_dir():
        pytest.skip("no speedups/ here: this is not the repository")
    theirs = (PROJECT / "speedups" / NAME / "_version.py").read_text("utf-8")
    assert re.findall(r'"(\d.*)"', theirs) == [trio_kprod.__version__]
    project = (PROJECT / "pyproject.toml").read_text("utf-8")
    assert f'speedups = ["{NAME}=={trio_kprod.__version__}"]' in project


# -- the encoder -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compiled() -> Any:
    try:
        return importlib.import_module(NAME)
    except ModuleNotFoundError:
        pytest.skip(f"{NAME} is not installed: pip install ./speedups")


def entry(
    value: Any = b"v", key: Any = None, headers: Any = (), timestamp_ms: Any = 1_700_000_000_000
) -> Any:
    return ("t", value, key, headers, None, timestamp_ms, 0, 0.0, None, 0)


def check_equal(compiled: Any, entries: list[Entry]) -> None:
    expected = encode_in_python(entries, lambda: None)
    found = compiled.encode_records(entries, BATCH_OVERHEAD)
    assert found == expected
    assert list(map(type, found)) == [bytearray, int]


# Around the sizes at which a varint gets longer, and beyond what the Python has tables for.
_edges = st.sampled_from([0, 1, 63, 64, 65, 8127, 8128, 8191, 8192, 8193, 2**20])
_bytes = st.binary(max_size=100) | _edges.map(bytes)
_stamps = (
    st.sampled_from([0, 1_700_000_000_000, 2**63 - 1])
    | st.integers(0, 2**63 - 1)
    | st.integers(1_700_000_000_000, 1_700_000_100_000)
)
_headers = st.lists(
    st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.none() | _bytes), max_size=4
)
_pairs = st.tuples(st.none(), _bytes) | st.tuples(_bytes, st.none()) | st.tuples(_bytes, _bytes)
_entries = st.builds(lambda pair, *rest: entry(*pair, *rest), _pairs, _headers.map(tuple), _stamps)


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(entries=st.lists(_entries, min_size=1, max_size=20))
def test_the_bytes_are_the_same(compiled: Any, entries: list[Entry]) -> None:
    check_equal(compiled, entries)


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([entry()] * 8194, id="more records than the Python has varints for"),
        pytest.param([entry(bytes(1000), timestamp_ms=number) for number in range(2000)], id="2 MB"),
        pytest.param([entry(headers=(("h", b"v"),) * 9000)], id="many headers"),
        pytest.param([entry(bytes(2**25))], id="32 MiB"),
    ],
)
def test_the_bytes_of_large_batches_are_the_same(compiled: Any, entries: list[Entry]) -> None:
    check_equal(compiled, entries)


@pytest.mark.parametrize(
    ("entries", "error"),
    [
        (None, TypeError),
        ([], ValueError),
        ([None], TypeError),
        ([()], TypeError),
        ([entry()[:-1]], TypeError),
        ([(*entry(), 0)], TypeError),
        ([list(entry())], TypeError),
        ([entry("text")], TypeError),
        ([entry(bytearray(3))], TypeError),
        ([entry(key=1)], TypeError),
        ([entry(headers=None)], TypeError),
        ([entry(headers=[("h", b"")])], TypeError),
        ([entry(headers=(["h", b""],))], TypeError),
        ([entry(headers=(("h",),))], TypeError),
        ([entry(headers=(("h", b"", b""),))], TypeError),
        ([entry(headers=((b"h", b""),))], TypeError),
        ([entry(headers=(("h", "v"),))], TypeError),
        ([entry(headers=(("\ud800", b""),))], UnicodeEncodeError),
        ([entry(timestamp_ms=None)], TypeError),
        ([entry(timestamp_ms=-1)], ValueError),
        ([entry(timestamp_ms=2**63)], OverflowError),
        ([entry(bytes(2**20))] * 2**11, OverflowError),
        ([entry(headers=(("h", bytes(2**20)),) * 2**11)], OverflowError),
    ],
)
def test_what_is_no_entry_raises(compiled: Any, entries: Any, error: type[Exception]) -> None:
    """Also if it stands behind one."""
    with pytest.raises(error):
        compiled.encode_records(entries, BATCH_OVERHEAD)
    if entries:
        with pytest.raises(error):
            compiled.encode_records([entry(headers=(("h", None),)), *entries], BATCH_OVERHEAD)


@pytest.mark.parametrize("header", [-1, 256, "61", None])
def test_a_header_has_a_size(compiled: Any, header: Any) -> None:
    with pytest.raises((OverflowError, TypeError)):
        compiled.encode_records([entry()], header)


def test_other_threads_run_while_much_is_written(compiled: Any) -> None:
    """It gives the GIL up: nothing else in here does, as threads are switched once in an hour."""
    turns = 0
    running, over = threading.Event(), threading.Event()

    def take_turns() -> None:
        nonlocal turns
        running.set()
        while not over.is_set():
            turns += 1
            time.sleep(0)

    interval = sys.getswitchinterval()
    thread = threading.Thread(target=take_turns)
    thread.start()
    running.wait()
    sys.setswitchinterval(3600)
    try:
        before = turns
        for _ in range(1000):
            compiled.encode_records([entry(bytes(2**22))], BATCH_OVERHEAD)
            if turns > before:
                break
        assert turns > before
    finally:
        sys.setswitchinterval(interval)
        over.set()
        thread.join()
