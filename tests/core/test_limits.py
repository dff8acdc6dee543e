"""What must not grow, storm or last: pauses, requests, steps, and what was given up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.core.helpers import TOPIC, Bench, Outcome, message, messages, metadata
from trio_kprod._errors import ConnectionLost, DeliveryAborted, NoResponse
from trio_kprod._messages import PARTITION_OVERHEAD, request_overhead, topic_overhead

NOT_ENOUGH_REPLICAS = 19


# ---- pauses end only by what shows that their own cause is gone --------------------------------------------


def test_a_connection_does_not_end_the_pause_after_an_error_response() -> None:
    bench = Bench().started()
    bench.submit("a")
    bench.answer(NOT_ENOUGH_REPLICAS)
    bench.lose()
    assert not bench.requests
    bench.pass_time(0.1)
    assert bench.only().values == "a"


def test_a_connection_ends_the_pause_after_a_lost_one() -> None:
    bench = Bench(retry_backoff=1.0).started()
    bench.submit("a")
    bench.lose()
    assert bench.only().values == "a"


def times_sent(bench: Bench, *, closes: bool, every: float) -> int:
    """How often a batch is sent in a thousand steps to a leader that refuses it, and perhaps closes."""
    bench.started()
    bench.submit("a")
    sent = 0
    for _ in range(1000):
        if bench.requests:
            sent += 1
            bench.answer(NOT_ENOUGH_REPLICAS)
        if closes:
            bench.lose()
        bench.pass_time(every)
    return sent


def test_a_leader_that_refuses_and_closes_gets_few_requests() -> None:
    assert times_sent(Bench(metadata_max_age=1e9), closes=True, every=0.01) <= 20


def test_without_retry_backoff_there_still_is_a_pause() -> None:
    assert times_sent(Bench(retry_backoff=0.0, metadata_max_age=1e9), closes=False, every=0.001) <= 10


# ---- connections -------------------------------------------------------------------------------------------


def test_the_end_of_a_connection_asks_for_metadata_although_nothing_was_in_flight() -> None:
    """With acks=0 a leader that was moved has no other way to say so."""
    bench = Bench(idempotent=False)
    bench.submit("a")
    bench.core.sent(bench.take())
    bench.step()
    bench.submit("b")
    bench.core.sent(bench.take())
    bench.lose(reconnect=False)
    assert bench.asked == []  # nothing waits, so nothing is asked yet
    bench.submit("c")
    assert bench.asked == [(TOPIC,)]


def lose_again_and_again(bench: Bench, times: int, cause: ConnectionLost) -> None:
    for _ in range(times):
        if not bench.requests:
            bench.pass_time(1)
        request = bench.take()
        bench.core.lost(1, [request], cause)
        bench.core.connected(1)
        bench.step()


def test_a_batch_that_ends_connection_after_connection_alone_is_given_up() -> None:
    bench = Bench()
    bench.submit("a")
    lose_again_and_again(bench, 32, ConnectionLost("it closed"))
    [settled] = bench.settled
    assert settled.maybe_written
    assert "socket.request.max.bytes" in str(settled.error)
    assert isinstance(settled.error.__cause__ if settled.error else None, ConnectionLost)


def test_timeouts_are_not_the_fault_of_a_batch() -> None:
    bench = Bench()
    bench.submit("a")
    lose_again_and_again(bench, 50, NoResponse("no response within 30 s"))
    assert not bench.settled


def test_an_outage_is_not_the_fault_of_a_batch() -> None:
    bench = Bench()
    bench.submit("a")
    for _ in range(10):
        lose_again_and_again(bench, 25, ConnectionLost("it closed"))
        bench.core.unreachable(1)
        bench.core.connected(1)
        bench.pass_time(1)
    assert not bench.settled


# ---- what is given up is freed -----------------------------------------------------------------------------


def test_what_was_given_up_before_its_write_is_withdrawn_and_not_written() -> None:
    bench = Bench(delivery_timeout=1.0).started()
    bench.submit("ab")
    bench.pass_time(1)
    assert bench.outcomes() == [Outcome("ab", "DeliveryTimedOut", False, -1)]
    assert not bench.requests


def test_the_others_of_a_request_stay() -> None:
    bench = Bench(leaders=(1, 1), delivery_timeout=1.0).started()
    bench.core.submit([message("a", partition=0), message("b", partition=1, accepted_at=0.5)])
    bench.step()
    bench.pass_time(1)
    assert bench.outcomes() == [Outcome("a", "DeliveryTimedOut", False, -1)]
    assert bench.only().values == "b"
    bench.answer(0, 7)
    assert bench.outcomes() == [Outcome("b", None, False, 7)]


def test_what_is_being_written_is_freed_when_it_is_given_up() -> None:
    bench = Bench(delivery_timeout=1.0).started()
    bench.submit("ab")
    [request] = bench.requests
    bench.start_writing()
    bench.pass_time(1)
    assert bench.outcomes() == [Outcome("ab", "DeliveryTimedOut", True, -1)]
    assert [(batch.data, list(batch.entries)) for batch in request.batches] == [(None, [])]


# ---- requests are no larger than allowed -------------------------------------------------------------------


def test_a_request_is_counted_whole() -> None:
    limit = 10_000
    topics = [f"{number}".rjust(200, "t") for number in range(40)]
    overhead = request_overhead("client")
    bench = Bench(max_request_size=limit, request_overhead=overhead)
    bench.core.submit([message(topic=topic, partition=0) for topic in topics])
    bench.step()
    bench.learn(*[metadata(name=topic) for topic in topics])
    while bench.requests:
        request = bench.requests[0]
        size = overhead
        for batch in request.batches:
            size += topic_overhead(batch.partition.topic.name) + PARTITION_OVERHEAD + len(batch.data or b"")
        assert size <= limit
        bench.answer(0, 0)


# ---- steps are short ---------------------------------------------------------------------------------------


def test_one_call_encodes_a_bounded_part_of_what_waits() -> None:
    count, size = 40, 100_000
    bench = Bench(leaders=[1] * count, batch_size=size + 61, max_request_size=10**9)
    bench.core.submit([message(partition=index, size=size) for index in range(count)])
    parts: list[int] = []
    while bench.core.deadline <= bench.now:
        before = len(bench.requests)
        bench.step()
        parts.append(sum(len(request.batches) for request in bench.requests[before:]))
    assert sum(parts) == count
    assert max(parts) <= 11


def test_keyless_messages_wait_for_the_next_call_as_well() -> None:
    count, size = 40, 100_000
    bench = Bench(leaders=[1] * count, batch_size=size + 61, max_request_size=10**9)
    bench.core.submit([message(size=size) for _ in range(count)])
    steps = 0
    while bench.core.deadline <= bench.now:
        bench.step()
        steps += 1
    assert sum(len(request.batches) for request in bench.requests) == count
    assert 4 <= steps <= 6


@pytest.mark.parametrize("partition", [0, None])
def test_everything_may_be_given_up_while_a_batch_is_encoded(partition: int | None) -> None:
    stopped: list[bool] = []

    def unlocked(function: Callable[[], Any]) -> Any:
        if not stopped:
            stopped.append(True)
            bench.core.stop([], DeliveryAborted("stopped"))
            raise KeyboardInterrupt  # as whoever was abandoned
        return function()

    bench = Bench(leaders=(1, 1, 1), unlocked=unlocked, max_request_size=10**6)
    bench.core.submit([*messages("abc", partition=partition), *messages("de", partition=1)])
    with pytest.raises(KeyboardInterrupt):
        bench.step()
    bench.settled.extend(one for one in bench.core._outbox.take() if hasattr(one, "maybe_written"))  # type: ignore[misc]
    told = "".join(outcome.values for outcome in bench.outcomes())
    assert sorted(told) == list("abcde")
