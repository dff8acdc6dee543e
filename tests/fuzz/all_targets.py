"""Everything that is fuzzed."""

from __future__ import annotations

from tests.fuzz.cores import CORES
from tests.fuzz.decoders import DECODERS
from tests.fuzz.loops import LOOPS
from tests.fuzz.own_inputs import OWN_INPUTS
from tests.fuzz.run import Tally, run_some
from tests.fuzz.targets import Target

TARGETS: list[Target] = [*DECODERS, *CORES, *LOOPS, *OWN_INPUTS]


def target_named(name: str) -> Target:
    (target,) = (target for target in TARGETS if target.name == name)
    return target


#: The name of a target, and the numbers from which to which.
Job = tuple[str, int, int]


def work(job: Job) -> Tally:
    """Run some inputs, perhaps in a process for it."""
    name, start, end = job
    return run_some(target_named(name), range(start, end))
