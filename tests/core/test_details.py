"""What nothing else would notice if it were left out of the core."""

from __future__ import annotations

from uuid import UUID

import pytest

from tests.core.helpers import TOPIC, Bench, Outcome, message, messages, metadata
from tests.core.test_responses import pipeline
from tests.core.test_topic import MISSING, check_counters, keyless
from trio_kprod._core._batch import LAST_EPOCH
from trio_kprod._core._metadata import NO_TOPIC_ID, TopicMetadata
from trio_kprod._core._reports import PartitionCount
from trio_kprod._errors import ConnectionLost, UnknownTopic

# ---- attempts and causes ---------------------------------------------------------------------------------


def test_a_lost_connection_counts_as_an_attempt() -> None:
    bench = Bench()
    bench.submit("ab")
    bench.lose()
    bench.answer(0, 1)
    assert bench.settled[0].attempts == 2


def test_halves_have_the_attempts_of_the_whole() -> None:
    bench = Bench()
    bench.submit("ab")
    bench.answer(10)
    bench.answer(0, 1)
    assert bench.settled[0].attempts == 2


def test_retries_that_ran_out_tell_what_ended_the_last() -> None:
    bench = Bench(max_retries=0)
    bench.submit("ab")
    bench.lose()
    error = bench.settled[0].error
    assert error is not None
    assert isinstance(error.__cause__, ConnectionLost)
    assert str(error.__cause__.__cause__) == "it ended"


# ---- sifted and split ------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [-1, 2])
def test_a_record_error_outside_of_the_batch_refuses_all_of_it(index: int) -> None:
    bench = Bench()
    bench.submit("ab")
    bench.answer(87, record_errors={index: "bad"})
    assert bench.outcomes() == [Outcome("ab", "Refused", False, -1)]


def test_bad_records_are_told_in_their_order() -> None:
    bench = Bench()
    bench.submit("ab")
    bench.answer(87, record_errors={1: "bad", 0: "worse"})
    assert [one.values for one in bench.outcomes()] == ["a", "b"]


def test_what_was_perhaps_written_once_remains_so_when_it_is_sealed_anew() -> None:
    """One of it is refused then, and the other goes on."""
    bench = Bench().started()
    bench.submit("ab")
    bench.answer(-1)
    bench.pass_time(0.2)
    bench.answer(45)
    bench.learn(metadata())
    bench.answer(45)
    bench.answer(87, record_errors={0: "bad"})
    bench.answer(0, 1)
    assert bench.outcomes() == [Outcome("a", "Refused", True, -1), Outcome("b", None, False, 1)]


def test_after_a_single_record_was_too_large_batches_are_full_again() -> None:
    bench = Bench().started()
    bench.submit("ab")
    bench.answer(10)
    bench.answer(10)
    bench.answer(0, 1)
    bench.submit("cd")
    assert bench.only().values == "cd"


def test_a_larger_batch_refused_later_does_not_raise_the_limit() -> None:
    bench = Bench(batch_size=61 + 8 * 100)
    topic = bench.core._topics[TOPIC]
    topic.lower_batch_limit(300)
    topic.lower_batch_limit(500)
    assert topic.batch_limit == 300


# ---- out of order, fenced --------------------------------------------------------------------------------


def test_out_of_order_behind_a_gap_asks_nobody() -> None:
    bench = pipeline()
    bench.answer(29)
    bench.answer(45)
    assert not bench.asked


def test_what_was_delivered_at_the_second_attempt_leaves_no_doubt() -> None:
    bench = Bench().started()
    bench.submit("ab")
    bench.answer(-1)
    bench.pass_time(0.2)
    bench.answer(0, 1)
    bench.settled.clear()
    bench.submit("cd")
    bench.answer(-1)
    bench.pass_time(0.5)
    bench.answer(45)
    bench.learn(metadata())
    bench.answer(45)
    assert not bench.settled
    assert (bench.only().values, bench.only().epoch) == ("cd", 1)


def test_what_was_given_up_in_an_earlier_epoch_leaves_no_doubt() -> None:
    bench = Bench(delivery_timeout=10.0).started()
    bench.submit("ab")
    bench.take()
    bench.pass_time(10)
    bench.settled.clear()
    for values, epoch in [("cd", 1), ("ef", 1)]:
        bench.submit(values, accepted_at=10.0)
        assert (bench.only().values, bench.only().epoch) == (values, epoch)
        bench.answer(0 if values == "cd" else -1, 1)
    bench.settled.clear()
    bench.pass_time(0.2)
    bench.answer(45)
    bench.learn(metadata())
    bench.answer(45)
    assert not bench.settled
    assert (bench.only().values, bench.only().epoch) == ("ef", 2)


