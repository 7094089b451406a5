"""The live lists of users without a new one: carried over into the next table, and held to the rules.

They are few, so the database judges them row by row, by the rules and in the order of precedence of
`eligibility`. What is dropped is counted as `carried_over_seen` and so on.
"""

from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from reco_assets.store.eligibility import REASONS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# `reco_old_lists` holds the users whose rows are carried over.
_COLUMNS = "id, user_id, post_id, score, generated_at, expires_at, model_version, generation_id"
_CARRY_OVER = """
WITH carried AS (
    INSERT INTO user_recommendations_next ({columns})
    SELECT {columns} FROM user_recommendations old
    WHERE old.expires_at > :moment AND {whose}
      AND (CAST(:until AS date) IS NULL OR old.generation_id IN (
          SELECT id FROM recommendation_generations WHERE partition_date <= :until))
    RETURNING user_id
)
INSERT INTO pg_temp.reco_old_lists SELECT DISTINCT user_id FROM carried
"""
# Two ways to say the same: from the users, who are few, or from the old rows, one by one.
_ABSENT = """
old.user_id IN (SELECT u.id FROM users u
                WHERE NOT EXISTS (SELECT FROM pg_temp.reco_new_users n WHERE n.id = u.id))
"""
_WITHOUT_NEW_ROWS = "NOT EXISTS (SELECT FROM pg_temp.reco_new_users n WHERE n.id = old.user_id)"
_FEW_USERS = sa.text(
    "SELECT reltuples BETWEEN 0 AND 2 * (SELECT count(*) FROM pg_temp.reco_new_users) "
    "FROM pg_class WHERE oid = to_regclass('users')"
)
# By now the foreign keys refuse rows of what is gone.
_EMPTIED = """
old.user_id IN (SELECT n.id FROM pg_temp.reco_new_users n JOIN users u ON u.id = n.id
                WHERE n.number = ANY(:numbers))
AND EXISTS (SELECT FROM posts p WHERE p.id = old.post_id)
"""
# A row is found again by its ctid: nobody else writes to this table before the swap except the
# foreign keys' cascades, and those only delete.
_JUDGED = """
CREATE TEMPORARY TABLE reco_judged ON COMMIT DROP AS
SELECT DISTINCT ON (row_id) row_id, reason FROM (
    SELECT n.ctid AS row_id,
           CASE WHEN u.id IS NULL THEN 1
                WHEN p.id IS NULL THEN 2
                WHEN r.post_id IS NULL THEN 3
                WHEN r.author_id::text = n.user_id::text THEN 4
           END AS reason
    FROM pg_temp.reco_old_lists o
    JOIN user_recommendations_next n ON n.user_id = o.user_id
    LEFT JOIN users u ON u.id = n.user_id
    LEFT JOIN posts p ON p.id = n.post_id
    LEFT JOIN recommendable_posts r ON r.post_id = n.post_id
    UNION ALL
    SELECT n.ctid, 5 FROM pg_temp.reco_old_lists o
    JOIN user_recommendations_next n ON n.user_id = o.user_id
    JOIN hidden_authors h ON h.user_id = n.user_id
    JOIN recommendable_posts r ON r.post_id = n.post_id AND r.author_id::text = h.author_id::text
    UNION ALL
    SELECT n.ctid, 6 FROM pg_temp.reco_old_lists o
    JOIN user_recommendations_next n ON n.user_id = o.user_id
    JOIN user_interactions i ON i.user_id = n.user_id AND i.post_id = n.post_id
) judged WHERE reason IS NOT NULL ORDER BY row_id, reason
"""
_DROP = """
WITH gone AS (
    DELETE FROM user_recommendations_next n USING pg_temp.reco_judged j WHERE n.ctid = j.row_id
    RETURNING j.reason
)
SELECT reason, count(*) FROM gone GROUP BY reason
"""
_COUNT = """
SELECT count(*) FROM pg_temp.reco_old_lists o JOIN user_recommendations_next n ON n.user_id = o.user_id
"""


def carry_over(connection: sa.Connection, moment: datetime, until: date | None) -> None:
    """Copy the live rows of users without a new one that expire after `moment`.

    Args:
        connection: in a transaction.
        moment: with time zone.
        until: rows of later partitions stay behind; None: of none.
    """
    forget(connection)
    connection.execute(
        sa.text(
            "CREATE TEMPORARY TABLE reco_old_lists AS SELECT user_id FROM user_recommendations WITH NO DATA"
        )
    )
    whose = _ABSENT if connection.scalar(_FEW_USERS) else _WITHOUT_NEW_ROWS
    connection.execute(
        sa.text(_CARRY_OVER.format(columns=_COLUMNS, whose=whose)), {"moment": moment, "until": until}
    )


def carry_over_emptied(
    connection: sa.Connection, moment: datetime, until: date | None, numbers: "NDArray[np.integer[Any]]"
) -> None:
    """The same for users, by their number in the generation, who have just lost every new row.

    They keep the old list, as if the new generation had not known them.
    """
    if len(numbers):
        parameters = {"moment": moment, "until": until, "numbers": numbers.tolist()}
        connection.execute(sa.text(_CARRY_OVER.format(columns=_COLUMNS, whose=_EMPTIED)), parameters)


def drop_ineligible(connection: sa.Connection) -> tuple[dict[str, int], int]:
    """Delete carried rows that must not go live: how many for each reason, and how many are left."""
    if not connection.scalar(sa.text("SELECT EXISTS (SELECT FROM pg_temp.reco_old_lists)")):
        return {}, 0
    connection.execute(sa.text("ANALYZE pg_temp.reco_old_lists"))
    connection.execute(sa.text(_JUDGED))
    dropped = {f"carried_over_{REASONS[reason]}": int(n) for reason, n in connection.execute(sa.text(_DROP))}
    return dropped, int(connection.scalar(sa.text(_COUNT)) or 0)


def forget(connection: sa.Connection) -> None:
    """Drop the temporary table, for sessions that go back into a pool."""
    connection.execute(sa.text("DROP TABLE IF EXISTS pg_temp.reco_old_lists"))
