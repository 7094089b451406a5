"""Migrations: up, down, beside an app's own tables, two at once."""

import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from reco_assets.errors import SchemaError
from reco_assets.settings import Settings
from reco_assets.store import migrate
from reco_assets.store.adoption import relation_columns
from reco_assets.store.database import create_engine_for, transaction
from reco_assets.store.day_files import read_day
from reco_assets.store.extract import extract_interactions
from reco_assets.store.generations import live_generation
from reco_assets.store.lookups import recommendations_of
from reco_assets.store.schema import build_metadata
from reco_assets_tests.store.conftest import settings_for
from reco_assets_tests.store.published import (
    AUTHOR,
    NOW,
    live_pairs,
    make_world,
    post,
    publish_pairs,
    run_sql,
    user,
)

PRISMA = """
CREATE TABLE users (id text PRIMARY KEY, email text);
CREATE TABLE posts (id text PRIMARY KEY, author_id text NOT NULL REFERENCES users (id), title text NOT NULL,
    created_at timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE user_interactions (id text PRIMARY KEY, user_id text REFERENCES users (id) ON DELETE CASCADE,
    post_id text REFERENCES posts (id) ON DELETE CASCADE, interaction_type text NOT NULL,
    created_at timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP)
"""


@pytest.fixture
def empty(empty_database_url: str) -> Settings:
    return settings_for(empty_database_url)


@pytest.fixture
def plain_engine(empty: Settings) -> Iterator[sa.Engine]:
    engine = create_engine_for(empty)
    yield engine
    engine.dispose()


def test_upgrade_makes_what_the_metadata_says(empty: Settings, plain_engine: sa.Engine) -> None:
    migrate.upgrade(empty)
    migrated = catalogue_of(plain_engine, "public")
    run_sql(plain_engine, "CREATE SCHEMA twin")
    twin = create_engine_for(empty.model_copy(update={"database_schema": "twin"}))
    with transaction(twin) as connection:
        build_metadata().create_all(connection)
    assert catalogue_of(twin, "twin") == [row for row in migrated if not str(row).startswith("('reco_")]
    twin.dispose()


def test_upgrade_twice_changes_nothing_the_second_time(empty: Settings) -> None:
    assert len(migrate.upgrade(empty).created) == 9
    again = migrate.upgrade(empty)
    assert (again.before, again.after, again.created) == (migrate.head(), migrate.head(), ())
    assert migrate.check(empty) == migrate.head()


def test_downgrade_drops_what_upgrade_made_rows_included(empty: Settings, plain_engine: sa.Engine) -> None:
    migrate.upgrade(empty)
    make_world(plain_engine)
    publish_pairs(plain_engine, [(1, 1)])
    assert len(migrate.downgrade(empty).dropped) == 9
    with transaction(plain_engine) as connection:
        assert relation_columns(connection) == {}
    assert migrate.current(empty) is None
    migrate.upgrade(empty)
    make_world(plain_engine)
    assert publish_pairs(plain_engine, [(1, 1)]).status == "live"


