"""Loads users, posts and interactions in bulk: binary COPY into temporary tables, then INSERT.

The temporary tables make the load idempotent (`ON CONFLICT DO NOTHING`), fit it to `uuid` and `text`
ids alike, and let the references be checked once per user and post instead of once per row.

A table that is filled for the first time (`filling`) takes the interactions by COPY itself and gets its
indexes afterwards, in the same transaction: keeping indexes up to date row by row is what most of the
time goes into otherwise.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from reco_assets.errors import SchemaError
from reco_assets.store import table_clone
from reco_assets.store.adoption import relation_columns
from reco_assets.store.binary_copy import HEADER, POSTGRES_EPOCH_US, TRAILER, uuid_text
from reco_assets.store.database import sqlstate

Array = npt.NDArray[Any]

_FILLED: Final = {
    "users": {"id", "created_at"},
    "posts": {"id", "author_id", "title", "body", "created_at"},
}


# Whatever would not come back as it was, or needs the primary key meanwhile, rules the shortcut out.
_CAN_REBUILD: Final = """
SELECT t.relkind = 'r' AND pg_has_role(t.relowner, 'USAGE')
   AND NOT EXISTS (SELECT FROM pg_constraint WHERE confrelid = t.oid)
   AND NOT EXISTS (SELECT FROM pg_publication_tables p
                   WHERE p.schemaname = t.relnamespace::regnamespace::text AND p.tablename = t.relname)
   AND NOT EXISTS (
       SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
       LEFT JOIN pg_constraint con ON con.conindid = i.indexrelid AND con.conrelid = t.oid
       WHERE i.indrelid = t.oid
         AND (i.indisreplident OR i.indisclustered OR NOT i.indisvalid OR c.reltablespace <> 0
              OR obj_description(c.oid, 'pg_class') IS NOT NULL
              OR obj_description(con.oid, 'pg_constraint') IS NOT NULL
              OR EXISTS (SELECT FROM pg_depend WHERE refclassid = 'pg_constraint'::regclass
                         AND refobjid = con.oid AND deptype = 'n')))
FROM pg_class t WHERE t.oid = to_regclass('user_interactions')
"""
_INDEXES: Final = """
SELECT i.indisprimary AS is_primary,
       CASE WHEN i.indisprimary THEN format('ALTER TABLE user_interactions DROP CONSTRAINT %I', con.conname)
            ELSE format('DROP INDEX %s', i.indexrelid::regclass) END AS dropping,
       CASE WHEN i.indisprimary
            THEN format('ALTER TABLE user_interactions ADD CONSTRAINT %I %s', con.conname,
                        pg_get_constraintdef(con.oid))
            ELSE pg_get_indexdef(i.indexrelid) END AS making
FROM pg_index i
LEFT JOIN pg_constraint con ON con.conindid = i.indexrelid AND con.conrelid = i.indrelid
     AND con.contype = 'p'
WHERE i.indrelid = to_regclass('user_interactions') AND (i.indisprimary OR NOT i.indisunique)
ORDER BY i.indexrelid
"""
# The lock that a foreign key takes, once per user and post.
_HOLD: Final = """
SELECT count(*) FROM (
    SELECT FROM {table} WHERE id IN (SELECT {column} FROM user_interactions) FOR KEY SHARE) AS held
