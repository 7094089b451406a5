"""Small questions: one user's list, and the numbers of a status report."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa

# `title` is the app's own column and may not be there; from the row as JSON it is null then.
_LIST = sa.text(
    "SELECT r.post_id, r.score, r.generated_at, r.expires_at, r.model_version, r.generation_id, "
    "to_jsonb(p) ->> 'title' AS title "
    "FROM (SELECT * FROM user_recommendations WHERE user_id = :user_id AND expires_at > :now "
    "ORDER BY score DESC, post_id LIMIT :n) r "
    "LEFT JOIN posts p ON p.id = r.post_id ORDER BY r.score DESC, r.post_id"
)
_COUNTS = sa.text(
    "SELECT (SELECT count(*) FROM users) AS n_users, (SELECT count(*) FROM posts) AS n_posts, "
    "(SELECT count(*) FROM user_interactions) AS n_interactions, "
    "(SELECT max(created_at)::timestamptz FROM user_interactions) AS last_interaction, "
    "count(*) FILTER (WHERE expires_at > :now) AS n_recommendations, "
    "count(DISTINCT user_id) FILTER (WHERE expires_at > :now) AS n_users_with_recommendations, "
    "count(*) FILTER (WHERE expires_at <= :now) AS n_expired FROM user_recommendations"
)


@dataclass(frozen=True)
class StoredRecommendation:
    """One entry of a user's list as readers find it; `rank` counts from 1."""

    rank: int
    post_id: UUID
    title: str | None
    score: float
    generated_at: datetime
    expires_at: datetime
    model_version: str
    generation_id: UUID


@dataclass(frozen=True)
class TableCounts:
    """How much is in the tables; recommendations count as such until they expire."""

    n_users: int
    n_posts: int
    n_interactions: int
    last_interaction: datetime | None
    n_recommendations: int
    n_users_with_recommendations: int
    n_expired: int


def recommendations_of(
    connection: sa.Connection, user_id: UUID, *, now: datetime, n: int = 50
) -> list[StoredRecommendation]:
    """The user's unexpired list, best first, equal scores by post id; empty for an unknown user."""
    rows = connection.execute(_LIST, {"user_id": str(user_id), "now": now, "n": n}).mappings()
    return [
        StoredRecommendation(rank=rank, **{**row, "post_id": UUID(str(row["post_id"]))})
        for rank, row in enumerate(rows, start=1)
    ]


def user_exists(connection: sa.Connection, user_id: UUID) -> bool:
    """Whether the app has such a user."""
    query = sa.text("SELECT EXISTS (SELECT FROM users WHERE id = :user_id)")
    return bool(connection.scalar(query, {"user_id": str(user_id)}))


def table_counts(connection: sa.Connection, *, now: datetime) -> TableCounts:
    """Exact counts. They scan the tables: for a report, not for a request."""
    return TableCounts(**connection.execute(_COUNTS, {"now": now}).mappings().one())
