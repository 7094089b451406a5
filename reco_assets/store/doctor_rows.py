"""What the doctor asks about rows: each question counts one kind of bad row and shows examples."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import Any, Final, Literal

import sqlalchemy as sa

from reco_assets.settings import Settings

Found = tuple[Literal["ok", "note", "warning", "error"], str, str, str | None]
"""Level, subject, message and fix of a finding."""
Question = Callable[[sa.Connection], Iterator[Found]]

_UUID: Final = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
_REFERENCES: Final = (("user_id", "users"), ("post_id", "posts"))
_TEXT_IDS: Final = (
    ("users", "id"),
    ("posts", "id"),
    ("posts", "author_id"),
    ("user_interactions", "user_id"),
    ("user_interactions", "post_id"),
)


def row_questions(
    columns: Mapping[str, Mapping[str, str]], settings: Settings, now: datetime
) -> Iterator[Question]:
    """The questions that can be asked of the columns there are."""
    for table, column in _TEXT_IDS:
        if columns.get(table, {}).get(column) in ("text", "character varying"):
            yield partial(_not_uuids, table=table, column=column)
    found = columns.get("user_interactions", {})
    for column, table in _REFERENCES:
        if column not in found:
            continue
        yield partial(_nulls, column=column)
        same_type = (found[column] == "uuid") == (columns.get(table, {}).get("id") == "uuid")
        if "id" in columns.get(table, {}) and same_type:
            yield partial(_strangers, column=column, table=table)
    if "interaction_type" in found:
        yield partial(_unknown_types, settings=settings)
    if found.get("created_at", "").startswith("timestamp"):
        yield partial(_times, settings=settings, now=now)
        if {"user_id", "post_id", "interaction_type"} <= found.keys():
            yield _duplicates


def _not_uuids(connection: sa.Connection, table: str, column: str) -> Iterator[Found]:
    wrong = f"FROM {table} WHERE {column} IS NOT NULL AND {column} !~ :uuid"
    n = _count(connection, wrong, uuid=_UUID)
    if not n:
        return
    examples = connection.scalars(
        sa.text(f"SELECT DISTINCT {column} {wrong} ORDER BY 1 LIMIT 3"),
        {"uuid": _UUID},
    ).all()
    capitals = _count(connection, f"{wrong} AND lower({column}) ~ :uuid", uuid=_UUID)
    hint = f", {capitals:,} of them only for their capitals" if capitals else ""
    yield (
        "error",
        f"{table}.{column}",
        f"{n:,} ids are not UUIDs in lower case{hint}, such as {', '.join(map(repr, examples))}.",
        f"Lower the capitals with UPDATE {table} SET {column} = lower({column}); "  # noqa: S608
        "map other ids to UUIDs in the app.",
    )


def _nulls(connection: sa.Connection, column: str) -> Iterator[Found]:
    n = _count(connection, f"FROM user_interactions WHERE {column} IS NULL")
    if n:
        yield (
            "warning",
            f"user_interactions.{column}",
            f"{n:,} rows have none and count for nothing.",
            f"DELETE FROM user_interactions WHERE {column} IS NULL;",  # noqa: S608
        )


def _strangers(connection: sa.Connection, column: str, table: str) -> Iterator[Found]:
    enforced = connection.scalar(
        sa.text(
            "SELECT EXISTS (SELECT FROM pg_constraint c JOIN pg_attribute a ON a.attrelid = c.conrelid "
            "AND c.conkey = ARRAY[a.attnum] WHERE c.contype = 'f' AND c.convalidated AND a.attname = :column "
            "AND c.conrelid = to_regclass('user_interactions') AND c.confrelid = to_regclass(:table))"
        ),
        {"column": column, "table": table},
    )
    if enforced:
        yield ("ok", f"user_interactions.{column}", f"A foreign key keeps it to {table}.", None)
        return
    condition = f"NOT EXISTS (SELECT FROM {table} t WHERE t.id = i.{column})"
    n = _count(connection, f"FROM user_interactions i WHERE i.{column} IS NOT NULL AND {condition}")
    if n:
        yield (
            "warning",
            f"user_interactions.{column}",
            f"{n:,} rows name a row that {table} does not have, and count for nothing.",
            f"DELETE FROM user_interactions i WHERE {condition};",  # noqa: S608
        )
    else:
        yield (
            "note",
            f"user_interactions.{column}",
            f"No foreign key keeps it to {table}: interactions of deleted rows would stay.",
            f"ALTER TABLE user_interactions ADD FOREIGN KEY ({column}) REFERENCES {table} ON DELETE CASCADE;",
        )


def _unknown_types(connection: sa.Connection, settings: Settings) -> Iterator[Found]:
    rows = connection.execute(
        sa.text(
            "SELECT interaction_type::text, count(*) FROM user_interactions "
            "WHERE interaction_type IS NULL OR NOT interaction_type::text = ANY(:known) "
            "GROUP BY 1 ORDER BY 2 DESC LIMIT 20"
        ),
        {"known": list(settings.tracked_types)},
    )
    for name, n in rows:
        weights = ",".join(f"{known}={weight:g}" for known, weight in settings.interaction_weights.items())
        yield (
            "warning",
            "user_interactions.interaction_type",
            f"{n:,} rows are of the type {name!r}, which has no weight; they are not used.",
            f"RECO_INTERACTION_WEIGHTS={weights},{name}=0.5 (or another weight)" if name else None,
        )


def _times(connection: sa.Connection, settings: Settings, now: datetime) -> Iterator[Found]:
    row = connection.execute(
        sa.text(
            "SELECT count(*) AS n, count(*) FILTER (WHERE created_at IS NULL) AS none, "
            "count(*) FILTER (WHERE created_at > :now) AS future, "
            "count(*) FILTER (WHERE created_at < :start) AS early, "
            "max(created_at) FILTER (WHERE created_at <= :now) AS newest FROM user_interactions"
        ),
        {"now": now, "start": f"{settings.start_date} 00:00:00+00"},
    ).one()
    subject = "user_interactions.created_at"
    if not row.n:
        fix = "Let the app write them, load a log with `reco import FILE`, or try things out with `reco seed`"
        yield ("warning", "user_interactions", "There are no interactions yet.", fix)
        return
    yield ("ok", "user_interactions", f"{row.n:,} interactions, the newest of {_at(row.newest)}.", None)
    if row.none:
        fix = "DELETE FROM user_interactions WHERE created_at IS NULL;"
        yield ("warning", subject, f"{row.none:,} rows have none and belong to no day.", fix)
    if row.future:
        yield (
            "warning",
            subject,
            f"{row.future:,} rows lie in the future; their day reads them when it is over. A local time "
            "stored without a zone is the usual cause.",
            "Look at them: SELECT * FROM user_interactions WHERE created_at > now();",
        )
    if row.early:
        yield (
            "note",
            subject,
            f"{row.early:,} rows lie before RECO_START_DATE ({settings.start_date}); no partition holds "
            "them.",
            "Set RECO_START_DATE to an earlier date to use them.",
        )


def _duplicates(connection: sa.Connection) -> Iterator[Found]:
    n = connection.scalar(
        sa.text(
            "SELECT coalesce(sum(n - 1), 0) FROM (SELECT count(*) AS n FROM user_interactions "
            "GROUP BY user_id, post_id, interaction_type, created_at HAVING count(*) > 1) AS repeated"
        )
    )
    if n:
        yield (
            "note",
            "user_interactions",
            f"{int(n):,} rows repeat another one in user, post, type and time. They count as repeats, of "
            "which at most RECO_MAX_REPEATS matter.",
            "Let the client send an id with each event: the same id is stored once.",
        )


def _count(connection: sa.Connection, tail: str, **parameters: Any) -> int:
    return int(connection.scalar(sa.text(f"SELECT count(*) {tail}"), parameters) or 0)


def _at(instant: datetime | None) -> str:
    return f"{instant:%Y-%m-%d %H:%M} UTC" if instant else "no past time"
