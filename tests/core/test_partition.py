"""What one partition may send, and when: the window, probing, leaders, chains and their epochs."""

from __future__ import annotations

from uuid import UUID

from tests.core.helpers import PRODUCER_ID, Bench, Outcome, metadata
from trio_kprod._core._batch import LAST_EPOCH, Chain
from trio_kprod._core._gathering import YOUNG


def values(bench: Bench) -> list[str]:
    return [seen.values for [seen] in bench.sent]


# ---- window and probing ------------------------------------------------------------------------------------


def test_one_batch_is_in_flight_until_the_first_acknowledgement() -> None:
    bench = Bench()
    bench.submit("abcdef")
    assert values(bench) == ["ab"]
    bench.answer(0, 0)
    assert values(bench) == ["cd", "ef"]


def test_beside_others_only_a_full_batch_is_sent() -> None:
    bench = Bench().started()
    bench.submit("a")
    bench.submit("b")
    assert values(bench) == ["a"]
    bench.submit("c")
    assert values(bench) == ["a", "bc"]
    bench.submit("d")
    bench.answer(0, 1)
    assert values(bench) == ["bc"]
    bench.answer(0, 2)
    assert values(bench) == ["d"]


def test_five_batches_are_in_flight_at_most() -> None:
    bench = Bench().started()
    bench.submit("abcdefghijklmn")
    assert values(bench) == ["ab", "cd", "ef", "gh", "ij"]
    bench.answer(0, 1)
    assert values(bench)[-1] == "kl"


def test_the_window_counts_by_distance_not_by_number() -> None:
    """Brokers know the last five appended: one that is stuck must not fall behind them."""
    bench = Bench().started()
    bench.submit("abcdefghijklmn")
    bench.answer(7)
    for _ in range(4):
        bench.answer(0, 9)
    assert not bench.requests
    bench.pass_time(0.2)
    assert values(bench) == ["ab"]
    bench.answer(0, 1)
    assert values(bench) == ["kl", "mn"]


def test_the_window_does_not_move_while_its_first_is_unanswered() -> None:
    bench = Bench().started()
    bench.submit("abcdefghijklmn")
    first = bench.requests.pop(0)
    for _ in range(4):
        bench.answer(0, 9)
    assert not bench.requests
    bench.answer(0, 1, request=first)
    assert values(bench) == ["kl", "mn"]


def test_a_lone_batch_follows_a_long_silence() -> None:
    bench = Bench(metadata_max_age=1e6).started()
    bench.pass_time(601)
    bench.submit("abcd")
    assert values(bench) == ["ab"]


def test_a_message_larger_than_a_batch_travels_alone() -> None:
    bench = Bench().started()
    bench.submit("a", size=5000)
    bench.submit("bc")
    bench.answer(0, 1)
    assert values(bench) == ["bc"]


# ---- leaders ------------------------------------------------------------------------------------------


def test_a_new_leader_gets_nothing_before_the_old_one_has_answered() -> None:
    bench = Bench(leaders=(1, 2)).started()
    bench.submit("abcd")
    bench.core.want_partitions("topic")
    bench.step()
    bench.learn(metadata((2, 2), epoch=1))
    bench.submit("efgh")
    assert [request.node for request in bench.requests] == [1, 1]
    bench.lose(1, reconnect=False)
    assert [request.node for request in bench.requests] == []
    bench.pass_time(0.2)
    assert [request.node for request in bench.requests] == [2]
    assert values(bench) == ["ab"]


def test_the_leader_epoch_never_goes_back() -> None:
    bench = Bench(leaders=(1, 2))
    bench.learn(metadata((2, 2), epoch=5))
    bench.learn(metadata((1, 2), epoch=4))
    bench.submit("a")
    assert bench.requests[0].node == 2


def test_one_batch_is_in_flight_after_a_change_of_leader() -> None:
    bench = Bench(leaders=(1, 2)).started()
    bench.learn(metadata((2, 2), epoch=1))
    bench.submit("abcd")
    assert values(bench) == ["ab"]


def test_one_batch_is_in_flight_after_a_new_election_of_the_same_leader() -> None:
    bench = Bench().started()
    bench.learn(metadata(epoch=2))
    bench.submit("abcd")
    assert values(bench) == ["ab"]


