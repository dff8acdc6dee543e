"""What a command found, kept as JSON beside its plots; from these ``RESULTS.md`` is made.

Kept are the figures of each round, which ratios need, and not what they were made of: six digits of each, no
timeline (only a plot needs it, which is drawn before), and nothing that was not measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .job import Round
from .tables import Table
from .turns import Found

DIRECTORY = Path(__file__).parent.parent / "results"

_DIGITS = 6


@dataclass
class Results:
    """One command's.

    Attributes:
        found: the rounds of each case and producer.
        plots: file names beside the JSON.
        notes: what a reader must know.
        seconds: how long the command took.
    """

    name: str
    title: str
    command: str
    machine: Mapping[str, str]
    load: float
    found: Found = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    plots: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: int = 0

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        found = {
            case: {peer: [_slim(one) for one in rounds] for peer, rounds in by_peer.items()}
            for case, by_peer in self.found.items()
        }
        text = json.dumps({**asdict(replace(self, found={})), "found": found}, indent=1)
        (directory / f"{self.name}.json").write_text(text + "\n", "utf-8")

    @classmethod
    def load_from(cls, directory: Path, name: str) -> Results | None:
        """None if that command has not been run."""
        path = directory / f"{name}.json"
        return cls(**_revived(json.loads(path.read_text("utf-8")))) if path.exists() else None


def _slim(one: Round) -> dict[str, Any]:
    figures = {name: value for name, value in asdict(one).items() if name != "timeline" and value}
    needed = {"messages": one.messages, "seconds": one.seconds, "cpu_seconds": one.cpu_seconds}
    return {name: _rounded(value) for name, value in {**needed, **figures}.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


def _revived(kept: dict[str, Any]) -> dict[str, Any]:
    found = {
        case: {peer: [Round(**one) for one in rounds] for peer, rounds in by_peer.items()}
        for case, by_peer in kept["found"].items()
    }
    return {**kept, "found": found, "tables": [Table(**one) for one in kept["tables"]]}
