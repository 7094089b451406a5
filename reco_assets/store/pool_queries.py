"""What is read for all users at once, in the background: what is popular, what is new, a sample. Async.

Only posts of the view `recommendable_posts`; the filters for one user come later, in `feed_queries`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from reco_assets.store.feed_queries import ABSENT, LISTED, POST, PostFacts

if TYPE_CHECKING:
    from psycopg import AsyncConnection
    from psycopg.rows import TupleRow

# Each reader of a post counts once, by the last time: a reader who comes back makes nothing popular. Ages are
# counted in half-lives and capped, because PostgreSQL makes an error of a power too small for float8.
_TRENDING = f"""WITH recent AS MATERIALIZED (
    SELECT user_id, post_id, created_at::timestamptz AS at FROM user_interactions
    WHERE created_at > %(since)s AND created_at <= %(now)s AND interaction_type::text = ANY(%(types)s::text[])
    ORDER BY created_at DESC LIMIT %(max_events)s
),
readers AS (SELECT post_id, max(at) AS at FROM recent GROUP BY post_id, user_id),
popular AS MATERIALIZED (
    SELECT post_id, sum(power(0.5, least(400, date_part('epoch', %(now)s::timestamptz - at)
                                              / %(half_life_s)s::float8))) AS readers
    FROM readers GROUP BY post_id ORDER BY readers DESC, post_id LIMIT %(n_candidates)s
)
SELECT l.post_id::text, popular.readers * power(0.5, least(400, greatest(0, coalesce(
           date_part('epoch', %(now)s::timestamptz - l.created_at), 0) / %(freshness_s)s::float8))) AS score,
       l.author_id::text, l.created_at, post.title
FROM {ABSENT} CROSS JOIN popular JOIN {LISTED} ON l.post_id = popular.post_id {POST}
ORDER BY score DESC, l.post_id LIMIT %(n)s"""  # noqa: S608

_NEWEST = f"""SELECT l.post_id::text, 0::float8, l.author_id::text, l.created_at, post.title
FROM {ABSENT} CROSS JOIN
    (SELECT post_id, author_id, created_at FROM recommendable_posts WHERE created_at <= %(now)s
     ORDER BY created_at DESC LIMIT %(n)s) AS l {POST}
ORDER BY l.created_at DESC, l.post_id"""  # noqa: S608

# Qualified: a bare post_id would mean the text that is selected, which no index orders.
_ENDS = """SELECT (SELECT l.post_id::text FROM recommendable_posts l ORDER BY l.post_id LIMIT 1),
       (SELECT l.post_id::text FROM recommendable_posts l ORDER BY l.post_id DESC LIMIT 1)"""
# From each point the next few posts by id, upwards and downwards, or the least id would hardly ever be met.
# LATERAL and LIMIT keep each of them one short walk in the index.
_NEAR = f"""SELECT l.post_id::text, 0::float8, l.author_id::text, l.created_at, post.title
FROM {ABSENT} CROSS JOIN unnest(%(points)s::text[]) AS point(id) CROSS JOIN LATERAL (
    (SELECT post_id, author_id, created_at FROM recommendable_posts
     WHERE post_id >= point.id::ID_TYPE ORDER BY post_id LIMIT %(each)s)
    UNION ALL
    (SELECT post_id, author_id, created_at FROM recommendable_posts
     WHERE post_id < point.id::ID_TYPE ORDER BY post_id DESC LIMIT %(each)s)
) AS l {POST}"""  # noqa: S608
_ID_TYPE = """SELECT format_type(atttypid, NULL) FROM pg_attribute
WHERE attrelid = to_regclass('recommendable_posts') AND attname = 'post_id'"""

_PUBLISHED_AT = "SELECT published_at FROM recommendation_generations WHERE status = 'live'"

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_CANDIDATES_PER_PLACE = 10
"""Posts judged by freshness for each place in the trending list."""


class PoolPost(NamedTuple):
    """A post of a pool that is kept in memory."""

    post_id: str
    score: float
    facts: PostFacts


async def trending_posts(
    connection: "AsyncConnection[TupleRow]",
    *,
    now: datetime,
    since: datetime,
    types: Sequence[str],
    half_life_days: float | None,
    freshness_half_life_days: float | None,
    max_events: int,
    n: int,
) -> list[PoolPost]:
    """Recommendable posts by Σ over readers of 0.5^(age / half-life) × 0.5^(post age / half-life).

    Args:
        connection: autocommit.
        now: ages are counted to it; later interactions do not count.
        since: earlier ones do not either.
        types: of interactions that count.
        half_life_days: of a reader; None: all count alike.
        freshness_half_life_days: of a post; None: age does not matter.
        max_events: newest interactions that are read at most.
        n: posts at most.
    """
    parameters = {
        "now": now,
        "since": since,
        "types": list(types),
        "half_life_s": _seconds(half_life_days),
        "freshness_s": _seconds(freshness_half_life_days),
        "max_events": max_events,
        "n_candidates": n * _CANDIDATES_PER_PLACE,
        "n": n,
    }
    return await _pool(connection, _TRENDING, parameters)


async def newest_posts(connection: "AsyncConnection[TupleRow]", *, now: datetime, n: int) -> list[PoolPost]:
    """The newest recommendable posts, newest first; not those dated after `now`, nor those without a date."""
    return await _pool(connection, _NEWEST, {"now": now, "n": n})


async def id_range(connection: "AsyncConnection[TupleRow]") -> tuple[str, str] | None:
    """The least and the greatest id of a recommendable post; None without any."""
    row = await (await connection.execute(_ENDS)).fetchone()
    return None if row is None or row[0] is None else (row[0], row[1])


async def posts_from(
    connection: "AsyncConnection[TupleRow]", points: Iterable[str], *, each: int
) -> list[PoolPost]:
    """Around each of `points` up to 2 × `each` recommendable posts by id: a random sample for random points.

    Ids are random, or at least not in the order of quality, so neighbours by id have little else in common;
    and an index finds them without reading the table, unlike ORDER BY random().
    """
    row = await (await connection.execute(_ID_TYPE)).fetchone()
    id_type = "uuid" if row is not None and row[0] == "uuid" else "text"
    return await _pool(connection, _NEAR.replace("ID_TYPE", id_type), {"points": list(points), "each": each})


async def allow_seconds(connection: "AsyncConnection[TupleRow]", seconds: float) -> None:
    """How long each statement on this connection may take from here on."""
    await connection.execute("SELECT set_config('statement_timeout', %s, false)", (f"{seconds * 1000:.0f}",))


async def published_at(connection: "AsyncConnection[TupleRow]") -> datetime | None:
    """When the live generation was published: no list is younger than that."""
    row = await (await connection.execute(_PUBLISHED_AT)).fetchone()
    return None if row is None else row[0]


async def _pool(
    connection: "AsyncConnection[TupleRow]", query: str, parameters: Mapping[str, Any]
) -> list[PoolPost]:
    """Each post once (a view that names several authors gives it several rows), if its id is a UUID."""
    cursor = connection.cursor(binary=True)
    await cursor.execute(query.encode(), parameters)
    posts: dict[str, PoolPost] = {}
    for post_id, score, *facts in await cursor.fetchall():
        if _UUID.fullmatch(post_id):  # a column of type text may hold anything
            posts.setdefault(post_id, PoolPost(post_id, score, PostFacts(*facts)))
    return list(posts.values())


def _seconds(days: float | None) -> float:
    """No half-life is one that nothing reaches."""
    return 1e12 if days is None else days * 86_400
