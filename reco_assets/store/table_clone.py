"""Make `user_recommendations_next` what `user_recommendations` is, deployers' additions included.

The definitions are read from the catalogue of the live table, not from our schema: an index, a grant
or a column that a deployer added must survive the nightly swap. The server composes the DDL with
`format(… %I …)`, so no identifier is quoted in Python.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Final

import sqlalchemy as sa

from reco_assets.errors import DatabaseBusy, SchemaError

LIVE: Final = "user_recommendations"
NEXT: Final = "user_recommendations_next"
REPLACED: Final = "user_recommendations_replaced"

_INDEXES = """
SELECT c.relname AS name, c.oid::regclass::text AS identity, pg_get_indexdef(i.indexrelid) AS definition,
       format(' ON %I.%I USING ', n.nspname, t.relname) AS target, i.indisunique AS is_unique,
       con.contype::text AS kind, i.indisreplident AS is_identity,
       concat(CASE WHEN con.condeferrable THEN ' DEFERRABLE' END,
              CASE WHEN con.condeferred THEN ' INITIALLY DEFERRED' END) AS deferral
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_class t ON t.oid = i.indrelid
JOIN pg_namespace n ON n.oid = t.relnamespace
LEFT JOIN pg_constraint con ON con.conindid = i.indexrelid AND con.conrelid = t.oid
     AND con.contype IN ('p', 'u')
WHERE t.oid = 'user_recommendations'::regclass AND i.indisvalid
ORDER BY i.indexrelid
"""
# Those that cost most to build first: rows come sorted by user, so what leads with another column is sorted
# from scratch.
_DEAREST_FIRST = """
SELECT i.indexrelid::regclass::text FROM pg_index i
JOIN pg_class t ON t.oid = i.indrelid
JOIN pg_class c ON c.oid = i.indexrelid
LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = i.indkey[0]
LEFT JOIN pg_stats s ON s.schemaname = t.relnamespace::regnamespace::text AND s.tablename = t.relname
     AND s.attname = a.attname
