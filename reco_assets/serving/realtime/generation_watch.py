"""Which generation is live: told by the database at once, and asked every few seconds all the same."""

import contextlib
import os
import selectors
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from reco_assets.settings import Settings
from reco_assets.store.database import describe_url, native_url, translate
from reco_assets.store.generations import NOTIFY_CHANNEL
from reco_assets.store.live_events import LiveModel, live_model

if TYPE_CHECKING:
    import psycopg

_ASK_EVERY_S: Final = 5.0
_CONNECT_TIMEOUT_S: Final = 2
_LOOK_TIMEOUT_S: Final = 10.0
"""For one statement of a look, which reads what happened since the last one."""
_CATCH_UP_TIMEOUT_S: Final = 120.0
"""For one of the first look, which may read a million events."""


class GenerationWatch:
    """A connection to the primary that listens, for one thread; `wake` is for the others.

    A notification may be lost with its connection, so a look is due every few seconds as well.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection: psycopg.Connection[Any] | None = None
        self._live: LiveModel | None = None
        self._told = True
        self._asked_at = 0.0
        self._wake_end, self._waker = os.pipe()
        os.set_blocking(self._wake_end, False)
        os.set_blocking(self._waker, False)

    def __del__(self) -> None:
        for end in (self._wake_end, self._waker):
            with contextlib.suppress(OSError):
                os.close(end)

    def connection(self) -> "psycopg.Connection[Any]":
        """The connection, made anew if it was lost; autocommit.

        Raises:
            DatabaseUnreachable, SettingsError: as `store.database.translate` says.
        """
        if self._connection is None or self._connection.closed:
            with translated(self._settings):
                self._connection = _open(self._settings, _LOOK_TIMEOUT_S)
                # Notifications may arrive with the answer to any query, not only while waiting for them.
                self._connection.add_notify_handler(self._hear)
                self._connection.execute(f"LISTEN {NOTIFY_CHANNEL}")
            self._told = True
        return self._connection

    def look(self, *, force: bool = False) -> tuple[LiveModel | None, bool]:
        """The live generation, and whether it is another one than last time; asks only when that is due."""
        due = force or self._told or time.monotonic() - self._asked_at >= _ASK_EVERY_S
        if not due:
            return self._live, False
        with translated(self._settings):
            found = live_model(self.connection())
        self._told, self._asked_at = False, time.monotonic()
        is_new = found != self._live
        self._live = found
        return found, is_new

    def wait(self, timeout_s: float) -> None:
        """Until woken or told of a new generation, at most so long."""
        connection = self._connection
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_end, selectors.EVENT_READ)
            if connection is not None and not connection.closed:
                selector.register(connection.fileno(), selectors.EVENT_READ)
            ready = {key.fd for key, _ in selector.select(timeout_s)}
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_end, 4096)
        if ready - {self._wake_end}:
            self._told = True  # a notification, or the connection's end: the next query reads it

    def wake(self) -> None:
        """End a `wait`; for any thread."""
        with contextlib.suppress(OSError):
            os.write(self._waker, b"w")

    def _hear(self, _: "psycopg.Notify") -> None:
        self._told = True

    def disconnect(self) -> None:
        """Close the connection; the next use makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()


@contextmanager
def connect(settings: Settings) -> "Iterator[psycopg.Connection[Any]]":
    """A connection for a while, autocommit; raises as `GenerationWatch.connection`."""
    with translated(settings), contextlib.closing(_open(settings, _CATCH_UP_TIMEOUT_S)) as connection:
        yield connection


@contextmanager
def translated(settings: Settings) -> Iterator[None]:
    """Turn the driver's errors into ours."""
    import psycopg

    try:
        yield
    except psycopg.Error as error:
        ours = translate(error, describe_url(sa.make_url(settings.database_url or "")))
        if ours is None:
            raise
        raise ours from error


def _open(settings: Settings, statement_timeout_s: float) -> "psycopg.Connection[Any]":
    import psycopg

    # The settings' own limit is that of the pipeline's statements, minutes: so long live votes stand still.
    limit = min(statement_timeout_s, settings.statement_timeout_s)
    settings = settings.model_copy(update={"statement_timeout_s": limit})
    return psycopg.connect(
        native_url(settings, application_name="reco service, live votes"),
        autocommit=True,
        connect_timeout=_CONNECT_TIMEOUT_S,
    )
