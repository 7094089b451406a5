"""Fixtures that the whole suite shares. PostgreSQL is real in every test that touches SQL."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_postgresql.janitor import DatabaseJanitor

from reco_assets.local.embedded_postgres import ServerAddress, embedded_postgres

# An installed package comes without the source tree that these check.
_IN_CHECKOUT = (Path(__file__).parents[1] / "docs").exists()
collect_ignore = [] if _IN_CHECKOUT else ["test_docs.py", "test_deployment.py"]


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own RECO_… settings must not bend a test."""
    for name in list(os.environ):
        if name.startswith(("RECO_", "DAGSTER_", "MLFLOW_")):
            monkeypatch.delenv(name)


def enterable(directory: Path) -> Path:
    """Open pytest's own directories (mode 700) to the account that PostgreSQL runs as under root."""
    for path in (directory, *directory.parents):
        if path.stat().st_uid == os.geteuid() and path != Path(tempfile.gettempdir()):
            path.chmod(path.stat().st_mode | 0o111)
        if path.parent == Path(tempfile.gettempdir()):
            break
    return directory


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerAddress]:
    """One server for the session, without the durability a test does not need."""
    directory = tmp_path_factory.mktemp("postgres")
    enterable(directory)
    with embedded_postgres(
        directory, options={"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    ) as server:
        yield server


@pytest.fixture
def empty_database_url(postgres_server: ServerAddress, request: pytest.FixtureRequest) -> Iterator[str]:
    """A new database without any table."""
    name = f"t_{os.getpid()}_{abs(hash(request.node.nodeid)):x}"
    with DatabaseJanitor(
        user=postgres_server.user,
        host=postgres_server.host,
        port=postgres_server.port,
        version=18,
        dbname=name,
        password=postgres_server.password,
    ):
        yield postgres_server.url(name)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty RECO_HOME."""
    directory = tmp_path / "home"
    directory.mkdir()
    monkeypatch.setenv("RECO_HOME", str(directory))
    return directory
