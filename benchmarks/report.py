"""Tables of figures: printed as Markdown and kept as JSON, the same figures in both.

Floats are rounded to three significant digits when a table is made, so that what is printed and what
is stored cannot differ. `python -m benchmarks.report FILE` prints the tables of a JSON file again.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

Value = str | int | float | None
Row = dict[str, Value]

SIGNIFICANT_DIGITS = 3
OURS = "ours"
"""What the first cell of our own rows begins with."""


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        name: where it is found again, for example `seconds/demo/M`.
        title: what is printed above it.
        rows: one dict a row, all with the same keys, which are the column headings.
        ratios: the columns in which a figure below 1 means that we lose.
        notes: what a reader must know to believe the figures.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    ratios: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        name: str,
        title: str,
        rows: Iterable[Mapping[str, Value]],
        *,
        ratios: Sequence[str] = (),
        notes: Sequence[str] = (),
    ) -> Self:
        """Round, and check that all rows have the same columns.

        Raises:
            ValueError: They do not, there is no row, or a ratio is no column.
        """
        rounded = tuple({key: _rounded(value) for key, value in row.items()} for row in rows)
        if not rounded:
            raise ValueError(f"The table {name} has no row.")
        for row in rounded:
            if list(row) != list(rounded[0]):
                raise ValueError(f"The table {name} has rows of {list(rounded[0])} and of {list(row)}.")
        if absent := set(ratios) - set(rounded[0]):
            raise ValueError(f"The table {name} has no column {', '.join(sorted(absent))}.")
        return cls(name, title, rounded, tuple(ratios), tuple(notes))

    @property
    def columns(self) -> tuple[str, ...]:
        """The headings, from left to right."""
        return tuple(self.rows[0])

    def losses(self) -> list[str]:
        """Where we lose: every ratio below 1 in a row that is not ours."""
        first = self.columns[0]
        lost = []
        for row in self.rows:
            for column in self.ratios:
                value = row[column]
                if isinstance(value, float | int) and value < 1 and not str(row[first]).startswith(OURS):
                    lost.append(f"{row[first]}: {column} {_text(value)}")
        return lost

    def markdown(self) -> str:
        """The table with aligned columns, where we lose, and the notes."""
        cells = [[_text(row[column]) for column in self.columns] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(self.columns, *cells, strict=True)]
        numeric = [all(not isinstance(row[column], str) for row in self.rows) for column in self.columns]
        lines = [
            _line(self.columns, widths, numeric),
            "| "
            + " | ".join(
                "-" * (width - 1) + (":" if right else "-")
                for width, right in zip(widths, numeric, strict=True)
            )
            + " |",
            *(_line(row, widths, numeric) for row in cells),
        ]
        paragraphs = ["\n".join(lines)]
        if self.ratios:
            paragraphs.append(f"Where we lose: {'; '.join(self.losses()) or 'nowhere in this table'}.")
        return "\n\n".join([*paragraphs, *self.notes])


@dataclass
class Report:
    """The tables of a run, each printed and written to the JSON file as soon as it is there.

    Attributes:
        path: of the JSON file; None: none is written.
        say: prints.
    """

    path: Path | None = None
    say: Callable[[str], None] = print
    tables: list[Table] = field(default_factory=list)

    def add(self, table: Table) -> None:
        """Append a table, print it, and keep the file up to date, so that an interrupted run leaves one.

        Raises:
            ValueError: There is one of that name.
        """
        if any(table.name == other.name for other in self.tables):
            raise ValueError(f"There are two tables {table.name}.")
        self.tables.append(table)
        self.say(f"\n{table.title}\n\n{table.markdown()}\n")
        if self.path is not None:
            temporary = self.path.with_name(f".{self.path.name}.tmp")
            temporary.write_text(self.json())
            temporary.replace(self.path)

    def table(self, name: str) -> Table:
        """The table of that name.

        Raises:
            KeyError: There is none.
        """
        for table in self.tables:
            if table.name == name:
                return table
        raise KeyError(f"No table {name}; there are {', '.join(table.name for table in self.tables)}.")

    def json(self) -> str:
        """The tables as JSON; `load_report` reads it."""
        content = [
            {
                "name": table.name,
                "title": table.title,
                "columns": table.columns,
                "ratios": table.ratios,
                "rows": table.rows,
                "where we lose": table.losses(),
                "notes": table.notes,
            }
            for table in self.tables
        ]
        return json.dumps({"tables": content}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def load_report(path: Path, say: Callable[[str], None] = print) -> Report:
    """Read what a run with `--json` wrote."""
    content = json.loads(path.read_text())
    tables = [
        Table.of(each["name"], each["title"], each["rows"], ratios=each["ratios"], notes=each["notes"])
        for each in content["tables"]
    ]
    return Report(say=say, tables=tables)


def parse_markdown(text: str) -> list[Row]:
    """The rows of a printed table: what `Table.rows` holds, numbers as float."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    columns, _, *rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [dict(zip(columns, map(_value, row), strict=True)) for row in rows]


def _rounded(value: Value) -> Value:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    # numpy's numbers are not JSON's
    return int(value) if hasattr(value, "__index__") else float(f"{float(value):.{SIGNIFICANT_DIGITS}g}")


def _text(value: Value) -> str:
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    decimals = max(0, SIGNIFICANT_DIGITS - 1 - int(f"{value:e}".split("e")[1]))
    return f"{value:,.{decimals}f}"


def _value(cell: str) -> Value:
    if cell == "–":
        return None
    try:
        return float(cell.replace(",", ""))
    except ValueError:
        return cell


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = (
        cell.rjust(width) if to_right else cell.ljust(width)
        for cell, width, to_right in zip(cells, widths, right, strict=True)
    )
    return f"| {' | '.join(padded)} |"


def main(arguments: Sequence[str] | None = None) -> Any:
    """Print the tables of a JSON file."""
    parser = argparse.ArgumentParser(description="Print the tables of a file that --json wrote.")
    parser.add_argument("file", type=Path)
    report = load_report(parser.parse_args(arguments).file)
    for table in report.tables:
        report.say(f"\n{table.title}\n\n{table.markdown()}\n")


if __name__ == "__main__":
    sys.exit(main())
