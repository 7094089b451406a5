"""A migrated database per test, copied from a template that is migrated once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from reco_assets.local.embedded_postgres import ServerAddress
from reco_assets.settings import Settings
from reco_assets.store import migrate
from reco_assets.store.database import create_engine_for

TEMPLATE = "reco_store_template"


def settings_for(url: str, **changes: Any) -> Settings:
    values: dict[str, Any] = {"database_url": url, "home": Path("/nonexistent"), "connection_retries": 3}
    return Settings(**{**values, **changes})


@pytest.fixture(scope="session")
def template(postgres_server: ServerAddress) -> str:
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        # Each directory of tests that takes this fixture has one of its own; the server is one.
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (TEMPLATE,)).fetchone():
            return TEMPLATE
        connection.execute(f"CREATE DATABASE {TEMPLATE}")
    migrate.upgrade(settings_for(postgres_server.url(TEMPLATE)))
    return TEMPLATE


@pytest.fixture
def settings(
    postgres_server: ServerAddress, template: str, request: pytest.FixtureRequest
) -> Iterator[Settings]:
    """Settings for a migrated database of its own."""
    name = f"s_{abs(hash(request.node.nodeid)):x}"
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield settings_for(postgres_server.url(name))
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def engine(settings: Settings) -> Iterator[sa.Engine]:
    engine = create_engine_for(settings)
    yield engine
    engine.dispose()
