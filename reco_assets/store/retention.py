"""Delete expired recommendations, a bounded batch per transaction."""

from datetime import datetime

import sqlalchemy as sa

from reco_assets.store.database import run_transaction

# Locked rows belong to a deletion in progress elsewhere: skip them, the next batch or night gets them.
_DELETE_BATCH = sa.text(
    "DELETE FROM user_recommendations WHERE ctid = ANY (ARRAY("
    "SELECT ctid FROM user_recommendations WHERE expires_at <= :now "
    "ORDER BY expires_at LIMIT :n FOR UPDATE SKIP LOCKED))"
)


def delete_expired(engine: sa.Engine, *, now: datetime, batch_size: int) -> int:
    """Delete the rows with `expires_at` at or before `now`; returns how many.

    Each batch of `batch_size` rows is a transaction of its own, so that no lock is held for long and
    an interruption keeps what is done. Rows that have not expired stay, live generation or not.
    """
    total = 0
    while True:
        deleted = run_transaction(engine, lambda connection: delete_batch(connection, now, batch_size))
        total += deleted
        if deleted < batch_size:
            return total


def delete_batch(connection: sa.Connection, now: datetime, batch_size: int) -> int:
    """Delete at most `batch_size` expired rows; returns how many."""
    return connection.execute(_DELETE_BATCH, {"now": now, "n": batch_size}).rowcount
