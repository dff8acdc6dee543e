"""A request that ends its connection is made smaller, and nothing is duplicated by that."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.helpers import PRODUCER_ID, TOPIC, Bench, Outcome, message, messages, metadata
from trio_kprod._core import _limits
from trio_kprod._core._responses import _LOSSES_UNTIL_GIVEN_UP, LOSSES_UNTIL_ALONE, LOSSES_UNTIL_HALVED
from trio_kprod._errors import ConnectionLost, NoResponse

FOUR = 61 + 4 * 100  # bytes of a batch of four messages


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_limits, "SMALLEST_LIMIT", 100)


def lose_until_halved(bench: Bench) -> None:
    for _ in range(LOSSES_UNTIL_HALVED):
        bench.lose()
    bench.pass_time(1)


def halved(**rules: Any) -> Bench:
    """A batch of four messages, behind an acknowledged one, was just halved: its first part is in flight."""
    bench = Bench(batch_size=FOUR, **rules).started()
    bench.submit("abcd")
    lose_until_halved(bench)
    return bench


def out_of_order(bench: Bench) -> None:
    """The first time, which is asked once more when there is new metadata."""
    bench.answer(45)
    while not bench.requests:
        if bench.asked:
            bench.learn(metadata([1] * len(bench.core._topics[TOPIC].partitions)))
        bench.pass_time(0.1)


def be_silent(bench: Bench) -> None:
    bench.core.lost(1, [bench.take()], NoResponse("late"))
    bench.core.connected(1)
    bench.pass_time(1)


def killing(bench: Bench, values: str, *, times: int = 100) -> None:
    """A broker that ends the connection at each batch with one of these, and takes the others."""
    for _ in range(times):
        if not bench.requests:
            bench.pass_time(1)
        if not bench.requests:
            return
        if any(letter in seen.values for seen in bench.sent[0] for letter in values):
            bench.lose()
        else:
            bench.answer(0, 1)


def limits_told(bench: Bench) -> list[tuple[int, int]]:
    told, bench.limits = bench.limits, []
    return [(one.size, one.limit) for one in told]


# ---- the parts -------------------------------------------------------------------------------------------


def test_a_batch_that_ends_its_connections_is_halved_under_the_same_numbers() -> None:
    bench = Bench(batch_size=FOUR).started()
    bench.submit("abcd")
    for _ in range(LOSSES_UNTIL_HALVED):
        assert (bench.only().values, bench.only().sequence) == ("abcd", 1)
        bench.lose()
    assert bench.place() == ("ab", 0, 1)
    bench.answer(0, 1)
    assert bench.place() == ("cd", 0, 3)
    bench.answer(0, 3)
    assert bench.outcomes() == [Outcome("ab", None, False, 1), Outcome("cd", None, False, 3)]


def test_the_parts_are_halved_at_each_further_loss() -> None:
    bench = Bench(batch_size=61 + 8 * 100).started()
    bench.submit("abcdefgh")
    lose_until_halved(bench)
    for values in "abcd", "ab", "a":
        assert bench.only().values == values
        bench.lose()
        bench.pass_time(1)
    assert bench.only().values == "a"


def test_once_the_first_part_is_acknowledged_the_rest_may_be_sealed_anew() -> None:
    """The log lacks the whole. (A broker that has forgotten the producer shows that falsely, so what is given
    up is told as maybe written all the same.)"""
    bench = halved()
    bench.answer(0, 1)
    bench.answer(87, record_errors={0: "bad"})
    assert bench.place() == ("d", 1, 0)
    bench.answer(0, 3)
    assert bench.outcomes() == [
        Outcome("ab", None, False, 1),
        Outcome("c", "Refused", True, -1),
        Outcome("d", None, False, 3),
    ]


def test_until_then_all_of_it_may_be_written() -> None:
    bench = halved(delivery_timeout=60.0)
    bench.pass_time(60)
    assert bench.outcomes() == [
        Outcome("ab", "DeliveryTimedOut", True, -1),
        Outcome("cd", "DeliveryTimedOut", True, -1),
    ]


def test_if_the_first_part_is_out_of_order_the_whole_is_asked_for() -> None:
    """It is in the log as a whole: only its own numbers are known as a duplicate."""
    bench = halved()
    out_of_order(bench)
    assert bench.only().values == "ab"
    bench.answer(45)
    assert bench.place() == ("abcd", 0, 1)
    bench.answer(0, 1)
    assert bench.outcomes() == [Outcome("abcd", None, False, 1)]


def test_a_part_of_a_part_asks_for_one_after_the_other() -> None:
    bench = halved()
    bench.lose()
    bench.pass_time(1)
    assert bench.only().values == "a"
    out_of_order(bench)
    for values in "a", "ab", "abcd":
        assert bench.place() == (values, 0, 1)
        bench.answer(45)
    assert bench.outcomes() == [Outcome("abcd", "Refused", True, -1)]  # "ab" may yet land by itself


def test_a_whole_that_is_out_of_order_too_lacks_a_predecessor() -> None:
    bench = halved()
    out_of_order(bench)
    bench.answer(45)
    bench.answer(45)
    assert bench.place() == ("ab", 1, 0)
    bench.answer(0, 1)
    bench.answer(0, 3)
    assert bench.outcomes() == [Outcome("ab", None, False, 1), Outcome("cd", None, False, 3)]


def test_a_whole_is_not_halved_again() -> None:
    bench = halved()
    out_of_order(bench)
    bench.answer(45)
    for _ in range(100):
        if not bench.requests:
            break
        assert bench.only().values == "abcd"
        bench.lose()
        bench.pass_time(1)
    assert bench.outcomes() == [Outcome("abcd", "RetriesExhausted", True, -1)]


def test_without_its_rest_a_part_that_is_out_of_order_may_be_written() -> None:
    bench = Bench(batch_size=FOUR, delivery_timeout=60.0).started()
    bench.submit([*messages("ab", partition=0, accepted_at=50.0), *messages("cd", partition=0)])
    lose_until_halved(bench)
    bench.pass_time(60)
    assert bench.outcomes() == [Outcome("cd", "DeliveryTimedOut", True, -1)]
    out_of_order(bench)
    bench.answer(45)
    assert bench.outcomes() == [Outcome("ab", "Refused", True, -1)]


def test_the_first_batch_of_a_chain_is_no_sign_of_a_stranger() -> None:
    """Sequence 0 is out of order because the whole is in the log, not because another uses our id."""
    bench = Bench(batch_size=FOUR)
    bench.submit("abcd")
    lose_until_halved(bench)
    out_of_order(bench)
    bench.answer(45)
    bench.answer(0, 0)
    assert bench.outcomes() == [Outcome("abcd", None, False, 0)]
    bench.submit("e")
    assert (bench.only().producer_id, bench.only().sequence, bench.ids_asked) == (PRODUCER_ID, 4, 0)


def test_what_is_behind_keeps_its_place_in_the_window() -> None:
    """What was settled out of turn leaves a hole, and five places ahead counts all the same."""
    bench = Bench(batch_size=161).started()
    bench.submit("abcdefgh")
    assert [seen.values for [seen] in bench.sent] == list("abcde")
    partition = bench.requests[0].batches[0].partition
    assert [batch.number for batch in partition.batches] == [1, 2, 3, 4, 5]
    big = message("x", partition=0)
    partition.batches[1].entries = [*partition.batches[1].entries, big]
    partition.batches.remove(partition.batches[2])
    partition.halve(partition.batches[1])
    assert [batch.number for batch in partition.batches] == [1, 2, 3, 5, 6]


def test_a_batch_is_cut_so_that_what_is_large_comes_last() -> None:
    """Else what stands behind it would share its fate: nothing shows that it is not in the log."""
    bench = Bench(batch_size=2000).started()
    sizes = {"a": 100, "b": 100, "c": 1000, "d": 100}
    bench.submit([message(value, size=size, partition=0) for value, size in sizes.items()])
    assert bench.only().values == "abcd"
    killing(bench, "c")
    assert bench.outcomes() == [
        Outcome("ab", None, False, 1),
        Outcome("c", "RetriesExhausted", True, -1),
        Outcome("d", None, False, 1),
    ]


def test_too_large_while_perhaps_written_is_halved_as_well() -> None:
    bench = Bench().started()
    bench.submit("ab")
    bench.lose()
    bench.answer(10)
    assert bench.place() == ("a", 0, 1)
    bench.answer(0, 1)
    bench.answer(10)
    assert bench.outcomes() == [Outcome("a", None, False, 1), Outcome("b", "Refused", True, -1)]


@pytest.mark.parametrize("code", [32, 87])
def test_a_refused_record_in_what_is_perhaps_written_fails_alone(code: int) -> None:
    bench = Bench(batch_size=FOUR).started()
    bench.submit("abcd")
    bench.lose()
    bench.answer(code, record_errors={1: "bad"})
    assert bench.place() == ("ab", 0, 1)
    bench.answer(code, record_errors={1: "bad"})
    assert bench.place() == ("a", 0, 1)
    bench.answer(0, 1)
    bench.answer(code, record_errors={0: "bad"})
    bench.answer(0, 3)
    assert bench.outcomes() == [
        Outcome("a", None, False, 1),
        Outcome("b", "Refused", True, -1),
        Outcome("cd", None, False, 3),
    ]


@pytest.mark.parametrize("code", [32, 87])
def test_a_refused_record_in_what_is_in_the_log_is_refused_as_a_whole(code: int) -> None:
    """It was taken once, and is no longer."""
    bench = Bench().started()
    bench.submit("ab")
    bench.lose()
    bench.answer(code, record_errors={1: "bad"})
    out_of_order(bench)
    bench.answer(45)
    assert bench.only().values == "ab"
    bench.answer(code, record_errors={1: "bad"})
    assert bench.outcomes() == [Outcome("ab", "Refused", True, -1)]


def test_too_large_while_it_is_in_the_log_is_refused_as_a_whole() -> None:
    bench = Bench().started()
    bench.submit("ab")
    bench.lose()
    bench.answer(10)
    out_of_order(bench)
    bench.answer(45)
    assert bench.only().values == "ab"
    bench.answer(10)
    assert bench.outcomes() == [Outcome("ab", "Refused", True, -1)]


@pytest.mark.parametrize("idempotent", [True, False])
def test_one_message_is_given_up_and_its_error_says_why(idempotent: bool) -> None:
    bench = Bench(batch_size=FOUR, idempotent=idempotent).started()
    bench.submit("abcdefgh")
    killing(bench, "f")
    settled = list(bench.settled)
    outcomes = bench.outcomes()
    assert "".join(one.values for one in outcomes) == "abcdefgh"
    [failed] = [one for one in outcomes if one.error]
    assert failed == Outcome("f", "RetriesExhausted", True, -1)
    text = str(settled[2].error)
    assert "each of the last 32 times that this message of" in text
    assert "socket.request.max.bytes" in text
    assert "it ended" in text
    assert isinstance(settled[2].error.__cause__, ConnectionLost)  # type: ignore[union-attr]
    assert 20 < bench.now < 40


def give_up(bench: Bench, value: str, *, size: int = 1000) -> int:
    """How many connections a message ends until it is given up."""
    bench.submit([message(value, size=size, partition=0)])
    losses = 0
    while not (outcomes := bench.outcomes()):
        bench.lose()
        losses += 1
        bench.pass_time(1)
    assert outcomes == [Outcome(value, "RetriesExhausted", True, -1)]
    return losses


def test_after_one_message_those_half_as_large_are_given_up_sooner() -> None:
    bench = Bench(batch_size=FOUR).started()
    assert give_up(bench, "a") == _LOSSES_UNTIL_GIVEN_UP
    assert give_up(bench, "b", size=500) == LOSSES_UNTIL_HALVED
    assert give_up(bench, "c", size=400) == _LOSSES_UNTIL_GIVEN_UP
    assert give_up(bench, "d", size=400) == LOSSES_UNTIL_HALVED


def test_what_requests_are_kept_to_is_no_sign_of_what_passes() -> None:
    """Half of a batch can be more than the large message in it has."""
    limits = Bench().core._shared.limits
    limits.halve(1, 2000, 1000)
    limits.message_failed(1, 900)
    assert limits.is_too_large(1, 900)
    limits.responded(1, 1000)
    limits.message_failed(1, 900)
    assert not limits.is_too_large(1, 900)


def test_until_one_as_large_passes() -> None:
    bench = Bench(batch_size=FOUR).started()
    give_up(bench, "a")
    bench.submit([message("b", size=1000, partition=0)])
    bench.answer(0, 1)
    assert bench.outcomes() == [Outcome("b", None, False, 1)]
    assert give_up(bench, "c") == _LOSSES_UNTIL_GIVEN_UP


def test_or_ten_minutes_have_passed() -> None:
    bench = Bench(batch_size=FOUR).started()
    give_up(bench, "a")
    bench.pass_time(601)
    assert give_up(bench, "b") == _LOSSES_UNTIL_GIVEN_UP


def test_other_brokers_may_take_it() -> None:
    bench = Bench(leaders=(1, 2), batch_size=FOUR).started()
    give_up(bench, "a")
    bench.submit([message("b", size=1000, partition=1)])
    for _ in range(2 * LOSSES_UNTIL_HALVED):
        bench.core.lost(2, [bench.take()], ConnectionLost("ended"))
        bench.core.connected(2)
        bench.pass_time(1)
    assert not bench.outcomes()


def test_a_small_message_that_was_given_up_says_nothing_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_limits, "SMALLEST_LIMIT", 2000)
    bench = Bench(batch_size=FOUR).started()
    for value in "ab":
        assert give_up(bench, value) == _LOSSES_UNTIL_GIVEN_UP


# ---- who is blamed ---------------------------------------------------------------------------------------


def test_only_the_first_request_without_a_response_is_blamed() -> None:
    bench = Bench(leaders=(1, 1), batch_size=FOUR)
    bench.core.submit([*messages("abcd", partition=0), *messages("efgh", partition=1)])
    bench.step()
    for _ in range(LOSSES_UNTIL_HALVED - 1):
        bench.lose()
    assert [seen.values for [seen] in bench.sent] == ["abcd", "efgh"]
    assert [request.batches[0].connections_lost for request in bench.requests] == [
        LOSSES_UNTIL_HALVED - 1,
        LOSSES_UNTIL_ALONE,
    ]


def test_a_request_that_took_too_long_is_not_blamed() -> None:
    bench = Bench(batch_size=FOUR).started()
    bench.submit("abcd")
    for _ in range(3 * LOSSES_UNTIL_HALVED):
        be_silent(bench)
        assert bench.only().values == "abcd"


def test_a_broker_that_is_silent_says_nothing_of_the_size() -> None:
    bench = Bench(leaders=(1, 1), batch_size=FOUR)
    bench.core.submit([*messages("abcd", partition=0), *messages("efgh", partition=1)])
    bench.step()
    for _ in range(LOSSES_UNTIL_ALONE):
        be_silent(bench)
    assert [len(request) for request in bench.sent] == [1, 1]
    assert not limits_told(bench)


def test_a_response_forgives_all() -> None:
    bench = Bench(batch_size=FOUR).started()
    bench.submit("abcd")
    for _ in range(LOSSES_UNTIL_HALVED - 1):
        bench.lose()
    bench.answer(7)
    bench.pass_time(1)
    for _ in range(LOSSES_UNTIL_HALVED - 1):
        bench.lose()
    assert bench.only().values == "abcd"
    assert not limits_told(bench)


# ---- the limit of a node ---------------------------------------------------------------------------------


def test_later_batches_to_that_node_are_small_from_the_start() -> None:
    bench = Bench(leaders=(1, 1, 2), batch_size=FOUR)
    bench.submit("abcd")
    lose_until_halved(bench)
    assert limits_told(bench) == [(461, 261)]
    bench.answer(0, 0)
    bench.answer(0, 2)
    bench.submit("efgh", partition=1)
    assert bench.only().values == "ef"
    bench.answer(0, 0)
    bench.submit("ijkl", partition=2)
    assert bench.sent[-1][0].values == "ijkl"


def test_where_batches_are_kept_small_one_loss_halves_again() -> None:
    """Or each partition would have to lose as many connections."""
    bench = Bench(leaders=(1, 1), batch_size=61 + 8 * 100)
    bench.submit("abcdefgh")
    lose_until_halved(bench)
    bench.answer(0, 0)
    bench.answer(0, 4)
    assert limits_told(bench) == [(861, 461)]
    bench.submit("ijkl", partition=1)
    assert bench.only().values == "ijkl"
    bench.lose()
    assert limits_told(bench) == [(461, 261)]
    assert bench.only().values == "ij"


def test_where_batches_are_kept_small_several_in_a_request_are_not_halved_for_one_loss() -> None:
    bench = Bench(leaders=(1, 1), batch_size=61 + 8 * 100)
    bench.submit("abcdefgh")
    lose_until_halved(bench)
    bench.answer(0, 0)
    bench.answer(0, 4)
    bench.core.submit([*messages("i", partition=0), *messages("j", partition=1)])
    bench.step()
    bench.lose()
    assert [len(request) for request in bench.sent] == [2]


def test_what_waits_for_that_node_is_halved_before_it_is_sent() -> None:
    bench = Bench(leaders=(1, 1), batch_size=FOUR, max_request_size=600)
    bench.core.submit([*messages("abcd", partition=0), *messages("efgh", partition=1)])
    bench.step()
    lose_until_halved(bench)
    assert sorted(seen.values for request in bench.sent for seen in request) == ["ab", "ef"]


def test_a_request_of_several_batches_is_made_smaller_sooner() -> None:
    bench = Bench(leaders=(1, 1), batch_size=FOUR)
    bench.core.submit([*messages("abcd", partition=0), *messages("efgh", partition=1)])
    bench.step()
    assert len(bench.sent[0]) == 2
    for _ in range(LOSSES_UNTIL_ALONE):
        bench.lose()
    assert limits_told(bench) == [(922, 461)]
    assert [len(request) for request in bench.sent] == [1, 1]
    bench.answer(0, 0)
    bench.answer(0, 0)
    bench.core.submit([*messages("ijk", partition=0), *messages("lmn", partition=1)])
    bench.step()
    assert [len(request) for request in bench.sent] == [1, 1]
    bench.answer(0, 0)
    bench.answer(0, 0)
    bench.core.submit([*messages("o", partition=0), *messages("qr", partition=1)])
    bench.step()
    assert [len(request) for request in bench.sent] == [2]


def test_the_limit_is_forgotten_after_ten_minutes() -> None:
    bench = Bench(batch_size=FOUR)
    bench.submit("abcd")
    lose_until_halved(bench)
    bench.answer(0, 0)
    bench.answer(0, 2)
    bench.pass_time(601)
    bench.submit("efgh")
    assert bench.only().values == "efgh"


def test_a_small_message_that_ends_connections_shows_that_size_is_not_the_reason() -> None:
    bench = Bench(batch_size=FOUR).started()
    bench.submit("abcd")
    killing(bench, "b")
    outcomes = bench.outcomes()
    assert "".join(one.values for one in outcomes) == "abcd"
    assert [one.values for one in outcomes if one.error] == ["b"]
    bench.submit("efgh")
    assert bench.only().values == "efgh"


def test_nothing_of_a_partition_is_sent_behind_what_is_larger_than_its_leader_takes() -> None:
    """Else it might be in the log behind it, for all that could be proved, and be told so."""
    bench = halved()
    bench.answer(0, 1)
    bench.answer(0, 3)
    bench.submit([message("e", size=1000, partition=0), *messages("fghi", partition=0)])
    assert bench.only().values == "e"
    killing(bench, "e")
    assert [(one.error, one.maybe_written) for one in bench.outcomes() if one.values not in "abcd"] == [
        ("RetriesExhausted", True),
        (None, False),
        (None, False),
    ]


def test_what_is_larger_than_its_leader_takes_lets_others_go_first() -> None:
    bench = Bench(leaders=(1, 1), batch_size=FOUR)
    bench.submit("abcd")
    lose_until_halved(bench)
    bench.answer(0, 1)
    bench.answer(0, 3)
    bench.submit([message("e", size=1000, partition=0)])
    bench.lose()
    assert not bench.requests  # although there is a connection
    bench.submit("z", partition=1)
    assert bench.only().values == "z"
    bench.pass_time(1)
    assert [seen.values for [seen] in bench.sent] == ["z", "e"]


def test_a_large_message_that_ends_connections_shows_nothing_of_the_kind() -> None:
    bench = Bench(batch_size=2000).started()
    bench.submit([message("a", partition=0), message("b", size=1500, partition=0)])
    killing(bench, "b")
    assert [one.values for one in bench.outcomes()] == ["a", "b"]
    bench.submit([message(value, partition=0) for value in "cdefghijk"])
    assert bench.only().values == "cdefghij"


def test_no_limit_is_lower_than_javas_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_limits, "SMALLEST_LIMIT", 300)
    bench = halved()
    assert bench.only().values == "ab"
    bench.lose()
    bench.pass_time(1)
    assert limits_told(bench) == [(461, 300)]
    assert bench.only().values == "a"  # each batch is halved by itself all the same


# ---- with acks=0 -----------------------------------------------------------------------------------------


def write(bench: Bench) -> None:
    bench.core.sent(bench.take())
    bench.step()


def test_with_acks_0_what_was_written_last_is_taken_for_the_cause() -> None:
    bench = Bench(batch_size=FOUR, idempotent=False)
    for _ in range(LOSSES_UNTIL_HALVED):
        assert not limits_told(bench)
        bench.submit("abcd")
        assert bench.only().values == "abcd"
        write(bench)
        bench.lose()
    assert limits_told(bench) == [(461, 230)]
    bench.submit("efgh")
    assert bench.only().values == "e"
    bench.pass_time(10_000)
    write(bench)
    assert bench.only().values == "f"  # for good: to try it again would lose messages


def test_with_acks_0_a_connection_that_lasted_was_not_ended_by_what_was_written() -> None:
    bench = Bench(batch_size=FOUR, idempotent=False)
    for _ in range(2 * LOSSES_UNTIL_HALVED):
        bench.submit("abcd")
        write(bench)
        bench.pass_time(2)
        bench.lose()
    for _ in range(2 * LOSSES_UNTIL_HALVED):
        bench.lose()
    assert not limits_told(bench)
