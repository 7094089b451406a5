"""Daily files and the app's catalogue as one log in integer codes."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy as sa

from reco_assets.errors import CorruptArtifact, NoInteractions
from reco_assets.pipeline import window
from reco_assets.pipeline.window import read_window
from reco_assets.recommender.interaction_log import InteractionLog
from reco_assets.store.database import transaction
from reco_assets.store.day_files import DayWriter, day_path, day_schema
from reco_assets_tests.store.published import AUTHOR, make_world, post, user

DAY = date(2026, 11, 10)
NOON = datetime(2026, 11, 10, 12, tzinfo=UTC)
WEIGHTS = {"view": 0.1, "like": 0.7}
Event = tuple[int, int, str | None, datetime]


def write_day(directory: Path, day: date, *events: Event) -> Path:
    writer = DayWriter(day_path(directory, day))
    if events:
        users, posts, types, times = zip(*events, strict=True)
        ids = [uuid4().bytes for _ in events], [user(u).bytes for u in users], [post(p).bytes for p in posts]
        columns = [
            *(pa.array(column, pa.binary(16)) for column in ids),
            pa.array(types).dictionary_encode(),
            pa.array(times, pa.timestamp("us", tz="UTC")),
        ]
        writer.write(pa.record_batch(columns, schema=day_schema()))
    writer.finish()
    return writer.path


Read = Callable[..., InteractionLog]


@pytest.fixture
def read(engine: sa.Engine) -> Read:
    make_world(engine, n_users=3, n_posts=3)

    def run(*paths: Path) -> InteractionLog:
        with transaction(engine) as connection:
            return read_window(paths, connection, WEIGHTS)

    return run


def ids_of(rows: np.ndarray) -> list[UUID]:
    return [UUID(bytes=bytes(row)) for row in rows]


def test_events_keep_their_order_and_get_the_rows_of_their_sorted_ids(read: Read, tmp_path: Path) -> None:
    later = NOON + timedelta(days=1)
    first = write_day(tmp_path, DAY, (3, 2, "like", NOON), (1, 3, "view", NOON + timedelta(seconds=1)))
    empty = write_day(tmp_path, DAY + timedelta(days=2))
    second = write_day(tmp_path, DAY + timedelta(days=1), (1, 2, "view", later))
    log = read(first, second, empty)
    assert ids_of(log.user_ids) == [user(1), user(3)]
    assert ids_of(log.post_ids) == [post(2), post(3)]
    assert ids_of(log.author_ids) == [AUTHOR]
    assert log.user_index.tolist() == [1, 0, 0]
    assert log.post_index.tolist() == [0, 1, 0]
    assert [log.interaction_types[code] for code in log.interaction_type] == ["like", "view", "view"]
    noon = int(NOON.timestamp()) * 1_000_000
    assert log.created_at.tolist() == [noon, noon + 1_000_000, noon + 86_400_000_000]


def test_interactions_of_types_without_a_weight_do_not_count(read: Read, tmp_path: Path) -> None:
    path = write_day(tmp_path, DAY, (1, 1, "wave", NOON), (2, 2, "view", NOON), (3, 3, "wave", NOON))
    log = read(path)
    assert (ids_of(log.user_ids), ids_of(log.post_ids)) == ([user(2)], [post(2)])
    with pytest.raises(NoInteractions, match=r"between 2026-11-11 and 2026-11-11"):
        read(write_day(tmp_path, DAY + timedelta(days=1), (1, 1, "wave", NOON + timedelta(days=1))))


def test_rows_of_another_day_or_without_a_type_are_refused_by_the_name_of_the_file(
    read: Read, tmp_path: Path
) -> None:
    good = write_day(tmp_path, DAY, (1, 1, "view", NOON))
    for event in ((1, 1, "view", NOON), (1, 1, None, NOON + timedelta(days=1))):
        bad = write_day(tmp_path, DAY + timedelta(days=1), event)
        with pytest.raises(CorruptArtifact, match=r"2026-11-11.parquet holds 1 (nulls|times outside)"):
            read(good, bad)


def test_the_number_of_threads_does_not_show(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    days = [DAY + timedelta(days=n) for n in range(9)]
    paths = [
        write_day(
            tmp_path,
            day,
            *(
                (int(u), int(p), "view", datetime(day.year, day.month, day.day, second=s, tzinfo=UTC))
                for s, (u, p) in enumerate(rng.integers(1, 30, (20, 2)))
            ),
        )
        for day in days
    ]
    saved = []
    for n in (1, 4):
        monkeypatch.setattr(window, "available_cores", lambda n=n: n)
        saved.append(read(*paths).save(tmp_path / str(n)))
    one, four = ({file.name: file.read_bytes() for file in path.iterdir()} for path in saved)
    assert one == four
