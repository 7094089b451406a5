from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from reco_assets.settings import Settings
from reco_assets.store import doctor, migrate
from reco_assets.store.database import create_engine_for, transaction
from reco_assets.store.doctor import Finding, examine, has_errors

NOW = datetime(2026, 10, 20, tzinfo=UTC)
USER, POST = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"


@pytest.fixture
def settings(empty_database_url: str) -> Settings:
    return Settings.load(database_url=empty_database_url)


def _run(settings: Settings, *statements: str) -> None:
    engine = create_engine_for(settings)
    with transaction(engine) as connection:
        for statement in statements:
            connection.execute(sa.text(statement))
    engine.dispose()


def _found(settings: Settings, subject: str, level: str | None = None) -> list[Finding]:
    return [
        finding
        for finding in examine(settings, now=NOW)
        if finding.subject == subject and (level is None or finding.level == level)
    ]


def _app_tables(id_type: str, time_type: str = "timestamptz") -> list[str]:
    return [
        f"CREATE TABLE users (id {id_type} PRIMARY KEY)",
        f"CREATE TABLE posts (id {id_type} PRIMARY KEY, author_id {id_type}, title text, "
        f"created_at {time_type})",
        f"CREATE TABLE user_interactions (id {id_type} PRIMARY KEY, user_id {id_type}, post_id {id_type}, "
        f"interaction_type text, created_at {time_type}, metadata jsonb)",
    ]


def _event(kind: str = "view", at: str = "2026-10-01", user: str = USER, post: str = POST) -> str:
    return (
        "INSERT INTO user_interactions (id, user_id, post_id, interaction_type, created_at) "
        f"VALUES (gen_random_uuid(), '{user}', '{post}', '{kind}', '{at}')"
    )


def test_a_freshly_migrated_database_is_in_order(settings: Settings) -> None:
    migrate.upgrade(settings)
    findings = examine(settings, now=NOW)
    assert not has_errors(findings)
    assert [(f.level, f.subject) for f in findings if f.level != "ok"] == [
        ("note", "generation"),
        ("warning", "user_interactions"),
    ]


def test_before_migration_it_says_what_migrating_will_make(settings: Settings) -> None:
    findings = examine(settings, now=NOW)
    assert not has_errors(findings)
    assert {f.subject for f in findings if f.fix == "reco migrate"} == {
        *("migrations", "users", "posts", "user_interactions", "recommendable_posts", "hidden_authors")
    }


def test_nothing_is_modified_not_even_by_a_view_that_writes(settings: Settings) -> None:
    migrate.upgrade(settings)
    _run(
        settings,
        "CREATE TABLE touched (n int)",
        "CREATE FUNCTION touch() RETURNS boolean LANGUAGE sql AS "
        "'INSERT INTO touched VALUES (1); SELECT true'",
        "CREATE OR REPLACE VIEW recommendable_posts AS "
        "SELECT id AS post_id, author_id, created_at FROM posts WHERE touch()",
        "INSERT INTO users VALUES (gen_random_uuid())",
        "INSERT INTO posts (author_id, title) SELECT id, 'x' FROM users",
    )
    assert any("read-only" in finding.message for finding in _found(settings, "not checked"))
    engine = create_engine_for(settings)
    with transaction(engine) as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM touched")) == 0
    engine.dispose()


@pytest.mark.parametrize("id_type", ["bigint", "integer"])
def test_ids_that_are_not_uuids_are_an_error_with_the_remedy(settings: Settings, id_type: str) -> None:
    _run(settings, *_app_tables(id_type))
    (finding,) = _found(settings, "users.id", "error")
    assert f"It is {id_type}; ids must be uuid" in finding.message
    assert finding.fix is not None
    assert "uuid UNIQUE DEFAULT gen_random_uuid()" in finding.fix


def test_text_ids_and_naive_times_work_and_are_noted(settings: Settings) -> None:
    _run(settings, *_app_tables("text", "timestamp"))
    findings = examine(settings, now=NOW)
    assert not has_errors(findings)
    notes = {f.subject: f.message for f in findings if f.level == "note"}
    assert "text holding UUIDs" in notes["ids"]
    assert "read as UTC" in notes["posts.created_at"]


def test_text_ids_that_are_no_uuids_are_shown(settings: Settings) -> None:
    _run(settings, *_app_tables("text"), f"INSERT INTO users VALUES ('cku1'), ('{USER.upper()}'), ('{USER}')")
    finding = _found(settings, "users.id", "error")[0]
    assert "2 ids are not UUIDs in lower case, 1 of them only for their capitals" in finding.message
    assert "'cku1'" in finding.message


def test_ids_of_mixed_types_are_an_error(settings: Settings) -> None:
    _run(settings, "CREATE TABLE users (id text PRIMARY KEY)", *_app_tables("uuid")[1:])
    assert len(_found(settings, "ids", "error")) == 1