def test_a_partition_without_leader_is_asked_about_until_it_has_one() -> None:
    bench = Bench(leaders=(-1, 1))
    bench.submit("a")
    assert not bench.requests
    bench.core.want_partitions("topic")
    bench.step()
    for _ in range(3):
        bench.learn(metadata((-1, 1)))
        assert not bench.asked
        bench.pass_time(1)
        assert bench.asked == [("topic",)]
    bench.learn(metadata((1, 1), epoch=1))
    assert values(bench) == ["a"]


# ---- a topic that is made anew -------------------------------------------------------------------------


def test_another_topic_id_starts_the_chain_afresh_even_for_what_is_perhaps_written() -> None:
    bench = Bench().started()
    bench.submit("ab")
    bench.answer(7)
    bench.answer(100) if bench.requests else None
    bench.learn(metadata(topic_id=UUID(int=2)))
    bench.pass_time(0.1)
    seen = bench.only()
    assert (seen.values, seen.producer_id, seen.epoch, seen.sequence) == ("ab", PRODUCER_ID, 1, 0)
    bench.answer(0, 0)
    assert bench.outcomes() == [Outcome("ab", None, False, 0)]


def test_old_news_of_the_former_topic_changes_nothing() -> None:
    """Else what is perhaps in the new log would be taken for lost with the old one, and sent as new."""
    bench = Bench().started()
    bench.learn(metadata(topic_id=UUID(int=2)))
    bench.submit("ab")
    epoch = bench.only().epoch
    bench.answer(7)
    bench.learn(metadata())
    bench.pass_time(0.2)
    assert (bench.only().values, bench.only().epoch) == ("ab", epoch)


def test_the_leader_epochs_of_another_topic_begin_anew() -> None:
    bench = Bench(leaders=(1, 2))
    bench.learn(metadata((1, 2), epoch=9))
    bench.learn(metadata((2, 2), topic_id=UUID(int=2), epoch=0))
    bench.submit("a")
    assert bench.requests[0].node == 2


def test_messages_of_partitions_that_are_no_more_are_given_up() -> None:
    bench = Bench(leaders=(1, 1)).started()
    bench.submit("ab", partition=1)
    bench.submit("c", partition=1)
    bench.start_writing()
    bench.learn(metadata((1,), topic_id=UUID(int=2)))
    assert bench.outcomes() == [
        Outcome("ab", "PartitioningFailed", True, -1),
        Outcome("c", "PartitioningFailed", False, -1),
    ]
    bench.submit("d")
    bench.pass_time(YOUNG)
    assert values(bench)[-1] == "d"


# ---- chains ---------------------------------------------------------------------------------------------


def test_sequences_wrap_to_zero() -> None:
    chain = Chain(1, 0)
    chain.next_sequence = 2**31 - 2
    assert chain.take(4) == 2**31 - 2
    assert chain.take(1) == 2


def test_a_chain_without_producer_id_has_no_sequences() -> None:
    chain = Chain(-1, -1)
    assert (chain.take(3), chain.take(3)) == (-1, -1)


def test_each_partition_has_its_own_epoch() -> None:
    bench = Bench(leaders=(1, 1))
    bench.submit("a")
    bench.answer(29)
    bench.submit("b")
    bench.submit("c", partition=1)
    bench.pass_time(YOUNG)
    assert {(seen.partition, seen.epoch) for [seen] in bench.sent} == {(0, 1), (1, 0)}


def test_after_the_last_epoch_comes_a_new_producer_id() -> None:
    bench = Bench().started()
    chain = bench.core._topics["topic"].partitions[0].chain
    assert chain is not None
    chain.epoch = LAST_EPOCH
    bench.submit("ab")
    bench.answer(29)
    bench.submit("cd")
    assert not bench.requests
    assert bench.ids_asked == 1
    bench.core.producer_id(8)
    bench.step()
    seen = bench.only()
    assert (seen.producer_id, seen.epoch, seen.sequence, seen.values) == (8, 0, 0, "cd")


def test_a_sealed_batch_that_is_given_up_leaves_the_rest_to_the_next_epoch() -> None:
    bench = Bench(delivery_timeout=1.0).started()
    bench.submit("ab")
    bench.submit("cd", accepted_at=0.5)
    bench.start_writing()
    bench.pass_time(1)
    assert bench.outcomes() == [Outcome("ab", "DeliveryTimedOut", True, -1)]
    bench.take()
    bench.answer(45)
    seen = bench.only()
    assert (seen.values, seen.epoch, seen.sequence) == ("cd", 1, 0)
