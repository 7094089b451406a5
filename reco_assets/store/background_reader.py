"""What a publication has to read, read on a connection of its own while its rows are being loaded."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from threading import Event
from typing import TYPE_CHECKING, Any, Final, TypeVar

import sqlalchemy as sa

from reco_assets.errors import DatabaseBusy
from reco_assets.store.arrow_scan import arrow_batches, arrow_cursor
from reco_assets.store.copy_buffer import RecommendationRows
from reco_assets.store.database import translated
from reco_assets.store.eligibility import numbers
from reco_assets.store.schema import IdType
from reco_assets.store.screening import is_in_sorted, row_keys
from reco_assets.store.seen_posts import PairFinder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")

LATE: Final = timedelta(minutes=15)
"""How long before it is committed an interaction may have taken its `created_at`."""

_INTERACTIONS = """
SELECT user_id, post_id FROM user_interactions WHERE user_id IS NOT NULL AND post_id IS NOT NULL
"""
_SINCE = """
SELECT DISTINCT u.number AS a, p.number AS b FROM user_interactions i
JOIN pg_temp.reco_new_users u ON u.id = i.user_id JOIN pg_temp.reco_new_posts p ON p.id = i.post_id
WHERE i.created_at >= :since
"""
_LOCK_ATTEMPTS = 12


class BackgroundReader:
    """Reads all interactions in a thread."""

    def __init__(self, uri: str, engine: sa.Engine, rows: RecommendationRows, id_type: IdType) -> None:
        self._uri = uri
        self._engine = engine
        self._rows = rows
        self._id_type = id_type
        self._stop = Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="background-reader")
        self._seen: Future[tuple[PairFinder, NDArray[np.int64]]] = self._pool.submit(self._read_seen)

    def seen(self, connection: sa.Connection, since: datetime) -> "NDArray[np.int64]":
        """(m,) int64, sorted: keys of the new rows whose user has seen the post. Waits for the scan's end.

        What was committed after the scan began may be missing in it: interactions with a `created_at`
        from `since` on are asked for again, on `connection`.

        Raises:
            DatabaseUnreachable, DatabaseBusy: see `database.translated`.
        """
        import numpy as np

        finder, keys = self._seen.result()
        late = numbers(connection, _SINCE, since=since)
        late_keys = row_keys(late[:, 0], late[:, 1])
        return np.unique(np.concatenate([keys, late_keys[is_in_sorted(late_keys, finder.keys)]]))

    def close(self) -> None:
        """Break off what is not done and wait for the thread."""
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)

    def _read_seen(self) -> "tuple[PairFinder, NDArray[np.int64]]":
        import numpy as np

        finder = PairFinder(self._rows, self._id_type)
        found: list[NDArray[np.int64]] = []
        for attempt in range(_LOCK_ATTEMPTS):
            try:
                with translated(self._engine), arrow_cursor(self._uri) as cursor:
                    for batch in arrow_batches(cursor, _INTERACTIONS, what="The scan of user_interactions"):
                        if self._stop.is_set():
                            break
                        found.append(finder.find(batch.column("user_id"), batch.column("post_id")))
                break
            except DatabaseBusy:
                # The app alters its table. Once rows have come, it was something else.
                if found or attempt + 1 == _LOCK_ATTEMPTS or self._stop.wait(1.0):
                    raise
        return finder, np.concatenate([finder.keys[:0], *found])


@contextmanager
def background_reader(
    connection: sa.Connection, rows: RecommendationRows, id_type: IdType
) -> Iterator[BackgroundReader]:
    """Start reading beside what `connection` does, from the same database; ended with the block."""
    reader = BackgroundReader(_uri(connection), connection.engine, rows, id_type)
    try:
        yield reader
    finally:
        reader.close()


def _uri(connection: sa.Connection) -> str:
    """How to reach the same database with the same session settings."""
    from psycopg.conninfo import make_conninfo

    driver: Any = connection.connection.driver_connection
    parameters = driver.info.get_parameters()
    return make_conninfo("", **parameters, **({"password": p} if (p := driver.info.password) else {}))
