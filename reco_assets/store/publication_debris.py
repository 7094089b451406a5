"""What a publication leaves to be cleared: its own tables, and those of one that was killed."""

from contextlib import suppress
from functools import partial

import sqlalchemy as sa

from reco_assets.errors import RecoError
from reco_assets.store import eligibility, generations, old_lists, table_clone
from reco_assets.store.patience import with_patience
from reco_assets.store.table_clone import NEXT, REPLACED


def clear(connection: sa.Connection, message: str, *, status: str = "failed") -> None:
    """Drop the tables of a publication that did not finish and close its record; we hold the lock."""
    for table in (NEXT, REPLACED):
        with_patience(connection, partial(table_clone.run, connection, f"DROP TABLE IF EXISTS {table}"))
    with connection.begin():
        generations.record_unfinished(connection, message, status=status)


def clear_replaced(connection: sa.Connection) -> None:
    """The publication has happened: what cannot be dropped now is left to the next run, without its rows."""
    with connection.begin():
        eligibility.forget_ids(connection)
        old_lists.forget(connection)
    for table in (NEXT, REPLACED):
        try:
            drop = partial(table_clone.run, connection, f"DROP TABLE IF EXISTS {table}")
            with_patience(connection, drop, attempts=3)  # needs users and posts for an instant
        except RecoError:
            with suppress(RecoError):
                with_patience(
                    connection, partial(table_clone.run, connection, f"TRUNCATE {table}"), attempts=1
                )
