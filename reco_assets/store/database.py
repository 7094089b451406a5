"""Connections: engines, retries while connecting, and driver errors turned into ours.

Every connection runs in UTC and in the schema of the settings, under time-outs for connecting, for
one statement and for one lock. A `timestamp` without zone, as some ORMs make them, is thereby read
as UTC.
"""

import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from reco_assets.errors import (
    DatabaseBusy,
    DatabaseUnreachable,
    RecoError,
    SchemaError,
    SettingsError,
    StorageFull,
)
from reco_assets.settings import Settings

T = TypeVar("T")

_RETRIES_OPTION: Final = "reco_connection_retries"
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
_PRISMA_PARAMETERS = frozenset(
    {"schema", "connection_limit", "pool_timeout", "pgbouncer", "socket_timeout", "statement_cache_size"}
)
"""What Prisma adds to a URL and libpq refuses."""


def create_engine_for(settings: Settings, *, application_name: str = "reco") -> sa.Engine:
    """A pooled engine on `settings.database_url` through psycopg 3.

    Nothing connects yet. `application_name` shows in pg_stat_activity.

    Raises:
        SettingsError: No URL, one that cannot be read, or one that names another schema.
    """
    url, behind_pooler = _read_url(settings)
    arguments: dict[str, Any] = _connection_parameters(settings, url, application_name)
    if behind_pooler:
        arguments["prepare_threshold"] = None  # older pgbouncers lose prepared statements between backends
    engine = sa.create_engine(
        url,
        pool_size=settings.pool_size,
        max_overflow=0,
        pool_timeout=settings.connect_timeout_s,
        pool_pre_ping=True,
        hide_parameters=True,  # parameters are people's ids and metadata; errors end up in logs
        connect_args=arguments,
    )
    return engine.execution_options(**{_RETRIES_OPTION: settings.connection_retries})


def native_url(settings: Settings, *, application_name: str = "reco") -> str:
    """The URL for libpq (psycopg, ADBC), with the same schema, zone and time-outs as the engine."""
    url, _ = _read_url(settings)
    parameters = _connection_parameters(settings, url, application_name)
    query = {**{key: value for key, value in url.query.items() if isinstance(value, str)}, **parameters}
    bare = url.set(drivername="postgresql", query={}).render_as_string(hide_password=False)
    return f"{bare}?{urlencode(query, safe='').replace('+', '%20')}"


def uses_pooler(settings: Settings) -> bool:
    """Whether the URL says (`pgbouncer=true`) that connections are shared: no prepared statements then."""
    return _read_url(settings)[1]


def describe(engine: sa.Engine) -> str:
    """Where the engine connects to, without user and password: `host:port/dbname`."""
    return describe_url(engine.url)


def describe_url(url: sa.URL) -> str:
    """The same of a URL."""
    return f"{url.host or 'localhost'}:{url.port or 5432}/{url.database or ''}"


