"""The core as a whole: requests, connections, producer ids, metadata, and the end."""

from __future__ import annotations

import pytest

from tests.core.helpers import TOPIC, Bench, Outcome, message, messages, metadata
from trio_kprod._core._shared import Abandoned
from trio_kprod._errors import DeliveryAborted, Refused


def stop(bench: Bench, *late: str) -> list[Outcome]:
    bench.core.stop([message(value) for value in late], DeliveryAborted("stopped"))
    bench.step()
    return bench.outcomes()


# ---- requests ----------------------------------------------------------------------------------------------


def test_a_request_carries_one_batch_of_each_partition() -> None:
    bench = Bench(leaders=(1, 1, 2))
    bench.core.submit([one for index in range(3) for one in messages("abcd", partition=index)])
    bench.step()
    assert [[(seen.partition, seen.values) for seen in request] for request in bench.sent] == [
        [(0, "ab"), (1, "ab")],
        [(2, "ab")],
    ]


def test_a_request_is_no_larger_than_allowed() -> None:
    bench = Bench(leaders=(1, 1, 1), max_request_size=29 + 24 + 2 * (10 + 75))
    bench.core.submit([message(partition=index) for index in range(3)])
    bench.step()
    assert [len(request) for request in bench.sent] == [2, 1]
    assert all(sum(len(seen.data) for seen in request) <= 150 for request in bench.sent)


def test_a_batch_larger_than_a_request_may_be_travels_alone() -> None:
    bench = Bench(leaders=(1, 1), max_request_size=50)
    bench.core.submit([message(partition=index) for index in range(2)])
    bench.step()
    assert [len(request) for request in bench.sent] == [1, 1]


def test_topics_share_a_request() -> None:
    bench = Bench()
    bench.core.submit([message(topic="other")])
    bench.step()
    bench.learn(metadata(name="other"))
    bench.answer(0, 0)
    bench.core.submit([message(), message(topic="other")])
    bench.step()
    assert sorted(seen.topic for seen in bench.sent[0]) == ["other", TOPIC]


# ---- connections -------------------------------------------------------------------------------------------


def test_a_connection_is_asked_for_once() -> None:
    bench = Bench()
    bench.lose(reconnect=False)
    for _ in range(3):
        bench.submit("a")
    assert bench.connects == [1]


def test_a_leader_that_cannot_be_reached_is_tried_again_and_looked_up() -> None:
    bench = Bench()
    bench.lose(reconnect=False)
    bench.submit("a")
    bench.core.unreachable(1)
    bench.step()
    assert bench.connects == [1, 1]
    assert bench.asked == [(TOPIC,)]


def test_nothing_connects_for_a_node_that_is_not_needed() -> None:
    bench = Bench()
    bench.lose(reconnect=False)
    assert bench.connects == []
    bench.submit("a")
    bench.step()
    assert bench.connects == [1]


def test_a_dead_leader_delays_no_other() -> None:
    bench = Bench(leaders=(1, 2))
    bench.lose(2, reconnect=False)
    bench.submit("a", partition=1)
    bench.submit("b", partition=0)
    assert bench.only().values == "b"


# ---- producer ids ------------------------------------------------------------------------------------------


def test_nothing_is_sent_without_a_producer_id() -> None:
    bench = Bench(ready=False)
    bench.submit("a")
    bench.core.connected(1)
    bench.learn(metadata())
    assert not bench.requests
    assert bench.ids_asked == 1
    bench.core.producer_id(5)
    bench.step()
    assert bench.only().producer_id == 5


def test_without_idempotence_no_id_is_asked_for() -> None:
    bench = Bench(ready=False, idempotent=False)
    bench.step()
    assert bench.ids_asked == 0


def test_an_id_that_nobody_gives_is_asked_for_again_after_a_pause() -> None:
    bench = Bench(ready=False)
    bench.submit("a")
    for _ in range(5):
        asked = bench.ids_asked
        bench.core.producer_id_failed(None)
        bench.step()
        assert bench.ids_asked == asked
        bench.pass_time(1)
        assert bench.ids_asked == asked + 1
    assert not bench.settled


def test_an_id_that_is_refused_fails_what_waits_only() -> None:
    bench = Bench(ready=False)
    bench.submit("a")
    bench.core.producer_id_failed(Refused(31, "CLUSTER_AUTHORIZATION_FAILED"), final=True)
    bench.step()
    assert bench.outcomes() == [Outcome("a", "Refused", False, -1)]
    bench.submit("b")
    bench.pass_time(1)
    assert not bench.settled
    assert bench.ids_asked == 2


