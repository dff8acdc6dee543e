"""The model of the brokers keeps the rules of Kafka's."""

from __future__ import annotations

import pytest

from tests.simulation.cluster import Waiting
from tests.simulation.helpers import PRODUCER, Table, sealed
from tests.simulation.log import SEQUENCES, Lapse, Log, Sealed
from tests.simulation.network import Connection
from tests.simulation.setting import PRODUCER_ID_EXPIRATION
from trio_kprod._core._batch import Request
from trio_kprod._core._error_codes import PartitionResponse


def log(*batches: Sealed) -> Log:
    made = Log()
    for batch in batches:
        made.append(batch)
    return made


def check(at: Log, batch: Sealed, *, strict_start: bool = False) -> tuple[int, int]:
    return at.check(batch, strict_start=strict_start)


# ---- what a log remembers of a producer ----------------------------------------------------------------


def test_a_duplicate_is_the_same_range_whatever_it_holds() -> None:
    assert check(log(sealed("ab"), sealed("c", 2)), sealed("xy")) == (0, 0)


@pytest.mark.parametrize(("values", "sequence"), [("a", 0), ("abc", 0), ("b", 1), ("d", 3)])
def test_a_range_that_overlaps_or_leaves_a_gap_is_out_of_order(values: str, sequence: int) -> None:
    assert check(log(sealed("ab")), sealed(values, sequence)) == (45, -1)


def test_duplicates_are_known_among_the_last_five_batches() -> None:
    at = log(*(sealed(value, sequence) for sequence, value in enumerate("abcdef")))
    assert check(at, sealed("b", 1)) == (0, 1)
    assert check(at, sealed("a", 0)) == (45, -1)


def test_sequences_wrap_around_inside_a_batch() -> None:
    at = log(sealed("abcd", SEQUENCES - 2))
    assert check(at, sealed("e", 2)) == (0, -1)
    assert check(at, sealed("e", SEQUENCES + 2)) == (45, -1)


def test_of_an_unknown_producer_any_first_sequence_is_taken() -> None:
    assert check(Log(), sealed("a", 6)) == (0, -1)


def test_newer_brokers_take_no_other_than_0_where_nothing_was_ever_written() -> None:
    assert check(Log(), sealed("a", 6), strict_start=True) == (45, -1)
    emptied = log(sealed("a")).remainder(0)
    assert check(emptied, sealed("b", 6), strict_start=True) == (0, -1)


def test_a_lower_epoch_is_fenced_even_if_it_is_a_duplicate() -> None:
    at = log(sealed("a"), sealed("b", 0, epoch=1))
    assert check(at, sealed("a")) == (47, -1)


def test_a_higher_epoch_begins_with_0() -> None:
    assert check(log(sealed("a")), sealed("b", 1, epoch=1)) == (45, -1)
    assert check(log(sealed("a")), sealed("b", 0, epoch=9)) == (0, -1)


def test_state_expires_by_the_time_stamp_of_the_last_record() -> None:
    at = log(sealed("a", timestamp=9.0), sealed("b", 1, timestamp=1.0))
    assert not at.expire(1.0)
    assert at.expire(2.0) == [PRODUCER]
    assert check(at, sealed("b", 1)) == (0, -1)
    assert at.unknown == {b"a", b"b"}


# ---- what was forgotten is marked ------------------------------------------------------------------------


def test_what_a_forgetful_broker_takes_is_marked_and_all_that_follows_in_that_epoch() -> None:
    at = log(sealed("a"))
    at.expire(1.0)
    for batch in (sealed("b", 1), sealed("c", 2), sealed("d", 0, epoch=1)):
        at.append(batch)
    assert [lapse for _, lapse in at.batches] == [None, Lapse.EXPIRED, Lapse.EXPIRED, None]


def test_an_unclean_election_takes_state_back_and_marks_what_follows() -> None:
    table = Table()
    table.append(sealed("a"), sealed("b", 1))
    table.partition.elect(1, -1, unaware=False)
    assert table.partition.cut == {b"b"}
    assert check(table.partition.log, sealed("c", 2)) == (45, -1)
    table.append(sealed("b", 1))
    assert table.partition.log.batches[-1].lapse is Lapse.UNCLEAN


def test_an_election_does_not_lose_the_marks() -> None:
    table = Table()
    table.append(sealed("a"))
    table.partition.log.expire(1.0)
    table.append(sealed("b", 1))
    table.partition.elect(1, 0, unaware=True)
    table.append(sealed("c", 2))
    assert table.partition.log.batches[-1].lapse is Lapse.EXPIRED


def test_a_partition_that_is_added_to_a_topic_made_anew_has_forgotten_too() -> None:
    table = Table(by_name=True)
    table.cluster.grow(table.cluster.topics["a"])
    table.cluster.topics["a"].partitions[1].log.append(sealed("a"))
    table.cluster.delete("a")
    table.create()
    table.cluster.grow(table.cluster.topics["a"])
    log = table.cluster.topics["a"].partitions[1].log
    log.append(sealed("b", 1))
    assert log.batches[0].lapse is Lapse.RECREATED


