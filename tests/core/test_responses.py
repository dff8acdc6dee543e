"""What each answer does: to its batch, to those behind it, and to what is sent next. One test per row."""

from __future__ import annotations

from uuid import UUID

import pytest

from tests.core.helpers import PRODUCER_ID, TOPIC, Bench, Outcome, messages, metadata
from trio_kprod._core._metadata import TopicMetadata
from trio_kprod._core._responses import LOSSES_UNTIL_HALVED

NOT_WRITTEN_RETRY = {3, 5, 6, 8, 9, 14, 15, 16, 19, 72, 74, 75, 89, 100, 103}
PERHAPS_RETRY = {7, 13, 20, 56}
ASKS_METADATA = {3, 5, 6, 7, 8, 9, 13, 19, 20, 56, 72, 74, 75, 100, 103}
REFUSED = {17, 21, 29, 31, 35, 42, 43, 44, 76}
REFUSED_WITH_ID = {48, 49, 51, 53, 90, 120}


def given_up(bench: Bench) -> bool:
    """Stop, and tell whether what was unsettled may have been written."""
    bench.core.stop([], RuntimeError("stopped"))
    bench.step()
    return any(outcome.maybe_written for outcome in bench.outcomes())


def pipeline() -> Bench:
    """A partition with three full batches in flight: ab, cd, ef."""
    bench = Bench().started()
    bench.submit("abcdef")
    assert [seen.values for [seen] in bench.sent] == ["ab", "cd", "ef"]
    return bench


# ---- written ---------------------------------------------------------------------------------------------


def test_an_acknowledged_batch_is_delivered_at_its_offset() -> None:
    bench = Bench()
    bench.submit("ab")
    bench.answer(0, 40, timestamp_ms=12)
    assert bench.settled[0].timestamp_ms == 12
    assert bench.settled[0].attempts == 1
    assert bench.outcomes() == [Outcome("ab", None, False, 40)]
    assert bench.quiet()


def test_a_duplicate_is_delivered_at_an_unknown_offset() -> None:
    bench = Bench()
    bench.submit("a")
    bench.answer(46)
    assert bench.outcomes() == [Outcome("a", None, False, -1)]


# ---- retried ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", sorted(NOT_WRITTEN_RETRY | PERHAPS_RETRY | {-1, 2, 9999}))
def test_a_retriable_answer_brings_the_same_bytes_again_after_a_pause(code: int) -> None:
    bench = Bench()
    bench.submit("ab")
    first = bench.only()
    bench.answer(code)
    assert not bench.requests
    bench.pass_time(0.079)
    assert not bench.requests
    bench.pass_time(0.022)
    assert bench.only() == first
    bench.answer(0, 5)
    assert bench.outcomes() == [Outcome("ab", None, False, 5)]


@pytest.mark.parametrize("code", sorted(NOT_WRITTEN_RETRY | PERHAPS_RETRY | {-1, 2, 9999}))
def test_metadata_is_asked_for_if_the_answer_is_about_the_leader(code: int) -> None:
    bench = Bench()
    bench.submit("ab")
    bench.answer(code)
    assert bool(bench.asked) == (code in ASKS_METADATA)


@pytest.mark.parametrize("code", sorted(NOT_WRITTEN_RETRY | {2}))
def test_a_refusal_before_the_append_leaves_the_batch_unwritten(code: int) -> None:
    bench = Bench()
    bench.submit("ab")
    bench.answer(code)
    assert not given_up(bench)


@pytest.mark.parametrize("code", sorted(PERHAPS_RETRY | {-1, 9999}))
def test_an_answer_that_tells_nothing_leaves_the_batch_perhaps_written(code: int) -> None:
    bench = Bench()
    bench.submit("ab")
    bench.answer(code)
    assert given_up(bench)


@pytest.mark.parametrize("code", [3, 6, 7, 19, 20, 56])
def test_an_error_with_a_base_offset_came_after_the_append(code: int) -> None:
    bench = Bench()
    bench.submit("ab")
    bench.answer(code, 3)
    assert given_up(bench)


