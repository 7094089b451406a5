"""Interactions out of PostgreSQL into one Parquet file per UTC day, in one scan.

The rows come through ADBC as Arrow batches, so that memory stays bounded (some 16 MB a batch, three at
a time, and a row group of 131,072 rows) and no Python object is made per row. The server only sorts them,
by (created_at, id); what is wrong with a row is found here. A rerun over unchanged rows gives the same
bytes.
"""

import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from reco_assets.errors import BadInput, DatabaseUnreachable, SchemaError
from reco_assets.events import POST_ID, USER_ID
from reco_assets.settings import Settings
from reco_assets.store.adoption import relation_columns
from reco_assets.store.arrow_scan import ahead, arrow_batches, arrow_cursor, plain_ids
from reco_assets.store.database import (
    connect_with_retry,
    create_engine_for,
    native_url,
    pauses,
    translated,
)
from reco_assets.store.day_files import (
    DayWriter,
    day_path,
    day_schema,
    explained_storage_errors,
    sync_directory,
)
from reco_assets.store.interaction_rows import REASON, RowJudge

if TYPE_CHECKING:
    import pyarrow as pa

_DAY_US = 86_400_000_000
_REFERENCED: Final = {USER_ID: "users", POST_ID: "posts"}
_FOREIGN_KEYS = """
SELECT a.attname::text, t.name FROM pg_constraint c
JOIN (VALUES ('users'), ('posts')) t (name) ON c.confrelid = to_regclass(t.name)
JOIN pg_attribute a ON a.attrelid = c.conrelid AND c.conkey = ARRAY[a.attnum]
JOIN pg_attribute r ON r.attrelid = c.confrelid AND c.confkey = ARRAY[r.attnum] AND r.attname = 'id'
WHERE c.conrelid = to_regclass('user_interactions') AND c.contype = 'f' AND c.convalidated
"""
# ADBC streams through COPY only without parameters, so psycopg quotes the values into the text.
_ROWS = """
SELECT i.id, i.user_id, i.post_id, i.interaction_type::text AS interaction_type,
       i.created_at::timestamptz AS created_at
FROM user_interactions i WHERE i.created_at >= {start} AND i.created_at < {end}
ORDER BY i.created_at, {id}
"""
_UNKNOWN = """
SELECT DISTINCT i.{column} AS id FROM user_interactions i
WHERE i.created_at >= {start} AND i.created_at < {end}
  AND i.{column} IS NOT NULL AND NOT EXISTS (SELECT FROM {table} t WHERE t.id = i.{column})
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
            queries = _queries(connection, start, end)
        types, now = frozenset(interaction_types), now or datetime.now(UTC)
        for pause in pauses(engine):
            try:
                with translated(engine):
                    return _scan(settings, queries, types, now, start, end, directory)
            except DatabaseUnreachable:
                if pause is None:
                    raise
                time.sleep(pause)
    finally:
        engine.dispose()
    raise AssertionError("unreachable")


@dataclass(frozen=True)
class _Queries:
    """The scan, and what finds the ids in it that the app does not have, by column."""

    rows: str
    unknown: Mapping[str, str]


def _queries(connection: sa.Connection, start: date, end: date) -> _Queries:
    from psycopg import sql

    tables = relation_columns(connection)
    for name in ("user_interactions", "users", "posts"):
        if name not in tables:
            raise SchemaError(f"The table {name} is not there. Run `reco migrate`.")
    # Where a foreign key keeps rows of deleted users away there is nothing to look for.
    held = {tuple(row) for row in connection.execute(sa.text(_FOREIGN_KEYS))}
    span = {"start": sql.Literal(_midnight(start)), "end": sql.Literal(_midnight(end))}
    id_is_uuid = tables["user_interactions"]["id"] == "uuid"
    rows = sql.SQL(_ROWS).format(**span, id=sql.SQL("i.id" if id_is_uuid else 'i.id COLLATE "C"'))
    return _Queries(
        rows.as_string(None),
        {
            column: sql.SQL(_UNKNOWN)
            .format(**span, column=sql.Identifier(column), table=sql.Identifier(table))
            .as_string(None)
            for column, table in _REFERENCED.items()
            if (column, table) not in held
        },
    )


def _scan(
    settings: Settings,
    queries: _Queries,
    types: Collection[str],
    now: datetime,
    start: date,
    end: date,
    directory: Path,
) -> list[DayExtract]:
    what, hint = "The scan of user_interactions", "Days that were finished stay; run it again."
    with arrow_cursor(native_url(settings, application_name="reco-extract")) as cursor:
        unknown = {
            column: _ids(arrow_batches(cursor, query, what=what, hint=hint))
            for column, query in queries.unknown.items()
        }
        judge = RowJudge(types, now, unknown)
        batches = arrow_batches(cursor, queries.rows, what=what, hint=hint)
        with closing(ahead(map(judge.judged, batches))) as judged:
            return _write_days(judged, start, end, directory)


def _ids(batches: Iterator["pa.RecordBatch"]) -> "pa.Array":
    import pyarrow as pa

    found = [plain_ids(batch.column("id")) for batch in batches]
    return pa.concat_arrays(found) if found else pa.nulls(0)


def _write_days(
    batches: Iterator["pa.RecordBatch"], start: date, end: date, directory: Path
) -> list[DayExtract]:
    """One file after the other; while one is put on disk for good, the next is written."""
    extracts: list[Future[DayExtract]] = []
    pieces = _split_by_day(batches)
    piece = next(pieces, None)
    with ThreadPoolExecutor(1, thread_name_prefix="finish-day") as finisher:
        for day in (start + timedelta(days=offset) for offset in range((end - start).days)):
            writer = DayWriter(day_path(directory, day))
            rejected: Counter[str] = Counter()
            try:
                while piece is not None and piece[0] == day:
                    _take(piece[1], writer, rejected)
                    piece = next(pieces, None)
                if extracts:
                    extracts[-1].result()  # at most one waits; a full disk ends the range at once
            except BaseException:
                writer.discard()
                raise
            extracts.append(finisher.submit(_finish, day, writer, rejected))
        finished = [extract.result() for extract in extracts]
    sync_directory(directory)
    return finished


def _finish(day: date, writer: DayWriter, rejected: Counter[str]) -> DayExtract:
    try:
        digest = writer.finish()
    except BaseException:
        writer.discard()
        raise
    reasons = dict(sorted(rejected.items()))
    return DayExtract(day, writer.path, writer.n_rows, digest, reasons, writer.first, writer.last)


def _split_by_day(batches: Iterator["pa.RecordBatch"]) -> Iterator[tuple[date, "pa.RecordBatch"]]:
    """The batches cut where the UTC day changes; the rows come sorted by time."""
    import numpy as np

    for batch in batches:
        micros = batch.column("created_at").cast("int64").to_numpy()
        day_numbers = micros // _DAY_US
        cuts = [0, *(np.flatnonzero(np.diff(day_numbers)) + 1).tolist(), batch.num_rows]
        for begin, stop in pairwise(cuts):
            day = date(1970, 1, 1) + timedelta(days=int(day_numbers[begin]))
            yield day, batch.slice(begin, stop - begin)


def _take(batch: "pa.RecordBatch", writer: DayWriter, rejected: Counter[str]) -> None:
    """Write the good rows, count the others."""
    import pyarrow.compute as pc

    reasons = batch.column(REASON)
    if reasons.null_count < batch.num_rows:
        for counted in pc.value_counts(reasons.drop_null()).to_pylist():
            rejected[counted["values"]] += counted["counts"]
        batch = batch.filter(reasons.is_null())
    if batch.num_rows:
        writer.write(batch.select(day_schema().names))


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
