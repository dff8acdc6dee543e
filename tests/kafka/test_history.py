"""The check that ends every test against a real Kafka finds what it is for, shown with logs made by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from trio.testing import MockClock

import trio_kprod
from tests.kafka.cluster import Record
from tests.kafka.history import History, Verdict
from trio_kprod.testing import MemoryBroker, open_memory_producer


def log(*numbers: int, partition: int = 0) -> list[Record]:
    """A partition's log that holds the messages of these numbers, in this order."""
    return [Record(partition, offset, None, b"%d" % one, [], 0) for offset, one in enumerate(numbers)]


@asynccontextmanager
async def sent(count: int) -> AsyncIterator[History]:
    """A history of so many messages without a key, all of which the producer says are delivered."""
    history = History()
    async with open_memory_producer(MemoryBroker()) as producer:
        for _ in range(count):
            await history.send(producer, "t")
    yield history


async def test_all_once_in_order(autojump_clock: MockClock) -> None:
    async with sent(4) as history:
        assert history.judge("t", log(1, 2) + log(3, 4, partition=1)) == Verdict(4, 4, 0, 0, 0, 0, 0)


async def test_a_lost_one(autojump_clock: MockClock) -> None:
    async with sent(3) as history:
        with pytest.raises(AssertionError, match=r"lost 1, untold 0, .*; missing \[2\]"):
            history.judge("t", log(1, 3))
        assert history.judge("t", log(1, 3), may_be=["lost"]).lost == 1


async def test_a_doubled_one(autojump_clock: MockClock) -> None:
    async with sent(3) as history:
        with pytest.raises(AssertionError, match="duplicates 1, out of order 0"):
            history.judge("t", log(1, 2, 3, 2))


async def test_one_that_moved(autojump_clock: MockClock) -> None:
    async with sent(3) as history:
        with pytest.raises(AssertionError, match="duplicates 0, out of order 1"):
            history.judge("t", log(1, 3, 2))


async def test_two_producers_and_two_kinds_need_no_order_among_each_other(autojump_clock: MockClock) -> None:
    """Those with a key and those without are two kinds."""
    history = History()
    broker = MemoryBroker()
    async with open_memory_producer(broker) as one, open_memory_producer(broker) as other:
        await history.send(one, "t")
        await history.send(other, "t")
        await history.send(one, "t", b"key")
        await history.send(one, "t")
    assert history.judge("t", log(3, 2, 1, 4)).out_of_order == 0
    with pytest.raises(AssertionError, match="out of order 1"):
        history.judge("t", log(3, 2, 4, 1))


async def test_a_partition_of_its_own_is_as_good_as_a_key(autojump_clock: MockClock) -> None:
    """Both say where a message goes when it is accepted; the partition of others is chosen later."""
    history = History()
    async with open_memory_producer(MemoryBroker()) as producer:
        await history.send(producer, "t")
        await history.send(producer, "t", b"key")
        await history.send(producer, "t", partition=0)
    assert history.judge("t", log(2, 3, 1)).out_of_order == 0
    with pytest.raises(AssertionError, match="out of order 1"):
        history.judge("t", log(1, 3, 2))


async def test_an_untold_one(autojump_clock: MockClock) -> None:
    """The producer does not say what became of it; that it is in the log is no excuse."""
    history = History()
    async with open_memory_producer(MemoryBroker()) as producer:
        await history.send(producer, "t")
        with pytest.raises(AssertionError, match="untold 1"):
            history.judge("t", log(1))


async def test_one_that_was_told(autojump_clock: MockClock) -> None:
    """Not in the log, as the producer has said; and whether it may be in the log, as the producer says."""
    history = History()
    async with open_memory_producer(
        MemoryBroker(), allow_auto_create_topics=False, topic_timeout=1, on_undelivered=history.note
    ) as producer:
        await history.send(producer, "t")
    assert history.judge("t", []) == Verdict(1, 0, 1, 0, 0, 0, 0)
    with pytest.raises(AssertionError, match=r"told as not written, and in the log: \[1\]"):
        history.judge("t", log(1))
    (told,) = history.told
    history.undelivered([trio_kprod.Undelivered(told.message, True, told.cause)])
    assert history.judge("t", log(1)).in_log == 1


async def test_one_that_was_never_accepted(autojump_clock: MockClock) -> None:
    async with sent(1) as history:
        with pytest.raises(AssertionError, match=r"never accepted: \[2\]"):
            history.judge("t", log(1, 2))


async def test_what_went_with_its_topic_is_no_loss(autojump_clock: MockClock) -> None:
    history = History()
    async with open_memory_producer(MemoryBroker()) as producer:
        await history.send(producer, "t")
        history.excuse_loss("t")
        await history.send(producer, "t")
    assert history.judge("t", log(2)).lost == 0
    with pytest.raises(AssertionError, match=r"missing \[2\]"):
        history.judge("t", log(1))


async def test_other_topics_are_not_missed(autojump_clock: MockClock) -> None:
    history = History()
    broker = MemoryBroker()
    async with open_memory_producer(broker) as producer:
        await history.send(producer, "t")
        await history.send(producer, "other", size=1_000)
        await producer.flush()
        assert broker.records("other")[0].value == b"2".ljust(1_000, b".")
    assert history.sent == 2
    assert history.judge("t", log(1)) == Verdict(1, 1, 0, 0, 0, 0, 0)
