"""A table, as text for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Table:
    """Cells are text; all but the first column are numbers and stand to the right, unless `words`.

    In Markdown a table may go without a title.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]] = field(default_factory=list)
    words: bool = False

    def text(self) -> str:
        """For a terminal."""
        return "\n".join([self.title, *map(self._aligned, (self.columns, *self.rows)), ""])

    def markdown(self) -> str:
        """For a page."""
        rule = ["---", *("---" if self.words else "---:" for _ in self.columns[1:])]
        lines = (f"| {' | '.join(row)} |" for row in (self.columns, rule, *self.rows))
        return "\n".join([*([f"**{self.title}**", ""] if self.title else []), *lines, ""])

    def _aligned(self, row: Sequence[str]) -> str:
        first, *rest = self._widths()
        cells = (cell.rjust(width) for cell, width in zip(row[1:], rest, strict=True))
        return "  ".join([row[0].ljust(first), *cells]).rstrip()

    def _widths(self) -> Iterator[int]:
        return (max(map(len, column)) for column in zip(self.columns, *self.rows, strict=True))
