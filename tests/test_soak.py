"""The parts of the soak: the schedule comes from the seed, and the ledger catches what must not be."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import trio

from benchmarks.soak.embedded import Embedded
from benchmarks.soak.ledger import Ledger, Verdict, make_value, read_value
from benchmarks.soak.places import TOPICS
from benchmarks.soak.real import RealCluster
from benchmarks.soak.report import WORTH_KEEPING, keep, kept, summary, table, tell
from benchmarks.soak.run import Plan, soak
from benchmarks.soak.schedule import Kind, schedule
from benchmarks.soak.senders import Pace
from trio_kprod import DeliveryTimedOut, ProducerStatistics, Undelivered
from trio_kprod._messages import Message

US = 1
NOTHING = ProducerStatistics(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, None, 0, 0.0)

# -- the schedule


@pytest.mark.parametrize("kinds", [RealCluster.kinds, Embedded.kinds], ids=["real", "embedded"])
def test_a_seed_decides_the_faults(kinds: dict[str, Kind]) -> None:
    first, again, other = (list(islice(schedule(seed, kinds), 500)) for seed in (7, 7, 8))
    assert first == again
    assert first != other
    assert {fault.kind for fault in first} == set(kinds)
    for fault in first:
        assert kinds[fault.kind].shortest <= fault.seconds <= kinds[fault.kind].longest


@pytest.mark.parametrize("place", [RealCluster, Embedded])
def test_every_kind_of_fault_can_be_made(place: type[RealCluster | Embedded]) -> None:
    assert [kind for kind in place.kinds if not callable(getattr(place, kind, None))] == []


def test_the_schedule_of_a_seed_stays_as_it_is() -> None:
    """So that a run that has found something can be run again by a later version."""
    kinds = {"one": Kind(1, 0.5, 2.0), "other": Kind(3)}
    found = [fault[1:3] for fault in islice(schedule(1, kinds), 4)]
    assert found == [("one", 1.6), ("one", 0.6), ("other", 0.0), ("other", 0.0)]


# -- the ledger


def told(ledger: Ledger, number: int, *, maybe_written: bool, again: bool = False) -> None:
    message = Message("steady", make_value(number, US, b"placed"), None, (), None, 0, 0)
    tell = ledger.tell_again if again else ledger.tell
    tell(Undelivered(message, maybe_written, DeliveryTimedOut()))


def accepted(count: int, *, fleeting: bool = False) -> Ledger:
    ledger = Ledger()
    for _ in range(count):
        ledger.accept(ledger.begin(fleeting=fleeting), US)
    return ledger


def log(numbers: Sequence[int], kind: bytes = b"placed", partition: int = 0) -> list[tuple[int, bytes]]:
    return [(partition, make_value(number, US, kind)) for number in numbers]  # type: ignore[arg-type]


def left(ledger: Ledger, accepted: int, told: int = 0) -> Ledger:
    """Its producer was left with all settled."""
    now = replace(NOTHING, accepted=accepted, delivered=accepted - told, undelivered=told)
    ledger.close(US, now)
    return ledger


def test_values_say_whose_they_are() -> None:
    value = make_value(12, 3, b"free", 100)
    assert len(value) == 100
    assert read_value(value) == (12, 3, b"free")
    assert read_value(make_value(1, 2, b"placed")) == (1, 2, b"placed")


def test_what_is_in_the_log_once_and_in_order_is_well() -> None:
    """In each partition by itself; those with a place and those without have orders of their own."""
    ledger = left(accepted(6), 6)
    ledger.read([*log([0, 2]), *log([1], b"free"), *log([3, 5], partition=1), *log([4], b"free", 1)])
    assert ledger.verdict() == Verdict(sent=6, in_log=6)
    assert ledger.verdict().wrong("all") == []


@pytest.mark.parametrize(
    ("numbers", "problem"),
    [([0, 2], "lost"), ([0, 1, 2, 2], "duplicates"), ([0, 2, 1], "out_of_order")],
)
def test_what_acks_all_promises(numbers: list[int], problem: str) -> None:
    """Lost, doubled, moved: with ``acks=1`` a leader that dies may do that."""
    ledger = left(accepted(3), 3)
    ledger.read(log(numbers))
    verdict = ledger.verdict()
    assert (verdict.wrong("all"), verdict.wrong("1")) == ([problem], [])
    assert getattr(verdict, problem) == 1
    assert ledger.examples[problem] == [2 if problem == "duplicates" else 1]


def test_a_duplicate_is_no_message_out_of_order() -> None:
    ledger = left(accepted(3), 3)
    ledger.read(log([0, 1, 2, 0]))
    assert ledger.verdict().wrong("all") == ["duplicates"]


def test_what_was_told_truthfully_is_well() -> None:
    """Perhaps written: in the log or not, early or late; not written: not there."""
    ledger = accepted(4)
    told(ledger, 1, maybe_written=True)
    told(ledger, 2, maybe_written=True)
    told(ledger, 3, maybe_written=False)
    left(ledger, 4, 3).read(log([2, 0]))
    assert ledger.verdict() == Verdict(sent=4, in_log=2, told=3)


def test_what_was_told_falsely_is_found() -> None:
    ledger = accepted(2)
    told(ledger, 1, maybe_written=False)
    left(ledger, 2, 1).read(log([0, 1]))
    assert ledger.verdict().wrong("0") == ["falsely_told"]


def test_what_was_told_twice_is_found() -> None:
    ledger = accepted(1)
    told(ledger, 0, maybe_written=True)
    told(ledger, 0, maybe_written=True)
    left(ledger, 1, 1)
    assert ledger.verdict().wrong("all") == ["told_twice"]


def test_a_receipt_may_say_again_what_others_were_told() -> None:
    """The same, and not before them."""
    ledger = accepted(2)
    told(ledger, 0, maybe_written=True)
    told(ledger, 0, maybe_written=True, again=True)
    told(ledger, 1, maybe_written=True, again=True)
    assert left(ledger, 2, 2).verdict() == Verdict(sent=2, told=2)
    told(ledger, 0, maybe_written=False, again=True)
    told(ledger, 1, maybe_written=True)
    assert ledger.verdict().told_twice == 2


def test_what_nobody_was_told_of_is_found() -> None:
    """The producer counts it as undelivered, and its users have heard of none."""
    ledger = left(accepted(2), 2, told=1)
    ledger.read(log([0, 1]))
    assert ledger.verdict().wrong("all") == ["untold", "miscounted"]
    assert ledger.verdict().untold == 1


@pytest.mark.parametrize("left_with", [replace(NOTHING, accepted=2, delivered=1, in_flight=1), None])
def test_what_has_no_outcome_is_found(left_with: ProducerStatistics | None) -> None:
    """Also where nobody saw the producer left."""
    ledger = accepted(2)
    if left_with is not None:
        ledger.close(US, left_with)
    ledger.read(log([0, 1]))
    assert "miscounted" in ledger.verdict().wrong("all")


def test_what_was_refused_must_not_be_in_the_log() -> None:
    """Nor what nobody has sent."""
    ledger = accepted(1)
    ledger.refuse(ledger.begin())
    left(ledger, 1).read(log([0, 1, 17]))
    assert ledger.verdict().never_accepted == 2


def test_what_was_cancelled_may_be_in_the_log_or_not() -> None:
    ledger = Ledger()
    for _ in range(2):
        ledger.unsure(ledger.begin(), US)
    left(ledger, 1).read(log([1]))
    assert ledger.verdict() == Verdict(in_log=1)


def test_what_a_deleted_topic_held_may_be_gone() -> None:
    """But not twice, and not moved, in what has taken its place."""
    ledger = left(accepted(4, fleeting=True), 4)
    ledger.read(log([3, 2]))
    assert ledger.verdict().wrong("all") == ["out_of_order"]


def test_a_message_takes_one_byte() -> None:
    """So that an hour of thousands a second fits into some megabytes."""
    ledger = accepted(3)
    few = ledger.size
    for _ in range(few):
        ledger.begin()
    assert (few, ledger.size, len(ledger)) == (2**20, 2**21, 2**20 + 3)


# -- the pace


async def test_a_pace_is_kept_and_a_little_caught_up_with(autojump_clock: trio.testing.MockClock) -> None:
    pace = Pace(10)
    began = trio.current_time()
    for _ in range(31):
        await pace.take(1)
    assert trio.current_time() - began == pytest.approx(3.0)
    await trio.sleep(1_000)
    for _ in range(51):
        await pace.take(1)
    assert trio.current_time() - began == pytest.approx(1_003.0)
    await pace.take(1)
    assert trio.current_time() - began == pytest.approx(1_003.1)


# -- a run


def test_a_short_run_holds_and_is_kept(tmp_path: Path) -> None:
    """On the embedded broker: faults, producers that come and go, and the check of the log."""
    plan = Plan(minutes=0.05, seed=4, rate=500.0)
    with Embedded() as place:
        outcome = trio.run(soak, place, plan, tmp_path / "soak.log")
        found = summary(place.name, plan, outcome, 0.05)
    assert found["problems"] == []
    assert found["unsure"] == []
    assert found["sent"] > 0
    assert tell(found).endswith("all holds")
    keep(found, tmp_path)
    keep({**found, "minutes": WORTH_KEEPING}, tmp_path)
    first, _ = kept(tmp_path)
    assert first == json.loads(json.dumps(found))
    assert table([first]).rows[0][0] == "embedded broker, acks=all, both"


@pytest.fixture(scope="module")
def place() -> Iterator[Embedded]:
    with Embedded() as running:
        for topic in TOPICS:
            running.create(topic)
        yield running


def test_only_connections_to_the_broker_are_cut_and_counted(place: Embedded) -> None:
    """Not those to the process in which it runs, nor any other."""
    host, _, port = place.servers.rpartition(":")
    with socket.create_connection((host, int(port))) as ours, socket.socket() as listener:
        listener.listen()
        with socket.create_connection(listener.getsockname()) as other:
            assert place.connections() == 1
            with place.cut(next(schedule(1, {"cut": Kind(1)}))):
                assert ours.recv(1) == b""
            assert other.send(b"x") == 1


@pytest.mark.parametrize("kind", list(Embedded.kinds))
def test_a_fault_of_the_embedded_broker_is_made_and_ends(place: Embedded, kind: str) -> None:
    fault = next(fault for fault in schedule(1, {kind: Embedded.kinds[kind]}))
    with place.fault(fault):
        pass
    place.restore()
    assert [list(place.read(topic)) for topic in TOPICS] == [[], [], []]