def test_what_was_sealed_anew_is_asked_about_again_before_the_next_out_of_order_is_believed() -> None:
    bench = Bench().started()
    bench.submit("ab")
    bench.answer(-1)
    bench.pass_time(0.2)
    bench.answer(45)
    bench.learn(metadata())
    bench.answer(45)
    assert bench.only().epoch == 1
    bench.answer(45)
    assert not bench.settled
    bench.pass_time(1)
    assert bench.asked


def test_what_is_sealed_anew_waits_for_no_metadata() -> None:
    bench = pipeline()
    for code in (45, 29, 45):
        bench.answer(code)
    assert (bench.only().values, bench.only().epoch) == ("ab", 1)


def test_a_fenced_batch_that_is_sealed_anew_goes_on_under_a_new_id() -> None:
    bench = Bench().started()
    bench.submit("ab")
    bench.answer(-1)
    bench.pass_time(0.2)
    bench.answer(45)
    bench.learn(metadata())
    bench.answer(45)
    bench.answer(47)
    assert not bench.settled
    bench.core.producer_id(8)
    bench.pass_time(1)
    assert (bench.only().values, bench.only().producer_id) == ("ab", 8)


def test_a_fenced_batch_whose_log_is_gone_goes_on_under_a_new_id() -> None:
    bench = Bench().started()
    bench.submit("ab")
    bench.answer(7)
    bench.learn(metadata(topic_id=UUID(int=2)))
    bench.pass_time(0.1)
    assert bench.only().epoch == 1
    bench.answer(47)
    assert not bench.settled
    assert bench.ids_asked == 1


# ---- probing, chains, leaders ----------------------------------------------------------------------------


def test_an_acknowledgement_by_the_old_leader_lets_nothing_overtake_what_is_still_there() -> None:
    bench = Bench(leaders=(1, 2)).started()
    bench.submit("abcdef")
    bench.core.want_partitions(TOPIC)
    bench.step()
    bench.learn(metadata((2, 2), epoch=1))
    bench.submit("gh")
    bench.answer(0, 1)
    assert [request.node for request in bench.requests] == [1, 1]


def test_after_an_acknowledgement_there_is_no_silence() -> None:
    bench = Bench(metadata_max_age=1e6).started()
    bench.pass_time(601)
    bench.submit("ab")
    bench.answer(0, 1)
    bench.submit("cdef")
    assert len(bench.requests) == 2


def test_metadata_that_is_no_news_slows_nothing_down() -> None:
    bench = Bench().started()
    bench.learn(metadata())
    bench.submit("abcd")
    assert len(bench.requests) == 2


def test_a_round_takes_one_batch_of_a_partition() -> None:
    for _ in range(20):
        bench = Bench().started()
        bench.core.submit([*messages("ab", partition=0), *messages("cd")])
        bench.core._shared.random.seed(_)
        bench.step()
        numbers = [batch.number for request in bench.requests for batch in request.batches]
        assert numbers == sorted(numbers)
        assert len(numbers) == 2


def test_what_is_not_written_to_a_former_leader_goes_to_the_new_one_at_once() -> None:
    bench = Bench(leaders=(1, 2)).started()
    bench.submit("ab")
    bench.core.want_partitions(TOPIC)
    bench.step()
    bench.learn(metadata((2, 2), epoch=1))
    bench.lose(1, write_started=False, reconnect=False)
    assert [request.node for request in bench.requests] == [2]


def test_a_connection_to_a_former_leader_ends_no_pause() -> None:
    bench = Bench(leaders=(1, 2)).started()
    bench.learn(metadata((2, 2), epoch=1))
    bench.submit("ab")
    bench.answer(19)
    bench.core.connected(1)
    bench.step()
    assert not bench.requests


def test_a_hint_to_nobody_is_not_followed() -> None:
    bench = Bench()
    bench.submit("a")
    bench.answer(6, leader=-1, leader_epoch=9)
    bench.pass_time(0.2)
    assert bench.requests[0].node == 1


