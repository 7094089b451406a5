from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from reco_assets.errors import BadInput
from reco_assets.settings import Settings
from reco_assets.store import demo_writer, migrate
from reco_assets.store.database import create_engine_for, transaction
from reco_assets.store.demo_data import DemoWorld
from reco_assets.store.demo_writer import seed_demo

WORLD = DemoWorld(users=60, posts=40, days=6, events=900)
NOW = datetime(2026, 10, 20, 9, tzinfo=UTC)


@pytest.fixture
def engine(empty_database_url: str) -> Iterator[sa.Engine]:
    settings = Settings.load(database_url=empty_database_url)
    migrate.upgrade(settings)
    engine = create_engine_for(settings)
    yield engine
    engine.dispose()


def _rows(engine: sa.Engine, statement: str) -> list[Any]:
    with transaction(engine) as connection:
        return [tuple(row) for row in connection.execute(sa.text(statement))]


def _contents(engine: sa.Engine) -> list[list[Any]]:
    return [
        _rows(engine, f"SELECT * FROM {table} ORDER BY id")
        for table in ("users", "posts", "user_interactions")
    ]


def test_seeding_twice_on_the_same_day_changes_nothing(engine: sa.Engine) -> None:
    first = seed_demo(engine, WORLD, date(2026, 10, 19), now=NOW)
    before = _contents(engine)
    assert first.days[0] == date(2026, 10, 14)
    assert first.rows.users == 60
    assert first.rows.interactions == len(before[2]) > 600
    again = seed_demo(engine, WORLD, date(2026, 10, 19), now=NOW)
    assert again.days == ()
    assert _contents(engine) == before


def test_a_later_run_appends_the_missing_days_only(engine: sa.Engine) -> None:
    seed_demo(engine, WORLD, date(2026, 10, 14), now=NOW)
    before = _contents(engine)
    later = seed_demo(engine, WORLD, date(2026, 10, 19), now=NOW)
    assert later.days == tuple(date(2026, 10, day) for day in range(15, 20))
    after = _contents(engine)
    assert all(set(map(repr, old)) <= set(map(repr, new)) for old, new in zip(before, after, strict=True))
    new_events = [row for row in after[2] if row not in before[2]]
    assert {row[4].date() for row in new_events} == set(later.days)


def test_day_by_day_gives_what_one_go_gives(engine: sa.Engine) -> None:
    for day in (14, 15, 19):
        seed_demo(engine, WORLD, date(2026, 10, day), now=NOW)
    expected = {tuple(mark.tolist()) for d in range(9, 20) for mark in WORLD.day(date(2026, 10, d)).event_ids}
    assert len(_contents(engine)[2]) == len(expected)


def test_an_interrupted_first_seeding_leaves_nothing(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_writer, "_BATCH_EVENTS", 200)
    told = []

    def stop(day: date, _: object) -> None:
        told.append(day)
        if len(told) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        seed_demo(engine, WORLD, date(2026, 10, 19), now=NOW, progress=stop)
    assert _contents(engine) == [[], [], []]
    indexes = "SELECT indexname FROM pg_indexes WHERE tablename = 'user_interactions' ORDER BY 1"
    before = _rows(engine, indexes)
    seed_demo(engine, WORLD, date(2026, 10, 19), now=NOW)
    assert _rows(engine, indexes) == before
    assert len(before) == 4


def test_an_interrupted_extension_goes_on_with_the_next_day(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed_demo(engine, WORLD, date(2026, 10, 14), now=NOW)
    monkeypatch.setattr(demo_writer, "_BATCH_EVENTS", 1)

    def stop(day: date, _: object) -> None:
        if day == date(2026, 10, 16):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        seed_demo(engine, WORLD, date(2026, 10, 19), now=NOW, progress=stop)
    assert seed_demo(engine, WORLD, date(2026, 10, 19), now=NOW).days[0] == date(2026, 10, 17)


def test_users_the_app_deleted_do_not_come_back_with_later_days(engine: sa.Engine) -> None:
    seed_demo(engine, WORLD, date(2026, 10, 14), now=NOW)
    with transaction(engine) as connection:
        connection.execute(sa.text("DELETE FROM users"))
    seed_demo(engine, WORLD, date(2026, 10, 14), now=NOW, beside_other_data=True)
    with transaction(engine) as connection:
        connection.execute(
            sa.text("DELETE FROM users WHERE id IN (SELECT user_id FROM user_interactions LIMIT 20)")
        )
    seed_demo(engine, WORLD, date(2026, 10, 19), now=NOW)
    orphans = (
        "SELECT count(*) FROM user_interactions i LEFT JOIN users u ON u.id = i.user_id "
        "LEFT JOIN posts p ON p.id = i.post_id WHERE u.id IS NULL OR p.id IS NULL"
    )
    assert _rows(engine, orphans) == [(0,)]
    assert _rows(
        engine, "SELECT count(*) FROM posts p LEFT JOIN users u ON u.id = author_id WHERE u.id IS NULL"
    ) == [(0,)]


def test_a_database_with_other_users_is_refused_unless_asked_for(engine: sa.Engine) -> None:
    with transaction(engine) as connection:
        connection.execute(sa.text("INSERT INTO users DEFAULT VALUES"))
    with pytest.raises(BadInput, match="already holds 1 users"):
        seed_demo(engine, WORLD, date(2026, 10, 19), now=NOW)
    seeded = seed_demo(engine, WORLD, date(2026, 10, 19), now=NOW, beside_other_data=True)
    assert seeded.rows.users == 60


def test_a_day_that_is_not_over_is_refused(engine: sa.Engine) -> None:
    with pytest.raises(BadInput, match="until 2026-10-19 at the latest"):
        seed_demo(engine, WORLD, date(2026, 10, 20), now=NOW)


def test_text_ids_and_tables_without_the_optional_columns_are_filled_too(empty_database_url: str) -> None:
    settings = Settings.load(database_url=empty_database_url)
    engine = create_engine_for(settings)
    with transaction(engine) as connection:
        connection.execute(sa.text("CREATE TABLE users (id text PRIMARY KEY)"))
        connection.execute(
            sa.text(
                "CREATE TABLE posts (id text PRIMARY KEY, author_id text REFERENCES users, title text, "
                "created_at timestamp NOT NULL)"
            )
        )
    migrate.upgrade(settings)
    seeded = seed_demo(engine, WORLD, date(2026, 10, 19), now=NOW)
    assert seeded.rows.users == 60
    assert seed_demo(engine, WORLD, date(2026, 10, 19), now=NOW).days == ()
    assert all(len(row[0]) == 36 for row in _rows(engine, "SELECT user_id FROM user_interactions"))
    late = (
        "SELECT count(*) FROM user_interactions i JOIN posts p ON p.id = i.post_id "
        "WHERE i.created_at < p.created_at"
    )
    assert _rows(engine, late) == [(0,)]
    engine.dispose()
