"""What every command does: read its arguments, find a Kafka, measure, print, and keep what it found."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.peers import PEERS, Peer, is_installed
from tests.kafka.cluster import Cluster, Kafka, some_kafka
from tests.kafka.jars import KAFKA_VERSION, Unavailable

from .machine import load, machine
from .plots import can_plot
from .results import DIRECTORY, Results
from .tables import Table
from .turns import Case, Once, Rounds, Turns

if TYPE_CHECKING:
    from typing_extensions import Self

MakeTable = Callable[[str, Rounds], Table]

#: Fewer say little of a machine that does other things too.
ROUNDS = 5

#: What part of a round's messages ``--quick`` sends.
QUICK = 0.1


@dataclass(frozen=True)
class Options:
    """A command's arguments."""

    rounds: int
    quick: bool
    bootstrap_servers: str | None
    peers: Sequence[str]
    cases: Sequence[str]
    results: Path | None

    @property
    def directory(self) -> Path | None:
        """Where to keep what is found: a part, or a quick look, does not replace what is kept already."""
        whole = self.rounds >= ROUNDS and not self.quick and not self.cases and set(self.peers) == set(PEERS)
        return self.results or (DIRECTORY if whole else None)

    @property
    def share(self) -> float:
        return QUICK if self.quick else 1.0

    def wanted(self, case: str) -> bool:
        """Whether ``--cases`` lets this one pass."""
        return not self.cases or any(fnmatchcase(case, pattern) for pattern in self.cases)

    @classmethod
    def parse(cls, doc: str | None, default_rounds: int = ROUNDS) -> Self:
        given = vars(_parser(doc).parse_args())
        rounds = given.pop("rounds") or (1 if given["quick"] else default_rounds)
        return cls(rounds=rounds, **given)


def _parser(doc: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rounds", type=int, help="how often the producers take turns; by default 5, or 1 if quick"
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the messages: to see that it works")
    parser.add_argument("--bootstrap-servers", help="a Kafka to use; by default one is started")
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=PEERS, metavar="NAME")
    parser.add_argument(
        "--cases", nargs="+", default=[], metavar="PATTERN", help="such as '1 KB*'; by default all"
    )
    parser.add_argument(
        "--results", type=Path, help="a directory for what is found; by default only whole runs are kept"
    )
    return parser


class Bench:
    """One run of one command, beside one Kafka."""

    def __init__(self, name: str, title: str, options: Options, kafka: Kafka) -> None:
        self._began = time.monotonic()
        self.options = options
        self.kafka = kafka
        self.turns = Turns(kafka, options.rounds, options.share)
        self.results = Results(name, title, _command(name), {**machine(), **_version(kafka)}, load())
        self.peers = self._installed()

    @property
    def cluster(self) -> Cluster:
        """The Kafka, if it is one that can be stopped."""
        if not isinstance(self.kafka, Cluster):
            raise SystemExit(
                f"{self.results.name} stops Kafka: it needs one of its own, without --bootstrap-servers"
            )
        return self.kafka

    def measure(self, case: Case, peers: Iterable[Peer], table: MakeTable, once: Once | None = None) -> None:
        """Let the producers take turns, if the case is wanted."""
        if self.options.wanted(case.name):
            self.results.found[case.name] = taken = self.turns.take(case, peers, once)
            if taken:
                self.results.tables.append(table(case.name, taken))

    def finish(self) -> None:
        """Print and keep what was found; the exit status is 1 if anybody failed."""
        self.results.notes += self.turns.problems
        self.results.seconds = round(time.monotonic() - self._began)
        for table in self.results.tables:
            print("\n" + table.text(), end="")
        for note in self.results.notes:
            print(note)
        print(f"{self.results.name}: {self.results.seconds} s with {self.options.rounds} rounds")
        if self.options.directory is not None:
            self.results.save(self.options.directory)
        if self.turns.problems:
            raise SystemExit(1)

    def plot(self, name: str) -> Path | None:
        """Where to put a plot; None if there can be none."""
        directory = self.options.directory
        if directory is None or not can_plot():
            return None
        directory.mkdir(parents=True, exist_ok=True)
        self.results.plots.append(f"{name}.svg")
        return directory / f"{name}.svg"

    def _installed(self) -> list[Peer]:
        wanted = [PEERS[name] for name in self.options.peers]
        for peer in wanted:
            if not is_installed(peer):
                self.results.notes.append(f"{peer.name} is left out: {peer.package} is not installed.")
        return [peer for peer in wanted if is_installed(peer)]


class NoKafka(SystemExit):
    """There is none, and none can be started; the message says why."""


def _version(kafka: Kafka) -> dict[str, str]:
    return {"Apache Kafka": KAFKA_VERSION} if isinstance(kafka, Cluster) else {}


def _command(name: str) -> str:
    return " ".join(["python", "-m", f"benchmarks.{name}", *sys.argv[1:]])


@contextlib.contextmanager
def bench(name: str, title: str, options: Options) -> Generator[Bench, None, None]:
    """Give a `Bench`; then print and keep what was found."""
    try:
        with some_kafka(options.bootstrap_servers) as kafka:
            running = Bench(name, title, options, kafka)
            with contextlib.closing(running.turns):
                if isinstance(kafka, Cluster):
                    running.turns.warm_up(running.peers)
                yield running
    except Unavailable as error:
        raise NoKafka(f"no Apache Kafka: {error}") from None
    running.finish()
