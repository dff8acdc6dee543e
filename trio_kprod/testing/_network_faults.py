"""What a proxy can do to the connections through it, and to which of them; see the methods of `Proxy`.

As with the broker's faults: looked up in the order in which they were added; for one frame the first match
of each kind applies, so two of a kind come one after the other, while a delay and a cut go together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from ._checks import check_integer, check_seconds
from ._faults import Limited, Rule

Direction = Literal["requests", "answers"]

DIRECTIONS: tuple[Direction, Direction] = ("requests", "answers")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFault(Limited):
    """Something that happens to a frame, of any direction if that is None."""

    direction: Direction | None = None

    def __post_init__(self) -> None:
        Limited.__post_init__(self)
        if self.direction not in (None, *DIRECTIONS):
            raise ValueError(f"direction must be 'requests' or 'answers'; got {self.direction!r}")

    def concerns(self, direction: Direction, api: str | None) -> bool:
        """Whether it is about a frame of this kind."""
        return self.direction in (None, direction) and self.api in (None, api)


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency(NetworkFault):
    """Held for `seconds`, with all that comes behind it."""

    seconds: float

    def __post_init__(self) -> None:
        NetworkFault.__post_init__(self)
        check_seconds(self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blackhole(NetworkFault):
    """Held until the rule is removed, with all that comes behind it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overwrite(NetworkFault):
    """Bytes from `at` on become `data`; without it, the one byte there is inverted."""

    at: int
    data: bytes | None = None

    def __post_init__(self) -> None:
        NetworkFault.__post_init__(self)
        _check_data(self.data if self.data is not None else b"-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Replace(NetworkFault):
    """Something else in its place."""

    data: bytes

    def __post_init__(self) -> None:
        NetworkFault.__post_init__(self)
        _check_data(self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trickle(NetworkFault):
    """A few bytes at a time, with a pause after each."""

    size: int
    seconds: float

    def __post_init__(self) -> None:
        NetworkFault.__post_init__(self)
        check_seconds(self.seconds)
        check_integer("size", self.size, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut(NetworkFault):
    """`forward` bytes from the frame's first on still go through (None: the frame), then the connection ends.

    With `half`, only this direction of it.
    """

    forward: int | None = 0
    reset: bool = False
    half: bool = False

    def __post_init__(self) -> None:
        NetworkFault.__post_init__(self)
        if self.forward is not None:
            check_integer("forward", self.forward, 0, ", or None for the whole frame")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject(NetworkFault):
    """A connection ends as soon as it is accepted. Matches connections, no frames."""

    reset: bool = False

    def concerns(self, direction: Direction, api: str | None) -> bool:  # noqa: ARG002  # as its base
        return False


def _check_data(data: bytes) -> None:
    if not isinstance(data, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"data must be bytes; got {data!r}")
    if not data:
        raise ValueError("data must not be empty")


_Kind = TypeVar("_Kind", bound=NetworkFault)


class Plan:
    """What is to happen to one frame, or to one connection: a rule of each kind at most."""

    def __init__(self) -> None:
        self.rules: dict[type[Limited], Rule] = {}

    def fault(self, kind: type[_Kind]) -> _Kind | None:
        """The fault of a kind, if there is one."""
        rule = self.rules.get(kind)
        return rule.fault if rule and isinstance(rule.fault, kind) else None


class NetworkRules:
    """The faults that were scripted, in order. Not thread-safe: `Traffic`'s lock guards them."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []

    def add(self, rule: Rule) -> None:
        """Append a rule."""
        self._rules.append(rule)

    def plan(self, concerns: Callable[[NetworkFault], bool]) -> Plan:
        """What is to happen now to what the faults concern."""
        plan = Plan()
        for rule in self._rules:
            fault = rule.fault
            assert isinstance(fault, NetworkFault), "a proxy's rules have a proxy's faults"
            if not rule.spent and type(fault) not in plan.rules and concerns(fault) and rule.due():
                rule.hits += 1
                plan.rules[type(fault)] = rule
        return plan

    def is_silent(self, direction: Direction) -> bool:
        """Whether nothing gets through in a direction, not even the end of a connection."""
        return any(
            rule.begun and isinstance(rule.fault, Blackhole) and rule.fault.concerns(direction, None)
            for rule in self._rules
        )

    def remove(self, kind: type[NetworkFault] = NetworkFault) -> None:
        """Forget every fault, or those of a kind; what they held goes on."""
        gone = [rule for rule in self._rules if isinstance(rule.fault, kind)]
        self._rules = [rule for rule in self._rules if rule not in gone]
        for rule in gone:
            rule.remove()
