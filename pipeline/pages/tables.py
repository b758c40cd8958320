"""Tables: for terminals, in Markdown and on pages, from the same rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar


@dataclass(frozen=True)
class Column:
    """Of texts, to the left; with `spec`, the format of its numbers, to the right; `width` wide at least."""

    title: str = ""
    spec: str = ""
    width: int = 0

    def text(self, cell: object) -> str:
        """A cell as it is read; None is an empty one."""
        return format(cell, self.spec) if isinstance(cell, Real) else "" if cell is None else str(cell)


@dataclass(frozen=True)
class Table:
    """Rows of numbers, texts and None, one for each column."""

    template: ClassVar[str] = "table.html"
    columns: Sequence[Column]
    rows: Sequence[Sequence[object]]

    @property
    def head(self) -> list[str]:
        """The columns' titles; empty where none has one."""
        titles = [column.title for column in self.columns]
        return titles if any(titles) else []

    @property
    def body(self) -> list[list[str]]:
        """The rows as texts."""
        return [
            [column.text(cell) for column, cell in zip(self.columns, row, strict=True)] for row in self.rows
        ]

    def without_empty_columns(self) -> "Table":
        """The columns in which some row has a text or a number."""
        kept = [number for number in range(len(self.columns)) if any(line[number] for line in self.body)]
        rows = [[row[number] for number in kept] for row in self.rows]
        return Table([self.columns[number] for number in kept], rows)

    def text(self, *, gap: str = "  ", indent: str = "") -> str:
        """Aligned lines for a terminal, `gap` between columns."""
        lines = [self.head, *self.body] if self.head else self.body
        specs = [
            f"{'>' if column.spec else '<'}{max([column.width, *map(len, cells)])}"
            for column, *cells in zip(self.columns, *lines, strict=True)
        ]
        return "\n".join(indent + gap.join(map(format, line, specs)).rstrip() for line in lines)

    def markdown(self) -> str:
        """Lines between bars; the first is the head."""
        lines = [self.head, ["---"] * len(self.columns), *self.body]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
