"""Connections of the service: asynchronous, autocommit, and never waited for longer than the caller wants.

The session is that of `database.py` (UTC, the schema of the settings, time-outs), with the shorter
time-outs of a service.
"""

import asyncio
import math
import os
import socket
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

import psycopg
import sqlalchemy as sa
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from reco_assets.errors import DatabaseBusy, DatabaseUnreachable
from reco_assets.settings import Settings
from reco_assets.store.database import describe_url, native_url, translate, uses_pooler

T = TypeVar("T")

CONNECT_TIMEOUT_S: Final = 2.0
"""For connecting and for the answer to a probe: a server that takes longer is as good as gone."""
_SLICES: Final = 8
_LEAVE_TIMEOUT_S: Final = 1.0
_SLACK_S: Final = 2.0
"""How much later than its own statement time-out a server may answer before it counts as hung."""


class ServiceConnection(psycopg.AsyncConnection[tuple[Any, ...]]):
    """A connection that lets go at once: of a cancelled query, and of a server that does not answer.

    psycopg makes a cancelled caller wait until the server has confirmed, up to ten seconds if it hangs. Here
    the query is cancelled behind the caller's back; until that is done (`settled`) the connection is of no
    use.

    Attributes:
        answer_within_s: how long one statement may take before the server counts as hung.
    """

    answer_within_s: float = math.inf
    _leaving: "asyncio.Task[Any] | None" = None

    async def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """Run a piece of the protocol; called by psycopg for everything that talks to the server."""
        if self._leaving is not None:
            raise psycopg.OperationalError("the connection is still busy with a cancelled query")
        if timeout is not None:  # the caller has an own idea, such as how long to wait for a notification
            return await super().wait(gen, interval, timeout)
        task = asyncio.ensure_future(super().wait(gen, interval))
        limit = None if math.isinf(self.answer_within_s) else self.answer_within_s
        try:
            await asyncio.wait(
                (task,), timeout=limit
            )  # unlike wait_for, leaves the task alone when cancelled
        except asyncio.CancelledError:
            self._leave(task)
            raise
        if task.done():
            return task.result()
        self._leave(task)
        raise psycopg.OperationalError(f"the server did not answer within {limit:g} s")

    def _leave(self, task: "asyncio.Task[Any]") -> None:
        if task.cancel():
            self._leaving = task
            task.add_done_callback(_retrieve)

    @property
    def idle(self) -> bool:
        """Whether it can take the next statement at once."""
        return self._leaving is None and self.pgconn.transaction_status == TransactionStatus.IDLE

    async def settled(self) -> bool:
        """Wait until a cancelled query has ended; False, and the connection is lost, if the server hangs."""
        if self._leaving is None:
            return True
        for _ in range(_SLICES):
            done, _ = await asyncio.wait((self._leaving,), timeout=_LEAVE_TIMEOUT_S / _SLICES)
            if done:
                break
        else:
            self.sever()
            await asyncio.wait((self._leaving,), timeout=_LEAVE_TIMEOUT_S)
        self._leaving = None
        return bool(done) and not self.closed

    def sever(self) -> None:
        """End the connection without the server's help: who waits for an answer gets an error now."""
        # Shut down, not closed: the loop still watches the descriptor, whose number must not be reused.
        with (
            suppress(OSError, psycopg.Error),
            socket.socket(fileno=os.dup(self.pgconn.socket)) as end,
        ):
            end.shutdown(socket.SHUT_RDWR)


def _retrieve(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled():
        task.exception()  # or asyncio complains that nobody looked at it


class Connector:
    """Opens connections of one kind to one server.

    Attributes:
        where: the server as `host:port/dbname`, for messages.

    Raises:
        SettingsError: the URL cannot be read.
    """

    def __init__(self, settings: Settings, url: str | None, application_name: str) -> None:
        limits = {
            "database_url": url,
            "statement_timeout_s": settings.feed_timeout_s,
            "connect_timeout_s": min(settings.connect_timeout_s, CONNECT_TIMEOUT_S),
        }
        settings = settings.model_copy(update=limits)
        self._url = native_url(settings, application_name=application_name)
        self._arguments: dict[str, Any] = {"autocommit": True}
        if uses_pooler(settings):
            self._arguments["prepare_threshold"] = None
        self._answer_within_s = settings.feed_timeout_s + _SLACK_S
        self.where = describe_url(sa.make_url(self._url))

    def pool(self, size: int) -> "AsyncConnectionPool[ServiceConnection]":
        """A pool that is not open yet; it connects as it is used, up to `size` connections."""
        return AsyncConnectionPool(
            self._url,
            connection_class=ServiceConnection,
            kwargs=self._arguments,
            min_size=min(2, size),
            max_size=size,
            open=False,
            configure=self._configure,
            name=self.where,
            num_workers=2,
        )

    async def connect(self) -> ServiceConnection:
        """A connection outside the pool; the caller closes it.

        Raises:
            DatabaseUnreachable, SettingsError: see `translated_async`.
        """
        with self.translated():
            try:
                # libpq's own time-out counts in whole seconds and for each address anew.
                connection = await _patiently(ServiceConnection.connect(self._url, **self._arguments))
            except TimeoutError:
                raise DatabaseUnreachable(
                    f"PostgreSQL at {self.where} did not take a connection within {CONNECT_TIMEOUT_S:g} s."
                ) from None
        await self._configure(connection)
        return connection

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn errors of psycopg and its pool into ours; what is a bug in the SQL passes through.

        Raises:
            DatabaseUnreachable, DatabaseBusy, SchemaError, SettingsError, StorageFull: see
                `database.translated`.
        """
        try:
            yield
        except (PoolTimeout, TooManyRequests) as error:
            raise DatabaseBusy(
                f"All connections to {self.where} are in use. Raise RECO_SERVICE_POOL_SIZE."
            ) from error
        except PoolClosed as error:
            raise DatabaseUnreachable(f"PostgreSQL at {self.where} was lost.") from error
        except psycopg.Error as error:
            ours = translate(error, self.where)
            if ours is None:
                raise
            raise ours from error

    async def _configure(self, connection: ServiceConnection) -> None:
        connection.answer_within_s = self._answer_within_s


async def ask(connection: ServiceConnection, connector: Connector) -> None:
    """Whether the server still answers on this connection.

    Raises:
        DatabaseUnreachable: no answer within CONNECT_TIMEOUT_S.
    """
    with connector.translated():
        try:
            await _patiently(connection.execute("SELECT 1"))
        except TimeoutError:
            raise DatabaseUnreachable(
                f"PostgreSQL at {connector.where} did not answer within {CONNECT_TIMEOUT_S:g} s."
            ) from None


async def _patiently(asking: Coroutine[Any, Any, T]) -> T:
    """Wait for CONNECT_TIMEOUT_S during which the loop ran: a process that was held up itself blames nobody.

    When a loop goes on after a pause, its timers come first and then the answers that arrived meanwhile. A
    pause uses up one slice of the patience only.

    Raises:
        TimeoutError: no answer.
    """
    task = asyncio.ensure_future(asking)
    try:
        for _ in range(_SLICES):
            done, _ = await asyncio.wait((task,), timeout=CONNECT_TIMEOUT_S / _SLICES)
            if done:
                return task.result()
    finally:
        if task.cancel():
            task.add_done_callback(_retrieve)
    raise TimeoutError
