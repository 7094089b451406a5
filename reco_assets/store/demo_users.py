"""A few users to look at, of different habits, for the demo page. Async."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psycopg import AsyncConnection
    from psycopg.rows import TupleRow

# Bounded by the newest interactions and by the first users: it must not scan an app's tables.
_USERS = """
WITH recent AS MATERIALIZED (
    SELECT user_id, count(*) AS n, max(created_at)::timestamptz AS last_at
    FROM (SELECT user_id, created_at FROM user_interactions ORDER BY created_at DESC LIMIT 10000) newest
    GROUP BY user_id
), chosen AS (
    (SELECT user_id, n, last_at FROM recent ORDER BY n DESC, user_id LIMIT %(n_busy)s)
    UNION
    (SELECT user_id, n, last_at FROM recent ORDER BY n, user_id LIMIT %(n_quiet)s)
    UNION
    (SELECT id, 0, NULL FROM (SELECT id FROM users LIMIT 1000) few
     WHERE NOT EXISTS (SELECT FROM user_interactions i WHERE i.user_id = few.id) LIMIT %(n_new)s)
)
SELECT user_id::text, n, last_at,
       EXISTS (SELECT FROM user_recommendations r
               WHERE r.user_id = chosen.user_id AND r.expires_at > %(now)s) AS has_list
FROM chosen ORDER BY n DESC, user_id
"""


@dataclass(frozen=True)
class DemoUser:
    """A user to look at.

    Attributes:
        user_id: as the app knows it.
        interactions: among the app's newest ten thousand.
        last_interaction_at: the newest of them; None without any.
        has_list: whether recommendations are published for the user.
    """

    user_id: str
    interactions: int
    last_interaction_at: datetime | None
    has_list: bool


async def demo_users(
    connection: "AsyncConnection[TupleRow]",
    *,
    now: datetime,
    n_busy: int = 8,
    n_quiet: int = 2,
    n_new: int = 2,
) -> list[DemoUser]:
    """The busiest users of late, some quiet ones, and some who have done nothing yet; busiest first."""
    parameters = {"now": now, "n_busy": n_busy, "n_quiet": n_quiet, "n_new": n_new}
    cursor = await connection.execute(_USERS, parameters)
    return [DemoUser(*row) for row in await cursor.fetchall()]