"""
_REMOVE_DANGLING: Final = """
DELETE FROM user_interactions i WHERE NOT EXISTS (SELECT FROM {table} t WHERE t.id = i.{column})
"""
_REMOVE_REPEATED: Final = """
DELETE FROM user_interactions i
USING (SELECT id, min(ctid) AS kept FROM user_interactions GROUP BY id HAVING count(*) > 1) r
WHERE i.id = r.id AND i.ctid <> r.kept
"""


@dataclass(frozen=True)
class NewUsers:
    """Ids (n, 16) uint8 and created_at (n,) int64 µs; each id once."""

    ids: Array
    created_at: Array


@dataclass(frozen=True)
class NewPosts:
    """Ids and authors (n, 16) uint8, created_at (n,) int64 µs; each id once."""

    ids: Array
    author_ids: Array
    created_at: Array
    titles: Sequence[str]
    bodies: Sequence[str]


@dataclass(frozen=True)
class NewInteractions:
    """Ids (n, 16) uint8, types (n,) as positions in `type_names`, created_at (n,) int64 µs."""

    ids: Array
    user_ids: Array
    post_ids: Array
    types: Array
    type_names: Sequence[str]
    created_at: Array


@dataclass(frozen=True)
class Loaded:
    """Rows that were new."""

    users: int = 0
    posts: int = 0
    interactions: int = 0

    def __add__(self, other: Self) -> "Loaded":
        return Loaded(
            self.users + other.users,
            self.posts + other.posts,
            self.interactions + other.interactions,
        )


class BulkLoader:
    """Loads batches over one connection, each within the caller's transaction.

    Args:
        connection: to a migrated database.
        directly: send interactions straight into their table; only `filling` may ask for it.

    Raises:
        SchemaError: tables are missing, or the app's have required columns that nothing here can fill.
    """

    def __init__(self, connection: sa.Connection, *, directly: bool = False) -> None:
        self._connection = connection
        self._directly = directly
        self._columns = relation_columns(connection)
        for table in ("users", "posts", "user_interactions"):
            if table not in self._columns:
                raise SchemaError(f"The table {table} is not there. Run `reco migrate` first.")
        self._unfillable = {table: _unfillable(connection, table) for table in _FILLED}
        self._skips_triggers = _only_foreign_keys(connection)

    def load(self, users: NewUsers, posts: NewPosts, interactions: NewInteractions) -> Loaded:
        """Insert what is not there yet.

        Posts whose author, and interactions whose user or post is neither there nor new, are left
        out: the app deleted them.
        """
        return Loaded(self._load_users(users), self._load_posts(posts), self.load_interactions(interactions))

    def _load_users(self, users: NewUsers) -> int:
        if not len(users.ids):
            return 0
        self._stage("id uuid, created_at timestamptz", [_uuids(users.ids), _instants(users.created_at)])
        return self._insert("users", {"id": "n.id", "created_at": "n.created_at"})

    def _load_posts(self, posts: NewPosts) -> int:
        if not len(posts.ids):
            return 0
        columns = [
            *(_uuids(posts.ids), _uuids(posts.author_ids), _instants(posts.created_at)),
            *(_texts(posts.titles), _texts(posts.bodies)),
        ]
        self._stage("id uuid, author_id uuid, created_at timestamptz, title text, body text", columns)
        values = {name: f"n.{name}" for name in ("id", "author_id", "title", "body", "created_at")}
        return self._insert("posts", values, {"author_id": "users"})

    def load_interactions(self, interactions: NewInteractions) -> int:
        """Insert them alone; returns how many, of which `filling` may remove some again."""
        if not len(interactions.ids):
            return 0
        names = ("id", "user_id", "post_id", "interaction_type", "created_at")
        ids = (interactions.ids, interactions.user_ids, interactions.post_ids)
        others = [_texts(interactions.type_names, interactions.types), _instants(interactions.created_at)]
        if self._directly:
            types = self._columns["user_interactions"]
            spelled = (_uuids if types[name] == "uuid" else _uuid_texts for name in names)
            self._copy_interactions(
                names, [*(spell(each) for spell, each in zip(spelled, ids, strict=False)), *others]
            )
            return len(interactions.ids)
        columns = [*map(_uuids, ids), *others]
        self._stage(
            "id uuid, user_id uuid, post_id uuid, interaction_type text, created_at timestamptz", columns
        )
        references = {"user_id": "users", "post_id": "posts"}
        return self._insert("user_interactions", {name: f"n.{name}" for name in names}, references)

    def _copy_interactions(self, names: Sequence[str], columns: Sequence["_Field"]) -> None:
        """References are not looked at: `filling` does that, once, at the end."""
        self._connection.execute(sa.text("SET LOCAL session_replication_role = replica"))
        driver: Any = self._connection.connection.driver_connection
        command = f"COPY user_interactions ({', '.join(names)}) FROM STDIN (FORMAT BINARY)"
        with driver.cursor().copy(command) as copy:
            copy.write(binary_rows(columns))
        self._connection.execute(sa.text("SET LOCAL session_replication_role = origin"))

    def _stage(self, definition: str, columns: Sequence["_Field"]) -> None:
        self._connection.execute(sa.text("DROP TABLE IF EXISTS pg_temp.reco_new"))
        self._connection.execute(sa.text(f"CREATE TEMP TABLE reco_new ({definition}) ON COMMIT DROP"))
        driver: Any = self._connection.connection.driver_connection
        with driver.cursor().copy("COPY pg_temp.reco_new FROM STDIN (FORMAT BINARY)") as copy:
            copy.write(binary_rows(columns))
        self._connection.execute(sa.text("ANALYZE pg_temp.reco_new"))

    def _insert(
        self, table: str, values: Mapping[str, str], references: Mapping[str, str] | None = None
    ) -> int:
        """Insert the staged rows; `references` maps a column to the table whose id it names."""
        columns = self._columns[table]
        values = {name: value for name, value in values.items() if name in columns}
        key = _cast("n.id", columns["id"])
        new = f"NOT EXISTS (SELECT FROM {table} t WHERE t.id = {key})"
        if unfillable := self._unfillable.get(table):
            n = self._connection.scalar(sa.text(f"SELECT count(*) FROM pg_temp.reco_new n WHERE {new}"))  # noqa: S608
            if not n:
                return 0
            raise SchemaError(
                f"{n:,} {table} are not in the app's table, and new ones cannot be made here: it requires "
                f"{', '.join(unfillable)}. Create the {table} in the app first, or give those columns a "
                "default."
            )
        joins = []
        for number, (column, target) in enumerate((references or {}).items()):
            if column not in values:
                continue
            wanted = _cast(f"n.{column}", self._columns[target]["id"])
            # The lock that a foreign key takes, once per user and post; with it the per-row check is idle.
            self._connection.execute(
                sa.text(
                    f"SELECT count(*) FROM (SELECT FROM {target} WHERE id IN "  # noqa: S608
                    f"(SELECT {wanted} FROM pg_temp.reco_new n) FOR KEY SHARE) AS held"
                )
            )
            joins.append(f"JOIN {target} r{number} ON r{number}.id = {wanted}")
        selected = ", ".join(_cast(value, columns[name]) for name, value in values.items())
        if self._skips_triggers and references:
            self._connection.execute(sa.text("SET LOCAL session_replication_role = replica"))
        inserted = self._connection.execute(
            sa.text(
                f"INSERT INTO {table} ({', '.join(values)}) SELECT {selected} "  # noqa: S608
                f"FROM pg_temp.reco_new n {' '.join(joins)} ON CONFLICT (id) DO NOTHING"
            )
        ).rowcount
        if self._skips_triggers and references:
            self._connection.execute(sa.text("SET LOCAL session_replication_role = origin"))
        return int(inserted)


@dataclass
class Filling:
    """A load in progress.

    Attributes:
        loader: takes the batches.
        n_removed: after the block, how many of the interactions taken were taken out again: they repeat
            another one, or the app deleted their user or post meanwhile.
    """

    loader: BulkLoader
    n_removed: int = 0


def can_fill(connection: sa.Connection) -> bool:
    """Whether `user_interactions` is empty, ours to alter, and gets back whatever is taken from it."""
    empty = not connection.scalar(sa.text("SELECT EXISTS (SELECT FROM user_interactions)"))
    return empty and bool(connection.scalar(sa.text(_CAN_REBUILD))) and _only_foreign_keys(connection)


@contextmanager
def filling(connection: sa.Connection, *, go_on: bool = False) -> Iterator[Filling]:
    """Leave the indexes of `user_interactions` to the end of the block, if the table `can_fill`.

    From the first index to the commit, others wait for the table. DDL is transactional: whoever fails gets
    the indexes back by rolling back.

    Args:
        connection: in a transaction.
        go_on: the caller has just filled the table, which is therefore not empty any more.
    """
    if not (go_on or can_fill(connection)):
        yield Filling(BulkLoader(connection))
        return
    indexes = connection.execute(sa.text(_INDEXES)).all()
    for index in indexes:
        table_clone.run(connection, index.dropping)
    under_way = Filling(BulkLoader(connection, directly=True))
    yield under_way
    table_clone.allow_build_memory(connection)
    under_way.n_removed = _remove_dangling(connection)
    for index in indexes:
        under_way.n_removed += _make_index(connection, index)


def _make_index(connection: sa.Connection, index: Any) -> int:
    """Make it again; returns how many rows had to go because another one has their id."""
    if not index.is_primary:
        table_clone.run(connection, index.making)
        return 0
    try:
        with connection.begin_nested():
            table_clone.run(connection, index.making)
        return 0
    except Exception as error:
        if sqlstate(error) != "23505":
            raise
    n_repeated = connection.execute(sa.text(_REMOVE_REPEATED)).rowcount
    table_clone.run(connection, index.making)
    return n_repeated


def _remove_dangling(connection: sa.Connection) -> int:
    """Delete interactions whose user or post is not there, and hold on to those that are."""
    n_removed = 0
    for column, table in (("user_id", "users"), ("post_id", "posts")):
        connection.execute(sa.text(_HOLD.format(column=column, table=table)))
        n_removed += connection.execute(sa.text(_REMOVE_DANGLING.format(column=column, table=table))).rowcount
    return n_removed


def analyze(connection: sa.Connection) -> None:
    """Tell the planner about what was loaded."""
    connection.execute(sa.text("ANALYZE users, posts, user_interactions"))


@dataclass(frozen=True)
class _Field:
    """One column of a binary COPY: bytes (n, width) uint8, of which the first `lengths` count."""

    data: Array
    lengths: Array | int


def binary_rows(columns: Sequence[_Field]) -> bytes:
    """The rows in PostgreSQL's binary COPY format, header and trailer included.

    All rows are laid out at full width and the unused bytes masked away, which costs no Python object
    per row.
    """
    n = len(columns[0].data)
    width = 2 + sum(4 + column.data.shape[1] for column in columns)
    rows = np.empty((n, width), dtype=np.uint8)
    used = np.ones((n, width), dtype=np.bool_)
    rows[:, :2] = np.frombuffer(len(columns).to_bytes(2, "big"), dtype=np.uint8)
    at = 2
    for column in columns:
        room = column.data.shape[1]
        lengths = np.broadcast_to(np.asarray(column.lengths, dtype=">i4"), (n,))
        rows[:, at : at + 4] = np.ascontiguousarray(lengths).view(np.uint8).reshape(n, 4)
        rows[:, at + 4 : at + 4 + room] = column.data
        if not isinstance(column.lengths, int):
            used[:, at + 4 : at + 4 + room] = np.arange(room) < lengths[:, None]
        at += 4 + room
    return HEADER + rows[used].tobytes() + TRAILER


def _uuids(ids: Array) -> _Field:
    return _Field(ids, 16)


def _uuid_texts(ids: Array) -> _Field:
    return _Field(uuid_text(ids), 36)


def _instants(us: Array) -> _Field:
    since_2000 = (us - POSTGRES_EPOCH_US).astype(">i8")
    return _Field(since_2000.view(np.uint8).reshape(-1, 8), 8)


def _texts(texts: Sequence[str], codes: Array | None = None) -> _Field:
    """UTF-8 texts, one a row or, with `codes`, the text each row's code names."""
    encoded = [text.encode() for text in texts]
    lengths = np.array([len(text) for text in encoded], dtype=np.int32)
    width = max(1, int(lengths.max(initial=0)))
    # numpy pads byte strings with zeros; a text has none, because PostgreSQL's text cannot hold them.
    data = np.array(encoded, dtype=f"S{width}").view(np.uint8).reshape(len(encoded), width)
    return _Field(data, lengths) if codes is None else _Field(data[codes], lengths[codes])


def _cast(expression: str, column_type: str) -> str:
    """Ids as the table has them: uuid stays, text becomes the canonical lower-case form."""
    is_text_id = expression.endswith("id") and column_type != "uuid"
    return f"{expression}::text" if is_text_id else expression


def _unfillable(connection: sa.Connection, table: str) -> list[str]:
    """Columns of the app that must have a value which nothing here knows."""
    rows = connection.scalars(
        sa.text(
            "SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass(:table) AND attnum > 0 "
            "AND NOT attisdropped AND attnotnull AND NOT atthasdef AND attidentity = '' ORDER BY attnum"
        ),
        {"table": table},
    )
    return [name for name in rows if name not in _FILLED[table]]


def _only_foreign_keys(connection: sa.Connection) -> bool:
    """Whether triggers may be passed over: we are superuser and the app has none of its own."""
    superuser = connection.scalar(sa.text("SELECT current_setting('is_superuser')"))
    own = connection.scalar(
        sa.text(
            "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal AND tgrelid IN "
            "(to_regclass('users'), to_regclass('posts'), to_regclass('user_interactions'))"
        )
    )
    return bool(superuser == "on" and own == 0)
