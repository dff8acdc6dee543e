"""Which messages are unsettled: segments, marks, and settling in any order."""

from __future__ import annotations

import random

from trio_kprod._ledger import Ledger
from trio_kprod._messages import Message


def messages(*times: float) -> list[Message]:
    return [Message("topic", b"", None, (), None, 0, 36, at) for at in times]


def settle(ledger: Ledger, entries: list[Message]) -> list[tuple[int, int]]:
    return [(segment.start, count) for segment, count in ledger.settle(entries)]


def test_an_empty_ledger_owes_nothing() -> None:
    ledger = Ledger()
    assert ledger.settled_before() == 0
    assert ledger.oldest() is None
    assert ledger.until_cut() == float("inf")


def test_a_batch_of_one_segment_is_one_step() -> None:
    ledger = Ledger()
    entries = messages(1.0, 2.0, 3.0)
    ledger.enter(entries)
    assert ledger.oldest() == 1.0
    assert settle(ledger, entries[:2]) == [(0, 2)]
    assert ledger.settled_before() == 0
    assert settle(ledger, entries[2:]) == [(0, 1)]
    assert ledger.settled_before() == 3
    assert ledger.oldest() is None


def test_a_batch_across_segments_is_split_where_they_end() -> None:
    ledger = Ledger()
    entries = messages(*range(9))
    for start in (0, 3, 6):
        ledger.enter(entries[start : start + 3])
        ledger.cut()
    assert settle(ledger, [entries[1], entries[2], entries[3], entries[7], entries[8]]) == [
        (0, 2),
        (3, 1),
        (6, 2),
    ]
    assert settle(ledger, [entries[0]]) == [(0, 1)]
    assert ledger.settled_before() == 3
    assert ledger.oldest() == 3


def test_a_mark_ends_a_segment_exactly_there() -> None:
    ledger = Ledger()
    ledger.enter(messages(0.0))
    ledger.mark(3)
    ledger.mark(3)
    assert ledger.until_cut() == 2
    second = messages(1.0, 2.0)
    ledger.enter(second)
    assert ledger.until_cut() == float("inf")
    later = messages(3.0)
    ledger.enter(later)
    assert second[0].segment is second[1].segment
    assert later[0].segment.start == 3


def test_a_mark_at_what_was_entered_last_cuts_at_once() -> None:
    ledger = Ledger()
    first, second = messages(0.0), messages(1.0)
    ledger.enter(first)
    ledger.mark(1)
    ledger.enter(second)
    assert second[0].segment.start == 1


def test_a_segment_that_is_settled_while_open_takes_no_more() -> None:
    """Otherwise what comes next would count as from before."""
    ledger = Ledger()
    first, second = messages(0.0), messages(5.0)
    ledger.enter(first)
    settle(ledger, first)
    assert ledger.settled_before() == 1
    ledger.enter(second)
    assert second[0].segment.start == 1
    assert ledger.oldest() == 5.0
    assert ledger.settled_before() == 1


def test_what_is_settled_is_forgotten_wherever_it_stands() -> None:
    """One message that is never settled must not keep what is settled behind it."""
    ledger = Ledger()
    ledger.enter(messages(1.0))
    for _ in range(100):
        ledger.cut()
        entries = messages(2.0)
        ledger.enter(entries)
        settle(ledger, entries)
    assert len(ledger._segments) == 1
    assert (ledger.settled_before(), ledger.oldest()) == (0, 1.0)


def test_any_order_of_any_batches_ends_empty() -> None:
    for seed in range(200):
        source = random.Random(seed)
        ledger = Ledger()
        entries: list[Message] = []
        while len(entries) < 50:
            if source.random() < 0.3:
                ledger.mark(max(ledger.entered, len(entries)) + source.randrange(3))
            if source.random() < 0.3:
                ledger.cut()
            new = messages(*range(int(min(source.randint(1, 5), ledger.until_cut()))))
            ledger.enter(new)
            entries += new
        batches: dict[int, list[int]] = {}
        for position in range(len(entries)):
            batches.setdefault(source.randrange(10), []).append(position)
        unsettled = set(range(len(entries)))
        for batch in source.sample(list(batches.values()), len(batches)):
            counted = sum(count for _, count in ledger.settle([entries[position] for position in batch]))
            assert counted == len(batch)
            unsettled -= set(batch)
            assert ledger.settled_before() <= min(unsettled, default=len(entries))
        assert ledger.settled_before() == len(entries)
