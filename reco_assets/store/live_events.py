"""What live votes are kept up with: the live model, events since an instant, facts about new posts.

Events come by binary COPY, a hundred thousand in a fraction of a second; the few questions about posts and
users are ordinary ones, because a temporary table a second would bloat the system catalogues.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

from reco_assets.errors import SchemaError
from reco_assets.store.binary_copy import POSTGRES_EPOCH_US, parsed_rows

if TYPE_CHECKING:
    import numpy as np
    import psycopg
    from numpy.typing import NDArray
    from psycopg.sql import Composed

_LIVE: Final = (
    "SELECT id, partition_date, model_version, model_digest FROM recommendation_generations "
    "WHERE status = 'live'"
)
_COLUMNS: Final = """
SELECT attname, format_type(atttypid, NULL) FROM pg_attribute
WHERE attrelid = to_regclass('user_interactions') AND attname IN ('id', 'user_id', 'post_id')
"""
# The newest first, so that a limit keeps those. Rows that an extraction would leave out are left out.
_EVENTS: Final = """
SELECT {id} AS id, user_id::uuid AS user_id, post_id::uuid AS post_id,
       array_position({types}::text[], interaction_type::text)::int4 AS type,
       created_at::timestamptz AS created_at
FROM user_interactions
WHERE created_at >= {since} AND interaction_type::text = ANY({types}::text[])
  AND user_id IS NOT NULL AND post_id IS NOT NULL {canonical}
ORDER BY user_interactions.created_at DESC LIMIT {limit}
"""
_CANONICAL: Final = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
_POSTS: Final = """
SELECT post_id::text, author_id::text,
       CASE WHEN isfinite(created_at::timestamptz) THEN created_at::timestamptz END
FROM recommendable_posts WHERE post_id = ANY(%s)
"""
_HIDDEN: Final = "SELECT user_id::text, author_id::text FROM hidden_authors WHERE user_id = ANY(%s)"
_IDS_AT_ONCE: Final = 5000


class LiveModel(NamedTuple):
    """The generation that readers see, and which model made it."""

    generation_id: UUID
    day: date
    model_version: str | None
    model_digest: str | None


@dataclass(frozen=True, eq=False)
class EventRows:
    """Events, newest first.

    Attributes:
        ids, user_ids, post_ids: (n, 16) uint8; an id that is no UUID stands as a digest of its text.
        types: (n,) int8, position in the types that were asked for.
        created_at: (n,) int64 µs since the epoch, UTC.
    """

    ids: "NDArray[np.uint8]"
    user_ids: "NDArray[np.uint8]"
    post_ids: "NDArray[np.uint8]"
    types: "NDArray[np.int8]"
    created_at: "NDArray[np.int64]"


class PostFact(NamedTuple):
    """What the view `recommendable_posts` says of a post."""

    author_id: UUID | None
    created_at: datetime | None


def live_model(connection: "psycopg.Connection[Any]") -> LiveModel | None:
    """The live generation; None before the first publication."""
    row = connection.execute(_LIVE).fetchone()
    return None if row is None else LiveModel(*row)


def server_time(connection: "psycopg.Connection[Any]") -> datetime:
    """What time the server has."""
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    found: datetime = row[0]
    return found.astimezone(UTC)


def read_events(
    connection: "psycopg.Connection[Any]", since: datetime, types: Sequence[str], limit: int
) -> EventRows:
    """The newest events at or after `since`, at most `limit`, of these types.

    Raises:
        SchemaError: there is no table `user_interactions`.
    """
    import numpy as np
    from psycopg import sql

    query = sql.SQL("COPY ({}) TO STDOUT (FORMAT binary)").format(
        events_query(connection, since, types, limit)
    )
    with connection.cursor() as cursor, cursor.copy(query) as copy:
        data = b"".join(bytes(block) for block in copy)
    rows = parsed_rows(
        data,
        [
            ("id", "u1", (16,)),
            ("user_id", "u1", (16,)),
            ("post_id", "u1", (16,)),
            ("type", ">i4", ()),
            ("created_at", ">i8", ()),
        ],
    )
    return EventRows(
        np.ascontiguousarray(rows["id"]),
        np.ascontiguousarray(rows["user_id"]),
        np.ascontiguousarray(rows["post_id"]),
        (rows["type"] - 1).astype(np.int8),
        rows["created_at"].astype(np.int64) + POSTGRES_EPOCH_US,
    )


def events_query(
    connection: "psycopg.Connection[Any]", since: datetime, types: Sequence[str], limit: int
) -> "Composed":
    """The SELECT of `read_events`, for the kinds of ids and times that the database has."""
    from psycopg import sql

    columns = dict(connection.execute(_COLUMNS).fetchall())
    if len(columns) < 3:
        raise SchemaError("The table user_interactions is not there. Run `reco migrate`.")
    canonical = [
        sql.SQL(" AND {} ~ {}").format(sql.Identifier(name), sql.Literal(_CANONICAL))
        for name in ("user_id", "post_id")
        if columns[name] != "uuid"
    ]
    return sql.SQL(_EVENTS).format(
        id=sql.SQL("id" if columns["id"] == "uuid" else "md5(id::text)::uuid"),
        types=sql.Literal(list(types)),
        since=sql.Literal(since.astimezone(UTC)),
        canonical=sql.Composed(canonical),
        limit=sql.Literal(limit),
    )


def post_facts(connection: "psycopg.Connection[Any]", post_ids: Iterable[UUID]) -> Mapping[UUID, PostFact]:
    """The facts of those posts that may be recommended."""
    return {
        UUID(post): PostFact(None if author is None else UUID(author), created_at)
        for post, author, created_at in _of_ids(connection, _POSTS, post_ids)
    }


def hidden_authors(
    connection: "psycopg.Connection[Any]", user_ids: Iterable[UUID]
) -> Mapping[UUID, tuple[UUID, ...]]:
    """Whom these users hide; nothing for who hides nobody."""
    found: dict[UUID, tuple[UUID, ...]] = {}
    for user, author in _of_ids(connection, _HIDDEN, user_ids):
        if author is not None:
            found[UUID(user)] = (*found.get(UUID(user), ()), UUID(author))
    return found


def _of_ids(connection: "psycopg.Connection[Any]", query: str, ids: Iterable[UUID]) -> Iterable[Any]:
    texts = [str(each) for each in ids]
    for start in range(0, len(texts), _IDS_AT_ONCE):
        # One text without a type: the server reads it as an array of whatever the column is.
        array = "{" + ",".join(texts[start : start + _IDS_AT_ONCE]) + "}"
        yield from connection.execute(query, (array,))
