"""Lets the producers take turns, each round in a process of its own, and counts only what is in the log."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.peers import PEERS, Peer, environment

from .job import Job, Round
from .topics import Lent, Topics

if TYPE_CHECKING:
    from tests.kafka.cluster import Kafka

_ROOT = Path(__file__).parents[2]

#: A round that takes longer hangs.
PATIENCE = 600.0

#: For so long a Kafka that has just been started is warmed up at least, in seconds.
_WARMING_UP = 9.0

#: Values of one round take at most so much memory.
_BYTES = 160_000_000

#: Tasks in which it is not `messages` that get into the log.
_SENT_OTHERWISE = ("full", "calls")

Rounds = dict[str, list[Round]]
Once = Callable[["Case", Peer], Round]


def _nothing() -> None:
    pass


class RoundFailed(Exception):
    """A producer did not do what it was to do."""


class Case(NamedTuple):
    """What the producers are compared in: a job for each, but for its name, topics and servers.

    Attributes:
        fast: whether to give each its settings for rates; else those for acknowledgements.
        scaled: how many times what each producer sends in a second the job has; 0 leaves its `messages`.
        own_topics: whether each round has new ones, because of what it does to Kafka.
    """

    name: str
    job: Job
    topics: int = 1
    fast: bool = True
    scaled: float = 0.0
    own_topics: bool = False


def make_job(**what: object) -> Job:
    """A job whose peer, servers and topics are not known yet."""
    return Job(**{"peer": "", "servers": "", "topics": (), "messages": 0, **what})  # type: ignore[arg-type]


def can(peer: Peer, case: Case) -> bool:
    """Whether this producer can do this."""
    needs = {case.job.task} | ({"headers"} if case.job.headers else set())
    return not needs & peer.cannot


class Turns:
    """Runs cases beside one Kafka.

    Attributes:
        problems: why which producers are missing in which cases.
    """

    def __init__(self, kafka: Kafka, rounds: int, share: float = 1.0) -> None:
        self._kafka = kafka
        self._lent = Lent(Topics(kafka.bootstrap_servers))
        self._rounds = rounds
        self._share = share
        self.problems: list[str] = []

    def take(self, case: Case, peers: Iterable[Peer], once: Once | None = None) -> Rounds:
        """A B C A B C ...: what else the machine does falls on all alike.

        `once` runs a round, by default `self.once`. A producer that fails in one is left out of the case.
        """
        once = once or self.once
        taken: Rounds = {peer.name: [] for peer in peers if can(peer, case)}
        for number, name in itertools.product(range(1, self._rounds + 1), list(taken)):
            if name in taken:
                try:
                    taken[name].append(once(case, PEERS[name]))
                except RoundFailed as error:
                    del taken[name]
                    self._report(f"{name} is missing in {case.name}: {error}")
                else:
                    print(f"{case.name}, round {number}, {name}: {brief(taken[name][-1])}", flush=True)
        return taken

    def warm_up(self, peers: Iterable[Peer]) -> None:
        """Let Kafka do for a while what it is about to do: it is twice as fast once it has been compiled.

        For all of them, since one sends many small requests and another few large ones.
        """
        case = Case("warming up", make_job(task="flood"), scaled=1.0)
        able = [peer for peer in peers if can(peer, case)]
        until = time.monotonic() + max(_WARMING_UP, 3 * len(able))
        for peer in itertools.cycle(able):
            if time.monotonic() > until:
                break
            with contextlib.suppress(RoundFailed):  # it will be told where it counts
                self.once(case, peer)

    def _report(self, problem: str) -> None:
        self.problems.append(problem)
        print(problem, flush=True)

    def once(
        self,
        case: Case,
        peer: Peer,
        *,
        before: Callable[[], object] = _nothing,
        during: Callable[[], object] = _nothing,
        after: Callable[[], object] = _nothing,
    ) -> Round:
        """One round; `before` is called when all is warm, `during` once it has begun, `after` always.

        Rounds use the same topics as long as all goes well.
        """
        job = self.fitted(case, peer)
        topics = self._lent.take(case.topics, job.partitions, job.messages * job.size)
        job = replace(job, topics=topics)
        try:
            try:
                done = run_job(job, before, during)
            finally:
                after()
            self._check(job, done)
        except BaseException:
            self._lent.give_up()
            raise
        if case.own_topics:
            self._lent.give_up()
        return done

    def close(self) -> None:
        """Remove the last topics."""
        self._lent.give_up()

    def fitted(self, case: Case, peer: Peer) -> Job:
        """The job as this producer is given it."""
        job = replace(case.job, peer=peer.name, servers=self._kafka.bootstrap_servers)
        if case.scaled:
            count = min(peer.messages * case.scaled * self._share, _BYTES / job.size)
            job = replace(job, messages=max(1, int(count)))
        best = peer.fast if case.fast else peer.prompt
        level = (peer.gzip or {}) if job.compression == "gzip" else {}
        return replace(job, settings={**best, **level, **job.settings})

    def _check(self, job: Job, done: Round) -> None:
        warming = len(job.topics) * job.partitions
        written = self._lent.count() - warming
        if job.task not in _SENT_OTHERWISE and not job.messages - done.failed <= written <= job.messages:
            raise RoundFailed(f"{job.messages} messages sent, {done.failed} failed, but {written} in the log")


def run_job(job: Job, before: Callable[[], object], during: Callable[[], object]) -> Round:
    """Run a job in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.harness.worker", job.dumps()]
    with _worker(command, environment(PEERS[job.peer])) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RoundFailed("it did not get ready")
        before()
        printed = _go_on(process, during)
    if process.returncode:
        raise RoundFailed(f"exit status {process.returncode}")
    return Round.loads(printed.splitlines()[-1])


def _go_on(process: subprocess.Popen[str], during: Callable[[], object]) -> str:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    during()
    try:
        return process.communicate(timeout=PATIENCE)[0]
    except subprocess.TimeoutExpired:
        raise RoundFailed(f"not done in {PATIENCE:g} s") from None


@contextlib.contextmanager
def _worker(command: list[str], env: Mapping[str, str]) -> Generator[subprocess.Popen[str], None, None]:
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=_ROOT, env=env) as process:
        try:
            yield process
        finally:
            process.kill()  # no harm if it has ended


def brief(done: Round) -> str:
    """A round in one line."""
    if done.extra:
        return ", ".join(f"{name} {figure:,.1f}" for name, figure in done.extra.items())
    parts = [f"{done.rate:,.0f} msg/s, {done.cpu_us:.2f} us/msg"]
    if done.acks:
        parts.append(f"ack p50 {done.acks['p50'] * 1e3:.2f} ms, p99 {done.acks['p99'] * 1e3:.2f} ms")
    if done.lateness:
        parts.append(f"late p99 {done.lateness['p99'] * 1e3:.1f} ms")
    return ", ".join(parts)
