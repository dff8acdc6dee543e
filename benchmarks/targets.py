"""What is to be reached, and whether it is: each target is a figure of one command's results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from benchmarks.cost import CHANNEL, FULL_SPEED, call_ratio
from benchmarks.harness.figures import Measure, ack_ms, cpu_us, late_ms, middle, rate, ratio
from benchmarks.harness.results import Results
from benchmarks.harness.tables import Table
from benchmarks.harness.turns import Rounds
from benchmarks.latency import awaited_by, paced_at
from benchmarks.memory import full_cases, of_payload
from benchmarks.peers import PYTHON_LOOPS, REFERENCE
from benchmarks.throughput import BASE, KILO, with_key

Every = Mapping[str, Results]

_IDIOMS = ("send_nowait", "await send")


@dataclass(frozen=True)
class Target:
    """A figure and its bounds.

    Attributes:
        figure: from all results; raises `KeyError` where it was not measured.
        unit: what stands behind the number.
        at_most: whether less is better.
    """

    name: str
    figure: Callable[[Every], float]
    bound: float
    stretch: float
    unit: str = "x"
    at_most: bool = False

    def row(self, every: Every) -> list[str]:
        """As it stands in the table."""
        sign = "<=" if self.at_most else ">="
        bounds = [f"{sign} {bound:g} {self.unit}" for bound in (self.bound, self.stretch)]
        figure = self._figure(every)
        return [self.name, *bounds, self.found(every), "" if figure is None else self.verdict(figure)]

    def found(self, every: Every) -> str:
        """The figure with its unit."""
        figure = self._figure(every)
        return "not measured" if figure is None else f"{figure:.2f} {self.unit}"

    def _figure(self, every: Every) -> float | None:
        try:
            return self.figure(every)
        except (KeyError, ValueError):  # ValueError: only one of two has been measured as often
            return None

    def verdict(self, found: float) -> str:
        """How good that is."""
        for bound, word in ((self.stretch, "stretch met"), (self.bound, "met")):
            if found <= bound if self.at_most else found >= bound:
                return word
        return "MISSED"


def table(every: Every) -> Table:
    """All of them."""
    rows = [target.row(every) for target in targets()]
    return Table("Targets", ["figure", "at least", "stretch", "found", ""], rows)


def other_idiom(every: Every) -> Table:
    """The same figures where each message is awaited; what is wanted of them nobody has said."""
    rows = [[target.name, target.found(every)] for target in _of_idiom("await send")]
    title = "The same with `await send` for each message, which yields to the other tasks each time"
    return Table(title, ["figure", "found"], rows)


def targets() -> Iterator[Target]:
    """In the order in which they are told."""
    yield from _of_idiom("send_nowait")
    yield Target("send_many: against the faster of our other two", _send_many, 1.0, 1.3)
    one = _ack_ratio(awaited_by(1), "send_and_wait", "p50", ("aiokafka",))
    yield Target("`send_and_wait` p50 from one task: against aiokafka", one, 1.5, 1.0, at_most=True)
    call = _median("cost", CHANNEL, "send_nowait", call_ratio)
    yield Target("`send_nowait` against a bare channel's", call, 5, 3.5, at_most=True)
    for beside, bound in ((350, 2.5), (250, 2.0)):
        name = f"memory when full, 1 KB, worst case: less {beside} B a message"
        yield Target(name, _memory(beside), bound, bound, "x payload", at_most=True)


def _of_idiom(idiom: str) -> Iterator[Target]:
    yield from _rates(idiom)
    yield from _latencies(idiom)
    late = _median("responsiveness", FULL_SPEED, idiom, late_ms("p99"))
    yield Target(f"timer lateness p99 at full speed, `{idiom}`", late, 10, 5, "ms", at_most=True)
    cost = _median("cost", FULL_SPEED, idiom, cpu_us)
    yield Target(f"CPU a message at full speed, 100 B, `{idiom}`", cost, 4, 2.5, "us", at_most=True)


def _rates(idiom: str) -> Iterator[Target]:
    for peer, bound, stretch in (
        ("KafkaProducer", 4, 7),
        ("aiokafka", 2.2, 3.5),
        ("AIOProducer", 3, 4.5),
        (REFERENCE, 0.3, 0.6),
    ):
        yield Target(f"100 B, `{idiom}`: against {peer}", _rate_ratio(BASE, idiom, peer), bound, stretch)
    for peer in PYTHON_LOOPS:
        yield Target(f"1 KB, `{idiom}`: against {peer}", _rate_ratio(KILO, idiom, peer), 2, 3.5)
    keyed = _rate_ratio(with_key(BASE), idiom, "aiokafka")
    yield Target(f"100 B with key, `{idiom}`: against aiokafka", keyed, 1.8, 2.5)


def _latencies(idiom: str) -> Iterator[Target]:
    for percentile in ("p50", "p99"):
        for whom, peers in (("the best peer", PYTHON_LOOPS), ("the best, C too", (*PYTHON_LOOPS, REFERENCE))):
            name = f"ack {percentile} at 1,000/s, `{idiom}`: against {whom}"
            yield Target(name, _ack_ratio(paced_at(1_000), idiom, percentile, peers), 1.5, 1.0, at_most=True)


def _rounds(every: Every, command: str, case: str) -> Rounds:
    return every[command].found[case]


def _rate_ratio(case: str, ours: str, peer: str) -> Callable[[Every], float]:
    def figure(every: Every) -> float:
        taken = _rounds(every, "throughput", case)
        return ratio(taken[ours], taken[peer], rate)

    return figure


def _send_many(every: Every) -> float:
    taken = _rounds(every, "throughput", BASE)
    return min(ratio(taken["send_many"], taken[idiom], rate) for idiom in _IDIOMS)


def _ack_ratio(case: str, ours: str, percentile: str, peers: tuple[str, ...]) -> Callable[[Every], float]:
    """Against the best of these peers, the one that makes the ratio the largest."""

    def figure(every: Every) -> float:
        taken = _rounds(every, "latency", case)
        measure = ack_ms(percentile)
        return max(ratio(taken[ours], taken[peer], measure) for peer in peers if peer in taken)

    return figure


def _median(command: str, case: str, peer: str, measure: Measure) -> Callable[[Every], float]:
    return lambda every: middle(_rounds(every, command, case)[peer], measure)


def _memory(beside: float) -> Callable[[Every], float]:
    """In the worst case."""

    def figure(every: Every) -> float:
        taken = [_rounds(every, "memory", case.name)["send_nowait"] for case in full_cases()]
        return max(middle(rounds, partial(of_payload, beside=beside)) for rounds in taken)

    return figure
