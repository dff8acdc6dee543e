"""Are we still several times as fast as `KafkaProducer`? In under a minute; the exit status says.

    python -m benchmarks.smoke [--rounds N] [--bootstrap-servers HOST:PORT]

Only the ratio within one run counts, the median of that of short rounds in turn: no figure of another machine
or day. Where it falls short there are as many rounds again, and all of them count. Then each of our modes
sends a little with keys that are all different, headers and gzip, and must have it in the log. Without Java
or Maven to start Kafka with it says so and passes, but in CI (``CI`` is set) it fails, as the tests do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import median

from benchmarks.harness.command import Bench, Command, NoKafka, Options, bench
from benchmarks.harness.job import Round
from benchmarks.harness.turns import Rounds, Turns
from benchmarks.peers import MODES, PEERS, Peer, ours
from benchmarks.throughput import BASE, JSON_GZIP, JSON_HEADERS, UNIQUE_KEYS, cases, tables

AT_LEAST = 3.0
ROUNDS = 4
OURS, BASELINE = "send_nowait", "KafkaProducer"

#: Our modes; the first is the default, which is compared.
OUR_MODES = tuple(ours(OURS, mode) for mode in MODES)

#: What each mode sends a little of: such a part of a round's messages.
TRIED, LITTLE = (UNIQUE_KEYS, JSON_HEADERS, JSON_GZIP), 0.02
COMMAND = Command("smoke", "Smoke", tables)


def main() -> None:
    """Measure, print, judge."""
    parsed = Options.parse(__doc__, default_rounds=ROUNDS)
    try:
        with bench(COMMAND, replace(parsed, cases=[BASE], peers=[BASELINE, *OUR_MODES])) as running:
            found = measure(running)
            try_all(running)
    except NoKafka as error:
        if os.environ.get("CI"):
            raise
        print(f"skipped: {error}")
        return
    print(f"{OURS}: {found:.2f} x {BASELINE}, at least {AT_LEAST} wanted")
    raise SystemExit(found < AT_LEAST)


def measure(running: Bench) -> float:
    """How many times as fast we are; a second time if that is too little."""
    every: Rounds = {BASELINE: [], OURS: []}
    for taken in _twice(running):
        _fail_at(running.turns)
        for peer, rounds in every.items():
            rounds += taken[peer]
        found = ratio(every[OURS], every[BASELINE])
        if found >= AT_LEAST:
            break
    running.taken[BASE] = every
    return found


def ratio(our_rounds: Sequence[Round], their_rounds: Sequence[Round]) -> float:
    """The median of what each round says: one in which the machine was slow for both says as much as any."""
    return median(a.rate / b.rate for a, b in zip(our_rounds, their_rounds, strict=True))


def _twice(running: Bench) -> Iterator[Rounds]:
    case = next(case for case in cases() if case.name == BASE)
    for _ in range(2):
        yield running.turns.take(case, [PEERS[BASELINE], PEERS[OURS]])


def try_all(running: Bench) -> None:
    """Every mode that is installed; no clock counts."""
    modes: list[Peer] = [peer for peer in running.peers if peer.is_ours]
    turns = Turns(running.kafka, rounds=1, share=LITTLE)
    for case in cases():
        if case.name in TRIED:
            turns.take(case, modes)
    turns.close()
    _fail_at(turns)


def _fail_at(turns: Turns) -> None:
    if turns.problems:
        raise SystemExit("smoke: " + "; ".join(turns.problems))


if __name__ == "__main__":
    main()
