"""The service under load beside its floor, on a tiny feed: every figure is there and is what was printed."""

import pytest

from benchmarks import serving
from benchmarks.processes import working_directory
from benchmarks.report import Report, parse_markdown
from benchmarks.sizes import Size

SIZE = Size("tiny", 400, 200, 12_000)


@pytest.fixture(scope="module")
def measured() -> tuple[Report, list[str]]:
    """The report of a run, and what it printed."""
    printed: list[str] = []
    report = Report(say=printed.append)
    with working_directory() as directory:
        serving.run(report, SIZE, rounds=1, seconds=0.2, directory=directory, say=lambda _: None)
    assert not directory.exists()
    return report, printed


def test_every_kind_of_feed_stands_beside_its_floor(measured: tuple[Report, list[str]]) -> None:
    rows = {str(row["feed"]): row for row in measured[0].table("feeds").rows}
    assert len(rows) == 2 * len(serving.FEEDS) + 1
    for feed in serving.FEEDS:
        row = rows[f"ours: {feed.name}"]
        for column in ("p50 ms", "p95 ms", "floor p95 ms", "floor / ours"):
            value = row[column]
            assert isinstance(value, float)
            assert value > 0


def test_throughput_and_tracking_have_figures(measured: tuple[Report, list[str]]) -> None:
    for row in measured[0].table("feed-throughput").rows:
        assert isinstance(row["a second"], float)
        assert row["a second"] > 0
    ours, *bare = measured[0].table("tracking").rows
    for row in (ours, *bare):
        assert isinstance(row["events a second"], float)
        assert row["events a second"] > 0
    assert len(bare) == 2


def test_json_and_print_are_the_same(measured: tuple[Report, list[str]]) -> None:
    report, printed = measured
    for table, text in zip(report.tables, printed, strict=True):
        assert parse_markdown(text) == list(table.rows)