WHERE t.oid = 'user_recommendations'::regclass
ORDER BY round(abs(coalesce(s.correlation, 1))::numeric, 1), c.relpages DESC, i.indexrelid
"""
_BUILD_MEMORY = """
SELECT set_config('maintenance_work_mem', greatest(setting::bigint, :kilobytes)::text || 'kB', true)
FROM pg_settings WHERE name = 'maintenance_work_mem'
"""
_BUILD_MEMORY_KB = 256 * 1024
"""For each connection that builds: five million rows are sorted in it, more spill to the server's disk."""
_NEXT_ID = sa.text("SELECT 'user_recommendations_next'::regclass::oid")
_DEFAULTS = """
SELECT a.attname AS name, pg_get_expr(d.adbin, d.adrelid) AS default_value FROM pg_attribute a
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = 'user_recommendations_next'::regclass AND a.attname = ANY(:names)
"""
_FOREIGN_KEYS = """
SELECT conname AS name,
       format('ALTER TABLE user_recommendations_next ADD CONSTRAINT %I %s NOT VALID', conname,
              regexp_replace(pg_get_constraintdef(oid), ' NOT VALID$', '')) AS ddl,
       format('ALTER TABLE user_recommendations_next VALIDATE CONSTRAINT %I', conname) AS validation
FROM pg_constraint
WHERE conrelid = 'user_recommendations'::regclass AND contype = 'f'
ORDER BY conname
"""
_OPTIONS = """
SELECT format('ALTER TABLE user_recommendations_next SET (%s)', array_to_string(reloptions, ', '))
FROM pg_class WHERE oid = 'user_recommendations'::regclass AND reloptions IS NOT NULL
"""
_AUTOVACUUM = """
SELECT format('ALTER TABLE user_recommendations_next %s', coalesce(
    (SELECT format('SET (%s)', option) FROM pg_class, unnest(reloptions) option
     WHERE oid = 'user_recommendations'::regclass AND option LIKE 'autovacuum_enabled=%'),
    'RESET (autovacuum_enabled)'))
"""
# Default privileges may have granted on the new table what the live one does not grant: first revoke.
_ATTRIBUTES = """
WITH live AS (SELECT * FROM pg_class WHERE oid = 'user_recommendations'::regclass),
     next AS (SELECT * FROM pg_class WHERE oid = 'user_recommendations_next'::regclass),
     granted AS (
         SELECT acl.privilege_type, '' AS of_column, acl.grantee, acl.is_grantable, live.relowner
         FROM live, aclexplode(live.relacl) acl
         UNION ALL
         SELECT acl.privilege_type, format(' (%I)', a.attname), acl.grantee, acl.is_grantable, live.relowner
         FROM live JOIN pg_attribute a ON a.attrelid = live.oid, aclexplode(a.attacl) acl
     )
SELECT 1, format('ALTER TABLE user_recommendations_next OWNER TO %I', pg_get_userbyid(live.relowner))
FROM live, next WHERE live.relowner <> next.relowner
UNION ALL
SELECT DISTINCT 2, format('REVOKE ALL ON user_recommendations_next FROM %s',
                 CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE acl.grantee::regrole::text END)
FROM next, live, aclexplode(next.relacl) acl WHERE acl.grantee NOT IN (live.relowner, next.relowner)
UNION ALL
SELECT 3, format('GRANT %s%s ON user_recommendations_next TO %s%s', privilege_type, of_column,
                 CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END,
                 CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END)
FROM granted WHERE grantee <> relowner
UNION ALL
SELECT 4, format('COMMENT ON TABLE user_recommendations_next IS %L', obj_description(live.oid, 'pg_class'))
FROM live WHERE obj_description(live.oid, 'pg_class') IS NOT NULL
UNION ALL
SELECT 5, CASE relreplident WHEN 'f' THEN 'ALTER TABLE user_recommendations_next REPLICA IDENTITY FULL'
                            ELSE 'ALTER TABLE user_recommendations_next REPLICA IDENTITY NOTHING' END
FROM live WHERE relreplident IN ('f', 'n')
ORDER BY 1, 2
"""
# What hangs on the table itself and would stay behind on the replaced one.
_DEPENDENTS = """
SELECT pg_describe_object(d.classid, d.objid, d.objsubid)
FROM pg_depend d
LEFT JOIN pg_trigger t ON d.classid = 'pg_trigger'::regclass AND t.oid = d.objid
WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = 'user_recommendations'::regclass
  AND d.classid IN ('pg_rewrite'::regclass, 'pg_proc'::regclass, 'pg_policy'::regclass,
                    'pg_trigger'::regclass, 'pg_publication_rel'::regclass)
  AND (t.oid IS NULL OR NOT t.tgisinternal)
UNION
SELECT 'row level security' FROM pg_class
WHERE oid = 'user_recommendations'::regclass AND (relrowsecurity OR relforcerowsecurity)
ORDER BY 1
"""
_REFERRING = """
SELECT format('%s (constraint %I)', conrelid::regclass, conname) FROM pg_constraint
WHERE confrelid = 'user_recommendations'::regclass AND contype = 'f' ORDER BY 1
"""


@dataclass(frozen=True)
class ForeignKey:
    """A foreign key to add unvalidated, and the statement that validates it."""

    ddl: str
    validation: str


def create_next(connection: sa.Connection) -> None:
    """An empty table with the live one's columns, defaults, checks and storage options; no index yet."""
    run(connection, f"CREATE TABLE {NEXT} (LIKE {LIVE} INCLUDING ALL EXCLUDING INDEXES)")
    for (ddl,) in connection.execute(sa.text(_OPTIONS)).all():
        run(connection, ddl)
    # An autovacuum of a table that has just been filled would hold up every step that follows.
    run(connection, f"ALTER TABLE {NEXT} SET (autovacuum_enabled = off)")