def test_a_later_refusal_does_not_clear_perhaps() -> None:
    bench = Bench()
    bench.submit("ab")
    bench.answer(7)
    bench.pass_time(0.2)
    bench.answer(6)
    assert given_up(bench)


def test_the_pause_doubles_to_a_second() -> None:
    bench = Bench(metadata_max_age=1e9)
    bench.submit("a")
    pauses = []
    for _ in range(7):
        bench.answer(19)
        start = bench.now
        while not bench.requests:
            bench.now = bench.core.deadline
            bench.core.advance()
            bench.step()
        pauses.append(bench.now - start)
    for pause, longest in zip(pauses, [0.1, 0.2, 0.4, 0.8, 1, 1, 1], strict=True):
        assert 0.79 * longest <= pause <= longest + 1e-6


@pytest.mark.parametrize(("code", "attempts", "maybe"), [(-1, 10, True), (9999, 10, True), (2, 3, False)])
def test_some_answers_are_not_believed_for_ever(code: int, attempts: int, maybe: bool) -> None:
    bench = Bench()
    bench.submit("a")
    for _ in range(attempts):
        assert not bench.settled
        bench.answer(code)
        bench.pass_time(1)
    assert bench.outcomes() == [Outcome("a", "Refused", maybe, -1)]
    assert bench.quiet()


def test_other_failures_do_not_count_as_strikes() -> None:
    """A batch that has outlived an outage is not given up at the first corrupt transmission."""
    bench = Bench()
    bench.submit("a")
    for _ in range(12):
        bench.answer(19)
        bench.pass_time(1)
    bench.answer(2)
    bench.pass_time(1)
    bench.answer(0, 0)
    assert bench.outcomes() == [Outcome("a", None, False, 0)]


@pytest.mark.parametrize(("code", "maybe"), [(19, False), (7, True)])
def test_max_retries_counts_the_attempts_after_the_first(code: int, maybe: bool) -> None:
    bench = Bench(max_retries=2)
    bench.submit("a")
    for _ in range(3):
        assert not bench.settled
        bench.answer(code)
        bench.pass_time(1)
    assert bench.outcomes() == [Outcome("a", "RetriesExhausted", maybe, -1)]


def test_after_an_error_the_lowest_goes_first_and_alone() -> None:
    bench = pipeline()
    before = [seen for [seen] in bench.sent]
    for code in (7, 45, 45):
        bench.answer(code)
    bench.pass_time(0.2)
    assert bench.only() == before[0]
    bench.answer(0, 1)
    assert [seen for [seen] in bench.sent] == before[1:]


def test_nothing_is_sent_again_while_others_are_in_flight() -> None:
    bench = pipeline()
    bench.answer(7)
    bench.pass_time(1)
    assert [seen.values for [seen] in bench.sent] == ["cd", "ef"]


# ---- hints and fresh metadata ------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [6, 74])
def test_a_hint_to_a_newer_leader_is_followed_at_once(code: int) -> None:
    bench = Bench(leaders=(1, 2))
    bench.submit("a")
    first = bench.only()
    bench.answer(code, leader=2, leader_epoch=1)
    assert bench.requests[0].node == 2
    assert bench.only() == first


def test_a_hint_to_an_older_leader_is_not_followed() -> None:
    bench = Bench(leaders=(1, 2))
    bench.submit("a")
    bench.answer(6, leader=2, leader_epoch=0)
    bench.pass_time(0.2)
    assert bench.requests[0].node == 1


def test_a_hint_about_a_log_that_is_gone_is_not_followed() -> None:
    """Its epoch would keep us for ever from the leader of the new one."""
    bench = Bench(leaders=(1, 2))
    bench.submit("a")
    bench.learn(metadata((1, 2), topic_id=UUID(int=2)))
    bench.answer(6, leader=2, leader_epoch=9)
    bench.pass_time(0.2)
    assert bench.requests[0].node == 1


