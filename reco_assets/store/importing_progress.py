"""How far an unfinished import got, recorded in the transaction that loads each chunk.

The table is there only while some import is unfinished. It is no part of the schema: whoever imports
makes it and takes it away again.
"""

from typing import Final

import sqlalchemy as sa

PROGRESS_TABLE: Final = "reco_import_progress"


def can_record(connection: sa.Connection) -> bool:
    """Whether the role may make the table; without it an import starts over, which adds nothing twice."""
    return bool(connection.scalar(sa.text("SELECT has_schema_privilege(current_schema(), 'CREATE')")))


def rows_done(connection: sa.Connection, fingerprint: str) -> int:
    """The last row that an unfinished run of the same import has committed, 0 if there is none."""
    if connection.scalar(sa.text("SELECT to_regclass(:name)"), {"name": PROGRESS_TABLE}) is None:
        return 0
    statement = sa.text(f"SELECT rows_done FROM {PROGRESS_TABLE} WHERE fingerprint = :fingerprint")  # noqa: S608
    return int(connection.scalar(statement, {"fingerprint": fingerprint}) or 0)


def record(connection: sa.Connection, fingerprint: str, name: str, row: int) -> None:
    """Note, within the transaction that loads them, that rows up to `row` are in."""
    connection.execute(
        sa.text(
            f"CREATE TABLE IF NOT EXISTS {PROGRESS_TABLE} (fingerprint text PRIMARY KEY, file text NOT NULL, "
            "rows_done bigint NOT NULL, updated_at timestamptz NOT NULL DEFAULT now())"
        )
    )
    connection.execute(
        sa.text(
            f"INSERT INTO {PROGRESS_TABLE} (fingerprint, file, rows_done) VALUES (:fingerprint, :file, :row) "  # noqa: S608
            "ON CONFLICT (fingerprint) DO UPDATE SET rows_done = excluded.rows_done, updated_at = now()"
        ),
        {"fingerprint": fingerprint, "file": name, "row": row},
    )


def forget(connection: sa.Connection, fingerprint: str) -> None:
    """The import is complete; the table goes with the last unfinished one."""
    if connection.scalar(sa.text("SELECT to_regclass(:name)"), {"name": PROGRESS_TABLE}) is None:
        return
    connection.execute(
        sa.text(f"DELETE FROM {PROGRESS_TABLE} WHERE fingerprint = :fingerprint"),  # noqa: S608
        {"fingerprint": fingerprint},
    )
    if not connection.scalar(sa.text(f"SELECT EXISTS (SELECT FROM {PROGRESS_TABLE})")):  # noqa: S608
        connection.execute(sa.text(f"DROP TABLE {PROGRESS_TABLE}"))
