"""What live votes are kept up with."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql

from reco_assets.errors import SchemaError
from reco_assets.settings import Settings
from reco_assets.store import migrate
from reco_assets.store.database import native_url
from reco_assets.store.live_events import (
    events_query,
    hidden_authors,
    live_model,
    post_facts,
    read_events,
    server_time,
)
from reco_assets_tests.store.conftest import settings_for
from reco_assets_tests.store.published import AUTHOR, DAY, make_world, post, publish_pairs, run_sql, user
from reco_assets_tests.store.test_migrate import PRISMA, make_prisma_world

MIDNIGHT = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.fixture
def connection(settings: Settings) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(native_url(settings), autocommit=True) as connection:
        yield connection


def insert(
    connection: psycopg.Connection[Any], number: int, at: datetime, kind: str = "view", by: int = 1
) -> None:
    connection.execute(
        "INSERT INTO user_interactions (id, user_id, post_id, interaction_type, created_at) "
        "VALUES (%s, %s, %s, %s, %s)",
        (UUID(int=number), user(by), post(1), kind, at),
    )


def test_events_come_newest_first_from_an_instant_on_with_their_types(
    engine: sa.Engine, connection: psycopg.Connection[Any]
) -> None:
    make_world(engine)
    insert(connection, 1, MIDNIGHT - timedelta(microseconds=1))
    insert(connection, 2, MIDNIGHT, "like")
    insert(connection, 3, MIDNIGHT + timedelta(seconds=1), "hide")
    insert(connection, 4, MIDNIGHT + timedelta(seconds=2), "view", by=2)
    rows = read_events(connection, MIDNIGHT, ["like", "view"], 10)
    assert [int.from_bytes(row.tobytes()) for row in rows.ids] == [4, 2]
    assert rows.types.tolist() == [1, 0]
    assert [UUID(bytes=row.tobytes()) for row in rows.user_ids] == [user(2), user(1)]
    assert rows.created_at.tolist() == [
        int((MIDNIGHT + timedelta(seconds=s)).timestamp()) * 1_000_000 for s in (2, 0)
    ]
    assert [
        int.from_bytes(r.tobytes()) for r in read_events(connection, MIDNIGHT, ["like", "view"], 1).ids
    ] == [4]
    assert len(read_events(connection, MIDNIGHT + timedelta(days=1), ["view"], 10).ids) == 0


def test_the_index_on_time_finds_them(engine: sa.Engine, connection: psycopg.Connection[Any]) -> None:
    make_world(engine)
    connection.execute(
        "INSERT INTO user_interactions (user_id, post_id, interaction_type, created_at) "
        "SELECT %s, %s, 'view', %s - n * interval '1 minute' FROM generate_series(1, 20000) n",
        (str(user(1)), str(post(1)), MIDNIGHT),
    )
    connection.execute("ANALYZE user_interactions")
    query = events_query(connection, MIDNIGHT - timedelta(minutes=10), ["view"], 1000)
    plan = connection.execute(sql.SQL("EXPLAIN {}").format(query)).fetchall()
    assert "user_interactions_created_at_idx" in str(plan)


def test_an_app_with_text_ids_and_naive_times_is_read_as_the_extract_reads_it(
    empty_database_url: str,
) -> None:
    settings = settings_for(empty_database_url)
    engine = sa.create_engine(sa.make_url(empty_database_url).set(drivername="postgresql+psycopg"))
    run_sql(engine, *PRISMA.split(";"))
    make_prisma_world(engine)
    run_sql(
        engine,
        f"INSERT INTO user_interactions VALUES ('cuid2', '{user(1)}', '{post(1)}', 'view', '2026-11-20')",
    )
    migrate.upgrade(settings)
    run_sql(
        engine,
        f"CREATE OR REPLACE VIEW hidden_authors AS "
        f"SELECT '{user(2)}'::text AS user_id, '{AUTHOR}'::text AS author_id",
    )
    engine.dispose()
    with psycopg.connect(native_url(settings), autocommit=True) as connection:
        rows = read_events(connection, MIDNIGHT, ["view"], 10)
        assert len({row.tobytes() for row in rows.ids}) == 2
        assert {UUID(bytes=row.tobytes()) for row in rows.user_ids} == {user(1)}
        assert set(rows.created_at.tolist()) == {int(MIDNIGHT.timestamp()) * 1_000_000}
        facts = post_facts(connection, [post(1), post(99)])
        assert list(facts) == [post(1)]
        assert facts[post(1)].created_at == datetime(2026, 11, 1, tzinfo=UTC)
        assert facts[post(1)].author_id == AUTHOR
        assert hidden_authors(connection, [user(1), user(2)]) == {user(2): (AUTHOR,)}


def test_the_live_model_is_that_of_the_live_generation(
    engine: sa.Engine, connection: psycopg.Connection[Any]
) -> None:
    assert live_model(connection) is None
    make_world(engine)
    publication = publish_pairs(engine, [(1, 1)], version="collaborative_filtering_v3", model_digest="abc")
    found = live_model(connection)
    assert found == (publication.generation_id, DAY, "collaborative_filtering_v3", "abc")
    assert abs(server_time(connection) - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_database_without_tables_says_what_to_do(empty_database_url: str) -> None:
    with (
        psycopg.connect(empty_database_url, autocommit=True) as connection,
        pytest.raises(SchemaError, match="reco migrate"),
    ):
        read_events(connection, MIDNIGHT, ["view"], 10)
