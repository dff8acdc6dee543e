"""Are we still several times as fast as `KafkaProducer`? In under a minute; the exit status says.

    python -m benchmarks.smoke [--rounds N] [--bootstrap-servers HOST:PORT]

Only the ratio within one run counts, the median of that of short rounds in turn: no figure of another machine
or day. Where it falls short there are as many rounds again, and all of them count. Without Java or Maven to
start Kafka with it says so and passes, but in CI (``CI`` is set) it fails, as the tests do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

from benchmarks.harness.command import Bench, NoKafka, Options, bench
from benchmarks.harness.figures import ratio
from benchmarks.harness.turns import Rounds
from benchmarks.throughput import BASE, cases, table

AT_LEAST = 3.0
ROUNDS = 4
OURS, BASELINE = "send_nowait", "KafkaProducer"


def main() -> None:
    """Measure, print, judge."""
    parsed = Options.parse(__doc__, default_rounds=ROUNDS)
    try:
        with bench("smoke", "Smoke", replace(parsed, cases=[BASE], peers=[BASELINE, OURS])) as running:
            found = measure(running)
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
        if running.turns.problems:
            raise SystemExit("smoke: " + "; ".join(running.turns.problems))
        for peer, rounds in every.items():
            rounds += taken[peer]
        found = ratio(every[OURS], every[BASELINE])
        if found >= AT_LEAST:
            break
    running.results.tables.append(table(BASE, every))
    return found


def _twice(running: Bench) -> Iterator[Rounds]:
    case = next(case for case in cases() if case.name == BASE)
    for _ in range(2):
        yield running.turns.take(case, running.peers)


if __name__ == "__main__":
    main()
