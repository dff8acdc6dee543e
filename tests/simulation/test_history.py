"""The check of a history: each promise, broken by hand, is seen to be."""

from __future__ import annotations

import pytest

from tests.simulation.bounds import Bounds
from tests.simulation.cluster import Piece, Place
from tests.simulation.helpers import Table, sealed
from tests.simulation.history import Broken
from tests.simulation.log import Sealed
from trio_kprod._core._error_codes import PartitionResponse
from trio_kprod._core._metadata import TopicMetadata
from trio_kprod._core._shared import Rules
from trio_kprod._errors import DeliveryAborted, DeliveryTimedOut, Refused, RetriesExhausted, UnknownTopic

STOPPED = DeliveryAborted("stopped")


def told(values: str, *batches: Sealed, offset: int = 0) -> Table:
    """Everything was accepted, this is in the log, and all of it was told delivered."""
    table = Table()
    table.accept(values)
    table.append(*batches)
    table.tell(values, offset)
    return table


def broken(table: Table) -> str:
    with pytest.raises(Broken) as caught:
        table.history.check()
    return str(caught.value)


# ---- the logs ----------------------------------------------------------------------------------------------


def test_a_history_without_fault() -> None:
    table = told("abc", sealed("ab"), sealed("c", 2))
    table.history.check()
    assert not table.history.excused


def test_told_delivered_and_absent() -> None:
    assert broken(told("ab", sealed("a"))) == "told delivered, and not there: b, offset 1"


def test_told_delivered_at_another_offset() -> None:
    assert "not there: a, offset 1" in broken(told("a", sealed("a"), offset=1))


def test_told_delivered_without_an_offset() -> None:
    told("a", sealed("a"), offset=-1).history.check()
    assert "not there" in broken(told("a", offset=-1))


def test_twice_in_the_log() -> None:
    assert broken(told("a", sealed("a"), sealed("a", 1))) == "2 times in the log: a"


def test_out_of_order() -> None:
    table = Table()
    table.accept("ab")
    table.append(sealed("b"), sealed("a", 1))
    table.tell("b", 0)
    table.tell("a", 1)
    assert broken(table) == "out of order: a"


def test_without_a_partition_order_counts_among_themselves() -> None:
    table = Table()
    table.accept("a")
    table.accept("b", partition=None)
    table.append(sealed("b"), sealed("a", 1))
    table.tell("b", 0)
    table.tell("a", 1)
    table.history.check()


def test_told_not_written_and_there() -> None:
    table = Table()
    table.history.stopped = True
    table.accept("a")
    table.append(sealed("a"))
    table.tell("a", error=STOPPED)
    assert broken(table) == "in the log, and told not written: a"


@pytest.mark.parametrize(("copies", "fine"), [(0, True), (1, True), (2, False)])
def test_told_maybe_is_there_once_or_not(copies: int, fine: bool) -> None:
    table = Table()
    table.history.stopped = True
    table.accept("ab")
    table.append(*(sealed("a", sequence) for sequence in range(copies)), sealed("b", 9, epoch=1))
    table.tell("a", error=STOPPED, maybe=True)
    table.tell("b", copies)
    if fine:
        table.history.check()
    else:
        assert "2 times" in broken(table)


def test_what_was_told_maybe_may_come_later_than_its_place() -> None:
    table = Table()
    table.history.stopped = True
    table.accept("ab")
    table.append(sealed("b"), sealed("a", 1))
    table.tell("a", error=STOPPED, maybe=True)
    table.tell("b", 0)
    table.history.check()


# ---- who is told -------------------------------------------------------------------------------------------


def test_never_told() -> None:
    table = Table()
    table.accept("ab")
    table.append(sealed("a"))
    table.tell("a", 0)
    assert broken(table) == "never told: b"


def test_told_twice() -> None:
    table = told("a", sealed("a"))
    with pytest.raises(Broken, match="told twice: a"):
        table.tell("a", 0)


def test_told_of_what_was_never_accepted() -> None:
    with pytest.raises(Broken, match="never accepted"):
        Table().tell("a", 0)


def test_told_too_late() -> None:
    table = Table(rules=Rules(delivery_timeout=1.0))
    table.accept("a")
    table.history.before = 1.1
    with pytest.raises(Broken, match="told too late"):
        table.tell("a", 0)