# ---- refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", sorted(REFUSED | REFUSED_WITH_ID))
def test_a_refused_batch_fails_and_the_rest_goes_on_under_the_next_epoch(code: int) -> None:
    bench = pipeline()
    for answer in (code, 45, 45):
        bench.answer(answer)
    assert bench.outcomes() == [Outcome("ab", "Refused", False, -1)]
    if code in REFUSED_WITH_ID:
        assert bench.ids_asked == 1
        bench.core.producer_id(8)
        bench.step()
    seen = bench.only()
    chain = (8, 0) if code in REFUSED_WITH_ID else (PRODUCER_ID, 1)
    assert (seen.producer_id, seen.epoch, seen.sequence, seen.values) == (*chain, 0, "cd")
    bench.answer(0, 1)
    assert [(one.sequence, one.values) for [one] in bench.sent] == [(2, "ef")]


def test_a_batch_behind_a_refused_one_that_is_already_written_is_not_sealed_anew() -> None:
    bench = pipeline()
    bench.answer(29)
    bench.answer(0, 1)
    bench.answer(45)
    assert [one.values for one in bench.outcomes()] == ["ab", "cd"]
    assert (bench.only().values, bench.only().epoch) == ("ef", 1)


def test_what_is_perhaps_written_behind_a_refused_one_is_proved_first() -> None:
    bench = pipeline()
    before = [seen for [seen] in bench.sent]
    for code in (29, 7, 45):
        bench.answer(code)
    bench.pass_time(0.2)
    assert bench.only() == before[1]
    bench.answer(0, 1)
    assert (bench.only().values, bench.only().epoch) == ("ef", 1)


# ---- hints -------------------------------------------------------------------------------------------------


def test_hints_that_lead_to_further_hints_are_followed_at_a_pace() -> None:
    bench = Bench(leaders=(1, 2))
    bench.submit("a")
    for epoch in range(1, 5):
        bench.answer(6, leader=2, leader_epoch=epoch)
        assert bool(bench.requests) is (epoch == 1)
        bench.pass_time(1)
        assert bench.only().values == "a"


# ---- refused for good while perhaps ------------------------------------------------------------------------


@pytest.mark.parametrize("code", [29, 32, 87])
def test_refused_for_good_while_perhaps_is_given_up_as_perhaps_written(code: int) -> None:
    bench = pipeline()
    for answer in (7, 45, 45):
        bench.answer(answer)
    bench.pass_time(0.2)
    bench.answer(code)
    assert bench.outcomes() == [Outcome("ab", "Refused", True, -1)]
    assert bench.place() == ("cd", 1, 0)


def test_that_the_next_batch_is_accepted_proves_nothing_of_it() -> None:
    """A broker that has forgotten the producer accepts any sequence number."""
    bench = pipeline()
    bench.answer(7)
    bench.lose()
    bench.pass_time(0.1)
    bench.answer(29)
    assert bench.outcomes() == [Outcome("ab", "Refused", True, -1)]
    assert (bench.only().values, bench.only().epoch) == ("cd", 0)
    bench.answer(0, 1)
    assert bench.outcomes() == [Outcome("cd", None, False, 1)]


def test_what_is_perhaps_written_behind_it_is_sent_again_to_see() -> None:
    """If it is not in the log, a frozen copy of the one, then of the other, may still land."""
    bench = pipeline()
    for answer in (-1, -1, 45):
        bench.answer(answer)
    bench.pass_time(0.5)
    bench.answer(29)
    assert bench.outcomes() == [Outcome("ab", "Refused", True, -1)]
    bench.answer(45)
    bench.learn(metadata())
    bench.answer(45)
    assert bench.outcomes() == [Outcome("cd", "Refused", True, -1)]
    assert (bench.only().values, bench.only().epoch) == ("ef", 1)


# ---- single records ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [32, 87])
def test_listed_records_fail_alone(code: int) -> None:
    bench = pipeline()
    bench.answer(code, record_errors={1: "no good"})
    assert bench.outcomes() == [Outcome("b", "Refused", False, -1)]
    bench.answer(45)
    bench.answer(45)
    assert bench.place() == ("a", 1, 0)
    bench.answer(0, 1)
    assert [(one.values, one.epoch, one.sequence) for [one] in bench.sent] == [("cd", 1, 1), ("ef", 1, 3)]


