"""Bring the database's schema up to date, back, and say where it stands.

Each call is one transaction: DDL is transactional in PostgreSQL, so an upgrade that fails half way
leaves nothing behind. An advisory lock makes a second migration wait for the first.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from reco_assets.errors import SchemaError
from reco_assets.settings import Settings
from reco_assets.store.adoption import look_around, relation_columns
from reco_assets.store.database import create_engine_for, describe, transaction

if TYPE_CHECKING:
    from alembic.config import Config

VERSION_TABLE: Final = "reco_alembic_version"
CREATED_TABLE: Final = "reco_created_objects"
"""Lists what the migrations made, because a downgrade must drop that and nothing of the app's."""
_LOCK_CLASS: Final = 0x7265636F  # "reco"; the second key is the schema, so that two apps do not wait


@dataclass(frozen=True)
class Migration:
    """What one call changed: revisions (None: no schema of ours) and objects, such as `table posts`."""

    before: str | None
    after: str | None
    created: tuple[str, ...]
    dropped: tuple[str, ...]


def upgrade(settings: Settings, revision: str = "head") -> Migration:
    """Create what is missing; nothing to do is success.

    Raises:
        SchemaError: Existing tables cannot be used (the message says why), or the database is ahead.
    """
    return _migrate(settings, revision, upwards=True)


def downgrade(settings: Settings, revision: str = "base") -> Migration:
    """Drop what the migrations created after `revision`; the app's own tables stay."""
    return _migrate(settings, revision, upwards=False)


def current(settings: Settings) -> str | None:
    """The revision the database is at; None if it was never migrated."""
    with _engine(settings) as engine, transaction(engine) as connection:
        return _current(connection)


def head() -> str:
    """The newest revision this package knows."""
    from alembic.script import ScriptDirectory

    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None
    return revision


def identity(connection: sa.Connection) -> str:
    """Tells one migrated database from another, dump and restore included: when its tables were made."""
    objects = sa.table(CREATED_TABLE, sa.column("created_at", sa.DateTime(timezone=True)))
    made = connection.scalar(sa.select(sa.func.min(objects.c.created_at)))
    return made.astimezone(UTC).isoformat() if made else "unknown"


def check(settings: Settings) -> str:
    """Return the revision if database and package agree.

    Raises:
        SchemaError: The database is behind (run `reco migrate`) or was migrated by a newer package.
    """
    with _engine(settings) as engine, transaction(engine) as connection:
        found = _current(connection)
        if found == head():
            return found
        _refuse_unknown(found, describe(engine))
        raise SchemaError(
            f"The schema of {describe(engine)} is at {found or 'no revision'}, this package needs {head()}. "
            "Run `reco migrate`."
        )


def _migrate(settings: Settings, revision: str, *, upwards: bool) -> Migration:
    from alembic import command

    with _engine(settings) as engine, transaction(engine) as connection:
        _wait_for_other_migrations(connection, settings)
        connection.execute(
            sa.text("SELECT set_config('client_min_messages', 'warning', true)")
        )  # "already exists, skipping" is our normal case
        config = _config()
        created_before = _created(connection)
        before = _current(connection)
        _refuse_unknown(before, describe(engine))
        config.attributes["connection"] = connection
        if upwards:
            _create_schema(connection, settings.database_schema)
            config.attributes["existing"] = look_around(connection)
            command.upgrade(config, revision)
        else:
            command.downgrade(config, revision)
        created_after = _created(connection)
        after = _current(connection)
        if after is None:
            connection.execute(sa.text(f"DROP TABLE IF EXISTS {VERSION_TABLE}"))
        return Migration(
            before,
            after,
            created=tuple(sorted(created_after - created_before)),
            dropped=tuple(sorted(created_before - created_after)),
        )


def _wait_for_other_migrations(connection: sa.Connection, settings: Settings) -> None:
    """Wait as long as a statement may run: the other migration is doing our work."""
    connection.execute(sa.text("SELECT set_config('lock_timeout', '0', true)"))
    connection.execute(
        sa.text("SELECT pg_advisory_xact_lock(:class, hashtext(:schema))"),
        {"class": _LOCK_CLASS, "schema": settings.database_schema},
    )
    connection.execute(
        sa.text("SELECT set_config('lock_timeout', :limit, true)"),
        {"limit": f"{settings.lock_timeout_s * 1000:.0f}"},
    )


def _create_schema(connection: sa.Connection, schema: str) -> None:
    present = connection.scalar(sa.text("SELECT 1 FROM pg_namespace WHERE nspname = :name"), {"name": schema})
    if not present:  # asked first, because CREATE SCHEMA IF NOT EXISTS needs the right to create
        connection.execute(sa.schema.CreateSchema(schema))


def _current(connection: sa.Connection) -> str | None:
    if VERSION_TABLE not in relation_columns(connection):
        return None
    version = sa.table(VERSION_TABLE, sa.column("version_num", sa.String))
    return connection.scalar(sa.select(version.c.version_num))


def _created(connection: sa.Connection) -> set[str]:
    if CREATED_TABLE not in relation_columns(connection):
        return set()
    objects = sa.table(CREATED_TABLE, sa.column("kind", sa.String), sa.column("name", sa.String))
    return {f"{kind} {name}" for kind, name in connection.execute(sa.select(objects.c.kind, objects.c.name))}


def _refuse_unknown(found: str | None, where: str) -> None:
    from alembic.script import ScriptDirectory

    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if found is not None and found not in known:
        raise SchemaError(
            f"The schema of {where} is at revision {found}, which this package does not know; a newer "
            "reco-assets migrated it. Upgrade the package."
        )


def _config() -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "reco_assets.store:migrations")
    return config


@contextmanager
def _engine(settings: Settings) -> Iterator[sa.Engine]:
    engine = create_engine_for(settings, application_name="reco-migrate")
    try:
        yield engine
    finally:
        engine.dispose()
