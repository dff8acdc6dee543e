"""A run's summary, as it is printed and kept."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.harness.machine import load, machine
from benchmarks.harness.results import DIRECTORY, SAMPLES
from benchmarks.harness.tables import Table
from benchmarks.soak.run import Outcome, Plan

#: Minutes that a run takes at least whose summary is kept in git.
WORTH_KEEPING = 30.0

NAME = "soak.jsonl"


def summary(place: str, plan: Plan, outcome: Outcome, minutes: float) -> dict[str, Any]:
    """Everything, in what JSON has."""
    watch, lives = outcome.watch, outcome.lives
    return {
        "when": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "place": place,
        "acks": str(plan.acks),
        "clients": {None: "both", True: "thread", False: "loop"}[plan.own_thread],
        "minutes": round(minutes, 1),
        "seed": plan.seed,
        "rate": plan.rate,
        "only": list(plan.only),
        "faults": dict(sorted(watch.faults.items())),
        "producers": lives.count,
        "ends": dict(sorted(lives.ends.items())),
        **outcome.verdict._asdict(),
        "longest silence": {kind: round(seconds, 1) for kind, seconds in sorted(watch.longest.items())},
        "left late": round(max(0.0, lives.slowest), 2),
        "loop late": round(watch.latest, 2),
        "connections left": watch.connections,
        "gauges": [gauges._asdict() for gauges in watch.gauges],
        "logged": dict(outcome.log.counts),
        "unsure": watch.unsure[:20],
        "problems": outcome.problems[:20],
        "load": round(load(), 1),
        "machine": machine(),
    }


def tell(found: Mapping[str, Any]) -> str:
    """For a terminal."""
    shown = (f"{name}: {_shown(value)}" for name, value in found.items() if name != "machine")
    verdict = "FAILED: " + "; ".join(found["problems"]) if found["problems"] else "all holds"
    return "\n".join([*shown, verdict])


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)


def keep(found: Mapping[str, Any], directory: Path | None) -> Path:
    """Add it to what is kept, and return where: in git only what took long."""
    if directory is None:
        directory = DIRECTORY if found["minutes"] >= WORTH_KEEPING else DIRECTORY / SAMPLES
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / NAME
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(found) + "\n")
    return path


def kept(directory: Path) -> list[dict[str, Any]]:
    """Every run that is kept there."""
    path = directory / NAME
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def table(every: Iterable[Mapping[str, Any]]) -> Table:
    """A row for each run."""
    columns = {
        "minutes": "minutes",
        "producers": "producers",
        "sent": "sent",
        "in_log": "in log",
        "told": "told",
        "lost": "lost",
        "untold": "untold",
        "falsely_told": "falsely told",
        "duplicates": "duplicates",
        "out_of_order": "out of order",
    }
    rows = [
        [
            f"{one['place']}, acks={one['acks']}, {one['clients']}",
            f"{one['seed']}",
            f"{sum(one['faults'].values())}",
            *(_shown(one[name]) for name in columns),
            f"{max(one['longest silence'].values(), default=0)}",
            f"{one['left late']}",
            " to ".join(f"{gauges['mib']:.0f}" for gauges in one["gauges"]),
        ]
        for one in every
    ]
    more = ("longest silence, s", "left late, s", "MiB")
    return Table("Soaks", ["where", "seed", "faults", *columns.values(), *more], rows)
