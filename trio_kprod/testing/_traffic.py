"""What goes through a proxy, and what is to go wrong with it: the state that its connections share."""

from __future__ import annotations

from ._faults import Limited, Rule
from ._framing import Frame
from ._network_faults import DIRECTIONS, Cut, Direction, NetworkFault, NetworkRules, Plan, Reject
from ._watching import Watched


class Traffic(Watched):
    """Scripted faults and counters. Thread-safe."""

    def __init__(self) -> None:
        super().__init__()
        self.rules = NetworkRules()
        self.accepted = 0
        self.open = 0
        self.forwarded: dict[Direction, int] = dict.fromkeys(DIRECTIONS, 0)

    def script(self, fault: Limited) -> Rule:
        """Add a fault, which applies from now on."""
        with self.lock:
            rule = Rule(fault, self.changed)
            self.rules.add(rule)
            return rule

    def accept(self) -> Reject | None:
        """Note a new connection. Returns the fault that ends it at once, if there is one."""
        with self.lock:
            self.accepted += 1
            self.open += 1
            plan = self.rules.plan(lambda fault: isinstance(fault, Reject))
            self.changed()
            return plan.fault(Reject)

    def close(self) -> None:
        """Note the end of a connection."""
        with self.lock:
            self.open -= 1
            self.changed()

    def plan(self, direction: Direction, frame: Frame, *, ending: bool) -> Plan:
        """What is to happen to a frame; counts it as a match. One whose direction is `ending` is not cut."""

        def concerns(fault: NetworkFault) -> bool:
            return fault.concerns(direction, frame.api) and not (ending and isinstance(fault, Cut))

        with self.lock:
            plan = self.rules.plan(concerns)
            if plan.rules:
                self.changed()
            return plan

    def is_silent(self, direction: Direction) -> bool:
        """Whether nothing gets through in a direction."""
        with self.lock:
            return self.rules.is_silent(direction)

    def forward(self, direction: Direction, count: int) -> None:
        """Note that `count` bytes were passed on."""
        with self.lock:
            self.forwarded[direction] += count
            self.changed()
