"""A node's process lives as long as the one that started it, shown with a small program in its place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kafka.process import Process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends processes with their parent")

_SAYS_WHEN_ASKED = """\
import signal
signal.signal(signal.SIGUSR1, lambda *_: print("lives", flush=True))
print("runs", flush=True)
while True:
    signal.pause()
"""

_STARTS_ONE = """\
import sys
from pathlib import Path
from tests.kafka.process import Process
process = Process([sys.executable, "-c", sys.argv[1]], Path(sys.argv[2]))
process.start()
print(process.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    """Not started yet; says when it runs, and that it lives each time it gets SIGUSR1."""
    process = Process([sys.executable, "-c", _SAYS_WHEN_ASKED], tmp_path / "output")
    yield process
    process.kill()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_outlives_the_thread_that_started_it(process: Process, tmp_path: Path) -> None:
    """Linux means a thread where it says parent."""

    def said(word: str) -> bool:
        return word in (tmp_path / "output").read_text()

    def start() -> None:
        process.start()
        until(lambda: said("runs"))  # now it is bound to whoever its parent is

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    until(lambda: not Path(f"/proc/self/task/{thread.native_id}").exists())
    os.kill(process.pid, signal.SIGUSR1)  # the signal that ends it would come before this one
    until(lambda: said("lives") or not process.running)
    assert said("lives")


def test_it_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    """Also where that one is killed."""
    command = [sys.executable, "-c", _STARTS_ONE, _SAYS_WHEN_ASKED, str(tmp_path / "output")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        until(lambda: (tmp_path / "output").read_text() == "runs\n")
        parent.kill()
    until(lambda: has_ended(pid))


def has_ended(pid: int) -> bool:
    """Also if nobody has asked for its exit status yet."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() == b""
    except FileNotFoundError:
        return True