@contextmanager
def constant_columns(connection: sa.Connection, values: Mapping[str, Any]) -> Iterator[None]:
    """Within the block, rows that do not name these columns get these values.

    What all rows share need not travel with each of them, nor be parsed for each of them.
    """
    from psycopg import sql

    driver = _driver(connection)

    def set_default(name: str, expression: sql.Composable | None) -> None:
        change = (
            sql.SQL("DROP DEFAULT") if expression is None else sql.SQL("SET DEFAULT {}").format(expression)
        )
        statement = sql.SQL("ALTER TABLE {} ALTER {} {}")
        driver.execute(statement.format(sql.Identifier(NEXT), sql.Identifier(name), change))

    before: dict[str, str | None] = {}
    for row in connection.execute(sa.text(_DEFAULTS), {"names": [*values]}):
        before[row.name] = row.default_value
    for name, value in values.items():
        set_default(name, sql.Literal(value))
    yield
    for name, expression in before.items():
        set_default(name, None if expression is None else sql.SQL(expression))


def build_indexes(connection: sa.Connection, helpers: Sequence[sa.Connection] = ()) -> list[str]:
    """Every index and unique constraint, under temporary names: names of indexes are unique per schema.

    Each index is a transaction of its own, on whichever connection is free. The rows must be committed.
    Returns the names they are to have, for `rename_into_place`.

    Raises:
        DatabaseBusy: Somebody else replaced the table meanwhile.
    """
    with connection.begin():
        indexes = _indexes(connection)
        table_id = connection.scalar(_NEXT_ID)
        order = list(connection.scalars(sa.text(_DEAREST_FIRST)))
    todo: SimpleQueue[int] = SimpleQueue()
    for position in sorted(range(len(indexes)), key=lambda each: order.index(indexes[each].identity)):
        todo.put(position)

    def build(builder: sa.Connection) -> None:
        with suppress(Empty):
            while True:
                position = todo.get_nowait()
                _build_index(builder, table_id, indexes[position], position, alone=not helpers)

    with ThreadPoolExecutor(max(1, len(helpers)), thread_name_prefix="index") as pool:
        others = [pool.submit(build, helper) for helper in helpers]
        try:
            build(connection)
        except BaseException:
            with suppress(Empty):
                while True:
                    todo.get_nowait()
            for helper in helpers:
                with suppress(Exception):
                    _driver(helper).cancel()
            raise
        for other in others:
            other.result()
    with connection.begin():
        for position, index in enumerate(indexes):
            _make_constraint(connection, index, _temporary(NEXT, position))
    return [index.name for index in indexes]


def _build_index(
    connection: sa.Connection, table_id: int, index: Any, position: int, *, alone: bool = True
) -> None:
    unique = "UNIQUE " if index.is_unique else ""
    definition = index.definition.partition(index.target)[2]
    with connection.begin():
        allow_build_memory(connection)
        read_without_workers(connection)
        if not alone:  # several at a time keep the server busy; workers for each cost more than they gain
            run(connection, "SET LOCAL max_parallel_maintenance_workers = 0")
        # A helper does not hold the publication's advisory lock: should that be lost, the next publisher
        # may have made a table of the same name.
        run(connection, f"LOCK TABLE {NEXT} IN SHARE MODE")
        if connection.scalar(_NEXT_ID) != table_id:
            raise DatabaseBusy(f"{NEXT} was replaced by another publication. Run this one again.")
        run(connection, f"CREATE {unique}INDEX {_temporary(NEXT, position)} ON {NEXT} USING {definition}")


def read_without_workers(connection: sa.Connection) -> None:
    """Let the transaction read pages by itself: a table that has just been written is in memory.

    PostgreSQL 18 hands reads to workers, which costs more than it gains when nothing has to be waited for.
    """
    run(connection, "SET LOCAL effective_io_concurrency = 0")
    run(connection, "SET LOCAL maintenance_io_concurrency = 0")


def allow_build_memory(connection: sa.Connection) -> None:
    """Let the transaction sort in at least 256 MB when it builds an index."""
    connection.execute(sa.text(_BUILD_MEMORY), {"kilobytes": _BUILD_MEMORY_KB})


def _make_constraint(connection: sa.Connection, index: Any, name: str) -> None:
    if index.kind is not None:
        kind = "PRIMARY KEY" if index.kind == "p" else "UNIQUE"
        run(
            connection,
            f"ALTER TABLE {NEXT} ADD CONSTRAINT {name} {kind} USING INDEX {name}{index.deferral}",
        )
    if index.is_identity:
        run(connection, f"ALTER TABLE {NEXT} REPLICA IDENTITY USING INDEX {name}")