@pytest.mark.parametrize("code", [32, 87])
@pytest.mark.parametrize("listed", [{}, {7: "beyond"}])
def test_an_answer_that_lists_no_record_fails_them_all(code: int, listed: dict[int, str]) -> None:
    bench = Bench()
    bench.submit("ab")
    bench.answer(code, record_errors=listed)
    assert bench.outcomes() == [Outcome("ab", "Refused", False, -1)]


def test_all_records_listed_leaves_no_batch() -> None:
    bench = Bench()
    bench.submit("abc")
    bench.answer(87, record_errors={0: None, 1: None})
    assert [one.values for one in bench.outcomes()] == ["a", "b"]
    assert (bench.only().values, bench.only().epoch) == ("c", 1)


@pytest.mark.parametrize("code", [10, 18])
def test_a_batch_that_is_too_large_is_halved_until_the_guilty_record_stands_alone(code: int) -> None:
    bench = Bench(batch_size=61 + 4 * 100).started()
    bench.submit("abcd")
    epochs = []
    while bench.requests:
        seen = bench.only()
        epochs.append(seen.epoch)
        if "c" in seen.values:
            bench.answer(code)
        else:
            bench.answer(0, 1)
    assert [(one.values, one.error) for one in bench.outcomes()] == [
        ("ab", None),
        ("c", "Refused"),
        ("d", None),
    ]
    assert epochs == [0, 0, 0, 0, 1]  # each record keeps its sequence number, until one is given up


def test_batches_stay_small_where_the_broker_wants_them_small() -> None:
    bench = Bench(batch_size=61 + 4 * 100).started()
    bench.submit("abcd")
    bench.answer(10)
    bench.submit("efgh")
    values = []
    while bench.requests:
        values.append(bench.sent[0][0].values)
        bench.answer(0, 1)
    assert values == ["ab", "cd", "e", "f", "g", "h"]


# ---- out of order ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [45, 59])
def test_out_of_order_behind_an_unsettled_batch_means_to_wait_for_that(code: int) -> None:
    bench = pipeline()
    before = [seen for [seen] in bench.sent]
    bench.answer(14)
    bench.answer(code)
    bench.answer(code)
    assert not bench.asked
    bench.pass_time(0.2)
    assert bench.only() == before[0]
    bench.answer(0, 1)
    assert [seen for [seen] in bench.sent] == before[1:]
    assert [one.values for one in bench.outcomes()] == ["ab"]


@pytest.mark.parametrize("code", [45, 59])
def test_out_of_order_at_the_head_brings_fresh_metadata_then_the_same_bytes_once(code: int) -> None:
    bench = pipeline()
    head = bench.sent[0][0]
    for _ in range(3):
        bench.answer(code)
    bench.pass_time(5)
    assert not bench.requests
    bench.learn(metadata())
    assert bench.only() == head
    bench.answer(0, 1)
    assert [one.values for one in bench.outcomes()] == ["ab"]


@pytest.mark.parametrize("code", [45, 59])
def test_out_of_order_at_the_head_twice_brings_all_under_the_next_epoch(code: int) -> None:
    bench = pipeline()
    for _ in range(3):
        bench.answer(code)
    bench.learn(metadata())
    bench.answer(code)
    assert not bench.settled
    assert bench.place() == ("ab", 1, 0)
    bench.answer(0, 1)
    assert [(one.values, one.sequence) for [one] in bench.sent] == [("cd", 2), ("ef", 4)]


@pytest.mark.parametrize("between", ["appended after all", "no response"])
def test_out_of_order_from_before_it_was_perhaps_written_proves_nothing(between: str) -> None:
    """A deposed leader said so; the next one has it, and then a deposed one says so again."""
    bench = Bench().started()
    bench.submit("ab")
    bench.answer(45)
    bench.learn(metadata())
    head = bench.only()
    if between == "no response":
        bench.lose()
        bench.learn(metadata())
    else:
        bench.answer(14, 7)
    bench.pass_time(1)
    bench.answer(45)
    bench.learn(metadata())
    bench.pass_time(1)
    assert bench.only() == head
    bench.answer(45)
    assert bench.only().epoch == 1


def test_fresh_metadata_ends_the_wait_even_if_it_lacks_the_topic() -> None:
    bench = Bench().started()
    bench.submit("ab")
    bench.answer(45)
    bench.learn(TopicMetadata(TOPIC, 3))
    assert bench.only().values == "ab"


