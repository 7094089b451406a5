"""The pipeline beside the straightforward way, and rows beside bare COPY, on a tiny feed."""

import pytest

from benchmarks import pipeline
from benchmarks.processes import working_directory
from benchmarks.report import Report, parse_markdown
from benchmarks.sizes import SIZES, Size

SIZE = Size("tiny", 400, 200, 12_000)


@pytest.fixture(scope="module")
def measured() -> tuple[Report, list[str], list[str]]:
    """The report of a run, what it printed and what it said meanwhile."""
    printed: list[str] = []
    said: list[str] = []
    report = Report(say=printed.append)
    with working_directory() as directory:
        pipeline.run(
            report,
            [SIZE, SIZES["L"]],
            parts=("pipeline", "rows"),
            rounds=1,
            threads=2,
            directory=directory,
            say=said.append,
        )
    assert not directory.exists()
    return report, printed, said


def test_every_step_has_its_time(measured: tuple[Report, list[str], list[str]]) -> None:
    rows = measured[0].table("pipeline/tiny").rows
    assert len(rows) == 8
    assert all(isinstance(row["ours s"], float) and row["ours s"] > 0 for row in rows)
    steps = {str(row["step"]): row for row in rows}
    for step in ("interactions out of PostgreSQL", "matrix", "neighbours", "lists", "publication"):
        for column in ("straightforward s", "× ours"):
            value = steps[step][column]
            assert isinstance(value, float)
            assert value > 0
    assert steps["checks"]["straightforward s"] is None


def test_both_read_all_interactions_and_serve_all_users(
    measured: tuple[Report, list[str], list[str]],
) -> None:
    ours, theirs = measured[0].table("pipeline-amounts/tiny").rows
    for column in ("interactions read", "users served"):
        assert ours[column] == theirs[column]
        assert isinstance(ours[column], int)
    assert ours["rows written"] == pytest.approx(theirs["rows written"], rel=0.05)


def test_publication_and_extraction_stand_beside_bare_copy(
    measured: tuple[Report, list[str], list[str]],
) -> None:
    publication, extraction = measured[0].table("rows").rows
    amounts = measured[0].table("pipeline-amounts/tiny").rows[0]
    assert publication["rows"] == amounts["rows written"]
    assert extraction["rows"] == amounts["interactions read"]
    assert all(isinstance(row["share of bare COPY"], float) for row in (publication, extraction))


def test_json_and_print_are_the_same(measured: tuple[Report, list[str], list[str]]) -> None:
    report, printed, _ = measured
    for table, text in zip(report.tables, printed, strict=True):
        assert parse_markdown(text) == list(table.rows)


def test_a_size_that_takes_hours_is_left_out_and_named(measured: tuple[Report, list[str], list[str]]) -> None:
    assert any("size L: left out" in line for line in measured[2])
