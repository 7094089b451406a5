"""Interactions out of PostgreSQL into one Parquet file per UTC day, in one scan.

The rows come through ADBC as Arrow batches, so that memory stays bounded and no Python object is
made per row. The server sorts by (created_at, id); a rerun over unchanged rows gives the same bytes.
"""

import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from reco_assets.errors import BadInput, DatabaseBusy, DatabaseUnreachable, SchemaError
from reco_assets.settings import Settings
from reco_assets.store.adoption import relation_columns
from reco_assets.store.database import (
    connect_with_retry,
    create_engine_for,
    native_url,
    pauses,
    translated,
)
from reco_assets.store.day_files import DayWriter, day_path, day_schema, explained_storage_errors

if TYPE_CHECKING:
    import pyarrow as pa

FUTURE: Final = "created_at in the future"
UNKNOWN_USER: Final = "unknown user"
UNKNOWN_POST: Final = "unknown post"
_DAY_US = 86_400_000_000
_CANONICAL: Final = (
    "({0} LIKE '________-____-____-____-____________' AND translate({0}, '0123456789abcdef', '') = '----')"
)
"""A UUID as text ids must spell it: one id has one spelling, or joins would miss it.

Says the same as a regular expression in a third of the time, which is most of the scan's.
"""


@dataclass(frozen=True)
class DayExtract:
    """One extracted day.

    Attributes:
        n_rows: Rows in the file.
        rejected: reason → rows left out, such as `unknown type 'wave'`, `user_id is null` or `unknown user`,
            which the table `users` does not have: only foreign keys keep rows of deleted users away.
        first: Earliest `created_at` in the file; None if it has no rows.
        last: The latest one.
        sha256: Digest of the file, in hexadecimal.
    """

    day: date
    path: Path
    n_rows: int
    sha256: str
    rejected: Mapping[str, int] = field(default_factory=dict)
    first: datetime | None = None
    last: datetime | None = None


def extract_interactions(
    settings: Settings,
    start: date,
    end: date,
    directory: Path,
    interaction_types: Collection[str],
    *,
    now: datetime | None = None,
) -> list[DayExtract]:
    """Write the days from `start` up to but without `end`, each whole or not at all.

    A lost connection starts the scan again (RECO_CONNECTION_RETRIES).

    Args:
        settings: For the database.
        start: First day, UTC.
        end: The day after the last.
        directory: Made if absent.
        interaction_types: The known ones; rows of others are rejected and counted.
        now: Rows after it are rejected; the clock's time by default.

    Raises:
        BadInput: No day between `start` and `end`.
        StorageFull: No space; finished days stay, the day at hand keeps its previous file.
        StorageUnwritable: `directory` cannot be made or written to; likewise.
        SchemaError: No table `user_interactions`, `users` or `posts`; run `reco migrate`.
        DatabaseUnreachable, DatabaseBusy: see `database.translated`.
    """
    if start >= end:
        raise BadInput(f"No day to extract: the range starts on {start} and ends before {end}.")
    with explained_storage_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    engine = create_engine_for(settings, application_name="reco-extract")
    try:
        with connect_with_retry(engine) as connection:
            tables = relation_columns(connection)
        for name in ("user_interactions", "users", "posts"):
            if name not in tables:
                raise SchemaError(f"The table {name} is not there. Run `reco migrate`.")
        query = _query(tables["user_interactions"], start, end, interaction_types, now or datetime.now(UTC))
        for pause in pauses(engine):
            try:
                with translated(engine):
                    return _scan(settings, query, start, end, directory)
            except DatabaseUnreachable:
                if pause is None:
                    raise
                time.sleep(pause)
    finally:
        engine.dispose()
    raise AssertionError("unreachable")