def test_check_names_the_command_when_behind_and_the_package_when_ahead(
    empty: Settings, plain_engine: sa.Engine
) -> None:
    with pytest.raises(SchemaError, match=r"Run `reco migrate`"):
        migrate.check(empty)
    migrate.upgrade(empty)
    run_sql(plain_engine, "UPDATE reco_alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaError, match=r"9999, which this package does not know"):
        migrate.check(empty)
    with pytest.raises(SchemaError, match=r"Upgrade the package"):
        migrate.upgrade(empty)


def test_a_database_of_the_first_revision_gets_the_new_columns_and_keeps_its_rows(
    empty: Settings, plain_engine: sa.Engine
) -> None:
    migrate.upgrade(empty, "0001")
    run_sql(
        plain_engine,
        "INSERT INTO recommendation_generations (partition_date, status) VALUES ('2026-11-19', 'live')",
    )
    migration = migrate.upgrade(empty)
    assert (migration.before, migration.after, migration.created) == ("0001", migrate.head(), ())
    with transaction(plain_engine) as connection:
        live = live_generation(connection)
    assert live is not None
    assert (live.model_digest, live.lists_digest, live.restored_from) == (None, None, None)
    assert migrate.downgrade(empty, "0001").after == "0001"
    with transaction(plain_engine) as connection:
        columns = relation_columns(connection)["recommendation_generations"]
    assert not {"model_digest", "lists_digest", "restored_from"} & set(columns)


def test_two_migrations_at_once_both_succeed(empty: Settings) -> None:
    results: list[object] = []

    def upgrade() -> None:
        try:
            results.append(len(migrate.upgrade(empty).created))
        except Exception as error:
            results.append(error)

    threads = [threading.Thread(target=upgrade) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results, key=str) == [0, 9]


def test_an_app_with_text_ids_and_naive_times_publishes_extracts_and_keeps_its_tables(
    empty: Settings, plain_engine: sa.Engine, tmp_path: Path
) -> None:
    run_sql(plain_engine, *PRISMA.split(";"))
    make_prisma_world(plain_engine)
    app_tables = catalogue_of(plain_engine, "public")
    migration = migrate.upgrade(empty)
    assert "table users" not in migration.created
    assert [row for row in catalogue_of(plain_engine, "public") if row in app_tables] == app_tables
    with transaction(plain_engine) as connection:
        columns = relation_columns(connection)
    assert columns["user_recommendations"]["user_id"] == "text"
    assert columns["recommendable_posts"]["created_at"] == "timestamp with time zone"

    publication = publish_pairs(plain_engine, [(1, 1), (1, 2), (2, 1)])
    assert publication.dropped_reasons == {"seen": 1}
    assert live_pairs(plain_engine) == {(1, 2), (2, 1)}
    with transaction(plain_engine) as connection:
        (found,) = recommendations_of(connection, user(1), now=NOW)
    assert (found.rank, found.post_id, found.title) == (1, post(2), "post 2")

    (day,) = extract_interactions(empty, date(2026, 11, 19), date(2026, 11, 20), tmp_path, ["view"], now=NOW)
    table = read_day(day.path).to_pylist()
    assert [row["user_id"] for row in table] == [user(1).bytes]
    assert table[0]["created_at"] == datetime(2026, 11, 19, 23, 59, 59, tzinfo=UTC)
    assert day.rejected == {"id is not a UUID in lower case": 1, "user_id is null": 1}

    run_sql(plain_engine, f"DELETE FROM users WHERE id = '{user(2)}'")
    assert live_pairs(plain_engine) == {(1, 2)}
    migrate.downgrade(empty)
    assert catalogue_of(plain_engine, "public") == app_tables


def test_ids_that_are_no_uuids_are_refused_with_a_way_out(empty: Settings, plain_engine: sa.Engine) -> None:
    run_sql(plain_engine, "CREATE TABLE users (id serial PRIMARY KEY)")
    with pytest.raises(SchemaError, match=r"users.id is of type integer.*ADD COLUMN"):
        migrate.upgrade(empty)
    with transaction(plain_engine) as connection:
        assert list(relation_columns(connection)) == ["users"]


def test_mixed_id_types_are_refused(empty: Settings, plain_engine: sa.Engine) -> None:
    run_sql(
        plain_engine,
        "CREATE TABLE users (id uuid PRIMARY KEY)",
        "CREATE TABLE posts (id text PRIMARY KEY, author_id uuid, created_at timestamptz)",
    )
    with pytest.raises(SchemaError, match=r"users.id uuid, posts.id text"):
        migrate.upgrade(empty)


def test_an_app_table_without_our_columns_is_refused_by_name(
    empty: Settings, plain_engine: sa.Engine
) -> None:
    run_sql(plain_engine, 'CREATE TABLE posts (id uuid PRIMARY KEY, "authorId" uuid)')
    with pytest.raises(
        SchemaError, match=r"lacks author_id, created_at. Create the view recommendable_posts"
    ):
        migrate.upgrade(empty)
    run_sql(plain_engine, "DROP TABLE posts", "CREATE TABLE user_recommendations (id uuid)")
    with pytest.raises(SchemaError, match=r"user_recommendations lacks expires_at"):
        migrate.upgrade(empty)


def test_an_existing_view_is_left_alone_and_survives_the_downgrade(
    empty: Settings, plain_engine: sa.Engine
) -> None:
    run_sql(
        plain_engine,
        'CREATE TABLE posts (id uuid PRIMARY KEY, "authorId" uuid)',
        'CREATE VIEW recommendable_posts AS SELECT id AS post_id, "authorId" AS author_id, '
        "now() AS created_at FROM posts",
    )
    assert "view recommendable_posts" not in migrate.upgrade(empty).created
    migrate.downgrade(empty)
    with transaction(plain_engine) as connection:
        assert sorted(relation_columns(connection)) == ["posts", "recommendable_posts"]


def test_a_schema_of_its_own_is_made_and_nothing_lands_in_public(
    empty: Settings, plain_engine: sa.Engine
) -> None:
    migrate.upgrade(empty.model_copy(update={"database_schema": "feed"}))
    with transaction(plain_engine) as connection:
        assert relation_columns(connection) == {}
    assert len(catalogue_of(plain_engine, "feed")) > 50


def make_prisma_world(engine: sa.Engine) -> None:
    for each in (AUTHOR, user(1), user(2)):
        run_sql(engine, f"INSERT INTO users VALUES ('{each}')")
    for i in (1, 2):
        run_sql(engine, f"INSERT INTO posts VALUES ('{post(i)}', '{AUTHOR}', 'post {i}', '2026-11-01')")
    insert = "INSERT INTO user_interactions VALUES "
    run_sql(
        engine,
        f"{insert} ('{user(77)}', '{user(1)}', '{post(1)}', 'view', '2026-11-19 23:59:59')",
        f"{insert} ('cuid1', '{user(1)}', '{post(1)}', 'view', '2026-11-19 12:00:00')",
        f"{insert} ('{user(78)}', NULL, '{post(1)}', 'view', '2026-11-19 12:00:00')",
        f"{insert} ('{user(79)}', '{user(1)}', '{post(1)}', 'view', '2026-11-20 00:00:00')",
    )


def catalogue_of(engine: sa.Engine, schema: str) -> list[tuple[object, ...]]:
    """Tables as rows: columns with types and defaults, indexes, constraints."""
    queries = (
        "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, "
        "pg_get_expr(d.adbin, d.adrelid) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
        "LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum "
        "WHERE c.relnamespace = to_regnamespace(:schema) AND c.relkind = 'r' AND a.attnum > 0",
        "SELECT tablename, replace(indexdef, schemaname || '.', '') FROM pg_indexes "
        "WHERE schemaname = :schema",
        "SELECT conrelid::regclass::text, conname, replace(pg_get_constraintdef(oid), :schema || '.', '') "
        "FROM pg_constraint WHERE connamespace = to_regnamespace(:schema) AND conrelid <> 0",
    )
    found: list[tuple[object, ...]] = []
    with transaction(engine) as connection:
        for query in queries:
            rows = connection.execute(sa.text(query), {"schema": schema})
            found += sorted((tuple(row) for row in rows), key=str)
    return found
