"""Apache Kafka's own jars, fetched once by Maven and kept in the user's cache, one directory a version.

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

#: What makes the loggers of every Kafka write through log4j 2: those of slf4j, and those of log4j 1, which
#: Kafka has used by itself until 4.0. The jars alone log nothing.
_LOGGING = {"log4j-slf4j-impl": "2.24.3", "log4j-1.2-api": "2.24.3"}

#: They would take the place of those two.
_EXCLUDED = {
    "log4j": "log4j",
    "reload4j": "ch.qos.reload4j",
    "slf4j-log4j12": "org.slf4j",
    "slf4j-reload4j": "org.slf4j",
}
#: A part of the Java of their time that the Kafkas 0 lack today. (2.0 to 2.3 do not run: their ZooKeeper's
#: client resolves no address under Java 14 and newer.)
_OLD_JAVA = ("javax.xml.bind", "jaxb-api", "2.3.1")

_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_FETCH_TIMEOUT = 600


class Unavailable(Exception):
    """There is no Kafka to be had here; the message says what is missing."""


def kafka_jars(version: str = KAFKA_VERSION) -> Path:
    """The directory of the jars of Kafka `version`, fetched if need be; raises `Unavailable`."""
    check_java()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trio_kprod"
    jars = cache / f"kafka-jars-{version}"
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / f"{jars.name}.lock"):
        if not jars.is_dir():
            _fetch(version, jars)
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
def locked(path: Path) -> Generator[None, None, None]:
    """A block that one process at a time is in."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(version: str, jars: Path) -> None:
    if shutil.which("mvn") is None:
        raise Unavailable("no mvn on the PATH; Maven fetches Apache Kafka's jars")
    with tempfile.TemporaryDirectory(dir=jars.parent, prefix="fetching-") as directory:
        pom = Path(directory, "pom.xml")
        pom.write_text(_pom(version), encoding="utf-8")
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


def _pom(version: str) -> str:
    exclusions = "".join(
        f"<exclusion><groupId>{group}</groupId><artifactId>{artifact}</artifactId></exclusion>"
        for artifact, group in _EXCLUDED.items()
    )
    kafka = _dependency("org.apache.kafka", _artifact(version), version, exclusions)
    others = [("org.apache.logging.log4j", *one) for one in _LOGGING.items()]
    if version.startswith("0."):
        others.append(_OLD_JAVA)
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>trio-kprod</groupId><artifactId>kafka-jars</artifactId><version>1</version>"
        f"<dependencies>{kafka}{''.join(_dependency(*one) for one in others)}</dependencies></project>\n"
    )


def _artifact(version: str) -> str:
    """Kafka's name has that of its Scala, which was 2.11 at first, and has been 2.13 since 2.4."""
    return "kafka_2.11" if version.startswith(("0.", "1.", "2.0")) else "kafka_2.13"


def _dependency(group: str, artifact: str, version: str, exclusions: str = "") -> str:
    return (
        f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>"
        f"<version>{version}</version><exclusions>{exclusions}</exclusions></dependency>"
    )
