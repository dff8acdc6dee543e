"""What a command found, kept as JSON beside its plots; from these ``RESULTS.md`` is made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .job import Round
from .tables import Table
from .turns import Found

DIRECTORY = Path(__file__).parent.parent / "results"


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
        text = json.dumps(asdict(self), indent=1)
        (directory / f"{self.name}.json").write_text(text + "\n", "utf-8")

    @classmethod
    def load_from(cls, directory: Path, name: str) -> Results | None:
        """None if that command has not been run."""
        path = directory / f"{name}.json"
        return cls(**_revived(json.loads(path.read_text("utf-8")))) if path.exists() else None


def _revived(kept: dict[str, Any]) -> dict[str, Any]:
    found = {
        case: {peer: [Round(**one) for one in rounds] for peer, rounds in by_peer.items()}
        for case, by_peer in kept["found"].items()
    }
    return {**kept, "found": found, "tables": [Table(**one) for one in kept["tables"]]}
