"""While a broker has a young request to respond to, what is not full waits, and leaves together."""

from __future__ import annotations

from typing import Any

from tests.core.helpers import SIZE, Bench, metadata
from trio_kprod._core._gathering import YOUNG
from trio_kprod._core._shared import MIN_BACKOFF


def gathering(leaders: tuple[int, ...] = (1, 1, 1), **rules: Any) -> Bench:
    """A producer in which each partition has had a message acknowledged."""
    rules.setdefault("batch_size", 61 + 10 * SIZE)
    bench = Bench(leaders=leaders, **rules)
    for partition in range(len(leaders)):
        bench.submit("0", partition=partition)
        bench.answer(0, 0)
    bench.settled.clear()
    return bench


def values(bench: Bench) -> list[dict[int, str]]:
    """What is in flight: of each request the values by partition."""
    return [{one.partition: one.values for one in request} for request in bench.sent]


def test_what_comes_meanwhile_leaves_together_with_the_response() -> None:
    bench = gathering()
    bench.submit("a", partition=0)
    bench.submit("b", partition=1)
    bench.submit("c", partition=2)
    bench.submit("C", partition=2)
    assert values(bench) == [{0: "a"}]
    bench.answer(0, 1)
    assert values(bench) == [{1: "b", 2: "cC"}]


def test_a_full_batch_does_not_wait() -> None:
    bench = gathering(batch_size=61 + 2 * SIZE)
    bench.submit("a", partition=0)
    bench.submit("bb", partition=1)
    assert values(bench) == [{0: "a"}, {1: "bb"}]


def test_without_a_key_it_is_the_same() -> None:
    bench = gathering()
    for value in "abc":
        bench.submit(value, partition=None)
    [first] = values(bench)
    assert list(first.values()) == ["a"]
    bench.answer(0, 1)
    assert sorted("".join(one.values()) for one in values(bench)) == ["bc"]


def test_another_broker_has_nothing_to_do_with_it() -> None:
    bench = gathering((1, 2))
    bench.submit("a", partition=0)
    bench.submit("b", partition=1)
    assert values(bench) == [{0: "a"}, {1: "b"}]


def test_a_request_that_takes_long_holds_up_nobody() -> None:
    """A follower is frozen, perhaps. The other partitions go on as if it were not there."""
    bench = gathering()
    bench.submit("a", partition=0)
    bench.submit("b", partition=1)
    bench.pass_time(YOUNG * 0.9)
    assert values(bench) == [{0: "a"}]
    bench.pass_time(YOUNG * 0.2)
    assert values(bench) == [{0: "a"}, {1: "b"}]
    bench.pass_time(YOUNG * 2)
    bench.submit("c", partition=2)
    assert values(bench) == [{0: "a"}, {1: "b"}, {2: "c"}]
    bench.answer(0, 1, request=bench.requests.pop())
    bench.submit("d", partition=2)
    assert values(bench)[2:] == [{2: "d"}]


def test_full_batches_of_another_partition_hold_one_up_no_longer() -> None:
    """There is always a young request in flight then."""
    bench = gathering(batch_size=61 + 2 * SIZE)
    bench.submit("aaaa", partition=0)
    bench.submit("b", partition=1)
    for offset in (1, 3):
        assert values(bench) == [{0: "aa"}, {0: "aa"}]
        bench.pass_time(YOUNG * 0.4)
        bench.answer(0, offset)
        bench.submit("aa", partition=0)
    bench.pass_time(YOUNG * 0.4)
    assert values(bench)[2:] == [{1: "b"}]


def test_a_lost_connection_holds_up_nobody() -> None:
    bench = gathering()
    bench.submit("a", partition=0)
    bench.submit("b", partition=1)
    bench.lose()
    assert values(bench) == [{0: "a", 1: "b"}]


def test_a_request_that_was_given_up_before_it_was_written_holds_up_nobody() -> None:
    bench = gathering(delivery_timeout=YOUNG / 2)
    bench.submit("a", partition=0, accepted_at=bench.now)
    bench.submit("b", partition=1, accepted_at=bench.now + YOUNG / 4)
    bench.pass_time(YOUNG / 2)
    assert [one.values for one in bench.outcomes()] == ["a"]
    assert values(bench) == [{1: "b"}]


def test_what_is_sent_again_does_not_wait() -> None:
    """Its pause is over, and what is behind it waits for it."""
    bench = gathering(retry_backoff=MIN_BACKOFF)
    bench.submit("a", partition=0)
    bench.answer(19)
    bench.pass_time(MIN_BACKOFF * 0.8)
    bench.submit("b", partition=1)
    bench.pass_time(YOUNG / 2)
    assert values(bench) == [{1: "b"}, {0: "a"}]


def test_a_written_request_is_over_without_acknowledgements() -> None:
    bench = Bench(leaders=(1, 1), idempotent=False)
    bench.submit("a", partition=0)
    bench.submit("b", partition=1)
    assert values(bench) == [{0: "a"}]
    bench.core.sent(bench.take())
    bench.step()
    assert values(bench) == [{1: "b"}]


def test_a_leader_that_moves_takes_those_that_wait_with_it() -> None:
    bench = gathering((1, 1))
    bench.submit("a", partition=0)
    bench.submit("b", partition=1)
    bench.core.connected(2)
    bench.learn(metadata((1, 2), epoch=1))
    assert values(bench) == [{0: "a"}, {1: "b"}]
