"""Programs in Java: how one is called, and where it logs."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

#: With these it starts in three quarters of the time, and is slower later on: not for measurements.
QUICK_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")

_LOG4J = """\
status = error
appender.file.type = File
appender.file.name = file
appender.file.fileName = {path}
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d %p %c: %m%n%throwable
rootLogger.level = warn
rootLogger.appenderRef.file.ref = file
"""


def classes_of(jars: Path) -> Path:
    """Where `keep_classes` keeps what a Java machine has loaded from these jars."""
    return jars.with_name(f"{jars.name}-classes.jsa")


class Java:
    """A class path, and a directory for what its programs log and print.

    Args:
        jars (Path): the directory of the jars.
        directory (Path): for their files; ``log`` is written by loggers, ``output`` is what was printed.
        options: those of the Java machine.
    """

    def __init__(self, jars: Path, directory: Path, options: Sequence[str] = ()) -> None:
        self._jars = jars
        self.directory = directory
        self._options = options
        (directory / "log4j2.properties").write_text(_LOG4J.format(path=directory / "log"), "utf-8")

    @property
    def output(self) -> Path:
        """Where what is printed goes to."""
        return self.directory / "output"

    def run(self, main: str, *arguments: str) -> None:
        """Run a program to its end; a `RuntimeError` with what it printed if it fails."""
        done = subprocess.run(self.command(main, *arguments), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{main} failed: {done.stdout}{done.stderr}")

    def tail(self) -> str:
        """The end of what was logged and printed."""
        paths = [self.directory / "log", self.output]
        return "\n".join(path.read_text("utf-8", "replace")[-4000:] for path in paths if path.exists())

    def command(self, main: str, *arguments: str) -> list[str]:
        """How a program is called."""
        classes = classes_of(self._jars)
        return [
            "java",
            "-Xmx1g",
            *([f"-XX:SharedArchiveFile={classes}"] if classes.exists() else []),
            *self._options,
            f"-Dlog4j2.configurationFile={self.directory / 'log4j2.properties'}",
            "-Dzookeeper.jmx.log4j.disable=true",  # it wants a log4j 1 of its own
            "-cp",
            f"{self._jars}/*",
            main,
            *arguments,
        ]
