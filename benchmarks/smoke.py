"""Are we still several times as fast as `KafkaProducer`? In under a minute; the exit status says.

    python -m benchmarks.smoke [--rounds N] [--bootstrap-servers HOST:PORT]

Only the ratio within one run counts: no figure of another machine or day.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.harness.command import Options, bench
from benchmarks.harness.figures import ratio
from benchmarks.throughput import BASE, cases, table

AT_LEAST = 3.0
ROUNDS = 3
OURS, BASELINE = "send_nowait", "KafkaProducer"


def main() -> None:
    """Measure, print, judge."""
    parsed = Options.parse(__doc__, default_rounds=ROUNDS)
    options = replace(parsed, cases=[BASE], peers=[BASELINE, OURS])
    (case,) = (case for case in cases() if options.wanted(case.name))
    with bench("smoke", "Smoke", options) as running:
        running.measure(case, running.peers, table)
    taken = running.results.found[BASE]
    found = ratio(taken[OURS], taken[BASELINE])
    print(f"{OURS}: {found:.2f} x {BASELINE}, at least {AT_LEAST} wanted")
    raise SystemExit(found < AT_LEAST)


if __name__ == "__main__":
    main()