def test_without_idempotence_there_are_no_epochs() -> None:
    bench = Bench(idempotent=False).started()
    bench.submit("a")
    bench.answer(29)
    bench.submit("b")
    assert (bench.only().producer_id, bench.only().epoch, bench.only().sequence) == (-1, -1, -1)


def test_in_a_topic_made_anew_what_is_perhaps_written_is_proved_as_anywhere() -> None:
    bench = Bench().started()
    bench.learn(metadata(topic_id=UUID(int=2)))
    bench.submit("0")
    bench.answer(0, 0)
    bench.submit("abcdef")
    for code in (29, 7, 45):
        bench.answer(code)
    assert not bench.requests  # after a pause
    bench.pass_time(0.2)
    assert (bench.only().values, bench.only().epoch) == ("cd", 1)


def test_to_a_topic_made_anew_nothing_is_sent_under_the_old_chain() -> None:
    bench = Bench().started()
    bench.submit("ab")
    bench.answer(7)
    chain = bench.core._topics[TOPIC].partitions[0].chain
    assert chain is not None
    chain.epoch = LAST_EPOCH
    bench.learn(metadata(topic_id=UUID(int=2)))
    bench.pass_time(1)
    assert not bench.requests
    bench.core.producer_id(8)
    bench.step()
    assert (bench.only().values, bench.only().producer_id, bench.only().sequence) == ("ab", 8, 0)


def test_partitions_that_are_no_more_are_led_by_nobody() -> None:
    bench = Bench(leaders=(1, 1))
    bench.learn(metadata((1,), topic_id=UUID(int=2)))
    assert [one.index for one in bench.core._led_by(1)] == [0]


def test_a_topic_without_id_that_was_missing_may_come_back_with_lower_leader_epochs() -> None:
    bench = Bench(ready=False)
    bench.core.producer_id(1)
    bench.core.want_partitions(TOPIC)
    bench.step()
    bench.learn(metadata((1,), topic_id=NO_TOPIC_ID, epoch=9))
    bench.core.connected(1)
    bench.core.connected(2)
    bench.submit("a")
    bench.answer(3)
    bench.learn(MISSING)
    bench.pass_time(0.2)
    bench.learn(metadata((2,), topic_id=NO_TOPIC_ID, epoch=0))
    bench.lose(1)
    bench.pass_time(1)
    assert bench.requests[-1].node == 2


# ---- topics ----------------------------------------------------------------------------------------------


def test_what_was_waiting_behind_an_expired_batch_goes_on_at_once() -> None:
    bench = Bench(delivery_timeout=1.0).started()
    bench.submit("ab")
    bench.take()
    bench.submit("c", accepted_at=0.9)
    bench.pass_time(1)
    assert (bench.only().values, bench.only().epoch) == ("c", 1)


@pytest.mark.parametrize("code", [17, 29])
def test_failed_messages_are_not_counted_any_more(code: int) -> None:
    bench = Bench(leaders=(-1,))
    keyless(bench, "abc")
    bench.submit("de")
    bench.core.want_partitions(TOPIC)
    bench.step()
    bench.learn(TopicMetadata(TOPIC, code))
    check_counters(bench)


def test_a_count_is_not_refused_for_the_time_in_which_nobody_asked() -> None:
    bench = Bench(ready=False, topic_timeout=10.0, delivery_timeout=1.0)
    bench.submit("a")
    bench.learn(MISSING)
    bench.pass_time(1)
    bench.asked.clear()
    bench.core.metadata_failed(())
    bench.pass_time(1000)
    bench.reports.clear()
    bench.core.want_partitions(TOPIC)
    bench.step()
    bench.learn(MISSING)
    assert not bench.reports


def test_who_waits_for_the_count_of_a_missing_topic_is_told_however_many_messages_come() -> None:
    bench = Bench(ready=False, topic_timeout=10.0, delivery_timeout=0.5)
    bench.core.want_partitions(TOPIC)
    bench.step()
    while bench.now < 13 and not any(isinstance(one, PartitionCount) for one in bench.reports):
        bench.submit("a", accepted_at=bench.now)
        bench.learn(MISSING)
        bench.pass_time(0.6)
    assert isinstance(
        next(one for one in bench.reports if isinstance(one, PartitionCount)).error, UnknownTopic
    )


