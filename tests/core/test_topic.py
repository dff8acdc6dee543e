"""Messages on their way to a partition: those without key, unknown and growing topics, time that runs out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from uuid import UUID

import pytest

from tests.core.helpers import TOPIC, TOPIC_ID, Bench, Outcome, message, messages, metadata
from trio_kprod._core._metadata import NO_TOPIC_ID, TopicMetadata
from trio_kprod._core._reports import PartitionCount, Recovered, Settled, Stalled
from trio_kprod._messages import SIZE, VALUE, Entry

MISSING = TopicMetadata(TOPIC, 3)


def keyless(bench: Bench, values: str, **how: float) -> None:
    bench.core.submit(messages(values, **how))
    bench.step()


def check_counters(bench: Bench) -> None:
    """The running counts agree with what is there."""
    for topic in bench.core._topics.values():
        assert topic.keyless.size == sum(entry[SIZE] for entry in topic.keyless.messages)
        rooms = [
            topic.arrivals,
            topic.keyless.messages,
            *[strays.messages for strays in topic.strays.values()],
        ]
        rooms += [partition.queue for partition in topic.partitions]
        batches = [batch for partition in topic.partitions for batch in partition.batches]
        assert topic.unsettled == sum(map(len, rooms)) + sum(len(batch.entries) for batch in batches)
        for partition in topic.partitions:
            assert partition.queue_bytes == sum(entry[SIZE] for entry in partition.queue)


# ---- without key -------------------------------------------------------------------------------------------


def test_of_many_partitions_the_one_that_will_do_is_found() -> None:
    """Though only some are looked at first."""
    bench = Bench(leaders=[2] * 500 + [1])
    bench.core.lost(2, [], OSError())
    bench.step()
    keyless(bench, "ab")
    [[seen]] = bench.sent
    assert (seen.partition, seen.values) == (500, "ab")


def test_many_partitions_take_turns() -> None:
    bench = Bench(leaders=[1] * 500)
    for _ in range(20):
        keyless(bench, "ab")
    assert len({seen.partition for [seen] in bench.sent}) == 20


def test_messages_without_key_spread_by_the_batch() -> None:
    bench = Bench(leaders=(1, 1, 1))
    keyless(bench, "abcdef")
    [seen] = bench.sent
    assert sorted(one.partition for one in seen) == [0, 1, 2]
    assert sorted(one.values for one in seen) == ["ab", "cd", "ef"]


def test_they_go_where_the_fewest_bytes_are_unsettled() -> None:
    bench = Bench(leaders=(1, 2, 3))
    bench.submit("ab", partition=0)
    bench.submit("c", partition=2)
    keyless(bench, "z")
    assert bench.sent[-1][0].partition == 1


def test_ties_are_broken_by_lot() -> None:
    bench = Bench(leaders=(1, 1, 1))
    places: Counter[int] = Counter()
    for _ in range(30):
        keyless(bench, "a")
        places[bench.only().partition] += 1
        bench.answer(0, 0)
    assert set(places) == {0, 1, 2}


def test_a_partition_whose_leader_is_not_connected_gets_none() -> None:
    bench = Bench(leaders=(1, 2, -1))
    bench.lose(2, reconnect=False)
    keyless(bench, "abcdef")
    assert {one.partition for request in bench.sent for one in request} == {0}
    assert bench.connects == [2]


def test_they_wait_for_the_first_connection() -> None:
    bench = Bench()
    bench.lose(reconnect=False)
    keyless(bench, "ab")
    assert bench.connects == [1]
    bench.core.unreachable(1)
    bench.step()
    assert bench.connects == [1, 1]
    bench.core.connected(1)
    bench.step()
    assert bench.only().values == "ab"


def test_neither_kind_starves_the_other() -> None:
    """Under full load, with one batch free at a time."""
    bench = Bench().started()
    kinds: Counter[bool] = Counter()
    for _ in range(60):
        bench.core.submit([message("k", partition=0), message("k", partition=0)])
        bench.core.submit([message("n"), message("n")])
        bench.step()
        kinds[bench.sent[0][0].values == "kk"] += 1
        bench.answer(0, 0)
    assert min(kinds.values()) > 10


def test_their_order_within_a_partition_is_kept_beside_keyed_ones() -> None:
    bench = Bench().started()
    for step in range(20):
        bench.core.submit([message(f"{step}k,", partition=0), message(f"{step}n,")])
        bench.step()
    log = ""
    while bench.requests:
        log += bench.sent[0][0].values
        bench.answer(0, 0)
    for kind in "kn":
        assert [int(one[:-1]) for one in log.split(",")[:-1] if one[-1] == kind] == list(range(20))


# ---- unknown topics ----------------------------------------------------------------------------------------


def test_messages_wait_for_metadata_in_order() -> None:
    bench = Bench(ready=False)
    bench.core.producer_id(1)
    bench.submit("ab")
    bench.submit("c")
    assert bench.asked == [(TOPIC,)]
    bench.learn(metadata())
    assert bench.connects == [1]
    bench.core.connected(1)
    bench.step()
    assert bench.only().values == "ab"
    check_counters(bench)


def test_a_missing_topic_fails_after_topic_timeout() -> None:
    bench = Bench(ready=False, topic_timeout=10.0)
    bench.submit("a")
    while not bench.settled:
        bench.learn(MISSING)
        bench.pass_time(0.5)
    assert 10 <= bench.now <= 12
    assert bench.outcomes() == [Outcome("a", "UnknownTopic", False, -1)]
    check_counters(bench)


def test_a_single_answer_that_a_topic_is_unknown_fails_nothing() -> None:
    bench = Bench(ready=False, topic_timeout=0.0)
    bench.submit("a")
    bench.learn(MISSING)
    assert not bench.settled


def test_the_time_of_an_outage_does_not_count() -> None:
    bench = Bench(ready=False, topic_timeout=10.0)
    bench.submit("a")
    bench.learn(MISSING)
    bench.pass_time(1)
    bench.now += 1000
    bench.core.metadata_failed(bench.asked.pop())
    bench.step()
    bench.pass_time(2)
    bench.learn(MISSING)
    assert not bench.settled


def test_the_time_in_which_nobody_asked_does_not_count() -> None:
    bench = Bench(ready=False, topic_timeout=10.0, delivery_timeout=1.0)
    bench.submit("a")
    bench.learn(MISSING)
    bench.pass_time(1000)
    bench.asked.clear()
    bench.core.metadata_failed(())
    bench.settled.clear()
    bench.submit("b", accepted_at=bench.now)
    bench.learn(MISSING)
    assert not bench.settled


@pytest.mark.parametrize(("retry_backoff", "most"), [(0.1, 8), (0.0, 21)])
def test_a_missing_topic_is_asked_about_at_a_pace_however_many_messages_come(
    retry_backoff: float, most: int
) -> None:
    bench = Bench(ready=False, retry_backoff=retry_backoff)
    questions = 0
    for _ in range(1000):
        bench.submit("a")
        if bench.asked:
            questions += 1
            bench.learn(MISSING)
        bench.pass_time(0.001)
    assert 2 <= questions <= most


def test_a_known_topic_that_is_missing_for_a_while_keeps_its_chain() -> None:
    bench = Bench().started()
    bench.submit("ab")
    bench.answer(3)
    bench.learn(MISSING)
    bench.pass_time(0.2)
    seen = bench.only()
    assert (seen.values, seen.epoch, seen.sequence) == ("ab", 0, 1)


@pytest.mark.parametrize("code", [17, 29])
def test_a_topic_that_metadata_refuses_fails_what_waits(code: int) -> None:
    bench = Bench(ready=False)
    bench.submit("ab")
    bench.learn(TopicMetadata(TOPIC, code))
    assert bench.outcomes() == [Outcome("ab", "Refused", False, -1)]
    for _ in range(100):
        bench.submit("c")
    assert bench.asked == []
    bench.pass_time(0.1)
    assert bench.asked == [(TOPIC,)]


def test_whoever_asks_waits_for_the_pause() -> None:
    """Messages and waiters that come one by one, each failed at once, are no reason to ask more often."""
    bench = Bench(ready=False)
    asked = 0
    for _ in range(1000):
        bench.submit("a")
        bench.core.want_partitions(TOPIC)
        bench.step()
        if bench.asked:
            asked += 1
            bench.learn(TopicMetadata(TOPIC, 29))
        bench.pass_time(0.01)
    assert 8 <= asked <= 20


def test_old_metadata_is_looked_up_again_even_if_the_topic_was_idle_then() -> None:
    bench = Bench(metadata_max_age=300.0).started()
    bench.pass_time(310)
    assert not bench.asked
    bench.submit("a")
    assert bench.asked == [(TOPIC,)]
    bench.learn(metadata())
    bench.answer(0, 1)
    bench.submit("b")
    assert not bench.asked


# ---- how many partitions -----------------------------------------------------------------------------------


def test_who_wants_to_know_is_told_the_count() -> None:
    bench = Bench(ready=False)
    bench.core.want_partitions(TOPIC)
    bench.step()
    bench.learn(metadata((1, 1)))
    assert bench.reports == [PartitionCount(TOPIC, 2)]


def test_a_partition_beyond_the_count_is_refused_after_a_grace() -> None:
    bench = Bench(leaders=(1, 1))
    bench.submit("a", partition=2)
    bench.submit("b", partition=0)
    asked = 0
    while bench.now < 4.9:
        assert not bench.settled
        while bench.asked:
            asked += 1
            bench.learn(metadata((1, 1)))
        bench.pass_time(0.1)
    assert 5 <= asked <= 12
    bench.pass_time(1.1)
    bench.learn(metadata((1, 1)))
    assert bench.outcomes() == [Outcome("a", "PartitioningFailed", False, -1)]
    assert bench.only().values == "b"
    check_counters(bench)


def test_a_response_to_an_earlier_request_says_nothing_of_a_partition() -> None:
    bench = Bench(leaders=(1,))
    bench.core.want_partitions(TOPIC)
    bench.step()
    bench.submit("a", partition=1)
    bench.pass_time(10)
    bench.learn(metadata((1,)))
    assert not bench.settled
    bench.pass_time(1)
    bench.learn(metadata((1, 1)))
    bench.pass_time(1)
    assert bench.only().values == "a"
    check_counters(bench)


def test_a_partition_that_was_added_is_found_by_that_refresh() -> None:
    bench = Bench(leaders=(1, 1))
    bench.submit("a", partition=2)
    bench.learn(metadata((1, 1, 1)))
    assert (bench.only().values, bench.only().partition) == ("a", 2)
    assert PartitionCount(TOPIC, 3) in bench.reports


def test_fewer_partitions_than_before_are_old_news() -> None:
    bench = Bench(leaders=(1, 1, 1))
    bench.learn(metadata((1,)))
    bench.submit("a", partition=2)
    assert bench.only().partition == 2


@pytest.mark.parametrize("busy", [False, True])
def test_a_leader_that_was_unknown_when_nobody_cared_is_asked_for_when_somebody_does(busy: bool) -> None:
    bench = Bench(leaders=(1, -1))
    if busy:
        bench.submit("a", partition=0)
    bench.submit("b", partition=1)
    bench.pass_time(2)
    assert bench.asked == [(TOPIC,)]
    bench.learn(metadata((1, 1)))
    assert bench.sent[-1][0].values == "b"


# ---- without topic ids, a topic made anew looks like old news ---------------------------------------------


def no_ids(leaders: tuple[int, ...], epoch: int) -> TopicMetadata:
    return metadata(leaders, topic_id=NO_TOPIC_ID, epoch=epoch)


def made_anew(leaders: tuple[int, ...], topic_id: UUID = NO_TOPIC_ID) -> Bench:
    """Its leader epochs are lower than those of the old one."""
    bench = Bench(ready=False, topic_timeout=5.0)
    bench.core.producer_id(7)
    bench.submit("a", partition=0)
    bench.submit("b", partition=1)
    bench.learn(metadata((1, 1), topic_id=topic_id, epoch=4))
    bench.core.connected(1)
    bench.step()
    for _ in range(20):
        while bench.requests:
            bench.answer(3)
        bench.pass_time(0.5)
        if bench.asked:
            bench.learn(metadata(leaders, topic_id=topic_id))
    return bench


@pytest.mark.parametrize("topic_id", [NO_TOPIC_ID, TOPIC_ID])
def test_lower_leader_epochs_are_believed_when_they_are_told_for_long(topic_id: UUID) -> None:
    bench = made_anew((2, 2), topic_id)
    assert bench.connects[-1] == 2
    bench.core.connected(2)
    bench.step()
    assert [seen.values for seen in bench.sent[-1]] == ["a", "b"]


def test_with_acks_0_old_news_is_asked_about_although_nothing_waits() -> None:
    """What is sent meanwhile to a leader that leads no more is lost, and no response says so."""
    bench = Bench(ready=False, idempotent=False, topic_timeout=5.0)
    bench.submit("a", partition=0)
    bench.learn(no_ids((1,), 4))
    bench.core.connected(1)
    bench.step()
    bench.core.sent(bench.take())
    bench.lose(1)  # the broker cannot answer, so it closes
    bench.submit("b", partition=0)
    bench.core.sent(bench.take())
    told = 0
    while bench.asked:
        bench.learn(no_ids((2,), 0))
        told += 1
        bench.pass_time(1)
    assert 5 <= told < 10
    bench.submit("c", partition=0)
    assert bench.connects[-1] == 2


def written_without_response() -> Bench:
    """With ``acks=0`` a message was written to the leader, and so counts as delivered."""
    bench = Bench(ready=False, idempotent=False, has_responses=False)
    bench.submit("a", partition=0)
    bench.learn(metadata())
    bench.core.connected(1)
    bench.step()
    bench.core.sent(bench.take())
    return bench


def test_with_acks_0_a_closed_connection_is_followed_up_although_nothing_waits() -> None:
    """What was sent counts as delivered, so nothing would ask who leads before more is lost."""
    bench = written_without_response()
    bench.step()
    bench.asked.clear()
    bench.lose(1)
    bench.step()
    assert bench.asked


def test_with_acks_0_nothing_is_sent_to_a_broker_that_lacks_the_topic() -> None:
    """It would close the connection, and what other topics have sent over it would be lost."""
    bench = written_without_response()
    bench.lose(1)
    bench.learn(MISSING)
    bench.core.connected(1)
    bench.submit("b", partition=0)
    assert not bench.requests
    bench.pass_time(1)
    bench.learn(metadata())
    assert bench.only().values == "b"


def test_fewer_partitions_are_believed_when_they_are_told_for_long() -> None:
    bench = made_anew((1,))
    assert bench.outcomes() == [Outcome("b", "PartitioningFailed", False, -1)]


def test_a_leader_of_doubtful_epoch_does_not_prove_what_its_log_lacks() -> None:
    """It may have been deposed long ago: what it calls out of order may be in the log of another."""
    bench = Bench(ready=False)
    bench.core.producer_id(7)
    bench.submit("a")
    bench.learn(no_ids((1,), 4))
    bench.core.connected(1)
    bench.step()
    bench.answer(0, 0)
    bench.submit("b")
    bench.answer(7)
    bench.core.metadata([], [TOPIC])
    bench.pass_time(1)
    for _ in range(2):
        bench.answer(45)
        while bench.asked:
            bench.learn(no_ids((1,), 2))
        bench.pass_time(1)
    assert bench.outcomes()[-1] == Outcome("b", "Refused", True, -1)


# ---- brokers that disagree about which topic it is -------------------------------------------------------


def test_an_id_that_was_taken_for_a_former_one_is_believed_when_it_is_told_for_long() -> None:
    former = metadata(topic_id=UUID(int=2))
    bench = Bench(topic_timeout=5.0)
    bench.submit("a")
    bench.lose()
    bench.submit("b")
    bench.learn(former)
    for _ in range(20):
        if bench.requests:
            bench.answer(100)
        bench.pass_time(0.5)
        if bench.asked:
            bench.learn(metadata())
    assert bench.outcomes() == [Outcome("a", "UnknownTopic", True, -1)]  # written under the one, perhaps
    bench.pass_time(1)
    bench.answer(0, 1)
    assert bench.outcomes() == [Outcome("b", None, False, 1)]


def test_a_partition_that_comes_back_does_not_begin_with_the_same_sequences() -> None:
    """Its log may be the old one after all, and would take what is new for a duplicate."""
    bench = Bench(leaders=(1, 1))
    bench.submit("a", partition=1)
    bench.answer(0, 0)
    for leaders, topic_id in (((1,), UUID(int=2)), ((1, 1), UUID(int=3))):
        bench.learn(metadata(leaders, topic_id=topic_id))
    bench.submit("b", partition=1)
    assert bench.place() == ("b", 1, 0)


# ---- time runs out -----------------------------------------------------------------------------------------


def test_messages_expire_wherever_they_wait() -> None:
    bench = Bench(leaders=(-1, 1), delivery_timeout=1.0)
    bench.lose(1, reconnect=False)
    bench.submit("a", partition=0)
    bench.submit("b", partition=7)
    keyless(bench, "c")
    bench.core.submit([message("d", topic="unknown")])
    bench.pass_time(0.99)
    assert not bench.settled
    bench.pass_time(0.02)
    assert {one.values for one in bench.outcomes()} == {"a", "b", "c", "d"}
    check_counters(bench)


def test_what_is_handed_over_late_expires_at_once() -> None:
    bench = Bench(delivery_timeout=1.0)
    bench.now = 5.0
    bench.lose(reconnect=False)
    bench.submit("a")
    bench.pass_time(0)
    assert bench.outcomes() == [Outcome("a", "DeliveryTimedOut", False, -1)]


def test_who_waited_for_room_expires_first_although_handed_over_last() -> None:
    bench = Bench(leaders=(-1,), delivery_timeout=1.0)
    bench.submit("a", accepted_at=0.9)
    bench.submit("b", accepted_at=0.5)
    bench.pass_time(1.6)
    assert [one.values for one in bench.outcomes()] == ["b"]


def test_only_what_is_due_expires() -> None:
    bench = Bench(delivery_timeout=1.0)
    bench.lose(reconnect=False)
    bench.submit([message("a"), message("b", accepted_at=0.5, partition=0), message("c", partition=0)])
    bench.pass_time(1)
    assert {one.values for one in bench.outcomes()} == {"a", "c"}
    bench.pass_time(0.6)
    assert {one.values for one in bench.outcomes()} == {"b"}


@pytest.mark.parametrize("start", [0.1, 0.7, 1234.567891, 98765.4321])
def test_expiry_ends_however_the_clock_rounds(start: float) -> None:
    bench = Bench(delivery_timeout=0.3)
    bench.lose(reconnect=False)
    bench.now = start
    for step in range(100):
        bench.submit("a", accepted_at=start + step * 0.0007)
    bench.pass_time(1)
    assert len("".join(one.values for one in bench.outcomes())) == 100


def test_messages_that_expire_one_after_the_other_do_so_in_few_steps() -> None:
    bench = Bench(delivery_timeout=1.0)
    bench.lose(reconnect=False)
    bench.submit([message("a", partition=0, accepted_at=step / 10_000) for step in range(1000)])
    bench.pass_time(2)
    assert len(bench.settled) <= 12


def test_a_sealed_batch_expires_as_a_whole() -> None:
    bench = Bench(delivery_timeout=1.0)
    bench.submit([message("a", partition=0), message("b", partition=0, accepted_at=0.5)])
    bench.answer(19)
    bench.pass_time(1)
    assert "ab" in {one.values for one in bench.outcomes()}


# ---- stalled -----------------------------------------------------------------------------------------------


def stalls(bench: Bench) -> list[type]:
    return [type(one) for one in bench.reports if isinstance(one, Stalled | Recovered)]


def test_a_topic_is_stalled_after_a_second_without_progress() -> None:
    bench = Bench()
    bench.submit("a")
    bench.pass_time(0.9)
    assert bench.reports == []
    bench.pass_time(0.2)
    assert bench.reports == [Stalled(TOPIC)]
    bench.pass_time(5)
    bench.answer(0, 0)
    assert [type(one) for one in bench.reports] == [Stalled, Settled, Recovered]


def test_a_healthy_partition_does_not_hide_a_dead_one() -> None:
    bench = Bench(leaders=(1, 2)).started()
    bench.submit("d", partition=1)
    for number in range(4):
        bench.submit("h")
        if number == 0:
            bench.answer(0, number)  # of the dead one
            bench.submit("d", partition=1)
        bench.pass_time(0.5)
        request = next(one for one in bench.requests if one.node == 1)
        bench.requests.remove(request)
        bench.answer(0, number, request=request)
    assert stalls(bench) == [Stalled]


def test_a_partition_without_leader_stalls_its_topic_at_once() -> None:
    bench = Bench(leaders=(1, -1)).started()
    bench.submit("a", partition=1)
    assert stalls(bench) == [Stalled]
    bench.submit("b")
    bench.answer(0, 1)
    assert stalls(bench) == [Stalled]
    bench.learn(metadata((1, 1), epoch=1))
    bench.answer(0, 0)
    assert stalls(bench) == [Stalled, Recovered]


def test_messages_that_fail_are_no_progress() -> None:
    bench = Bench(ready=False, topic_timeout=3.0)
    bench.submit("a")
    for _ in range(20):
        while bench.asked:
            bench.learn(MISSING)
        bench.pass_time(0.5)
    assert "a" in {one.values for one in bench.outcomes()}
    assert stalls(bench) == [Stalled]


def test_a_topic_that_makes_progress_is_not_stalled() -> None:
    bench = Bench().started()
    bench.submit("abcdefgh")
    for _ in range(4):
        bench.pass_time(0.9)
        bench.answer(0, 0)
    bench.pass_time(5)
    assert Stalled(TOPIC) not in bench.reports


def test_a_topic_can_stall_again() -> None:
    bench = Bench().started()
    bench.submit("abcd")
    bench.pass_time(2)
    bench.answer(0, 0)
    bench.pass_time(2)
    assert [type(one) for one in bench.reports].count(Stalled) == 2


def test_waiting_leaves_no_timers_behind() -> None:
    bench = Bench().started()
    for _ in range(2000):
        bench.submit("a")
        bench.answer(0, 0)
        bench.pass_time(0.01)
    assert len(bench.core._outbox._timers) < 10


# ---- why ---------------------------------------------------------------------------------------------------


def test_what_expires_for_want_of_a_producer_id_says_so() -> None:
    bench = Bench(ready=False, delivery_timeout=5.0)
    cause = OSError("no version of InitProducerId")
    bench.core.producer_id_failed(cause)
    bench.submit("a")
    bench.pass_time(6)
    [settled] = bench.settled
    assert settled.error is not None
    assert settled.error.__cause__ is cause
    assert "no version of InitProducerId" in str(settled.error)


@pytest.mark.parametrize("error", [SystemExit(), KeyboardInterrupt(), GeneratorExit(), ValueError()])
def test_whatever_a_partitioner_raises_fails_its_message_only(error: BaseException) -> None:
    def partitioner(entry: Entry, count: int, available: Sequence[int]) -> int:
        if entry[VALUE] == b"b":
            raise error
        return 0

    bench = Bench(partitioner=partitioner)
    bench.submit("abc", partition=None)
    assert bench.outcomes() == [Outcome("b", "PartitioningFailed", False, -1)]
    assert bench.only().values == "ac"
