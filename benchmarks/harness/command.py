"""What every command does: read its arguments, find a Kafka, measure, print, and keep what it found."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.peers import PEERS, Peer, is_installed, pick
from tests.kafka.cluster import Cluster, Kafka, some_kafka
from tests.kafka.jars import KAFKA_VERSION, Unavailable

from .figures import Found, Taken
from .machine import load, machine
from .plots import can_plot
from .results import DIRECTORY, Results, save_samples, summaries
from .tables import Table
from .turns import Case, Once, Rounds, Turns

if TYPE_CHECKING:
    from typing_extensions import Self

#: From a case's name and what was found there.
MakeTable = Callable[[str, Taken], Table]

#: Fewer say little of a machine that does other things too.
ROUNDS = 3

#: What part of a round's messages ``--quick`` sends.
QUICK = 0.1


class Command(NamedTuple):
    """What a command is called, and how to show what it found.

    Attributes:
        tables: from all that was found.
        plots: what draws each, if anything was found for it, by the name of the file.
    """

    name: str
    title: str
    tables: Callable[[Found], Iterable[Table]]
    plots: Mapping[str, Callable[[Path, Found], None]] = {}


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
        "--rounds", type=int, help="how often the producers take turns; by default 3, or 1 if quick"
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
    """One run of one command, beside one Kafka.

    Attributes:
        taken: the rounds of each case.
        peers: those that are wanted and can be run here.
    """

    def __init__(self, command: Command, options: Options, kafka: Kafka) -> None:
        self._began = time.monotonic()
        self._command = command
        self.options = options
        self.kafka = kafka
        self.turns = Turns(kafka, options.rounds, options.share)
        self.taken: dict[str, Rounds] = {}
        measured_on = {**machine(), **_version(kafka)}
        self.results = Results(command.name, _typed(command.name), measured_on, load(), options.rounds)
        self.peers = self._installed()

    @property
    def cluster(self) -> Cluster:
        """The Kafka, if it is one that can be stopped."""
        if not isinstance(self.kafka, Cluster):
            raise SystemExit(
                f"{self._command.name} stops Kafka: it needs one of its own, without --bootstrap-servers"
            )
        return self.kafka

    def measure(self, case: Case, peers: Iterable[Peer], once: Once | None = None) -> None:
        """Let the producers take turns, if the case is wanted."""
        if self.options.wanted(case.name):
            taken = self.turns.take(case, peers, once)
            if taken:
                self.taken[case.name] = taken

    def finish(self) -> None:
        """Keep and print what was found; the exit status is 1 if anybody failed."""
        self.results.notes += self.turns.problems
        self.results.seconds = round(time.monotonic() - self._began)
        self.results.found = summaries(self.taken)
        if self.options.directory is not None:
            save_samples(self.options.directory, self.results.name, self.taken)
            self.results.save(self.options.directory)
        self._print()
        if self.turns.problems:
            raise SystemExit(1)

    def _print(self) -> None:
        for table in self._command.tables(self.results.found):
            print("\n" + table.text(), end="")
        for note in self.results.notes:
            print(note)
        print(f"{self.results.name}: {self.results.seconds} s with {self.options.rounds} rounds")

    def _installed(self) -> list[Peer]:
        wanted = [PEERS[name] for name in self.options.peers]
        missing: dict[str, list[str]] = {}
        for peer in wanted:
            if not is_installed(peer):
                missing.setdefault(peer.package, []).append(f"`{peer.name}`")
        self.results.notes += [
            f"Left out, as {package} is not installed: {'; '.join(names)}."
            for package, names in missing.items()
        ]
        return [peer for peer in wanted if is_installed(peer)]


def draw(command: Command, directory: Path, found: Found) -> None:
    """Draw every plot anew, if that can be done."""
    if can_plot():
        for name, plot in command.plots.items():
            plot(directory / f"{name}.svg", found)


class NoKafka(SystemExit):
    """There is none, and none can be started; the message says why."""


def _version(kafka: Kafka) -> dict[str, str]:
    return {"Apache Kafka": KAFKA_VERSION} if isinstance(kafka, Cluster) else {}


def _typed(name: str) -> str:
    return " ".join(["python", "-m", f"benchmarks.{name}", *sys.argv[1:]])


@contextlib.contextmanager
def bench(command: Command, options: Options) -> Generator[Bench, None, None]:
    """Give a `Bench`; then print and keep what was found."""
    try:
        with some_kafka(options.bootstrap_servers) as kafka:
            running = Bench(command, options, kafka)
            with contextlib.closing(running.turns):
                if isinstance(kafka, Cluster):
                    running.turns.warm_up(pick(running.peers))
                yield running
    except Unavailable as error:
        raise NoKafka(f"no Apache Kafka: {error}") from None
    running.finish()