def test_metadata_that_was_asked_for_before_is_not_fresh() -> None:
    bench = Bench().started()
    bench.core.want_partitions("topic")
    bench.submit("ab")
    bench.answer(45)
    bench.learn(metadata())
    assert not bench.requests
    bench.learn(metadata())
    assert bench.only().values == "ab"


def test_what_is_perhaps_written_keeps_that_flag_when_it_is_sealed_anew() -> None:
    bench = Bench().started()
    bench.submit("ab")
    bench.answer(-1)
    bench.pass_time(0.2)
    bench.answer(45)
    bench.learn(metadata())
    bench.answer(45)
    assert bench.only().epoch == 1
    bench.answer(29)
    assert bench.outcomes() == [Outcome("ab", "Refused", True, -1)]


def test_out_of_order_at_sequence_zero_means_that_the_id_is_shared() -> None:
    bench = Bench()
    bench.submit("ab")
    bench.answer(45)
    bench.learn(metadata())
    bench.answer(45)
    assert bench.outcomes() == [Outcome("ab", "Refused", True, -1)]
    assert bench.ids_asked == 1


def test_out_of_order_for_sequence_0_after_the_wrap_is_nothing_special() -> None:
    bench = Bench().started()
    chain = bench.core._topics[TOPIC].partitions[0].chain
    assert chain is not None
    chain.next_sequence = 2**31 - 1
    bench.submit("a")
    bench.answer(0, 1)
    bench.submit("b")
    assert bench.only().sequence == 0
    bench.answer(45)
    bench.learn(metadata())
    bench.answer(45)
    assert bench.outcomes() == [Outcome("a", None, False, 1)]
    assert bench.place() == ("b", 1, 0)


def test_what_may_follow_on_something_given_up_is_not_sealed_anew() -> None:
    """Of the one given up a frozen copy may land, and after it one of the other."""
    bench = Bench(delivery_timeout=1.0).started()
    bench.submit("ab")
    bench.submit("cd", accepted_at=0.9)
    assert [seen.values for [seen] in bench.sent] == ["ab", "cd"]
    bench.take()
    bench.pass_time(1)
    assert bench.outcomes() == [Outcome("ab", "DeliveryTimedOut", True, -1)]
    bench.answer(-1)
    bench.pass_time(0.2)
    assert (bench.only().values, bench.only().epoch) == ("cd", 0)
    bench.answer(45)
    bench.learn(metadata())
    bench.answer(45)
    assert bench.outcomes() == [Outcome("cd", "Refused", True, -1)]


# ---- fenced ------------------------------------------------------------------------------------------------


def test_a_fenced_chain_goes_on_under_a_new_id() -> None:
    bench = pipeline()
    for _ in range(3):
        bench.answer(47)
    bench.step()
    assert bench.ids_asked == 1
    assert not bench.requests
    bench.core.producer_id(8)
    bench.pass_time(0.1)
    seen = bench.only()
    assert (seen.producer_id, seen.epoch, seen.sequence, seen.values) == (8, 0, 0, "ab")
    assert not bench.settled


def test_a_fenced_batch_that_is_perhaps_written_is_given_up() -> None:
    bench = Bench().started()
    bench.submit("ab")
    bench.answer(7)
    bench.pass_time(0.2)
    bench.answer(47)
    assert bench.outcomes() == [Outcome("ab", "Refused", True, -1)]


def test_being_fenced_again_and_again_comes_to_an_end() -> None:
    bench = Bench()
    bench.submit("a")
    for fresh in range(10):
        assert not bench.settled
        bench.answer(47)
        bench.core.producer_id(100 + fresh)
        bench.pass_time(1)
    assert bench.outcomes() == [Outcome("a", "Refused", False, -1)]


# ---- the connection ----------------------------------------------------------------------------------------


def test_a_request_of_which_no_byte_was_written_has_no_consequence() -> None:
    bench = Bench(max_retries=0)
    bench.submit("ab")
    first = bench.only()
    bench.lose(write_started=False)
    assert bench.only() == first
    bench.lose(write_started=False)
    assert not given_up(bench)
    assert bench.now == 0


