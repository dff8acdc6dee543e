"""A process that dies with the one that started it, also where that one is killed.

It lives in a session of its own, so that a Ctrl-C in the terminal reaches the tests and not the broker under
them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# PR_SET_PDEATHSIG is 1. The shim sets it and becomes the program; a `preexec_fn` is not safe beside threads.
_DIE_WITH_PARENT = """\
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent has ended")
os.execvp(sys.argv[2], sys.argv[2:])
"""

# For Linux the "parent" of that is the *thread* that has started the process (prctl(2)). Callers may be
# threads that end, such as those of `trio.to_thread`; this one lasts until the interpreter ends.
_starter = ThreadPoolExecutor(1, "starts-processes")


def start_process(command: Sequence[str], output: Path) -> subprocess.Popen[bytes]:
    """Start `command`, which writes to the end of `output`; whichever thread calls, it dies with us only."""
    return _starter.submit(_start, command, output).result()


def _start(command: Sequence[str], output: Path) -> subprocess.Popen[bytes]:
    shim = [sys.executable, "-c", _DIE_WITH_PARENT, str(os.getpid())]
    with output.open("ab") as file:
        return subprocess.Popen(
            [*shim, *command], stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )


class Process:
    """What `command` runs, between `start` and `kill`; it prints to the file `output`."""

    def __init__(self, command: Sequence[str], output: Path) -> None:
        self._command = command
        self._output = output
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; when this returns it is not ready yet."""
        self._process = start_process(self._command, self._output)

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended; a paused one is running."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id; a `RuntimeError` if it was never started."""
        return self._started().pid

    def kill(self) -> None:
        """End it at once, as kill -9 does; no harm if it has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """Freeze it: its sockets stay open and nothing answers."""
        self._started().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen one go on."""
        self._started().send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Ask it to end, as SIGTERM does, and wait until it has; a broker moves its leaderships first."""
        self._started().terminate()
        self._started().wait()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("this process was never started")
        return self._process
