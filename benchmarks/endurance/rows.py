"""What was found, beside what is to be reached, as it is printed and kept."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from benchmarks.endurance.measures import (
    CPU,
    DISORDER,
    DOUBLED,
    GROWN,
    LINES,
    LOST,
    PER_TOPIC,
    Figures,
)
from benchmarks.endurance.places import EMBEDDED
from benchmarks.harness.tables import Table

NAME = "endurance.jsonl"


class Goal(NamedTuple):
    """A bound of one figure; `exact` is what holds on any machine and however short the run."""

    measure: str
    figure: str
    at_most: float
    exact: bool = False


GOALS = (
    Goal("idle", CPU, 0.5),
    Goal("idle", GROWN, 2),
    Goal("idle", LOST, 0, exact=True),
    Goal("down", CPU, 5),
    Goal("down", GROWN, 5),
    Goal("down", LINES, 10),
    Goal("down", "lines", 50, exact=True),
    Goal("down", LOST, 0, exact=True),
    Goal("down", DOUBLED, 0, exact=True),
    Goal("frozen", CPU, 5),
    Goal("frozen", GROWN, 5),
    Goal("frozen", LINES, 10),
    Goal("frozen", "lines", 50, exact=True),
    Goal("frozen", LOST, 0, exact=True),
    Goal("frozen", DOUBLED, 0, exact=True),
    Goal("many", GROWN, 10),
    Goal("many", LOST, 0, exact=True),
    Goal("topics", PER_TOPIC, 20),
    Goal("topics", CPU, 0.5),
    Goal("topics", LOST, 0, exact=True),
    Goal("topics", DOUBLED, 0, exact=True),
    Goal("topics", DISORDER, 0, exact=True),
    Goal("tasks", DISORDER, 0, exact=True),
    Goal("tasks", LOST, 0, exact=True),
    Goal("tasks", DOUBLED, 0, exact=True),
)


@dataclass(frozen=True)
class Row:
    """One measure of one client.

    Attributes:
        client: ``thread`` or ``loop``.
        kafka: what it was measured with.
        load: how many processes wanted to run in the minute before.
    """

    measure: str
    client: str
    kafka: str
    scale: dict[str, float]
    figures: Figures
    seconds: float
    machine: dict[str, str] = field(default_factory=dict)
    load: float | None = None

    @property
    def title(self) -> str:
        where = ", embedded" if self.kafka == EMBEDDED else ""
        return f"{self.measure}, {self.client}{where}"

    def missed(self, *, quick: bool = False) -> list[str]:
        """The goals that were not reached."""
        return [
            f"{self.title}: {goal.figure}"
            for goal in GOALS
            if goal.measure == self.measure and (goal.exact or not quick)
            if self.figures[goal.figure] > goal.at_most
        ]

    def cells(self) -> Iterator[list[str]]:
        """Of each figure a line: what was found, what is wanted, and whether that is so."""
        bounds = {goal.figure: goal.at_most for goal in GOALS if goal.measure == self.measure}
        for name, found in self.figures.items():
            bound = bounds.get(name)
            if bound is None:
                yield [self.title, name, _shown(found), "", ""]
            else:
                verdict = "met" if found <= bound else "MISSED"
                yield [self.title, name, _shown(found), f"<= {bound:g}", verdict]


def _shown(found: float) -> str:
    return f"{found:,.0f}" if found == int(found) or found >= 1_000 else f"{found:.3g}"


def table(rows: Iterable[Row]) -> Table:
    """All figures of all rows."""
    lines = [line for row in rows for line in row.cells()]
    return Table("", ["measure, client", "figure", "found", "target", ""], lines)


def kept(directory: Path) -> list[Row]:
    """Every row that is kept there."""
    path = directory / NAME
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return [Row(**json.loads(line)) for line in lines]


def keep(rows: Iterable[Row], directory: Path) -> None:
    """Add them to what is kept, in the place of what was found before."""
    every = {row.title: row for row in (*kept(directory), *rows)}
    directory.mkdir(parents=True, exist_ok=True)
    ordered = sorted(every.values(), key=_order)
    text = "".join(f"{json.dumps(asdict(row))}\n" for row in ordered)
    (directory / NAME).write_text(text, "utf-8")


def _order(row: Row) -> tuple[int, bool, bool]:
    measures = list(dict.fromkeys(goal.measure for goal in GOALS))
    return measures.index(row.measure), row.kafka == EMBEDDED, row.client != "thread"
