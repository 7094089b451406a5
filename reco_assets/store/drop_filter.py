"""What happens to the rows of the next table before they go live: drop, carry over, count.

Works on `user_recommendations_next` inside the publication, on new rows and on those carried over from
the live table alike. Reasons, in order of precedence:

- `user_deleted`, `post_deleted`: gone since the model read them.
- `not_recommendable`: the view `recommendable_posts` does not list the post.
- `own_post`: the user wrote it.
- `seen`: the user has interacted with it, at any time.
- `hidden_author`: the view `hidden_authors` says so.

Rows carried over are counted apart, as `carried_over_seen` and so on.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa

_CARRY_OVER = """
INSERT INTO user_recommendations_next
    (id, user_id, post_id, score, generated_at, expires_at, model_version, generation_id)
SELECT id, user_id, post_id, score, generated_at, expires_at, model_version, generation_id
FROM user_recommendations old
WHERE old.expires_at > :moment
  AND NOT EXISTS (SELECT FROM user_recommendations_next new WHERE new.user_id = old.user_id)
"""
# Whoever lost every new row keeps the old list, as if the new generation had not known them.
_EMPTIED = """
CREATE TEMPORARY TABLE reco_emptied ON COMMIT DROP AS
SELECT DISTINCT d.user_id FROM pg_temp.reco_dropped d
WHERE NOT d.carried_over
  AND NOT EXISTS (SELECT FROM user_recommendations_next new WHERE new.user_id = d.user_id)
  AND EXISTS (SELECT FROM users u WHERE u.id = d.user_id)
"""
_CARRY_OVER_EMPTIED = """
INSERT INTO user_recommendations_next
    (id, user_id, post_id, score, generated_at, expires_at, model_version, generation_id)
SELECT id, user_id, post_id, score, generated_at, expires_at, model_version, generation_id
FROM user_recommendations old
WHERE old.expires_at > :moment
  AND old.user_id IN (SELECT e.user_id FROM pg_temp.reco_emptied e)
  AND EXISTS (SELECT FROM posts p WHERE p.id = old.post_id)
"""
_ALL = "true"
_OF_EMPTIED = "n.user_id IN (SELECT e.user_id FROM pg_temp.reco_emptied e)"
# A row is found again by its ctid: nobody else writes to this table before the swap except the
# foreign keys' cascades, and those only delete.
_DROPPED = """
CREATE TEMPORARY TABLE reco_dropped ON COMMIT DROP AS
SELECT ctid AS row_id, user_id, true AS carried_over, ''::text AS reason
FROM user_recommendations_next LIMIT 0
"""
_ABSENT = """
INSERT INTO pg_temp.reco_dropped
SELECT * FROM (
    SELECT n.ctid, n.user_id, n.generation_id <> :generation_id,
           CASE WHEN u.id IS NULL THEN 'user_deleted'
                WHEN p.id IS NULL THEN 'post_deleted'
                WHEN r.post_id IS NULL THEN 'not_recommendable'
                WHEN r.author_id::text = n.user_id::text THEN 'own_post'
           END AS reason
    FROM user_recommendations_next n
    LEFT JOIN users u ON u.id = n.user_id
    LEFT JOIN posts p ON p.id = n.post_id
    LEFT JOIN recommendable_posts r ON r.post_id = n.post_id
    WHERE {these}
) judged WHERE reason IS NOT NULL
ON CONFLICT DO NOTHING
"""
# A join, not EXISTS: that would first make all interactions unique, and few rows are found twice.
_SEEN = """
INSERT INTO pg_temp.reco_dropped
SELECT n.ctid, n.user_id, n.generation_id <> :generation_id, 'seen' FROM user_recommendations_next n
JOIN user_interactions i ON i.user_id = n.user_id AND i.post_id = n.post_id
WHERE {these}
ON CONFLICT DO NOTHING
"""
_HIDDEN = """
INSERT INTO pg_temp.reco_dropped
SELECT n.ctid, n.user_id, n.generation_id <> :generation_id, 'hidden_author'
FROM user_recommendations_next n
JOIN recommendable_posts r ON r.post_id = n.post_id
JOIN hidden_authors h ON h.user_id = n.user_id AND h.author_id::text = r.author_id::text
WHERE {these}
ON CONFLICT DO NOTHING
"""
_DELETE = """
DELETE FROM user_recommendations_next n USING pg_temp.reco_dropped d WHERE n.ctid = d.row_id
"""
_REASONS = """
SELECT CASE WHEN carried_over THEN 'carried_over_' ELSE '' END || reason AS reason, count(*)
FROM pg_temp.reco_dropped GROUP BY 1 ORDER BY 1
"""
_COUNTS = """
SELECT count(DISTINCT user_id) FILTER (WHERE generation_id = :generation_id) AS n_users,
       count(*) FILTER (WHERE generation_id = :generation_id) AS n_recommendations,
       count(*) FILTER (WHERE generation_id <> :generation_id) AS n_carried_over
FROM user_recommendations_next
"""


def carry_over(connection: sa.Connection, moment: datetime) -> int:
    """Copy the live rows of users without a new one that expire after `moment`; returns how many."""
    return connection.execute(sa.text(_CARRY_OVER), {"moment": moment}).rowcount


def drop_ineligible(connection: sa.Connection, generation_id: UUID, moment: datetime) -> dict[str, int]:
    """Delete the rows that must not go live and count them by reason.

    Users whose every new row is dropped get what is left of their old list, as by `carry_over`.
    """
    connection.execute(sa.text("SET LOCAL work_mem = '64MB'"))
    connection.execute(sa.text("ANALYZE user_recommendations_next"))
    connection.execute(sa.text(_DROPPED))
    connection.execute(sa.text("ALTER TABLE pg_temp.reco_dropped ADD PRIMARY KEY (row_id)"))
    if _drop(connection, generation_id, _ALL):
        connection.execute(sa.text(_EMPTIED))
        if connection.execute(sa.text(_CARRY_OVER_EMPTIED), {"moment": moment}).rowcount:
            _drop(connection, generation_id, _OF_EMPTIED)
    return {reason: int(n) for reason, n in connection.execute(sa.text(_REASONS))}


def count_rows(connection: sa.Connection, generation_id: UUID) -> dict[str, Any]:
    """`n_users` and `n_recommendations` of the generation, and `n_carried_over`."""
    row = connection.execute(sa.text(_COUNTS), {"generation_id": generation_id}).one()
    return dict(row._mapping)


def _drop(connection: sa.Connection, generation_id: UUID, these: str) -> int:
    """Judge the rows that the condition `these` chooses; returns how many were dropped."""
    n_dropped = 0
    for statement in (_ABSENT, _SEEN, _HIDDEN):
        judged = connection.execute(sa.text(statement.format(these=these)), {"generation_id": generation_id})
        n_dropped += judged.rowcount
    if n_dropped:
        connection.execute(sa.text("ANALYZE pg_temp.reco_dropped"))
        connection.execute(sa.text(_DELETE))
    return n_dropped