@pytest.mark.parametrize(
    "error",
    [
        STOPPED,
        DeliveryTimedOut("not yet"),
        RetriesExhausted("no limit"),
        UnknownTopic("just there"),
        Refused(29, "never answered"),
        Refused(6, "not for good"),
        Refused(45, "no gap"),
    ],
    ids=repr,
)
def test_what_nobody_refused_for_good_may_not_be_given_up(error: BaseException) -> None:
    table = Table()
    table.accept("a")
    table.history.refused(sealed("a"), PartitionResponse(6))
    with pytest.raises(Broken, match="given up without reason: a"):
        table.tell("a", error=error)


@pytest.mark.parametrize("code", [10, 32, 87])
def test_a_refused_message_fails_alone(code: int) -> None:
    table = Table()
    table.accept("ab")
    table.cluster.bad.add(b"b")
    table.history.refused(sealed("ab"), PartitionResponse(code))
    table.history.refused(sealed("b", 1), PartitionResponse(code))
    table.tell("b", error=Refused(code, "guilty"))
    with pytest.raises(Broken, match="given up without reason: a"):
        table.tell("a", error=Refused(code, "innocent"))


def test_a_message_that_ended_enough_connections_may_be_given_up_and_then_one_as_large_sooner() -> None:
    table = Table(losses=(2, 4))
    table.accept("abc")
    for value, losses in ("a", 4), ("b", 2), ("c", 1):
        for _ in range(losses):
            table.history.lost(sealed(value))
    table.tell("a", error=RetriesExhausted("lost"), maybe=True)
    table.tell("b", error=RetriesExhausted("lost"), maybe=True)
    with pytest.raises(Broken, match="given up without reason: c"):
        table.tell("c", error=RetriesExhausted("lost"), maybe=True)


def test_the_first_message_that_ended_connections_has_more_patience() -> None:
    table = Table(losses=(2, 4))
    table.accept("a")
    for _ in range(3):
        table.history.lost(sealed("a"))
    with pytest.raises(Broken, match="given up without reason: a"):
        table.tell("a", error=RetriesExhausted("lost"), maybe=True)


def test_out_of_order_is_no_reason_for_a_batch_of_which_no_part_was_lost() -> None:
    table = Table()
    table.accept("ab")
    table.history.lost(sealed("ab"))
    table.history.lost(sealed("b", 1))
    with pytest.raises(Broken, match="given up without reason: a b"):
        table.tell("ab", error=Refused(45, "out of order"), maybe=True)


def test_out_of_order_is_reason_enough_for_a_batch_that_was_lost_and_its_first_part_too() -> None:
    table = Table()
    table.accept("ab")
    table.history.lost(sealed("ab"))
    table.history.lost(sealed("a"))
    table.tell("ab", error=Refused(45, "out of order"), maybe=True)
    assert table.history.excused["maybe, and halved"] == 2


def test_a_topic_that_is_missing_for_long_enough_is_reason_enough() -> None:
    table = Table(rules=Rules(topic_timeout=0.0))
    table.accept("a")
    table.history.described("a", TopicMetadata("a", 3), 0.0)
    table.tell("a", error=UnknownTopic("gone"))


# ---- what brokers lost ------------------------------------------------------------------------------------


def test_what_an_unclean_election_cut_off_is_excused_and_counted() -> None:
    table = told("ab", sealed("a"), sealed("b", 1))
    table.partition.elect(1, -1, unaware=False)
    table.history.check()
    assert table.history.excused == {"cut off": 1}


def test_that_excuses_no_other_message() -> None:
    table = told("abc", sealed("a"), sealed("b", 1))
    table.partition.elect(1, -1, unaware=False)
    assert "not there: c" in broken(table)


def test_a_duplicate_after_expired_state_is_excused_and_counted() -> None:
    table = told("a", sealed("a"))
    table.partition.log.expire(1.0)
    table.append(sealed("a"))
    table.history.check()
    assert table.history.excused == {"duplicate, expired": 1}


def test_that_excuses_no_other_producers_epoch() -> None:
    table = told("ab", sealed("a"))
    table.partition.log.expire(1.0)
    table.append(sealed("b", 0, epoch=1), sealed("b", 1, epoch=1))
    assert "2 times in the log: b" in broken(table)


def test_a_duplicate_that_landed_by_name_in_a_topic_made_anew_is_excused_and_counted() -> None:
    table = told("a", sealed("a"))
    table.cluster.delete("a")
    table.create()
    table.partition.log.append(sealed("a"), stray=True)
    table.append(sealed("a", 0, epoch=1))
    table.history.check()
    assert table.history.excused == {"duplicate, recreated": 1}


# ---- bounds ------------------------------------------------------------------------------------------------


