"""What a command found, kept in two ways.

In git: the median, the lowest and the highest of each figure, a line of JSON for each producer in each case;
from these the pages and the plots are made. Not in git, in ``samples`` beside them: every round, whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .figures import Found, Spread, summary
from .turns import Rounds

DIRECTORY = Path(__file__).parent.parent / "results"

#: Beside what is kept; git ignores it.
SAMPLES = "samples"


@dataclass
class Results:
    """One command's.

    Attributes:
        rounds: how many each producer had in each case.
        found: what they say, by case and producer.
        notes: what a reader must know.
        seconds: how long the command took.
    """

    name: str
    command: str
    machine: Mapping[str, str]
    load: float
    rounds: int
    found: Found = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: int = 0

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{json.dumps(line)}\n" for line in self._lines())
        _path(directory, self.name).write_text(text, "utf-8")

    def _lines(self) -> Iterator[dict[str, Any]]:
        """The head, then the rows."""
        yield {name: value for name, value in asdict(self).items() if name != "found"}
        for case, taken in self.found.items():
            for producer, row in taken.items():
                yield {"case": case, "producer": producer, **row}

    @classmethod
    def load_from(cls, directory: Path, name: str) -> Results | None:
        """None if that command has not been run."""
        path = _path(directory, name)
        if not path.exists():
            return None
        head, *rows = map(json.loads, path.read_text("utf-8").splitlines())
        results = cls(**head)
        for row in rows:
            case, producer = row.pop("case"), row.pop("producer")
            figures = {figure: Spread(*values) for figure, values in row.items()}
            results.found.setdefault(case, {})[producer] = figures
        return results


def _path(directory: Path, name: str) -> Path:
    return directory / f"{name}.jsonl"


def summaries(taken: Mapping[str, Rounds]) -> Found:
    """Of each case, what its rounds say together."""
    return {
        case: {producer: summary(rounds) for producer, rounds in by_producer.items()}
        for case, by_producer in taken.items()
    }


def save_samples(directory: Path, name: str, taken: Mapping[str, Rounds]) -> None:
    """Every round of every case."""
    samples = directory / SAMPLES
    samples.mkdir(parents=True, exist_ok=True)
    every = {
        case: {producer: [asdict(one) for one in rounds] for producer, rounds in by_producer.items()}
        for case, by_producer in taken.items()
    }
    (samples / f"{name}.json").write_text(json.dumps(every, indent=1) + "\n", "utf-8")
