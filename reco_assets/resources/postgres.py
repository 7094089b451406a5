"""The app's database as a Dagster resource."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field, PrivateAttr

from reco_assets.local.stack import database_url
from reco_assets.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine


class PostgresResource(dg.ConfigurableResource):
    """Pooled connections with time-outs, an application name, and retries while connecting.

    The URL is read from RECO_DATABASE_URL when a run starts, never stored in the run's
    configuration: definitions load without secrets and no secret shows in the UI.
    """

    pool_size: int = Field(5, ge=1, le=200, description="Connections a run keeps at most.")
    connect_timeout_s: float = Field(10.0, gt=0, le=300, description="Seconds to wait for a connection.")
    statement_timeout_s: float = Field(600.0, gt=0, le=86_400, description="Seconds one statement may run.")
    lock_timeout_s: float = Field(2.0, gt=0, le=600, description="Seconds to wait for a lock.")
    connection_retries: int = Field(3, ge=0, le=100, description="Times a lost connection is tried again.")

    _settings: Settings | None = PrivateAttr(None)
    _engine: "Engine | None" = PrivateAttr(None)

    @classmethod
    def from_settings(cls, settings: Settings) -> "PostgresResource":
        """With the limits that the environment sets."""
        return cls(**{name: getattr(settings, name) for name in cls.model_fields})

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002
        """Settle the limits for this run; connects to nothing yet."""
        limits = {name: getattr(self, name) for name in type(self).model_fields}
        self._settings = Settings.load().model_copy(update=limits)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002
        """Close the pool."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    @property
    def settings(self) -> Settings:
        """The settings of this run, with the URL of the database they lead to."""
        settings = self._settings or Settings.load()
        return settings.model_copy(update={"database_url": database_url(settings)})

    @property
    def engine(self) -> "Engine":
        """The run's connection pool, made at first use, to a database of this package's schema.

        Raises:
            SchemaError: The database was not migrated, or by another version.
        """
        if self._engine is None:
            from reco_assets.store import migrate
            from reco_assets.store.database import create_engine_for

            migrate.check(self.settings)
            self._engine = create_engine_for(self.settings, application_name="reco_assets pipeline")
        return self._engine

    def identity(self) -> str:
        """Which database this is; see `migrate.identity`."""
        from reco_assets.store import migrate

        with self.transaction() as connection:
            return migrate.identity(connection)

    @contextmanager
    def transaction(self) -> "Iterator[Connection]":
        """One transaction: committed at the end, rolled back on an error."""
        from reco_assets.store.database import transaction

        with transaction(self.engine) as connection:
            yield connection
