"""Printed tables and JSON hold the same figures."""

import json
from pathlib import Path

import pytest

from benchmarks.report import Report, Row, Table, load_report, parse_markdown

ROWS: list[Row] = [
    {"contender": "ours", "rows": 2_543_837, "total s": 0.0123456, "× total": 1.0, "note": None},
    {"contender": "theirs", "rows": 12, "total s": 1234.5678, "× total": 0.4567, "note": None},
    {"contender": "others", "rows": 7, "total s": 99.95, "× total": 13.449, "note": None},
]


def table() -> Table:
    return Table.of("speed", "How fast", ROWS, ratios=["× total"], notes=["Medians."])


def test_figures_are_rounded_to_three_digits_and_counts_are_not() -> None:
    assert [row["total s"] for row in table().rows] == [0.0123, 1230.0, 100.0]
    assert table().rows[0]["rows"] == 2_543_837


def test_what_is_printed_is_what_is_stored(tmp_path: Path) -> None:
    printed: list[str] = []
    report = Report(tmp_path / "figures.json", printed.append)
    report.add(table())
    stored = json.loads((tmp_path / "figures.json").read_text())["tables"][0]
    assert parse_markdown(printed[0]) == stored["rows"]
    assert stored["where we lose"] == ["theirs: × total 0.457"]
    assert "Where we lose: theirs: × total 0.457." in printed[0]


def test_a_stored_report_prints_the_same_again(tmp_path: Path) -> None:
    report = Report(tmp_path / "figures.json", lambda _: None)
    report.add(table())
    again = load_report(tmp_path / "figures.json")
    assert again.table("speed") == table()
    assert again.json() == report.json()


def test_our_own_variants_are_no_loss() -> None:
    rows: list[Row] = [{"contender": "ours, other settings", "× total": 0.9}]
    assert Table.of("t", "T", rows, ratios=["× total"]).losses() == []


def test_a_table_of_ratios_above_one_says_that_nothing_is_lost() -> None:
    rows: list[Row] = [{"contender": "theirs", "× total": 1.01}]
    assert "Where we lose: nowhere in this table." in Table.of("t", "T", rows, ratios=["× total"]).markdown()


@pytest.mark.parametrize(
    ("rows", "ratios", "said"),
    [
        ([], [], "has no row"),
        ([{"a": 1}, {"b": 1}], [], r"\['a'\] and of \['b'\]"),
        ([{"a": 1}], ["× total"], "no column × total"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(rows: list[Row], ratios: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Table.of("t", "T", rows, ratios=ratios)


def test_a_name_stands_for_one_table() -> None:
    report = Report(say=lambda _: None)
    report.add(table())
    with pytest.raises(ValueError, match="two tables speed"):
        report.add(table())
    with pytest.raises(KeyError, match="No table pace; there are speed"):
        report.table("pace")
