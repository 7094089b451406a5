"""What the app recorded about the users and posts behind a recommendation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa

_RECENT = sa.text(
    "SELECT i.interaction_type, i.created_at::timestamptz AS created_at, to_jsonb(p) ->> 'title' AS title "
    "FROM (SELECT * FROM user_interactions WHERE user_id = :user_id ORDER BY created_at DESC LIMIT :n) i "
    "LEFT JOIN posts p ON p.id = i.post_id ORDER BY i.created_at DESC"
)
_WITH_POST = sa.text(
    "SELECT user_id::text, string_agg(DISTINCT interaction_type, ', ' ORDER BY interaction_type) AS types "
    "FROM user_interactions WHERE post_id = :post_id AND user_id::text = ANY(:user_ids) "
    "AND created_at <= :before GROUP BY user_id"
)
_LONGEST = sa.text(
    "SELECT r.user_id::text FROM user_recommendations r WHERE r.expires_at > :now GROUP BY r.user_id "
    "ORDER BY count(*) DESC, r.user_id LIMIT 1"
)
_POSTS = sa.text(
    "SELECT post_id::text, created_at::timestamptz AS created_at FROM recommendable_posts "
    "WHERE post_id::text = ANY(:ids)"
)


@dataclass(frozen=True)
class RecentInteraction:
    """One thing a user did; `title` is None where the app's posts have none."""

    interaction_type: str
    created_at: datetime
    title: str | None


def recent_interactions(connection: sa.Connection, user_id: UUID, *, n: int) -> list[RecentInteraction]:
    """The user's last `n` interactions, newest first."""
    rows = connection.execute(_RECENT, {"user_id": str(user_id), "n": n}).mappings()
    return [RecentInteraction(**row) for row in rows]


def interactions_with(
    connection: sa.Connection, post_id: UUID, user_ids: Sequence[UUID], *, before: datetime
) -> Mapping[UUID, str]:
    """What each of the users did with the post until `before`, such as `click, view`."""
    parameters = {"post_id": str(post_id), "user_ids": [str(each) for each in user_ids], "before": before}
    return {UUID(user_id): types for user_id, types in connection.execute(_WITH_POST, parameters)}


def creation_times(connection: sa.Connection, post_ids: Sequence[UUID]) -> Mapping[UUID, datetime]:
    """When the posts were created, of those that may still be recommended."""
    rows = connection.execute(_POSTS, {"ids": [str(each) for each in post_ids]})
    return {UUID(post_id): created_at for post_id, created_at in rows if created_at is not None}


def users_like(connection: sa.Connection, prefix: str, *, n: int) -> list[UUID]:
    """At most `n` users with a published list whose id begins with `prefix`, lowest first."""
    query = sa.text(
        "SELECT DISTINCT user_id::text FROM user_recommendations "
        "WHERE starts_with(user_id::text, :prefix) ORDER BY 1 LIMIT :n"
    )
    return [UUID(found) for found in connection.scalars(query, {"prefix": prefix.lower(), "n": n})]


def user_with_longest_list(connection: sa.Connection, *, now: datetime) -> UUID | None:
    """Somebody to show a list of; the lowest id among equals, None when nothing is live."""
    found = connection.scalar(_LONGEST, {"now": now})
    return UUID(found) if found else None
