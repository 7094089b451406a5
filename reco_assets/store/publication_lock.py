"""One publication at a time: a session's advisory lock, and waiting for it aloud.

Losing the connection loses the lock. A pooler in transaction mode breaks such locks.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from reco_assets.errors import PublicationInProgress

_LOCK_CLASS: Final = 0x7075626C  # "publ"; the second key is the schema
_POLL_S: Final = 0.25
_SAY_EVERY_S = 10.0

_TRY_LOCK = sa.text("SELECT pg_try_advisory_lock(:class, hashtext(current_schema()))")
_UNLOCK = sa.text("SELECT pg_advisory_unlock(:class, hashtext(current_schema()))")
# A record older than the holder's session is what a killed publisher left, and the holder has yet to close.
_HOLDER = sa.text(
    "SELECT l.pid, a.application_name, a.backend_start AS since, "
    "g.partition_date, g.dagster_run_id, g.created_at AS begun "
    "FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid "
    "LEFT JOIN recommendation_generations g ON g.status = 'building' AND g.created_at >= a.backend_start "
    "WHERE l.locktype = 'advisory' AND l.granted AND l.classid = :class "
    "AND l.objid = (hashtext(current_schema())::bigint & 4294967295)::oid "
    "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "ORDER BY g.created_at DESC NULLS LAST LIMIT 1"
)


@contextmanager
def publication_lock(connection: sa.Connection, wait_s: float, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the session's advisory lock; afterwards the session is ended unless all went well.

    Args:
        connection: outside of a transaction.
        wait_s: how long to wait for another publisher to end, or for the server to notice that one was
            killed; 0 asks once.
        say: told whom it waits for, at once and every ten seconds.

    Raises:
        PublicationInProgress: somebody else still holds it.
    """
    parameters = {"class": _LOCK_CLASS}
    _acquire(connection, wait_s, say)
    with suppress(DBAPIError), connection.begin():
        # The server notices a killed publisher in the middle of a long statement. Not on every platform.
        connection.execute(sa.text("SELECT set_config('client_connection_check_interval', '2s', false)"))
    try:
        yield
    except BaseException:
        with suppress(Exception), connection.begin():
            connection.execute(_UNLOCK, parameters)
        connection.invalidate()
        raise
    with connection.begin():
        connection.execute(_UNLOCK, parameters)


def _acquire(connection: sa.Connection, wait_s: float, say: Callable[[str], None]) -> None:
    """Ask again and again: waiting inside PostgreSQL would hold a snapshot and run into the time-outs."""
    parameters = {"class": _LOCK_CLASS}
    began = time.monotonic()
    said_at = -_SAY_EVERY_S
    while True:
        with connection.begin():
            if connection.scalar(_TRY_LOCK, parameters):
                return
            holder = connection.execute(_HOLDER, parameters).one_or_none()
        waited = time.monotonic() - began
        if waited >= wait_s:
            break
        if holder is not None and waited - said_at >= _SAY_EVERY_S:
            say(f"Waiting for another publication, {waited:.0f} of {wait_s:.0f} s: {_describe(holder)}.")
            said_at = waited
        time.sleep(min(_POLL_S, wait_s - waited))
    who, end = "which has just ended", ""
    if holder is not None:
        who = _describe(holder)
        end = f" or, if it hangs, end it with SELECT pg_terminate_backend({holder.pid})"
    raise PublicationInProgress(
        f"Another process is publishing: {who}. Waited {waited:.1f} s for it. Wait until it is done{end}; "
        "then run this again."
    )


def _describe(holder: Any) -> str:
    """Which session it is, and what it publishes as far as that is on record yet."""
    since = f" since {holder.since:%Y-%m-%d %H:%M:%S} UTC" if holder.since else ""
    text = f"backend {holder.pid} ({holder.application_name}){since}"
    if holder.partition_date is not None:
        run = f" for Dagster run {holder.dagster_run_id}" if holder.dagster_run_id else ""
        text += f", publishing {holder.partition_date}{run} since {holder.begun:%H:%M:%S} UTC"
    return text