@pytest.mark.parametrize("by_name", [False, True])
def test_in_a_topic_made_anew_only_what_goes_by_name_lands(by_name: bool) -> None:
    table = Table(by_name=by_name)
    old = table.piece(sealed("b", 1))
    table.append(sealed("a"))
    table.cluster.delete("a")
    table.create()
    [answer] = table.cluster.produce(0, [old]).values()
    if by_name:
        assert isinstance(answer, Waiting)
        assert table.partition.log.batches[0].lapse is Lapse.RECREATED
    else:
        assert answer == PartitionResponse(100)


# ---- leaders ---------------------------------------------------------------------------------------------


def test_what_was_not_replicated_is_lost_with_its_leader() -> None:
    table = Table()
    table.append(sealed("a"))
    table.partition.frozen_follower = True
    table.append(sealed("b", 1), sealed("c", 2))
    table.partition.elect(1, 1, unaware=False)
    assert table.partition.log.values() == [b"a", b"b"]
    assert (table.partition.dropped, table.partition.cut) == ({b"c"}, set())


def test_a_deposed_leader_appends_and_never_acknowledges() -> None:
    table = Table()
    table.partition.elect(1, 0, unaware=True)
    [waiting] = table.cluster.produce(0, [table.piece(sealed("a"))]).values()
    assert isinstance(waiting, Waiting)
    assert table.cluster.outcome(0, waiting, timed_out=False) is None
    late = table.cluster.outcome(0, waiting, timed_out=True)
    assert late is not None
    assert (late.code in {7, 20}, late.base_offset) == (True, 0)
    table.partition.enlighten()
    assert table.cluster.outcome(0, waiting, timed_out=False) == PartitionResponse(6, 0)
    assert table.partition.log.values() == []


def test_a_duplicate_waits_for_the_replicas_as_the_original_does() -> None:
    table = Table()
    table.partition.frozen_follower = True
    both = [part for _ in range(2) for part in table.cluster.produce(0, [table.piece(sealed("a"))]).values()]
    for waiting in both:
        assert isinstance(waiting, Waiting)
        assert table.cluster.outcome(0, waiting, timed_out=False) is None
    table.partition.frozen_follower = False
    table.partition.replicate()
    for waiting in both:
        assert isinstance(waiting, Waiting)
        assert table.cluster.outcome(0, waiting, timed_out=False) == PartitionResponse(0, 0)
    assert table.partition.log.values() == [b"a"]


def test_a_refusal_comes_before_the_look_for_duplicates() -> None:
    table = Table()
    table.append(sealed("a"))
    table.partition.few_replicas = True
    [answer] = table.cluster.produce(0, [table.piece(sealed("a"))]).values()
    assert answer == PartitionResponse(19)


def test_of_two_batches_for_a_partition_in_a_request_the_last_is_seen() -> None:
    table = Table()
    answers = table.cluster.produce(0, [table.piece(sealed("a")), table.piece(sealed("b", 1))])
    assert len(answers) == 1
    assert table.partition.log.values() == [b"b"]


# ---- metadata and expiry ---------------------------------------------------------------------------------


def test_old_metadata_shows_how_things_once_stood() -> None:
    table = Table()
    table.cluster.grow(table.cluster.topics["a"])
    table.partition.elect(1, 0, unaware=False)
    table.cluster.changed()
    [now] = table.cluster.metadata(["a"], old=False)
    assert [(one.leader, one.leader_epoch) for one in now.partitions][:1] == [(1, 1)]
    told = [table.cluster.metadata(["a"], old=True) for _ in range(300)]
    assert [] in told
    assert {len(topic.partitions) for topics in told for topic in topics} >= {0, 1, 2}
    assert {topic.code for topics in told for topic in topics} == {0, 3, 5, -1}


def test_producers_are_forgotten_after_a_day() -> None:
    assert PRODUCER_ID_EXPIRATION == 24 * 60 * 60


# ---- connections -----------------------------------------------------------------------------------------


def test_a_request_of_which_a_byte_is_missing_does_not_exist_for_the_broker() -> None:
    connection = Connection(0)
    requests = [Request(0, []) for _ in range(3)]
    table = Table()
    for request in requests:
        connection.send(request, [table.piece(sealed("a"))], 0.0)
    first, second, _ = connection.under_way
    connection.transfer(second.start + 1, second.start)
    assert list(connection.inbox) == [first]
    assert [request.write_started for request in requests] == [True, True, False]
    connection.transfer(second.end, second.end - 1)
    assert list(connection.inbox) == [first]
    connection.transfer(second.end, second.end)
    assert list(connection.inbox) == [first, second]
    connection.hand_next()
    assert requests[2].write_started
