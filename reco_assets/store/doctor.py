"""Compares a database with what is needed, says what each difference means and what mends it.

Only reads: every question is a read-only transaction of its own, so that one that fails or runs into
the statement time-out spoils no other.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Literal

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from reco_assets.errors import DatabaseUnreachable, RecoError, SettingsError
from reco_assets.settings import Settings
from reco_assets.store import migrate
from reco_assets.store.adoption import relation_columns
from reco_assets.store.database import create_engine_for, describe, transaction
from reco_assets.store.doctor_rows import Question, row_questions

Level = Literal["ok", "note", "warning", "error"]
Columns = Mapping[str, Mapping[str, str]]

OLDEST_SERVER: Final = 140_000
_UUIDS: Final = ("uuid",)
_TEXTS: Final = ("text", "character varying")
_INSTANTS: Final = ("timestamp with time zone", "timestamp without time zone")

# table → column → the types that work.
_NEEDED: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "users": {"id": _UUIDS + _TEXTS},
    "posts": {"id": _UUIDS + _TEXTS, "author_id": _UUIDS + _TEXTS, "created_at": _INSTANTS},
    "user_interactions": {
        "id": _UUIDS + _TEXTS,
        "user_id": _UUIDS + _TEXTS,
        "post_id": _UUIDS + _TEXTS,
        "interaction_type": _TEXTS,
        "created_at": _INSTANTS,
        "metadata": ("jsonb",),
    },
}
_IDS: Final = tuple(
    (table, column)
    for table, columns in _NEEDED.items()
    for column, types in columns.items()
    if "uuid" in types and (table, column) != ("user_interactions", "id")
)

# table, leading columns, what is slow without it
_INDEXES: Final = (
    ("posts", ("author_id",), "deleting a user scans all posts"),
    ("posts", ("created_at",), "the fallback feeds sort all posts"),
    ("user_interactions", ("user_id",), "hiding what a user has seen scans all interactions"),
    ("user_interactions", ("post_id",), "deleting a post scans all interactions"),
    ("user_interactions", ("created_at",), "reading one day scans all interactions"),
    ("user_recommendations", ("user_id", "score"), "a feed request scans all recommendations"),
    ("user_recommendations", ("post_id",), "deleting a post scans all recommendations"),
    ("user_recommendations", ("expires_at",), "the cleanup scans all recommendations"),
)
_VIEW_COLUMNS: Final = {
    "recommendable_posts": ("post_id", "author_id", "created_at"),
    "hidden_authors": ("user_id", "author_id"),
}


@dataclass(frozen=True)
class Finding:
    """One thing found: `fix` is the command or SQL that mends it, where something has to be done."""

    level: Level
    subject: str
    message: str
    fix: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def examine(settings: Settings, *, now: datetime) -> list[Finding]:
    """Everything there is to say about the database, whether migrated or not.

    What cannot be found out, for lack of a right or of time, is a finding too; a database that cannot
    be reached is the only one then.
    """
    try:
        engine = create_engine_for(settings, application_name="reco-doctor")
    except SettingsError as error:
        return [Finding("error", "connection", str(error))]
    try:
        return list(_findings(engine, settings, now))
    except (DatabaseUnreachable, SettingsError) as error:
        return [Finding("error", "connection", str(error))]
    finally:
        engine.dispose()


def has_errors(findings: Sequence[Finding]) -> bool:
    """Whether something does not work as it is."""
    return any(finding.level == "error" for finding in findings)


def _findings(engine: sa.Engine, settings: Settings, now: datetime) -> Iterator[Finding]:
    with _reading(engine) as connection:
        version = int(connection.scalar(sa.text("SHOW server_version_num")) or 0)
        spelled = connection.scalar(sa.text("SHOW server_version"))
        columns = relation_columns(connection)
    yield Finding("ok", "connection", f"PostgreSQL {spelled} at {describe(engine)} answers.")
    if version < OLDEST_SERVER:
        yield Finding(
            "error",
            "server",
            f"PostgreSQL {spelled} is older than {OLDEST_SERVER // 10_000}, the oldest that is supported.",
            "Upgrade the server.",
        )
    yield from _migration(engine, settings)
    yield from _tables(columns)
    yield from _id_types(columns)
    parts: tuple[Callable[[sa.Connection], Iterator[Finding]], ...] = (
        partial(_keys_and_indexes, columns=columns),
        partial(_privileges, settings=settings, columns=columns),
        partial(_views, columns=columns),
        partial(_generation, settings=settings, columns=columns, now=now),
        partial(_unfinished_imports, columns=columns),
    )
    for part in parts:
        yield from _answers(engine, part)
    for question in row_questions(columns, settings, now):
        yield from _answers(engine, partial(_as_findings, question))


def _as_findings(question: Question, connection: sa.Connection) -> Iterator[Finding]:
    return (Finding(*found) for found in question(connection))


def _reading(engine: sa.Engine) -> Any:
    return transaction(engine.execution_options(postgresql_readonly=True))


def _answers(engine: sa.Engine, part: Callable[[sa.Connection], Iterator[Finding]]) -> list[Finding]:
    try:
        with _reading(engine) as connection:
            return list(part(connection))
    except DatabaseUnreachable:
        raise
    except (RecoError, DBAPIError) as error:
        # A deployer's view may fail in any way; that is worth knowing and no reason to stop.
        return [Finding("warning", "not checked", str(error).splitlines()[0])]


def _migration(engine: sa.Engine, settings: Settings) -> Iterator[Finding]:
    try:
        found = migrate.current(settings)
    except RecoError as error:
        yield Finding("warning", "not checked", str(error))
        return
    head = migrate.head()
    if found == head:
        yield Finding("ok", "migrations", f"The schema {settings.database_schema} is at revision {head}.")
    elif found is None:
        yield Finding(
            "warning",
            "migrations",
            f"The schema {settings.database_schema} at {describe(engine)} was never migrated. Migrating "
            "creates what is missing and leaves the app's tables as they are.",
            "reco migrate",
        )
    else:
        yield Finding(
            "error",
            "migrations",
            f"The schema is at revision {found}, this package needs {head}.",
            "reco migrate, or upgrade the package if a newer one migrated the database",
        )


def _tables(columns: Columns) -> Iterator[Finding]:
    for table, needed in _NEEDED.items():
        if table not in columns:
            yield Finding("note", table, "The table is not there; migrating creates it.", "reco migrate")
            continue
        for column, types in needed.items():
            found = columns[table].get(column)
            name = f"{table}.{column}"
            if found is None:
                yield _missing_column(table, column, types, columns)
            elif found not in types:
                yield _wrong_type(name, found, types)
            elif found == "timestamp without time zone":
                yield Finding("note", name, "It is a timestamp without zone; it is read as UTC.")
            else:
                yield Finding("ok", name, f"{found}.")


def _missing_column(table: str, column: str, types: Sequence[str], columns: Columns) -> Finding:
    name = f"{table}.{column}"
    if table == "posts" and column != "id" and "recommendable_posts" in columns:
        return Finding("note", name, "It is not there, but the view recommendable_posts supplies it.")
    if column == "metadata":
        return Finding(
            "warning",
            name,
            "It is not there: what clients send along with an event has no place.",
            "ALTER TABLE user_interactions ADD COLUMN metadata jsonb;",
        )
    if table == "posts" and column != "id":
        return Finding(
            "error",
            name,
            "It is not there, and the default view recommendable_posts needs it.",
            "CREATE VIEW recommendable_posts AS "
            "SELECT id AS post_id, … AS author_id, … AS created_at FROM posts;",
        )
    return Finding("error", name, "It is not there.", f"ALTER TABLE {table} ADD COLUMN {column} {types[0]};")


def _wrong_type(name: str, found: str, types: Sequence[str]) -> Finding:
    table, column = name.split(".")
    expected = " or ".join(types)
    if "uuid" in types:
        return Finding(
            "error",
            name,
            f"It is {found}; ids must be uuid, or text that holds UUIDs. The app's columns are not altered.",
            f"ALTER TABLE {table} ADD COLUMN … uuid UNIQUE DEFAULT gen_random_uuid(); then put views of the "
            "expected names over the tables into a schema that RECO_DATABASE_SCHEMA names.",
        )
    if "jsonb" in types and found == "json":
        return Finding("note", name, "It is json; jsonb is meant, but json takes the same values.")
    fix = f"ALTER TABLE {table} ALTER COLUMN {column} TYPE {types[0]} USING {column}::text::{types[0]};"
    return Finding("error", name, f"It is {found}; expected {expected}.", fix)


def _id_types(columns: Columns) -> Iterator[Finding]:
    kinds: dict[str, list[str]] = {}
    for table, column in _IDS:
        found = columns.get(table, {}).get(column)
        if found in _UUIDS + _TEXTS:
            kinds.setdefault("uuid" if found in _UUIDS else "text", []).append(f"{table}.{column}")
    if len(kinds) > 1:
        spelled = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items())
        yield Finding(
            "error",
            "ids",
            f"Some ids are uuid and some are text ({spelled}), so they cannot reference one another.",
            "Give all of them one type in the app's own migrations.",
        )
    elif "text" in kinds:
        yield Finding("note", "ids", "Ids are text holding UUIDs; our tables reference them as text.")


def _keys_and_indexes(connection: sa.Connection, columns: Columns) -> Iterator[Finding]:
    rows = connection.execute(
        sa.text(
            "SELECT c.relname, i.indisunique AND i.indpred IS NULL, i.indisvalid, "
            "array(SELECT a.attname::text FROM unnest(i.indkey::int[]) WITH ORDINALITY AS k(n, place) "
            "JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.n ORDER BY place) "
            "FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid "
            "WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema()))"
        )
    ).all()
    for table in ("users", "posts", "user_interactions"):
        unique = any(name == table and is_unique and keys == ["id"] for name, is_unique, _, keys in rows)
        if table in columns and not unique and _is_table(connection, table):
            yield Finding(
                "error",
                f"{table}.id",
                "It is not unique by an index: rows cannot be referenced or recognised.",
                f"ALTER TABLE {table} ADD PRIMARY KEY (id);",
            )
    for table, leading, consequence in _INDEXES:
        if table not in columns or not set(leading) <= columns[table].keys():
            continue
        if not _is_table(connection, table):
            continue
        spelled = ", ".join(leading)
        serves = [r for r in rows if r[0] == table and r[2] and tuple(r[3][: len(leading)]) == leading]
        if serves:
            yield Finding("ok", f"{table} ({spelled})", "An index serves it.")
        else:
            yield Finding(
                "warning",
                f"{table} ({spelled})",
                f"No index begins with it: {consequence}.",
                f"CREATE INDEX CONCURRENTLY ON {table} ({spelled});",
            )


def _is_table(connection: sa.Connection, name: str) -> bool:
    kind = connection.scalar(sa.text("SELECT relkind FROM pg_class WHERE oid = to_regclass(:n)"), {"n": name})
    return kind in ("r", "p", b"r", b"p")


def _privileges(connection: sa.Connection, settings: Settings, columns: Columns) -> Iterator[Finding]:
    role = connection.scalar(sa.text("SELECT quote_ident(current_user)"))
    schema = settings.database_schema
    present = connection.scalar(
        sa.text("SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = :name"),
        {"name": schema},
    )
    if present is None:
        allowed = connection.scalar(sa.text("SELECT has_database_privilege(current_database(), 'CREATE')"))
        message = f"The schema {schema} is not there; migrating creates it."
        fix = f"CREATE SCHEMA {schema} AUTHORIZATION {role};"
        yield Finding("note" if allowed else "error", "privileges", message, None if allowed else fix)
    elif not present:
        yield Finding(
            "error",
            "privileges",
            f"The role {role} may not create in the schema {schema}: migrating and publishing need to.",
            f"GRANT CREATE ON SCHEMA {schema} TO {role};",
        )
    needed = [(table, "SELECT", "reading it") for table in (*_NEEDED, *_VIEW_COLUMNS)]
    needed += [(table, "REFERENCES", "our tables refer to it") for table in ("users", "posts")]
    lacking = False
    for table, right, why in needed:
        if table in columns and not connection.scalar(
            sa.text("SELECT has_table_privilege(to_regclass(:table), :right)"),
            {"table": table, "right": right},
        ):
            lacking = True
            message = f"The role {role} lacks {right} on {table}: {why}."
            yield Finding("error", "privileges", message, f"GRANT {right} ON {table} TO {role};")
    if present and not lacking:
        yield Finding("ok", "privileges", f"The role {role} has the rights it needs.")


def _views(connection: sa.Connection, columns: Columns) -> Iterator[Finding]:
    for view, needed in _VIEW_COLUMNS.items():
        if view not in columns:
            yield Finding("note", view, "The view is not there; migrating creates it.", "reco migrate")
            continue
        missing = [name for name in needed if name not in columns[view]]
        if missing:
            yield Finding(
                "error", view, f"It lacks {', '.join(missing)}.", f"CREATE OR REPLACE VIEW {view} AS …;"
            )
            continue
        definition = connection.scalar(
            sa.text("SELECT pg_get_viewdef(to_regclass(:view), true)"), {"view": view}
        )
        spelled = " ".join((definition or "(a table)").split())
        yield Finding("ok", view, f"Defined as: {spelled}")
    if "recommendable_posts" in columns and "posts" in columns:
        eligible = connection.scalar(sa.text("SELECT EXISTS (SELECT FROM recommendable_posts)"))
        if not eligible and connection.scalar(sa.text("SELECT EXISTS (SELECT FROM posts)")):
            yield Finding(
                "error",
                "recommendable_posts",
                "No post is recommendable although there are posts: every feed is empty.",
                "Correct the view's condition with CREATE OR REPLACE VIEW recommendable_posts AS …;",
            )


def _generation(
    connection: sa.Connection, settings: Settings, columns: Columns, now: datetime
) -> Iterator[Finding]:
    if "recommendation_generations" not in columns:
        return
    live = connection.execute(
        sa.text(
            "SELECT partition_date, model_version, n_users, n_recommendations, published_at "
            "FROM recommendation_generations WHERE status = 'live'"
        )
    ).first()
    if live is None:
        yield Finding("note", "generation", "Nothing has been published yet: feeds fall back.", "reco run")
        return
    age = now - live.published_at
    message = (
        f"{live.n_recommendations:,} recommendations for {live.n_users:,} users of {live.partition_date}, by "
        f"{live.model_version}, live for {age / timedelta(hours=1):.1f} hours."
    )
    if age > timedelta(hours=settings.stale_after_hours):
        stale = f"{message} That is more than RECO_STALE_AFTER_HOURS ({settings.stale_after_hours:g})."
        yield Finding("warning", "generation", stale, "reco run, and look at the last run in Dagster")
    else:
        yield Finding("ok", "generation", message)


def _unfinished_imports(connection: sa.Connection, columns: Columns) -> Iterator[Finding]:
    if "reco_import_progress" not in columns:
        return
    rows = connection.execute(sa.text("SELECT file, rows_done, updated_at FROM reco_import_progress"))
    for file, rows_done, updated_at in rows:
        yield Finding(
            "note",
            "imports",
            f"The import of {file} stopped after row {rows_done:,} at {updated_at:%Y-%m-%d %H:%M} UTC.",
            f"Repeat its `reco import {file} …` to go on; DROP TABLE reco_import_progress to forget it.",
        )
