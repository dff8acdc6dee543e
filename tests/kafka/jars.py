"""Apache Kafka's own jars, fetched once by Maven and kept in the user's cache.

They are fetched into a directory beside the final one and renamed, under a lock: two runs at the same time
fetch once, and a run that is killed leaves nothing that looks complete.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from pathlib import Path

KAFKA_VERSION = "4.1.0"

#: The binding is what makes Kafka's slf4j loggers write through log4j; the jars alone log nothing.
_DEPENDENCIES = (
    ("org.apache.kafka", "kafka_2.13", KAFKA_VERSION),
    ("org.apache.logging.log4j", "log4j-slf4j-impl", "2.24.3"),
)
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_FETCH_TIMEOUT = 600


class Unavailable(Exception):
    """There is no Kafka to be had here; the message says what is missing."""


def kafka_jars() -> Path:
    """The directory of Kafka's jars, fetched if need be; raises `Unavailable`."""
    check_java()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trio_kprod"
    jars = cache / f"kafka-{KAFKA_VERSION}"
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(jars.with_suffix(".lock")):
        if not jars.is_dir():
            _fetch(jars)
    return jars


def check_java() -> None:
    """Raise `Unavailable` unless there is a Java that runs Kafka 4, which is 17 or newer."""
    if shutil.which("java") is None:
        raise Unavailable("no java on the PATH; Kafka 4 needs Java 17 or newer")
    told = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', told)
    if found is None or int(found[1]) < 17:
        raise Unavailable(f"Kafka 4 needs Java 17 or newer, this is {told.splitlines()[:1]}")


@contextlib.contextmanager
def _locked(path: Path) -> Generator[None, None, None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(jars: Path) -> None:
    if shutil.which("mvn") is None:
        raise Unavailable("no mvn on the PATH; Maven fetches Apache Kafka's jars")
    with tempfile.TemporaryDirectory(dir=jars.parent, prefix="fetching-") as directory:
        pom = Path(directory, "pom.xml")
        pom.write_text(_pom(), encoding="utf-8")
        fetched = Path(directory, "jars")
        _run_maven(pom, fetched)
        fetched.rename(jars)


def _run_maven(pom: Path, output: Path) -> None:
    command = [
        "mvn",
        "-q",
        "-B",
        "-f",
        str(pom),
        _COPY,
        "-DincludeScope=runtime",
        f"-DoutputDirectory={output}",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH_TIMEOUT, check=False)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"Maven did not fetch Kafka's jars in {_FETCH_TIMEOUT} s") from error
    if done.returncode:
        lines = (done.stdout + done.stderr).splitlines()
        reason = next((line for line in lines if "ERROR" in line), f"exit status {done.returncode}")
        raise Unavailable(f"Maven could not fetch Kafka's jars: {reason[:500]}")


def _pom() -> str:
    dependencies = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
        for group, artifact, version in _DEPENDENCIES
    )
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>trio-kprod</groupId><artifactId>kafka-jars</artifactId><version>1</version>"
        f"<dependencies>{dependencies}</dependencies></project>\n"
    )
