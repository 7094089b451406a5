"""Waiting for locks beside a running app: briefly, and again."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa

from reco_assets.errors import DatabaseBusy
from reco_assets.store.database import sqlstate, translated

T = TypeVar("T")

_LOCK_ATTEMPTS = 12
_LONGEST_PAUSE_S = 3.0

_WHOLE_LOCK_WAIT = sa.text(
    "SELECT set_config('lock_timeout', reset_val, true) FROM pg_settings WHERE name = 'lock_timeout'"
)
_BOUND_LOCK_WAIT = sa.text(
    "SELECT set_config('lock_timeout', "
    "floor(least(nullif(l.reset_val::int, 0), 0.9 * d.setting::int))::int::text, true) "
    "FROM pg_settings l, pg_settings d WHERE l.name = 'lock_timeout' AND d.name = 'deadlock_timeout'"
)


def with_patience(connection: sa.Connection, work: Callable[[], T], *, attempts: int | None = None) -> T:
    """Run `work` in a transaction that waits for locks only briefly, and again if one was not free.

    The wait stays below the server's deadlock_timeout: should we and the app's own DELETE wait for
    each other, we give way before PostgreSQL picks a victim. Between tries whoever queued behind us
    gets through.
    """
    attempts = attempts or _LOCK_ATTEMPTS
    for attempt in range(attempts):
        try:
            with translated(connection.engine), connection.begin():
                bound_lock_wait(connection)
                return work()
        except DatabaseBusy as error:
            if attempt + 1 == attempts:
                raise DatabaseBusy(
                    f"{error} Tried {attempts} times; nothing was published. A long transaction that uses "
                    "user_recommendations, users or posts is in the way: see pg_stat_activity."
                ) from error
        except Exception as error:
            # A foreign key fails when a user is deleted between our reading and our writing the row.
            if sqlstate(error) != "23503" or attempt + 1 == attempts:
                raise
        time.sleep(min(0.1 * 2**attempt, _LONGEST_PAUSE_S) * random.uniform(0.5, 1.5))
    raise AssertionError("unreachable")


def bound_lock_wait(connection: sa.Connection) -> None:
    """Let the transaction wait for a lock as briefly as `with_patience` says."""
    connection.execute(_BOUND_LOCK_WAIT)


def allow_whole_lock_wait(connection: sa.Connection) -> None:
    """Let the transaction wait for a lock as long as the settings say (RECO_LOCK_TIMEOUT_S)."""
    connection.execute(_WHOLE_LOCK_WAIT)
