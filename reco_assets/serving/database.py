"""The service's connections to one server, and whether it is there.

While the server is gone, whoever asks for a connection is told so at once: nobody waits, nothing piles
up. A sentinel connection notices a server that hangs even when nobody asks for anything.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from psycopg_pool import AsyncConnectionPool

from reco_assets.errors import DatabaseBusy, DatabaseUnreachable, RecoError
from reco_assets.settings import Settings
from reco_assets.store.async_connection import Connector, ServiceConnection, ask

log = logging.getLogger(__name__)

_PROBE_EVERY_S: Final = 0.25
_HEARTBEAT_EVERY_S: Final = 1.0
_FIRST_PROBE_S: Final = 1.0
"""What `start` grants the first probe, so that a service whose database is there begins with it."""


class Database:
    """A pool that knows at once when its server is gone, and within a second when it is back.

    Args:
        settings: time-outs and the schema.
        url: as RECO_DATABASE_URL.
        application_name: shows in pg_stat_activity.
        size: connections at most, the sentinel among them; at least 2.

    Raises:
        SettingsError: the URL cannot be read.
    """

    def __init__(self, settings: Settings, url: str | None, *, application_name: str, size: int) -> None:
        self._connector = Connector(settings, url, application_name)
        self._size = max(1, size - 1)
        self._pool: AsyncConnectionPool[ServiceConnection] | None = None
        self._sentinel: ServiceConnection | None = None
        self._reason = "it has not been asked yet"
        self._back = asyncio.Event()
        self._suspected = asyncio.Event()
        self._acquiring: set[asyncio.Timeout] = set()
        self._in_use: set[ServiceConnection] = set()
        self._errands: set[asyncio.Task[None]] = set()
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to watch the server; whether it answers or not, this returns within a second."""
        self._watch = asyncio.create_task(self._keep_watch(), name=f"watch {self._connector.where}")
        await self.wait_available(_FIRST_PROBE_S)

    async def stop(self) -> None:
        """Close every connection."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        self._lose("the service has stopped")
        await asyncio.gather(*self._errands, return_exceptions=True)

    @property
    def available(self) -> bool:
        """Whether the server answered when it was last asked."""
        return self._pool is not None

    def check_available(self) -> None:
        """Return, or say that the server is gone.

        Raises:
            DatabaseUnreachable: it is.
        """
        if self._pool is None:
            raise self._gone()

    async def wait_available(self, timeout_s: float) -> bool:
        """Wait until the server is there, or so long; whether it is."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._back.wait(), timeout_s)
        return self.available

    @asynccontextmanager
    async def connection(self, *, timeout_s: float) -> AsyncIterator[ServiceConnection]:
        """A connection in autocommit; a caller who is cancelled is free at once, and so are the others.

        Args:
            timeout_s: how long to wait for a free one. What runs on it has its own limits: the statement
                time-out (RECO_FEED_TIMEOUT_S), and the caller's.

        Raises:
            DatabaseUnreachable: at once while the server is gone; or it was lost meanwhile.
            DatabaseBusy: no free connection within `timeout_s`; a time-out, a deadlock.
            SchemaError, SettingsError, StorageFull: see `store.database.translated`.
        """
        with self._connector.translated():
            pool = self._pool
            if pool is None:
                raise self._gone()
            connection = await self._taken_from(pool, timeout_s)
            self._in_use.add(connection)
            try:
                yield connection
            finally:
                self._in_use.discard(connection)
                if connection.closed:
                    self._suspected.set()
                # Behind the caller's back: a cancelled one must not wait, and must not lose the connection.
                self._behind(self._give_back(pool, connection))

    async def connect(self) -> ServiceConnection:
        """A connection of one's own, outside the pool, as LISTEN needs; the caller closes it.

        Raises:
            DatabaseUnreachable: at once while the server is gone, or it does not answer.
            SettingsError: it refuses the login.
        """
        self.check_available()
        connection = await self._connector.connect()
        connection.answer_within_s = float("inf")
        return connection

    @asynccontextmanager
    async def own_connection(self) -> AsyncIterator[ServiceConnection]:
        """As `connect`, for background work that takes longer than a request may; closed at the end.

        Raises: as `connection`.
        """
        with self._connector.translated():
            connection = await self.connect()
            try:
                yield connection
            finally:
                if connection.idle:
                    await connection.close()
                else:
                    self._behind(_close(connection))

    def stats(self) -> dict[str, int]:
        """Connections by state, and requests that wait for one."""
        counts = self._pool.get_stats() if self._pool is not None else {}
        return {
            "open": counts.get("pool_size", 0),
            "idle": counts.get("pool_available", 0),
            "in_use": len(self._in_use),
            "waiting": counts.get("requests_waiting", 0),
        }

    async def _taken_from(
        self, pool: "AsyncConnectionPool[ServiceConnection]", timeout_s: float
    ) -> ServiceConnection:
        try:
            async with asyncio.timeout(timeout_s) as limit:
                self._acquiring.add(limit)
                try:
                    return await pool.getconn(timeout_s + 1)
                finally:
                    self._acquiring.discard(limit)
        except TimeoutError:
            if pool is not self._pool:
                raise self._gone() from None
            raise DatabaseBusy(
                f"No connection to {self._connector.where} was free within {timeout_s:g} s. "
                "Raise RECO_SERVICE_POOL_SIZE if that happens often."
            ) from None

    async def _give_back(
        self, pool: "AsyncConnectionPool[ServiceConnection]", connection: ServiceConnection
    ) -> None:
        if not await connection.settled():
            self._suspected.set()
        await pool.putconn(connection)

    async def _keep_watch(self) -> None:
        """Ask the sentinel every second, or at once on suspicion; without a server four times a second."""
        lost_at: float | None = None
        while True:
            try:
                await self._ask()
            except Exception as error:  # without a watch nobody would notice that the server is back
                expected = isinstance(error, RecoError)
                if lost_at is None:
                    lost_at = time.monotonic()
                    if expected:
                        log.warning("%s", error)
                    else:
                        log.exception("PostgreSQL at %s cannot be watched.", self._connector.where)
                self._lose(str(error) if expected else f"Watching it failed: {type(error).__name__}.")
                await asyncio.sleep(_PROBE_EVERY_S)
                continue
            if lost_at is not None:
                gone_s, lost_at = time.monotonic() - lost_at, None
                log.warning("PostgreSQL at %s is back after %.1f s.", self._connector.where, gone_s)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._suspected.wait(), _HEARTBEAT_EVERY_S)
            self._suspected.clear()

    async def _ask(self) -> None:
        """Whether the server answers; if so, there is a pool of connections to it.

        A connection that was lost is no server that was lost: then a new one is asked before anybody is
        turned away. The pool may be full of dead ones and is replaced.
        """
        if self._sentinel is not None and self._pool is not None:
            try:
                await ask(self._sentinel, self._connector)
                return
            except RecoError:
                hangs = not self._sentinel.closed
                self._dismiss_sentinel()
                if hangs:
                    raise
        self._sentinel = await self._connector.connect()
        pool = self._connector.pool(self._size)
        await pool.open()
        old, self._pool = self._pool, pool
        self._back.set()
        if old is not None:
            self._behind(old.close())

    def _lose(self, reason: str) -> None:
        """Turn everybody away: who waits for a connection, and who waits for an answer on one."""
        self._reason = reason
        self._back.clear()
        if self._pool is None:
            return
        pool, self._pool = self._pool, None
        now = asyncio.get_running_loop().time()
        for limit in tuple(self._acquiring):
            if not limit.expired():
                limit.reschedule(now)
        for connection in tuple(self._in_use):
            connection.sever()
        self._dismiss_sentinel()
        self._behind(pool.close())

    def _dismiss_sentinel(self) -> None:
        sentinel, self._sentinel = self._sentinel, None
        if sentinel is not None:
            self._behind(_close(sentinel))

    def _gone(self) -> DatabaseUnreachable:
        return DatabaseUnreachable(f"{self._connector.where} is tried again every 0.25 s. {self._reason}")

    def _behind(self, errand: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)


async def _close(connection: ServiceConnection) -> None:
    connection.sever()
    await connection.settled()
    await connection.close()
