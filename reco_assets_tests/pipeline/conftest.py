"""A migrated database for each test."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from reco_assets.store import migrate
from reco_assets.store.database import create_engine_for
from reco_assets_tests.store.conftest import settings_for


@pytest.fixture
def engine(empty_database_url: str) -> Iterator[sa.Engine]:
    settings = settings_for(empty_database_url)
    migrate.upgrade(settings)
    engine = create_engine_for(settings)
    yield engine
    engine.dispose()