def test_missing_columns_indexes_and_keys_come_with_sql(settings: Settings) -> None:
    _run(
        settings,
        "CREATE TABLE users (id uuid)",
        "CREATE TABLE posts (id uuid PRIMARY KEY, author_id uuid, created_at timestamptz)",
        "CREATE TABLE user_interactions (id uuid PRIMARY KEY, user_id uuid, post_id uuid, "
        "interaction_type text)",
    )
    assert _found(settings, "users.id", "error")[0].fix == "ALTER TABLE users ADD PRIMARY KEY (id);"
    assert _found(settings, "user_interactions.created_at", "error")[0].fix == (
        "ALTER TABLE user_interactions ADD COLUMN created_at timestamp with time zone;"
    )
    index = _found(settings, "user_interactions (post_id)", "warning")[0]
    assert index.fix == "CREATE INDEX CONCURRENTLY ON user_interactions (post_id);"
    for _ in range(2):  # the first round adds the column that the second one's index is on
        _apply(settings, _statements(settings))
    assert _statements(settings) == []


def _statements(settings: Settings) -> list[str]:
    return [f.fix for f in examine(settings, now=NOW) if f.fix and f.fix.endswith(";")]


def _apply(settings: Settings, statements: list[str]) -> None:
    engine = create_engine_for(settings)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.execute(sa.text(statement))
    engine.dispose()


def test_bad_rows_are_counted_by_reason(settings: Settings) -> None:
    stranger = "00000000-0000-4000-8000-00000000000c"
    _run(
        settings,
        *_app_tables("uuid"),
        f"INSERT INTO users VALUES ('{USER}')",
        f"INSERT INTO posts VALUES ('{POST}', '{USER}', 'x', '2026-01-02')",
        *(_event() for _ in range(3)),
        _event(kind="bookmark"),
        _event(at="2026-10-21"),
        _event(at="2025-12-31"),
        _event(user=stranger, at="2026-10-02"),
        "INSERT INTO user_interactions (id, post_id) VALUES (gen_random_uuid(), NULL)",
    )
    said = {f.message.split(";")[0] for f in examine(settings, now=NOW) if f.level in ("warning", "note")}
    expected = {
        "1 rows are of the type 'bookmark', which has no weight",
        "1 rows lie in the future",
        "1 rows lie before RECO_START_DATE (2026-01-01)",
        "1 rows name a row that users does not have, and count for nothing.",
        "1 rows have none and belong to no day.",
        "1 rows have none and count for nothing.",
        "2 rows repeat another one in user, post, type and time. They count as repeats, of which at most "
        "RECO_MAX_REPEATS matter.",
    }
    assert expected <= said


def test_missing_rights_are_named_with_the_grant(settings: Settings) -> None:
    migrate.upgrade(settings)
    _run(settings, "DROP ROLE IF EXISTS guest", "CREATE ROLE guest LOGIN PASSWORD 'guest'")
    try:
        url = sa.make_url(settings.database_url or "").set(username="guest", password="guest")
        guest = Settings.load(database_url=url.render_as_string(hide_password=False))
        fixes = [finding.fix for finding in _found(guest, "privileges", "error")]
        assert "GRANT CREATE ON SCHEMA public TO guest;" in fixes
        assert "GRANT REFERENCES ON users TO guest;" in fixes
        assert "GRANT SELECT ON user_interactions TO guest;" in fixes
    finally:
        _run(settings, "DROP ROLE guest")


def test_a_view_that_lets_no_post_through_is_an_error(settings: Settings) -> None:
    migrate.upgrade(settings)
    _run(
        settings,
        f"INSERT INTO users VALUES ('{USER}')",
        f"INSERT INTO posts (author_id, title) VALUES ('{USER}', 'x')",
        "CREATE OR REPLACE VIEW recommendable_posts AS "
        "SELECT id AS post_id, author_id, created_at FROM posts WHERE false",
    )
    assert "every feed is empty" in _found(settings, "recommendable_posts", "error")[0].message


@pytest.mark.parametrize(("hours", "level"), [(2, "ok"), (30, "warning")])
def test_the_age_of_the_live_generation_is_told(settings: Settings, hours: int, level: str) -> None:
    migrate.upgrade(settings)
    published = NOW - timedelta(hours=hours)
    _run(
        settings,
        "INSERT INTO recommendation_generations (partition_date, status, model_version, published_at) "
        f"VALUES ('2026-10-19', 'live', 'm_v1', '{published.isoformat()}')",
    )
    (finding,) = _found(settings, "generation")
    assert finding.level == level
    assert f"live for {hours}.0 hours" in finding.message


def test_a_database_out_of_reach_is_one_finding(settings: Settings) -> None:
    nowhere = Settings.load(database_url="postgresql://x@127.0.0.1:1/x", connection_retries=0)
    (finding,) = examine(nowhere, now=NOW)
    assert (finding.level, finding.subject) == ("error", "connection")


def test_a_question_that_takes_too_long_spoils_no_other(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate.upgrade(settings)

    def slow(connection: sa.Connection) -> Any:
        connection.execute(sa.text("SET LOCAL statement_timeout = 20; SELECT pg_sleep(5)"))

    original = doctor.row_questions
    monkeypatch.setattr(doctor, "row_questions", lambda *a: [slow, *original(*a)])
    findings = examine(settings, now=NOW)
    assert [f.level for f in findings if f.subject == "not checked"] == ["warning"]
    assert findings[-1].subject == "user_interactions"