@contextmanager
def connect_with_retry(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection without a transaction; *establishing* it is retried, what runs on it is not.

    Raises:
        DatabaseUnreachable: Still refused after RECO_CONNECTION_RETRIES tries more, or lost later.
        DatabaseBusy, SchemaError, SettingsError, StorageFull: see `translated`.
    """
    with translated(engine):
        connection = _connect(engine)
        with connection:
            yield connection


@contextmanager
def transaction(engine: sa.Engine) -> Iterator[sa.Connection]:
    """One transaction: committed when the block ends, rolled back when it raises.

    Raises: as `connect_with_retry`.
    """
    with connect_with_retry(engine) as connection, connection.begin():
        yield connection


def run_transaction(engine: sa.Engine, function: Callable[[sa.Connection], T]) -> T:
    """Run `function` in a transaction, again from the start when the connection is lost.

    A connection lost during COMMIT leaves unknown whether it happened, so `function` must be
    idempotent.
    """
    for pause in pauses(engine):
        try:
            with transaction(engine) as connection:
                return function(connection)
        except DatabaseUnreachable:
            if pause is None:
                raise
            time.sleep(pause)
    raise AssertionError("unreachable")


@contextmanager
def translated(engine: sa.Engine) -> Iterator[None]:
    """Turn driver errors of the block into ours; what is a bug in the SQL passes through.

    Raises:
        DatabaseUnreachable: No connection, or it was lost.
        DatabaseBusy: A statement or lock time-out, a deadlock, a serialization failure, a full pool.
        SchemaError: A table or column is missing, or a right on it.
        SettingsError: The server refuses the login or the database, or is a read-only replica.
        StorageFull: The server's disk is full.
    """
    try:
        yield
    except (DBAPIError, PoolTimeout) as error:
        ours = translate(error, describe(engine))
        if ours is None:
            raise
        raise ours from error
    except Exception as error:
        # COPY talks to psycopg directly and the extract to ADBC: not wrapped by SQLAlchemy. Asked by
        # name, because importing ADBC here would make this module heavy.
        if type(error).__module__.partition(".")[0] not in ("psycopg", "adbc_driver_manager"):
            raise
        ours = translate(error, describe(engine))
        if ours is None:
            raise
        raise ours from error


def sqlstate(error: BaseException) -> str:
    """The five characters by which PostgreSQL names an error; empty if it did not come from there."""
    return getattr(getattr(error, "orig", None) or error, "sqlstate", None) or ""


def _connect(engine: sa.Engine) -> sa.Connection:
    for pause in pauses(engine):
        try:
            return engine.connect()
        except DBAPIError as error:
            ours = translate(error, describe(engine))
            if pause is None or not isinstance(ours, DatabaseUnreachable):
                raise
            time.sleep(pause)
    raise AssertionError("unreachable")


def pauses(engine: sa.Engine) -> Iterator[float | None]:
    """Seconds to wait after each failed try, then None; jitter keeps clients from coming back all at once."""
    retries = int(engine.get_execution_options().get(_RETRIES_OPTION, 0))
    for attempt in range(retries):
        yield min(_FIRST_PAUSE_S * 2**attempt, _LONGEST_PAUSE_S) * random.uniform(0.5, 1.5)
    yield None


def _read_url(settings: Settings) -> tuple[sa.URL, bool]:
    """The URL for psycopg 3 whatever driver it named, and whether it says that a pooler is in between."""
    if settings.database_url is None:
        raise SettingsError(
            "No database: RECO_DATABASE_URL is empty. Set it to a postgresql:// URL, or let `reco dev` "
            "start the embedded PostgreSQL."
        )
    try:
        url = sa.make_url(settings.database_url)
    except (sa.exc.ArgumentError, ValueError):
        raise SettingsError(
            "RECO_DATABASE_URL cannot be read. Expected postgresql://user:password@host:5432/dbname; "
            "special characters in the password must be percent-encoded."
        ) from None
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise SettingsError(f"RECO_DATABASE_URL starts with {url.drivername}://; only postgresql:// works.")
    if "@" in (url.database or ""):
        raise SettingsError(
            "RECO_DATABASE_URL has an @ behind the host: percent-encode special characters in the password "
            "(@ is %40, / is %2F)."
        )
    schema = url.query.get("schema", settings.database_schema)
    if schema != settings.database_schema:
        raise SettingsError(
            f"RECO_DATABASE_URL names the schema {schema!r}, RECO_DATABASE_SCHEMA is "
            f"{settings.database_schema!r}. Set RECO_DATABASE_SCHEMA={schema}."
        )
    pooler = url.query.get("pgbouncer") == "true"
    return url.set(drivername="postgresql+psycopg").difference_update_query(_PRISMA_PARAMETERS), pooler


def _milliseconds(seconds: float) -> str:
    """At least 1: PostgreSQL takes 0 for no limit."""
    return str(max(1, math.ceil(seconds * 1000)))


def _connection_parameters(settings: Settings, url: sa.URL, application_name: str) -> dict[str, str]:
    session = {
        "search_path": settings.database_schema,
        "timezone": "UTC",
        "statement_timeout": _milliseconds(settings.statement_timeout_s),
        "lock_timeout": _milliseconds(settings.lock_timeout_s),
    }
    options = " ".join(f"-c {name}={value}" for name, value in session.items())
    given = url.query.get("options", "")
    return {
        "options": f"{given} {options}".strip(),
        "application_name": application_name,
        "connect_timeout": f"{max(1, round(settings.connect_timeout_s))}",
        # A peer that vanished without a word is noticed within a minute, not after the kernel's two hours.
        "keepalives_idle": "30",
        "keepalives_interval": "10",
        "keepalives_count": "3",
    }


_BUSY = {
    "57014": "a statement ran longer than RECO_STATEMENT_TIMEOUT_S or was cancelled",
    "55P03": "a lock was not free within RECO_LOCK_TIMEOUT_S",
    "40P01": "a deadlock was broken at our expense",
    "40001": "a concurrent change forced a rollback",
}
_MISSING = {"42P01", "42703", "3F000", "42P10"}
_LOST = {"57P01", "57P02", "57P03", "57P05", "53300", "25P03", "25P04"}
_LOGIN = {"28000", "28P01", "3D000"}


def translate(error: Exception, where: str) -> RecoError | None:
    """What a driver's error means to us; None if it is a bug in the SQL, or in the data it was given.

    Args:
        error: SQLAlchemy's, psycopg's or ADBC's.
        where: the server, as `describe` names it.
    """
    original: Any = getattr(error, "orig", None) or error
    state = sqlstate(error)
    detail = str(original).strip().splitlines()[0] if str(original).strip() else type(original).__name__
    if isinstance(error, PoolTimeout):
        return DatabaseBusy(f"All connections to {where} are in use. Raise RECO_POOL_SIZE or look for leaks.")
    if state in _BUSY:
        return DatabaseBusy(f"PostgreSQL at {where}: {_BUSY[state]} ({detail}). Trying again later can help.")
    if state in _MISSING:
        return SchemaError(f"The database at {where} lacks something: {detail}. Run `reco migrate`.")
    if state == "42501":
        return SchemaError(f"The database role lacks a right at {where}: {detail}. See docs/tables.md.")
    if state == "2BP01":
        return SchemaError(f"Other objects at {where} depend on ours: {detail}. Drop those first.")
    if state == "53100":
        return StorageFull(
            f"The disk of PostgreSQL at {where} is full: {detail}. Free space, then run again."
        )
    if state == "25006":
        return SettingsError(f"PostgreSQL at {where} is read-only. Point RECO_DATABASE_URL at the primary.")
    # libpq gives no code for a refused login, only the server's words.
    refused = ("authentication failed", "no password supplied", "no pg_hba.conf entry")
    absent = 'database "' in detail and "does not exist" in detail
    if state in _LOGIN or (not state and (absent or any(words in detail for words in refused))):
        return SettingsError(f"PostgreSQL at {where} refuses the login: {detail}. Check RECO_DATABASE_URL.")
    lost = getattr(error, "connection_invalidated", False) or type(original).__name__ in (
        *("OperationalError", "InterfaceError", "ConnectionTimeout", "AdminShutdown"),
    )
    if state in _LOST or state.startswith("08") or (not state and lost):
        return DatabaseUnreachable(
            f"PostgreSQL at {where} cannot be reached or was lost: {detail}. "
            "Is it running, and does RECO_DATABASE_URL name it?"
        )
    return None
