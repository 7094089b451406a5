"""What a publication has to read, read on connections of their own while its rows are being loaded."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from threading import Event
from typing import TYPE_CHECKING, Any, Final, TypeVar

import sqlalchemy as sa

from reco_assets.errors import DatabaseBusy
from reco_assets.store.arrow_scan import arrow_batches, arrow_cursor, id_bytes, ids_as_arrow, plain_ids
from reco_assets.store.binary_copy import uuid_text
from reco_assets.store.copy_buffer import RecommendationRows
from reco_assets.store.database import translated
from reco_assets.store.eligibility import numbers
from reco_assets.store.schema import IdType
from reco_assets.store.screening import Screening, is_in_sorted, row_keys
from reco_assets.store.seen_posts import PairFinder

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

T = TypeVar("T")

LATE: Final = timedelta(minutes=15)
"""How long before it is committed an interaction may have taken its `created_at`."""

_WITH_A_LIST = "SELECT DISTINCT user_id FROM user_recommendations WHERE expires_at > {}"
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
    """Reads in threads: all interactions, and who has a list now.

    Its methods wait for what they return.

    Raises:
        DatabaseUnreachable, DatabaseBusy: see `database.translated`; so do the methods.
    """

    def __init__(self, uri: str, engine: sa.Engine, rows: RecommendationRows, id_type: IdType) -> None:
        self._uri = uri
        self._engine = engine
        self._rows = rows
        self._id_type = id_type
        self._stop = Event()
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="background-reader")
        self._seen: Future[tuple[PairFinder, NDArray[np.int64]]] = self._pool.submit(self._read_seen)

    def look_for_old_lists(self, screening: Screening, moment: datetime) -> "Future[NDArray[np.uint8]]":
        """Users with a list that expires after `moment`, but without a row that is sent.

        (m, 16) or (m, 36) uint8, as the database has them.
        """
        return self._pool.submit(self._read_old_lists, screening, moment)

    def seen(self, connection: sa.Connection, since: datetime) -> "NDArray[np.int64]":
        """(m,) int64, sorted keys of the new rows whose user has seen the post.

        What was committed after the scan began may be missing in it: interactions with a `created_at`
        from `since` on are asked for again, on `connection`.
        """
        import numpy as np

        finder, keys = self._seen.result()
        late = numbers(connection, _SINCE, since=since)
        late_keys = row_keys(late[:, 0], late[:, 1])
        return np.unique(np.concatenate([keys, late_keys[is_in_sorted(late_keys, finder.keys)]]))

    def close(self) -> None:
        """Break off what is not done and wait for the threads."""
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)

    def _read_old_lists(self, screening: Screening, moment: datetime) -> "NDArray[np.uint8]":
        import numpy as np
        import pyarrow.compute as pc
        from psycopg import sql

        known = screening.users_sent()
        known = uuid_text(known) if self._id_type == "text" else known
        query = sql.SQL(_WITH_A_LIST).format(sql.Literal(moment)).as_string(None)
        have_new = ids_as_arrow(known, self._id_type)

        def without_new(batch: "pa.RecordBatch") -> "NDArray[np.uint8]":
            users = plain_ids(batch.column("user_id"))
            return id_bytes(users.filter(pc.invert(pc.is_in(users, have_new))))

        found = self._scan(query, "The look at the live lists", without_new)
        return np.concatenate([known[:0], *found])

    def _read_seen(self) -> "tuple[PairFinder, NDArray[np.int64]]":
        import numpy as np

        finder = PairFinder(self._rows, self._id_type)
        found = self._scan(
            _INTERACTIONS,
            "The scan of user_interactions",
            lambda batch: finder.find(batch.column("user_id"), batch.column("post_id")),
        )
        return finder, np.concatenate([finder.keys[:0], *found])

    def _scan(self, query: str, what: str, found_in: "Callable[[pa.RecordBatch], T]") -> list[T]:
        """What there is in each batch of the query."""
        found: list[T] = []
        for attempt in range(_LOCK_ATTEMPTS):
            try:
                with translated(self._engine), arrow_cursor(self._uri) as cursor:
                    for batch in arrow_batches(cursor, query, what=what):
                        if self._stop.is_set():
                            break
                        found.append(found_in(batch))
                break
            except DatabaseBusy:
                # The app alters its table. Once rows have come, it was something else.
                if found or attempt + 1 == _LOCK_ATTEMPTS or self._stop.wait(1.0):
                    raise
        return found


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
