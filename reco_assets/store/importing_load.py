"""Loads users, posts and interactions in bulk: binary COPY into temporary tables, then INSERT.

The temporary tables make the load idempotent (`ON CONFLICT DO NOTHING`), fit it to `uuid` and `text`
ids alike, and let the references be checked once per user and post instead of once per row.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from reco_assets.errors import SchemaError
from reco_assets.store.adoption import relation_columns
from reco_assets.store.binary_copy import HEADER, POSTGRES_EPOCH_US, TRAILER

Array = npt.NDArray[Any]

_FILLED: Final = {
    "users": {"id", "created_at"},
    "posts": {"id", "author_id", "title", "body", "created_at"},
}


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

    Raises:
        SchemaError: tables are missing, or the app's have required columns that nothing here can fill.
    """

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
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
        return Loaded(self._load_users(users), self._load_posts(posts), self._load_interactions(interactions))

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

    def _load_interactions(self, interactions: NewInteractions) -> int:
        if not len(interactions.ids):
            return 0
        columns = [
            _uuids(interactions.ids),
            _uuids(interactions.user_ids),
            _uuids(interactions.post_ids),
            _texts(interactions.type_names, interactions.types),
            _instants(interactions.created_at),
        ]
        self._stage(
            "id uuid, user_id uuid, post_id uuid, interaction_type text, created_at timestamptz", columns
        )
        names = ("id", "user_id", "post_id", "interaction_type", "created_at")
        references = {"user_id": "users", "post_id": "posts"}
        return self._insert("user_interactions", {name: f"n.{name}" for name in names}, references)

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


@contextmanager
def indexes_built_after(connection: sa.Connection) -> Iterator[None]:
    """While `user_interactions` is empty and ours, leave its indexes to the end of the block.

    A million rows load in a third of the time. DDL is transactional: whoever fails gets the indexes
    back by rolling back. The primary key stays, because `ON CONFLICT` needs it.
    """
    empty = not connection.scalar(sa.text("SELECT EXISTS (SELECT FROM user_interactions)"))
    ours = connection.scalar(
        sa.text(
            "SELECT pg_has_role(relowner, 'USAGE') AND relkind = 'r' FROM pg_class "
            "WHERE oid = to_regclass('user_interactions')"
        )
    )
    indexes = connection.execute(
        sa.text(
            "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index "
            "WHERE indrelid = to_regclass('user_interactions') AND NOT indisunique"
        )
    ).all()
    if not (empty and ours):
        indexes = []
    for name, _ in indexes:
        connection.execute(sa.text(f"DROP INDEX {name}"))
    yield
    for _, definition in indexes:
        connection.execute(sa.text(definition))


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
