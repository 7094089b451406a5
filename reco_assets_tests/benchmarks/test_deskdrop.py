"""The backtest on a file of the Deskdrop set's columns: who judges."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks.deskdrop import WINDOW_DAYS, read_log, window, without_newcomers
from reco_assets.recommender.evaluation import new_reads
from reco_assets.recommender.interaction_log import MICROSECONDS_PER_DAY, InteractionLog

DAY = datetime(2016, 10, 1, tzinfo=UTC)
DAY_US = int(DAY.timestamp()) * 1_000_000
READS = [
    ("reader", "old", "2016-05-01"),  # before the window
    ("reader", "known", "2016-09-01"),
    ("other", "new", "2016-09-30"),
    ("reader", "old", "2016-10-01"),  # again
    ("reader", "new", "2016-10-01"),
    ("newcomer", "new", "2016-10-01"),
    ("newcomer", "known", "2016-10-01"),
]


@pytest.fixture
def log(tmp_path: Path) -> InteractionLog:
    lines = [
        f"{user},{item},view,{int(datetime.fromisoformat(f'{day}T12:00+00:00').timestamp())}"
        for user, item, day in READS
    ]
    (tmp_path / "reads.csv").write_text("\n".join(["user,item,type,timestamp", *lines]))
    return read_log(tmp_path / "reads.csv")


def judges(events: InteractionLog) -> list[tuple[int, int]]:
    """(user, post) of the reads that judge the day; both are numbered in the order of their names."""
    users, posts = new_reads(events, events.before(DAY_US), DAY_US, DAY_US + MICROSECONDS_PER_DAY)
    return list(zip(users.tolist(), posts.tolist(), strict=True))


def test_everybody_judges_and_what_was_read_before_the_window_is_new(log: InteractionLog) -> None:
    events = window(log, DAY_US - WINDOW_DAYS * MICROSECONDS_PER_DAY)
    newcomer, reader = 0, 2
    known, new, old = 0, 1, 2
    assert judges(events) == [(newcomer, known), (newcomer, new), (reader, new), (reader, old)]


def test_without_newcomers_readers_of_the_window_judge_by_what_they_never_read(log: InteractionLog) -> None:
    events = window(log, DAY_US - WINDOW_DAYS * MICROSECONDS_PER_DAY)
    reader, new = 2, 1
    assert judges(without_newcomers(log, events, DAY_US)) == [(reader, new)]