def analyze(connection: sa.Connection) -> None:
    """Statistics from a third of the usual sample, 9,000 rows: lists are looked up by user."""
    read_without_workers(connection)
    run(connection, "SET LOCAL default_statistics_target = 30")
    run(connection, f"ANALYZE {NEXT}")


def foreign_keys(connection: sa.Connection) -> list[ForeignKey]:
    """Those of the live table, phrased for the next one. Their names are free: unique per table only."""
    rows = connection.execute(sa.text(_FOREIGN_KEYS))
    return [ForeignKey(row.ddl, row.validation) for row in rows]


def validate(connection: sa.Connection, keys: Sequence[ForeignKey], *, untouched: bool) -> None:
    """Check every row of the next table against its foreign keys, in the caller's transaction.

    Args:
        connection: in a transaction.
        keys: what to check.
        untouched: hardly a row was deleted since the table was analysed. Otherwise an index-only scan would
            have to visit page after page, which the planner does not know yet.
    """
    read_without_workers(connection)
    if not untouched:
        run(connection, "SET LOCAL enable_indexscan = off")
        run(connection, "SET LOCAL enable_indexonlyscan = off")
    for key in keys:
        run(connection, key.validation)


def copy_attributes(connection: sa.Connection) -> None:
    """Owner, grants, comment and replica identity."""
    for _, ddl in connection.execute(sa.text(_ATTRIBUTES)).all():
        run(connection, ddl)


def dependents(connection: sa.Connection) -> list[str]:
    """Views, triggers, policies, publications and functions that a swap would leave behind.

    Raises:
        SchemaError: A foreign key of somebody else's points at the table.
    """
    if referring := list(connection.scalars(sa.text(_REFERRING))):
        raise SchemaError(
            f"Foreign keys point at {LIVE}: {', '.join(referring)}. Its rows are replaced by every "
            "publication, so nothing can refer to them. Drop these constraints; refer to user_id and post_id."
        )
    return list(connection.scalars(sa.text(_DEPENDENTS)))


def rename_into_place(connection: sa.Connection, names: list[str]) -> None:
    """Live → replaced, next → live, with the indexes; the caller holds both tables exclusively.

    Raises:
        DatabaseBusy: Indexes were made or dropped since the build.
    """
    if (now := [index.name for index in _indexes(connection)]) != names:
        raise DatabaseBusy(
            f"The indexes of {LIVE} changed during the publication, from {names} to {now}. Run it again."
        )
    quote = connection.dialect.identifier_preparer.quote
    run(connection, connection.scalar(sa.text(_AUTOVACUUM)) or "")
    run(connection, f"ALTER TABLE {LIVE} RENAME TO {REPLACED}")
    run(connection, f"ALTER TABLE {NEXT} RENAME TO {LIVE}")
    for position, name in enumerate(names):
        run(connection, f"ALTER INDEX {quote(name)} RENAME TO {_temporary(REPLACED, position)}")
        run(connection, f"ALTER INDEX {_temporary(NEXT, position)} RENAME TO {quote(name)}")


def copy_in_place(connection: sa.Connection) -> None:
    """Replace the rows and keep the table: for dependents that a rename would leave behind."""
    columns = connection.scalar(
        sa.text(
            "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute "
            "WHERE attrelid = 'user_recommendations'::regclass AND attnum > 0 "
            "AND NOT attisdropped AND attgenerated = ''"
        )
    )
    run(connection, "DELETE FROM user_recommendations")
    run(connection, f"INSERT INTO {LIVE} ({columns}) SELECT {columns} FROM {NEXT}")  # noqa: S608 (quoted above)


def run(connection: sa.Connection, statement: str) -> None:
    """Execute as it stands: neither `:` nor `%` in a definition is a parameter."""
    _driver(connection).execute(statement)


def _driver(connection: sa.Connection) -> Any:
    return connection.connection.driver_connection


def _indexes(connection: sa.Connection) -> list[Any]:
    return list(connection.execute(sa.text(_INDEXES)))


def _temporary(table: str, position: int) -> str:
    return f"{table}_{position}"