def test_a_known_topic_that_is_missing_is_asked_about_until_it_fails() -> None:
    bench = Bench(topic_timeout=10.0)
    bench.lose(reconnect=False)
    bench.submit("a")
    bench.core.unreachable(1)
    bench.step()
    while not bench.settled:
        assert bench.now < 13
        if bench.asked:
            bench.learn(MISSING)
        bench.pass_time(0.5)
    assert bench.outcomes() == [Outcome("a", "UnknownTopic", False, -1)]


def test_a_topic_that_is_missing_now_and_then_does_not_fail() -> None:
    bench = Bench(topic_timeout=10.0)
    bench.lose(reconnect=False)
    bench.submit("a")
    for step in range(60):
        bench.core.want_partitions(TOPIC)
        bench.step()
        bench.learn(metadata() if step % 3 == 2 else MISSING)
        bench.pass_time(0.5)
    assert not bench.settled


def test_a_topic_that_was_found_is_asked_about_soon_when_it_is_missing_again() -> None:
    bench = Bench(topic_timeout=1000.0)
    bench.lose(reconnect=False)
    bench.submit("a")
    bench.core.want_partitions(TOPIC)
    bench.step()
    for _ in range(8):
        bench.learn(MISSING)
        bench.pass_time(2)
    bench.learn(metadata())
    bench.core.want_partitions(TOPIC)
    bench.step()
    bench.learn(MISSING)
    bench.pass_time(0.2)
    assert bench.asked


# ---- core ------------------------------------------------------------------------------------------------


def test_the_pause_after_an_unanswered_id_question_is_short_again_after_an_answer() -> None:
    bench = Bench(ready=False)
    for _ in range(8):
        bench.step()
        bench.core.producer_id_failed(None)
        bench.pass_time(2)
    bench.core.producer_id(5)
    bench.submit("a")
    bench.learn(metadata())
    bench.core.connected(1)
    bench.step()
    asked = bench.ids_asked
    bench.answer(48)
    assert bench.ids_asked == asked + 1
    bench.core.producer_id_failed(None)
    bench.pass_time(0.2)
    assert bench.ids_asked == asked + 2


def test_a_topic_that_an_answer_leaves_out_is_missing() -> None:
    bench = Bench(ready=False)
    bench.submit("a")
    bench.learn()
    bench.core.metadata((), [TOPIC])
    bench.step()
    bench.pass_time(0.5)
    assert bench.asked


def test_a_question_about_a_known_topic_that_nobody_answers_is_asked_again() -> None:
    bench = Bench()
    bench.submit("a")
    bench.answer(6)
    bench.core.metadata_failed(bench.asked.pop())
    bench.step()
    bench.pass_time(0.5)
    assert bench.asked == [(TOPIC,)]


def test_metadata_is_looked_up_whenever_it_is_old() -> None:
    bench = Bench(metadata_max_age=300.0)
    bench.submit("a")
    for _ in range(3):
        bench.pass_time(301)
        assert bench.asked == [(TOPIC,)]
        bench.learn(metadata())


def test_the_end_of_a_connection_changes_nothing_for_what_was_given_up() -> None:
    bench = Bench(delivery_timeout=1.0, max_retries=0)
    bench.submit("ab")
    request = bench.requests[0]
    bench.start_writing()
    bench.pass_time(1)
    bench.core.lost(1, [request], OSError())
    bench.step()
    assert bench.outcomes() == [Outcome("ab", "DeliveryTimedOut", True, -1)]


def test_what_has_killed_two_connections_travels_alone() -> None:
    bench = Bench(leaders=(1, 1), retry_backoff=0.0)
    bench.core.submit([message(partition=0), message(partition=1)])
    bench.step()
    for _ in range(2):
        assert [len(request) for request in bench.sent] == [2]
        bench.lose()
        bench.pass_time(0.02)
    assert [len(request) for request in bench.sent] == [1, 1]


def test_a_backoff_longer_than_the_longest_is_kept() -> None:
    bench = Bench(retry_backoff=3.0, metadata_max_age=1e9)
    bench.submit("a")
    bench.answer(19)
    bench.pass_time(2.3)
    assert not bench.requests
    bench.pass_time(0.8)
    assert bench.requests


def test_failures_without_end_overflow_nothing() -> None:
    assert Bench().core._shared.backoff(10_000) <= 1