def test_a_request_that_was_handed_over_is_perhaps_written() -> None:
    bench = Bench()
    bench.submit("ab")
    first = bench.only()
    bench.lose(reconnect=False)
    assert bench.asked
    bench.submit("c")
    assert bench.connects == [1]
    assert not bench.requests
    bench.core.connected(1)
    bench.step()
    assert bench.only() == first  # a connection ends the pause
    bench.lose()
    assert given_up(bench)


def test_an_answer_that_does_not_mention_the_batch_leaves_it_perhaps_written() -> None:
    bench = Bench()
    bench.submit("ab")
    first = bench.only()
    bench.core.responded(bench.take(), {})
    bench.step()
    assert bench.asked
    bench.pass_time(0.2)
    assert bench.only() == first
    assert given_up(bench)


def test_what_has_killed_two_connections_travels_alone() -> None:
    bench = Bench(leaders=(1, 1))
    bench.core.submit([*messages("ab", partition=0), *messages("ab", partition=1)])
    bench.step()
    assert len(bench.sent[0]) == 2
    bench.lose()
    assert len(bench.sent[0]) == 2
    bench.lose()
    assert [len(request) for request in bench.sent] == [1, 1]


def test_what_has_killed_many_connections_lets_others_go_first() -> None:
    bench = Bench(leaders=(1, 1))
    bench.submit("a", partition=0)
    for _ in range(LOSSES_UNTIL_HALVED):
        assert bench.only().values == "a"
        bench.lose()
    assert not bench.requests  # although there is a connection
    bench.submit("z", partition=1)
    assert bench.only().values == "z"
    bench.pass_time(1)
    assert [seen.values for [seen] in bench.sent] == ["z", "a"]


def test_an_answer_to_what_was_given_up_meanwhile_changes_nothing() -> None:
    bench = Bench(delivery_timeout=1.0)
    bench.submit("ab")
    request = bench.take()
    bench.pass_time(1)
    assert bench.outcomes() == [Outcome("ab", "DeliveryTimedOut", True, -1)]
    bench.submit("cd", accepted_at=1.0)
    assert (bench.only().values, bench.only().epoch) == ("cd", 1)
    bench.answer(0, 9, request=request)
    assert not bench.settled
    assert bench.only().values == "cd"


def test_with_acks_0_writing_settles() -> None:
    bench = Bench(idempotent=False)
    bench.submit("abcd")
    seen = bench.only()
    assert (seen.producer_id, seen.epoch, seen.sequence) == (-1, -1, -1)
    bench.core.sent(bench.take())
    bench.step()
    assert bench.outcomes() == [Outcome("ab", None, False, -1)]
    assert bench.only().values == "cd"


# ---- without idempotence -----------------------------------------------------------------------------------


def test_without_idempotence_one_batch_of_a_partition_is_in_flight() -> None:
    bench = Bench(idempotent=False).started()
    bench.submit("abcd")
    assert bench.only().values == "ab"
    bench.answer(7)
    bench.pass_time(0.2)
    assert bench.only().values == "ab"


def test_without_idempotence_halves_travel_one_after_the_other() -> None:
    bench = Bench(idempotent=False).started()
    bench.submit("abcdef")
    bench.answer(10)
    values = []
    while bench.requests:
        values.append(bench.only().values)
        bench.answer(0, 1)
    assert "".join(values) == "abcdef"


def test_without_idempotence_nothing_can_be_proved() -> None:
    bench = Bench(idempotent=False).started()
    bench.submit("ab")
    bench.answer(10)
    bench.lose()
    assert bench.only().values == "a"
    bench.answer(29)
    assert bench.outcomes() == [Outcome("a", "Refused", True, -1)]
    assert bench.only().values == "b"


@pytest.mark.parametrize("code", [45, 47, 59])
def test_without_idempotence_answers_about_sequences_are_refusals(code: int) -> None:
    bench = Bench(idempotent=False)
    bench.submit("a")
    bench.answer(code)
    assert bench.outcomes() == [Outcome("a", "Refused", False, -1)]
