"""How the feed's questions are answered among a million interactions and a million recommendations."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString, cast

import psycopg
import pytest

from reco_assets.local.embedded_postgres import ServerAddress
from reco_assets.store import feed_queries, migrate, pool_queries
from reco_assets_tests.store.conftest import settings_for

N_USERS, N_POSTS, PER_USER = 20_000, 20_000, 50
NOW = datetime.now(UTC)
BIG = r"(user_interactions|user_recommendations|posts|users)"


@pytest.fixture(scope="module")
def connection(postgres_server: ServerAddress) -> Iterator[psycopg.Connection[Any]]:
    """The tables, filled without their indexes, which are built afterwards as they were."""
    with psycopg.connect(postgres_server.url(), autocommit=True) as main:
        main.execute("CREATE DATABASE reco_plans")
        migrate.upgrade(settings_for(postgres_server.url("reco_plans")))
        with psycopg.connect(postgres_server.url("reco_plans"), autocommit=True) as connection:
            _fill(connection)
            yield connection
        main.execute("DROP DATABASE reco_plans WITH (FORCE)")


def _fill(connection: psycopg.Connection[Any]) -> None:
    connection.execute("SET session_replication_role = replica")  # foreign keys hold anyway
    connection.execute("SET maintenance_work_mem = '256MB'")
    big = "('user_interactions'::regclass, 'user_recommendations'::regclass)"
    keys = connection.execute(
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint "
        f"WHERE conrelid IN {big} AND contype IN ('p', 'u')"
    ).fetchall()
    indexes = connection.execute(
        "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index "
        f"WHERE indrelid IN {big} AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)"
    ).fetchall()
    for table, name, _ in keys:
        run(connection, f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    for name, _ in indexes:
        run(connection, f"DROP INDEX {name}")
    run(
        connection,
        f"INSERT INTO users (id) SELECT md5('u' || i)::uuid FROM generate_series(1, {N_USERS}) i",
        "INSERT INTO posts (id, author_id, title, body, created_at) SELECT md5('p' || i)::uuid, "
        f"md5('u' || 1 + i % {N_USERS})::uuid, 'post ' || i, repeat('x', 300), "
        f"now() - i * interval '2 minutes' FROM generate_series(1, {N_POSTS}) i",
        "CREATE TEMPORARY TABLE u AS SELECT row_number() OVER () AS n, id FROM users",
        "CREATE TEMPORARY TABLE p AS SELECT row_number() OVER () AS n, id FROM posts",
        "INSERT INTO user_interactions (id, user_id, post_id, interaction_type, created_at) "
        "SELECT gen_random_uuid(), u.id, p.id, 'view', now() - u.n * interval '6 minutes' "
        "- p.n * interval '10 seconds' FROM u JOIN p ON p.n % 400 = u.n % 400",
        "INSERT INTO user_recommendations (id, user_id, post_id, score, generated_at, expires_at, "
        "model_version, generation_id) SELECT gen_random_uuid(), u.id, p.id, random(), now(), "
        "now() + interval '3 days', 'v', u.id FROM u JOIN p ON p.n % 400 = (u.n + 7) % 400",
    )
    for table, name, definition in keys:
        run(connection, f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}")
    run(connection, *(definition for _, definition in indexes), "ANALYZE")


def run(connection: psycopg.Connection[Any], *statements: str) -> None:
    for statement in statements:
        connection.execute(cast(LiteralString, statement))


def plans(connection: psycopg.Connection[Any], query: str, **changes: Any) -> list[str]:
    """Of a first execution and of a prepared statement that has been used for a while."""
    user_id = connection.execute("SELECT id::text FROM users LIMIT 1").fetchone()
    assert user_id is not None
    posts = connection.execute(
        "SELECT string_agg(id::text, ',') FROM (SELECT id FROM posts LIMIT 40) p"
    ).fetchone()
    assert posts is not None
    array = "{" + posts[0] + "}"
    parameters = {
        **{"user": user_id[0], "author": user_id[0], "now": NOW, "seen_since": NOW - timedelta(days=90)},
        **{"ids": array, "drawn": array, "spare": array, "needed": 20},
        **{
            "since": NOW - timedelta(hours=48),
            "types": ["view"],
            "max_events": 200_000,
            "n_candidates": 5000,
        },
        **{"half_life_s": 21_600.0, "freshness_s": 86_400.0, "n": 100, **changes},
    }
    found = []
    for mode in ("force_custom_plan", "force_generic_plan"):
        connection.execute(cast(LiteralString, f"SET plan_cache_mode = {mode}"))
        lines = connection.execute(
            cast(LiteralString, "EXPLAIN " + query), parameters, prepare=True
        ).fetchall()
        found.append("\n".join(line for (line,) in lines))
    return found


def test_a_users_list_is_read_by_index_alone(connection: psycopg.Connection[Any]) -> None:
    count = connection.execute("SELECT count(*) FROM user_recommendations").fetchone()
    assert count == (N_USERS * PER_USER,)
    for plan in plans(connection, feed_queries._LIST):
        assert not re.search(rf"Seq Scan on {BIG}", plan), plan
        assert "user_recommendations_user_id_score_idx" in plan
        assert "user_interactions_user_id_idx" in plan
        assert plan.count("posts_pkey") >= 3
        assert "hashed SubPlan" in plan  # of what the user has seen


def test_posts_are_judged_by_index_alone(connection: psycopg.Connection[Any]) -> None:
    for plan in plans(connection, feed_queries._ELIGIBLE):
        assert not re.search(rf"Seq Scan on {BIG}", plan), plan
        assert "user_interactions_user_id_idx" in plan
        assert "posts_pkey" in plan


def test_trending_reads_the_newest_interactions_and_no_more(connection: psycopg.Connection[Any]) -> None:
    for plan in plans(connection, pool_queries._TRENDING):
        assert not re.search(rf"Seq Scan on {BIG}", plan), plan
        assert "user_interactions_created_at_idx" in plan


def test_the_newest_posts_are_read_by_index(connection: psycopg.Connection[Any]) -> None:
    for plan in plans(connection, pool_queries._NEWEST):
        assert "posts_created_at_idx" in plan
        assert "Seq Scan" not in plan


def test_a_sample_is_read_by_index(connection: psycopg.Connection[Any]) -> None:
    points = connection.execute(
        "SELECT array_agg(gen_random_uuid()::text) FROM generate_series(1, 80)"
    ).fetchone()
    assert points is not None
    query = pool_queries._NEAR.replace("ID_TYPE", "uuid")
    for plan in [*plans(connection, query, points=points[0], each=3), *plans(connection, pool_queries._ENDS)]:
        assert not re.search(rf"Seq Scan on {BIG}", plan), plan
        assert "posts_pkey" in plan