def piece(values: str, sequence: int, partition: int = 0, epoch: int = 0) -> Piece:
    made = Table().piece(sealed(values, sequence, epoch))
    made.place = Place("a", partition)
    return made


def acknowledged(bounds: Bounds, *pieces: Piece) -> None:
    for one in pieces:
        bounds.ended([one], {one.place: PartitionResponse(0, 0)})


def started(outcomes: dict[bytes, object]) -> Bounds:
    """The first batch of a chain was acknowledged."""
    bounds = Bounds(Rules(), outcomes)
    first = piece("a", 0)
    bounds.sent(1, [first])
    acknowledged(bounds, first)
    outcomes[b"a"] = True
    return bounds


def test_two_in_flight_before_the_first_acknowledgement() -> None:
    bounds = Bounds(Rules(), {})
    bounds.sent(1, [piece("a", 0)])
    with pytest.raises(Broken, match="before an acknowledgement"):
        bounds.sent(1, [piece("b", 1)])


def test_two_in_flight_after_an_error() -> None:
    bounds = started({})
    pieces = [piece("b", 1), piece("c", 2)]
    for one in pieces:
        bounds.sent(1, [one])
    bounds.ended(pieces[:1], {pieces[0].place: PartitionResponse(19)})
    with pytest.raises(Broken, match="before an acknowledgement"):
        bounds.sent(1, pieces[:1])


def test_the_late_answer_to_what_was_given_up_changes_nothing() -> None:
    outcomes: dict[bytes, object] = {}
    bounds = started(outcomes)
    old = piece("b", 1)
    bounds.sent(1, [old])
    outcomes[b"b"] = True
    bounds.ended([old], {old.place: PartitionResponse(6)})
    for sequence, value in enumerate("cd", 2):
        bounds.sent(1, [piece(value, sequence)])


def test_two_in_flight_in_a_new_epoch() -> None:
    bounds = started({})
    bounds.sent(1, [piece("b", 0, epoch=1)])
    with pytest.raises(Broken, match="before an acknowledgement"):
        bounds.sent(1, [piece("c", 1, epoch=1)])


def test_in_flight_to_two_brokers() -> None:
    bounds = started({})
    bounds.sent(1, [piece("b", 1)])
    with pytest.raises(Broken, match="to two brokers"):
        bounds.sent(2, [piece("c", 2)])


def test_six_in_flight() -> None:
    bounds = started({})
    for sequence, value in enumerate("bcdef", 1):
        bounds.sent(1, [piece(value, sequence)])
    with pytest.raises(Broken, match="6th in flight"):
        bounds.sent(1, [piece("g", 6)])


def test_the_window_counts_distance() -> None:
    bounds = started({})
    pieces = [piece(value, sequence) for sequence, value in enumerate("bcdef", 1)]
    for one in pieces:
        bounds.sent(1, [one])
    acknowledged(bounds, *pieces[1:])
    with pytest.raises(Broken, match="is settled"):
        bounds.sent(1, [piece("g", 6)])


def test_what_was_overtaken_alone_may_not_be_sent_again_under_its_chain() -> None:
    bounds = started({})
    pieces = [piece(value, sequence) for sequence, value in enumerate("bcdef", 1)]
    for one in pieces:
        bounds.sent(1, [one])
    bounds.ended(pieces, {one.place: PartitionResponse(10) for one in pieces})
    overtaking = piece("g", 6)
    bounds.sent(1, [overtaking])
    bounds.ended([overtaking], {overtaking.place: PartitionResponse(45)})
    with pytest.raises(Broken, match="has overtaken it"):
        bounds.sent(1, [pieces[0]])


def test_a_partition_twice_in_a_request() -> None:
    with pytest.raises(Broken, match="twice in one request"):
        Bounds(Rules(), {}).sent(1, [piece("a", 0), piece("b", 1)])


def test_a_request_that_is_too_large() -> None:
    with pytest.raises(Broken, match="max_request_size"):
        Bounds(Rules(max_request_size=200), {}).sent(1, [piece("a", 0), piece("b", 0, partition=1)])


def test_a_batch_that_is_too_large() -> None:
    with pytest.raises(Broken, match="batch_size"):
        Bounds(Rules(batch_size=200), {}).sent(1, [piece("ab", 0)])


def test_two_in_flight_without_idempotence() -> None:
    bounds = Bounds(Rules(idempotent=False), {})
    bounds.sent(1, [piece("a", 0)])
    with pytest.raises(Broken, match="without idempotence"):
        bounds.sent(1, [piece("b", 1)])