def _query(columns: Mapping[str, str], start: date, end: date, types: Collection[str], now: datetime) -> str:
    """The scan, with the reason for which a row is rejected, or null.

    ADBC streams through COPY only without parameters, so psycopg quotes the values into the text.
    """
    from psycopg import sql

    def as_uuid(column: str) -> sql.Composable:
        name = sql.Identifier(column)
        if columns[column] == "uuid":
            return sql.SQL("i.{}").format(name)
        return sql.SQL(f"CASE WHEN {_CANONICAL} THEN {{0}}::uuid END").format(sql.SQL("i.{}").format(name))

    def malformed(column: str) -> sql.Composable:
        if columns[column] == "uuid":
            return sql.SQL("")
        return sql.SQL(f"WHEN NOT {_CANONICAL} THEN {{1}}").format(
            sql.SQL("i.{}").format(sql.Identifier(column)),
            sql.Literal(f"{column} is not a UUID in lower case"),
        )

    query = sql.SQL(
        "SELECT {id} AS id, {user} AS user_id, {post} AS post_id, "
        "i.interaction_type::text AS interaction_type, i.created_at::timestamptz AS created_at, "
        "CASE {bad_id} WHEN i.user_id IS NULL THEN 'user_id is null' {bad_user} "
        "WHEN NOT EXISTS (SELECT FROM users u WHERE u.id = i.user_id) THEN {no_user} "
        "WHEN i.post_id IS NULL THEN 'post_id is null' {bad_post} "
        "WHEN NOT EXISTS (SELECT FROM posts p WHERE p.id = i.post_id) THEN {no_post} "
        "WHEN i.interaction_type IS NULL THEN 'interaction_type is null' "
        "WHEN NOT i.interaction_type::text = ANY({types}::text[]) "
        "THEN 'unknown type ' || quote_literal(i.interaction_type::text) "
        "WHEN i.created_at > {now} THEN {future} END AS reason "
        "FROM user_interactions i WHERE i.created_at >= {start} AND i.created_at < {end} "
        "ORDER BY i.created_at, {order}"
    ).format(
        id=as_uuid("id"),
        user=as_uuid("user_id"),
        post=as_uuid("post_id"),
        bad_id=malformed("id"),
        bad_user=malformed("user_id"),
        bad_post=malformed("post_id"),
        no_user=sql.Literal(UNKNOWN_USER),
        no_post=sql.Literal(UNKNOWN_POST),
        types=sql.Literal(sorted(types)),
        now=sql.Literal(now),
        future=sql.Literal(FUTURE),
        start=sql.Literal(_midnight(start)),
        end=sql.Literal(_midnight(end)),
        order=sql.SQL("i.id" if columns["id"] == "uuid" else 'i.id COLLATE "C"'),
    )
    return query.as_string(None)


def _scan(settings: Settings, query: str, start: date, end: date, directory: Path) -> list[DayExtract]:
    from adbc_driver_postgresql import dbapi

    days = [start + timedelta(days=offset) for offset in range((end - start).days)]
    extracts: list[DayExtract] = []
    with ExitStack() as stack:
        connection = stack.enter_context(dbapi.connect(native_url(settings, application_name="reco-extract")))
        cursor = stack.enter_context(connection.cursor())
        cursor.execute("SET work_mem = '64MB'")  # the sort; a larger one spills to the server's disk
        cursor.execute(query)
        pieces = _split_by_day(_batches(cursor.fetch_record_batch()))
        piece = next(pieces, None)
        for day in days:
            writer = DayWriter(day_path(directory, day))
            rejected: Counter[str] = Counter()
            try:
                while piece is not None and piece[0] == day:
                    _take(piece[1], writer, rejected)
                    piece = next(pieces, None)
                digest = writer.finish()
            except BaseException:
                writer.discard()
                raise
            extracts.append(
                DayExtract(
                    day,
                    writer.path,
                    writer.n_rows,
                    digest,
                    dict(sorted(rejected.items())),
                    writer.first,
                    writer.last,
                )
            )
    return extracts


def _batches(reader: Any) -> Iterator["pa.RecordBatch"]:
    """The batches of a stream, whose errors are Arrow's: the driver's words without its codes."""
    import pyarrow as pa

    while True:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            return
        except (OSError, pa.ArrowException) as error:
            what = f"The scan of user_interactions broke off: {' '.join(str(error).split())}."
            if "canceling statement" in str(error):
                raise DatabaseBusy(f"{what} Raise RECO_STATEMENT_TIMEOUT_S or extract fewer days.") from error
            raise DatabaseUnreachable(f"{what} Days that were finished stay; run it again.") from error
        yield batch


def _split_by_day(batches: Iterator["pa.RecordBatch"]) -> Iterator[tuple[date, "pa.RecordBatch"]]:
    """The batches cut where the UTC day changes; the rows come sorted by time."""
    import numpy as np

    for batch in batches:
        if batch.num_rows == 0:
            continue
        micros = batch.column("created_at").cast("int64").to_numpy()
        day_numbers = micros // _DAY_US
        cuts = [0, *(np.flatnonzero(np.diff(day_numbers)) + 1).tolist(), batch.num_rows]
        for begin, stop in pairwise(cuts):
            day = date(1970, 1, 1) + timedelta(days=int(day_numbers[begin]))
            yield day, batch.slice(begin, stop - begin)


def _take(batch: "pa.RecordBatch", writer: DayWriter, rejected: Counter[str]) -> None:
    """Write the good rows, count the others."""
    import pyarrow as pa
    import pyarrow.compute as pc

    reasons = batch.column("reason")
    if reasons.null_count < batch.num_rows:
        for counted in pc.value_counts(reasons.drop_null()).to_pylist():
            rejected[counted["values"]] += counted["counts"]
        batch = batch.filter(reasons.is_null())
    if batch.num_rows == 0:
        return
    schema = day_schema()
    columns = []
    for wanted in schema:
        column = batch.column(wanted.name)
        column = column.storage if isinstance(column, pa.ExtensionArray) else column
        columns.append(column.cast(wanted.type))
    writer.write(pa.record_batch(columns, schema=schema))


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
