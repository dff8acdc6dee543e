"""Which messages are unsettled: runs, where they are cut, and settling in any order."""

from __future__ import annotations

import random

from trio_kprod._ledger import Ledger
from trio_kprod._messages import Entry


def messages(ledger: Ledger, count: int) -> list[Entry]:
    return [("topic", b"", None, (), None, 0, 36, 0.0, None, ledger.run)] * count


def settle(ledger: Ledger, entries: list[Entry]) -> list[tuple[int, int]]:
    return [(run.start, count) for run, count in ledger.settle(entries)]


def three_runs(ledger: Ledger) -> list[Entry]:
    """Of three messages each, all ended."""
    entries: list[Entry] = []
    for _ in range(3):
        entries += messages(ledger, 3)
        ledger.cut(len(entries))
    return entries


def test_an_empty_ledger_owes_nothing() -> None:
    ledger = Ledger()
    assert ledger.settled_before() == 0
    assert ledger.oldest() is None


def test_a_batch_of_one_run_is_one_step() -> None:
    ledger = Ledger()
    entries = messages(ledger, 3)
    ledger.cut(3)
    assert settle(ledger, entries[:2]) == [(0, 2)]
    assert ledger.settled_before() == 0
    assert settle(ledger, entries[2:]) == [(0, 1)]
    assert ledger.settled_before() == 3


def test_a_batch_across_runs_is_split_where_they_end() -> None:
    ledger = Ledger()
    entries = three_runs(ledger)
    assert settle(ledger, [entries[1], entries[2], entries[3], entries[7], entries[8]]) == [
        (0, 2),
        (3, 1),
        (6, 2),
    ]
    assert settle(ledger, [entries[0]]) == [(0, 1)]
    assert ledger.settled_before() == 3


def test_a_cut_where_a_run_begins_changes_nothing() -> None:
    ledger = Ledger()
    three_runs(ledger)
    assert [ledger.cut(position) for position in (0, 3, 9)] == [0, 3, 9]
    assert list(ledger._runs) == [0, 3, 6, 9]


def test_a_cut_inside_a_run_divides_it() -> None:
    ledger = Ledger()
    three_runs(ledger)
    assert ledger.cut(4) == 3
    runs = [(run.start, run.end) for run in ledger._runs.values()]
    assert runs == [(0, 3), (3, 4), (4, 6), (6, 9), (9, None)]
    assert ledger.run == 9


def test_the_age_is_that_of_the_first_unsettled_run() -> None:
    ledger = Ledger()
    entries = three_runs(ledger)
    for run, start, _ in ledger.parts(entries):
        run.since = float(start)
    assert ledger.oldest() == 0.0
    settle(ledger, entries[:3])
    assert ledger.oldest() == 3.0
    settle(ledger, entries[3:])
    assert ledger.oldest() is None


def test_what_is_settled_is_forgotten_wherever_it_stands() -> None:
    """One message that is never settled must not keep what is settled behind it."""
    ledger = Ledger()
    for accepted in range(1, 100):
        entries = messages(ledger, 1)
        ledger.cut(accepted)
        if accepted > 1:
            settle(ledger, entries)
    assert list(ledger._runs) == [0, 99]
    assert ledger.settled_before() == 0


def test_any_order_of_any_batches_ends_empty() -> None:
    for seed in range(200):
        source = random.Random(seed)
        ledger = Ledger()
        entries: list[Entry] = []
        while len(entries) < 50:
            entries += messages(ledger, source.randint(1, 5))
            if source.random() < 0.3:
                ledger.cut(len(entries))
        ledger.cut(len(entries))
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
