"""What is to be reached, and in which of our modes it is: each target is a figure of one command."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.cost import CALL_RATIO, CHANNEL, FULL_SPEED
from benchmarks.harness.figures import CPU, RATE, Spread, Taken, ack, late, ratio
from benchmarks.harness.results import Results
from benchmarks.harness.tables import Table
from benchmarks.latency import awaited_by, paced_at
from benchmarks.memory import full_cases, of_payload
from benchmarks.peers import DEFAULT, MODES, PYTHON_LOOPS, REFERENCE, Mode, ours
from benchmarks.throughput import BASE, HEADERS, JSON_GZIP, JSON_HEADERS, KILO, UNIQUE_KEYS

Every = Mapping[str, Results]

PURE = tuple(mode for mode in MODES if not mode.compiled)
COMPILED = tuple(mode for mode in MODES if mode.compiled)
THREADS = tuple(mode for mode in MODES if mode.own_thread)
LOOPS = tuple(mode for mode in MODES if not mode.own_thread)
_MISSED = "MISSED"


@dataclass(frozen=True)
class Target:
    """A figure and its bounds.

    Attributes:
        figure: of a mode, from all results; raises `KeyError` where it was not measured.
        modes: in which it is to be reached.
        also: in which others the figure is told.
        unit: what stands behind the number.
        at_most: whether less is better.
    """

    name: str
    figure: Callable[[Every, Mode], float]
    bound: float
    stretch: float
    modes: Sequence[Mode] = MODES
    also: Sequence[Mode] = ()
    unit: str = "x"
    at_most: bool = False

    def row(self, every: Every, columns: Sequence[Mode] = MODES) -> list[str]:
        """As it stands in the table."""
        sign = "<=" if self.at_most else ">="
        bounds = [f"{sign} {bound:g} {self.unit}" for bound in (self.bound, self.stretch)]
        return [self.name, *bounds, *(self.cell(every, mode) for mode in columns)]

    def cell(self, every: Every, mode: Mode) -> str:
        """What one mode reaches, and how good that is."""
        if mode not in (*self.modes, *self.also):
            return ""
        try:
            found = self.figure(every, mode)
        except KeyError:
            return "not measured"
        shown = f"{found:.2f} {self.unit}"
        return f"{shown}, {self.verdict(found)}" if mode in self.modes else shown

    def verdict(self, found: float) -> str:
        """How good that is."""
        for bound, word in ((self.stretch, "stretch"), (self.bound, "met")):
            if found <= bound if self.at_most else found >= bound:
                return word
        return _MISSED


def table(every: Every) -> Table:
    """What is to be reached."""
    columns = ["figure", "target", "stretch", *(mode.title for mode in MODES)]
    return Table("Targets", columns, [target.row(every) for target in targets()])


def kept_table(every: Every) -> Table:
    """What is to stay as it is; the default mode only."""
    rows = [target.row(every, [DEFAULT]) for target in kept_targets()]
    return Table("What must not get worse", ["figure", "target", "stretch", DEFAULT.title], rows)


def missed(every: Every) -> list[str]:
    """The targets that are not reached in one of their modes."""
    rows = (*table(every).rows, *kept_table(every).rows)
    return [name for name, *cells in rows if any(cell.endswith(_MISSED) for cell in cells)]


def targets() -> Iterator[Target]:
    """In the order in which they are told."""
    yield from _rates()
    yield from _latencies()
    late_by = _median("responsiveness", FULL_SPEED, late("p99"))
    name = "timer lateness p99 at full speed, own thread"
    yield Target(name, late_by, 3, 2, THREADS, LOOPS, unit="ms", at_most=True)
    cost = _median("throughput", BASE, CPU)
    for modes, word, bound, stretch in ((PURE, "pure", 1.9, 1.6), (COMPILED, "compiled", 1.2, 1.0)):
        yield Target(f"CPU a message, 100 B, {word}", cost, bound, stretch, modes, unit="us", at_most=True)


def _rates() -> Iterator[Target]:
    against = (*PYTHON_LOOPS, REFERENCE)
    for modes, word, bounds, stretches in (
        (PURE, "pure", (6, 3, 2.6, 0.4), (7, 3.5, 3, 0.5)),
        (COMPILED, "compiled", (9, 4.5, 3.5, 0.6), (12, 6, 5, 0.8)),
    ):
        for peer, bound, stretch in zip(against, bounds, stretches, strict=True):
            yield Target(f"100 B, {word}: against {peer}", _rate(BASE, peer), bound, stretch, modes)
    for peer, bound, stretch in zip(PYTHON_LOOPS, (4, 2, 2), (5, 3, 2.5), strict=True):
        yield Target(f"1 KB, compiled: against {peer}", _rate(KILO, peer), bound, stretch, COMPILED, PURE)
    yield Target("`await send` 100 B: against aiokafka", _rate(BASE, "aiokafka", "await send"), 2, 2.5)
    yield Target(f"{JSON_GZIP}: against AIOProducer", _rate(JSON_GZIP, "AIOProducer"), 1.2, 1.6)
    for case in (HEADERS, JSON_HEADERS, UNIQUE_KEYS):
        yield Target(f"{case}: against aiokafka", _rate(case, "aiokafka"), 1.5, 2)


def _latencies() -> Iterator[Target]:
    one = _acks(awaited_by(1), "p50", ("aiokafka",), "send_and_wait")
    name = "`send_and_wait` p50 from one task, own loop: against aiokafka"
    yield Target(name, one, 1.0, 0.9, LOOPS, THREADS, at_most=True)
    for rate in (1_000, 10_000):
        for percentile in ("p50", "p99"):
            name = f"acknowledged {percentile} at {rate:,}/s, own loop: against the best Python peer"
            figure = _acks(paced_at(rate), percentile, PYTHON_LOOPS)
            yield Target(name, figure, 1.0, 0.9, LOOPS, THREADS, at_most=True)


def kept_targets() -> Iterator[Target]:
    """What was reached before, and is measured again by itself."""
    yield Target("send_many: against the faster of our other two", _send_many, 1.0, 1.3)
    call = _median("cost", CHANNEL, CALL_RATIO)
    yield Target("`send_nowait` against a bare channel's", call, 5, 3.5, at_most=True)
    for beside, bound in ((350, 2.5), (250, 2.0)):
        name = f"memory when full, 1 KB, worst case: less {beside} B a message"
        yield Target(name, _memory(beside), bound, bound, unit="x payload", at_most=True)


def _taken(every: Every, command: str, case: str) -> Taken:
    return every[command].found[case]


def _rate(case: str, peer: str, way: str = "send_nowait") -> Callable[[Every, Mode], float]:
    return lambda every, mode: ratio(_taken(every, "throughput", case), ours(way, mode), peer)


def _send_many(every: Every, mode: Mode) -> float:
    taken, others = _taken(every, "throughput", BASE), ("send_nowait", "await send")
    return min(ratio(taken, ours("send_many", mode), ours(way, mode), RATE) for way in others)


def _acks(
    case: str, percentile: str, peers: Sequence[str], way: str = "send_nowait"
) -> Callable[[Every, Mode], float]:
    """Against the best of these peers, the one that makes the ratio the largest."""

    def figure(every: Every, mode: Mode) -> float:
        taken = _taken(every, "latency", case)
        name = ack(percentile)
        return max(ratio(taken, ours(way, mode), peer, name) for peer in peers if peer in taken)

    return figure


def _median(command: str, case: str, name: str) -> Callable[[Every, Mode], float]:
    def figure(every: Every, mode: Mode) -> float:
        found: Spread = _taken(every, command, case)[ours("send_nowait", mode)][name]
        return found.median

    return figure


def _memory(beside: float) -> Callable[[Every, Mode], float]:
    """In the worst case."""

    def figure(every: Every, mode: Mode) -> float:
        taken = [_taken(every, "memory", case.name) for case in full_cases()]
        return max(of_payload(each[ours("send_nowait", mode)], beside) for each in taken)

    return figure
