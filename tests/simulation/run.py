"""One run: a schedule of events drawn from a seed, then calm, then the history is checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import inf
from random import Random
from typing import NamedTuple
from unittest.mock import patch

from tests.simulation import faults
from tests.simulation.history import Broken as Broken
from tests.simulation.log import Sealed
from tests.simulation.setting import MESSAGE_SIZE, Setting
from tests.simulation.world import World
from trio_kprod._core import _core, _keyless, _limits, _partition, _responses
from trio_kprod._core._batch import LAST_EPOCH, Chain
from trio_kprod._errors import RetriesExhausted
from trio_kprod._messages import BATCH_OVERHEAD, SIZE, TIMESTAMP_MS, VALUE, Entry

#: With faults ended, everything is settled within so many seconds; in half of the runs no metadata grows old
#: enough meanwhile to be asked for again for that reason alone, and so to mend what was forgotten.
PATIENCE = 500.0
ROUNDS = 5000
ROUND_TRIP = 0.001

#: So often, and with so many seconds after it, the client sends before nothing may be lost any more. What
#: looks like old news it believes after `topic_timeout`; what brokers read in a request it learns by losing.
_ROUNDS_OF_NEWS = 4
_NEWS = 20.0


class Step(NamedTuple):
    """An event and what its dice are loaded with."""

    event: faults.Event
    load: int


Say = Callable[..., None]


def draw(seed: int, acks: int | None = None) -> tuple[Setting, list[Step]]:
    """The conditions and the schedule of a seed; `acks` as drawn, too, unless it is given."""
    random = Random(seed)
    setting = Setting.draw(seed, random, faults.USUAL.values(), acks)
    beginning = [faults.warm_up] if random.random() < 0.8 else []
    beginning += random.choices(faults.RULES, k=random.randint(0, 4))
    weights = [
        weight if setting.forgetful or event not in faults.AMNESIA else 0.0
        for event, weight in zip(faults.EVENTS, setting.weights, strict=True)
    ]
    events = beginning + random.choices(faults.EVENTS, weights, k=setting.steps)
    return setting, [Step(event, random.getrandbits(32)) for event in events]


def run(seed: int, acks: int | None = None) -> Counter[str]:
    """Run one seed, within `fast_sealing`; raise `Broken` if a promise was. Returns what was excused."""
    setting, schedule = draw(seed, acks)
    return replay(setting, schedule)


def replay(setting: Setting, schedule: Sequence[Step], say: Say | None = None) -> Counter[str]:
    """Run a schedule, or what is left of one."""
    with _conditions(setting):
        world = World(setting)
        if say is not None:
            world.say = lambda text, *args: say(world.now, text, *args)
        for event, load in schedule:
            world.dice.load(load)
            event(world, world.dice)
            world.step()
        _end(world)
    world.history.check()
    return world.history.excused


def _end(world: World) -> None:
    """Faults end: everything is delivered, unless the program stops first."""
    dice = world.dice
    dice.load(world.setting.seed)
    stops = dice.random() < 0.1
    if stops and dice.random() < 0.5:
        world.stop(faults.new_messages(world, dice, 2))
        world.step()
    world.calm()
    if stops and not world.history.stopped:
        world.stop([])
        world.step()
    _settle(world)
    if world.setting.acks == 0 and not stops:
        _send_when_all_is_well(world)
    world.check_memory()
    world.thaw_all()


def _settle(world: World) -> None:
    """Only what goes well happens. Time passes quickly only when there is nothing else to do.

    A message that ends its connections takes its time, and holds up its partition. So patience begins anew
    with each that is given up for that.
    """
    while not world.history.complete:
        given_up = _given_up_for_losses(world)
        problem = _settle_within_patience(world)
        if problem and _given_up_for_losses(world) == given_up:
            raise Broken(f"never told, {problem}: {_untold(world)}")


def _settle_within_patience(world: World) -> str:
    """Empty if all is settled, else why not."""
    end = world.now + PATIENCE
    for _ in range(ROUNDS):
        if world.history.complete:
            return ""
        if world.progress():
            world.now += ROUND_TRIP
        else:
            soonest = min(world.core.deadline, _next_on_the_wire(world))
            if soonest > end:
                return "and nothing happens"
            world.now = max(world.now, soonest)
        world.step()
    return "though much happens"


def _given_up_for_losses(world: World) -> int:
    return sum(isinstance(one.settled.error, RetriesExhausted) for one in world.history.outcomes.values())


def _send_when_all_is_well(world: World) -> None:
    """With acks=0 the first of these may be lost, by which the client learns who leads. But not the last."""
    more = 2 * world.setting.losses[0] if world.setting.lasting_limit else 0
    for _ in range(_ROUNDS_OF_NEWS + more):
        world.history.must_arrive.clear()
        for name, topic in world.cluster.topics.items():
            for partition in range(len(topic.partitions)):
                value = b"m%d" % len(world.history.accepted)
                world.history.must_arrive.add(value)
                world.submit([faults.plain_message(world, value, name, partition)])
                world.step()
        _settle(world)
        _let_pass(world, _NEWS)


def _let_pass(world: World, seconds: float) -> None:
    """Time passes, and whatever is due happens."""
    end = world.now + seconds
    while world.now < end:
        if not world.progress():
            world.now = min(max(world.now + ROUND_TRIP, world.core.deadline), end)
        world.step()


def _next_on_the_wire(world: World) -> float:
    """When a throttled broker reads on, or one that waits for replicas answers without them."""
    due = [max(one.muted_until, world.patience_ends(one)) for one in world.connections.values() if one.busy]
    return min(due, default=inf)


def _untold(world: World) -> str:
    history = world.history
    return " ".join(value.decode() for value in history.accepted if value not in history.outcomes)


# ---- conditions ------------------------------------------------------------------------------------------


def _seal(
    entries: Sequence[Entry], *, producer_id: int, epoch: int, sequence: int, **_: object
) -> tuple[Sealed, int]:
    size = sum([entry[SIZE] for entry in entries]) + BATCH_OVERHEAD
    values = tuple([entry[VALUE] or b"" for entry in entries])
    latest = max([entry[TIMESTAMP_MS] for entry in entries])
    return Sealed(producer_id, epoch, sequence, values, size, latest / 1000), size


@contextmanager
def fast_sealing() -> Iterator[None]:
    """Batches as plain values instead of bytes: a hundred times as fast."""
    with patch.object(_partition, "encode", _seal):
        yield


@contextmanager
def _conditions(setting: Setting) -> Iterator[None]:
    """A producer that has been at work for long: its sequence numbers or its epochs run out soon."""
    with ExitStack() as stack:
        if setting.first_sequence:
            aged = _aged_chain(setting.first_sequence)
            stack.enter_context(patch.object(_partition, "Chain", aged))
        if setting.last_epoch != LAST_EPOCH:
            stack.enter_context(patch.object(_partition, "LAST_EPOCH", setting.last_epoch))
        stack.enter_context(patch.object(_keyless, "_CANDIDATES", setting.candidates))
        halved, given_up = setting.losses
        stack.enter_context(patch.object(_responses, "LOSSES_UNTIL_HALVED", halved))
        stack.enter_context(patch.object(_core, "LOSSES_UNTIL_HALVED", halved))
        stack.enter_context(patch.object(_responses, "_LOSSES_UNTIL_GIVEN_UP", given_up))
        stack.enter_context(patch.object(_limits, "SMALLEST_LIMIT", MESSAGE_SIZE + BATCH_OVERHEAD))
        yield


def _aged_chain(first_sequence: int) -> Callable[[int, int], Chain]:
    def start(producer_id: int, epoch: int) -> Chain:
        chain = Chain(producer_id, epoch)
        if epoch == 0:
            chain.next_sequence = first_sequence
        return chain

    return start