def test_an_id_that_is_refused_instead_of_a_spoiled_one_fails_only_what_needs_it() -> None:
    bench = Bench(leaders=(1, 1))
    for partition in (0, 1):
        bench.submit("a", partition=partition)
        bench.answer(0, 0)
    bench.settled.clear()
    bench.submit("b", partition=0)
    bench.submit("c", partition=1)
    bench.answer(47)
    assert bench.ids_asked == 1
    bench.core.producer_id_failed(Refused(31, "CLUSTER_AUTHORIZATION_FAILED"), final=True)
    bench.step()
    assert bench.outcomes() == [Outcome("b", "Refused", False, -1)]
    bench.answer(0, 1)
    assert bench.outcomes() == [Outcome("c", None, False, 1)]


def test_what_is_in_flight_needs_no_other_id_yet() -> None:
    bench = Bench().started()
    bench.submit("abcd")
    bench.answer(47)
    bench.core.producer_id_failed(Refused(31, "CLUSTER_AUTHORIZATION_FAILED"), final=True)
    bench.step()
    assert bench.outcomes() == []
    bench.answer(0, 1)
    assert [one.values for one in bench.outcomes()] == ["cd"]


def test_an_id_that_is_spoiled_already_is_none() -> None:
    bench = Bench().started()
    bench.submit("a")
    bench.answer(47)
    for asked in range(1, 4):
        assert bench.ids_asked == asked
        bench.core.producer_id(7)
        bench.step()
        assert bench.ids_asked == asked
        bench.pass_time(1)
    bench.core.producer_id(8)
    bench.step()
    assert (bench.only().values, bench.only().producer_id) == ("a", 8)


# ---- metadata ----------------------------------------------------------------------------------------------


def test_one_question_is_open_at_a_time_and_nothing_is_forgotten() -> None:
    bench = Bench(ready=False)
    bench.core.submit([message(topic="a")])
    bench.step()
    bench.core.submit([message(topic="b"), message(topic="c")])
    bench.step()
    assert bench.asked == [("a",)]
    bench.learn(metadata(name="a"))
    assert bench.asked == [("b", "c")]


def test_a_question_that_nobody_answers_is_asked_again_after_a_pause() -> None:
    bench = Bench(ready=False)
    bench.submit("a")
    bench.core.metadata_failed(bench.asked.pop())
    bench.step()
    assert not bench.asked
    bench.pass_time(0.2)
    assert bench.asked == [(TOPIC,)]


def test_metadata_of_topics_nobody_knows_is_ignored() -> None:
    bench = Bench()
    bench.learn(metadata(name="stranger"))
    assert bench.quiet()


def test_metadata_is_looked_up_again_when_it_is_old() -> None:
    bench = Bench(metadata_max_age=300.0)
    bench.submit("a")
    bench.pass_time(299)
    assert not bench.asked
    bench.pass_time(2)
    assert bench.asked == [(TOPIC,)]


# ---- the end -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write_started", [True, False])
def test_stop_says_of_what_is_in_flight_whether_it_reached_a_socket(write_started: bool) -> None:
    bench = Bench()
    bench.submit("ab")
    bench.requests[0].write_started = write_started
    assert stop(bench) == [Outcome("ab", "DeliveryAborted", write_started, -1)]


def test_stop_remembers_an_earlier_transmission() -> None:
    bench = Bench()
    bench.submit("ab")
    bench.lose()
    bench.requests[0].write_started = False
    assert stop(bench) == [Outcome("ab", "DeliveryAborted", True, -1)]


def test_stop_gives_up_what_waits_anywhere_and_what_comes_late() -> None:
    bench = Bench(leaders=(-1, 1))
    bench.lose(1, reconnect=False)
    bench.submit("a", partition=0)
    bench.submit("b", partition=7)
    bench.core.submit([message("c"), message("d", topic="unknown")])
    assert {one.values for one in stop(bench, "e")} == set("abcde")
    assert not any(one.maybe_written for one in bench.outcomes())
    assert stop(bench) == []


def test_stop_from_within_the_partitioner_tells_each_message_once() -> None:
    """A worker that is stuck in a partitioner is stopped by another thread, between two of its steps."""
    told: list[Outcome] = []

    def choose(*_: object) -> int:
        told.extend(stop(bench))
        raise Abandoned

    bench = Bench(partitioner=choose)
    with pytest.raises(Abandoned):
        bench.submit([message("a", key=b"k"), message("b", key=b"k")])
    assert sorted(one.values for one in told) == ["a", "b"]


def test_after_stop_answers_change_nothing() -> None:
    bench = Bench()
    bench.submit("ab")
    request = bench.take()
    stop(bench)
    bench.answer(0, 0, request=request)
    bench.core.sent(request)
    bench.core.lost(1, [request], OSError())
    bench.step()
    assert not bench.settled
