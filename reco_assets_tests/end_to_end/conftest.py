"""A small world in a real database, and the pipeline to run on it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest

from reco_assets.local.embedded_postgres import ServerAddress
from reco_assets.names import PIPELINE_ASSETS
from reco_assets.resources.storage import FileStorage
from reco_assets.settings import Settings
from reco_assets.store import migrate
from reco_assets.store.database import create_engine_for
from reco_assets.store.demo_data import DemoWorld
from reco_assets.store.demo_writer import seed_demo

LAST_DAY = datetime.now(UTC).date() - timedelta(days=1)
FIRST_DAY = LAST_DAY - timedelta(days=13)
WORLD = DemoWorld(users=150, posts=150, days=14, events=6_000)
ALL_ASSETS = PIPELINE_ASSETS
_RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


@dataclass
class Pipeline:
    """The pipeline on a database and a home of its own."""

    home: Path
    database_url: str
    instance: dg.DagsterInstance
    messages: list[str] = field(default_factory=list)

    @property
    def storage(self) -> FileStorage:
        return FileStorage(base_dir=str(self.home / "storage"))

    def materialize(
        self,
        *assets: str,
        day: date = LAST_DAY,
        until: date | None = None,
        config: dict[str, Any] | None = None,
        instance: dg.DagsterInstance | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Run the assets (default: all) for a day, or `raw_interactions` for a range."""
        partitions: dict[str, Any] = (
            {"partition_key": str(day)}
            if until is None
            else {"tags": dict(zip(_RANGE, (str(day), str(until)), strict=True))}
        )
        return self._job().execute_in_process(
            instance=instance or self.instance,
            asset_selection=[dg.AssetKey(name) for name in assets or ALL_ASSETS],
            run_config={
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
                "ops": {name: {"config": values} for name, values in (config or {}).items()},
            },
            raise_on_error=False,
            **partitions,
        )

    def ask_check(self, asset: str, name: str) -> dg.ExecuteInProcessResult:
        """Run one check alone, as the UI's Execute button does."""
        selection = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey(asset), name))
        definitions = self._definitions(dg.define_asset_job("only", selection))
        return definitions.resolve_job_def("only").execute_in_process(
            instance=self.instance, raise_on_error=False
        )

    def _job(self) -> dg.JobDefinition:
        return self._definitions().resolve_implicit_global_asset_job_def()

    def _definitions(self, *jobs: Any) -> dg.Definitions:
        from reco_assets.definitions import defs

        return dg.Definitions(
            assets=defs.assets,
            asset_checks=defs.asset_checks,
            jobs=jobs,
            executor=dg.in_process_executor,
            resources=_resources(),
        )

    def extract_window(self, until: date = LAST_DAY - timedelta(days=1)) -> None:
        """The days before the last one, as a new deployment would."""
        assert self.materialize("raw_interactions", day=FIRST_DAY, until=until).success

    def query(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database_url) as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def value(self, statement: str, *parameters: object) -> Any:
        return self.query(statement, *parameters)[0][0]

    def live_rows(self) -> list[tuple[Any, ...]]:
        return self.query(
            "SELECT user_id, post_id, score, generation_id FROM user_recommendations ORDER BY 1, 2"
        )


def _resources() -> dict[str, Any]:
    """Those of the definitions, bound to this test's environment instead of the import's."""
    from reco_assets.resources.mlflow_tracking import ModelRegistry, mlflow_run
    from reco_assets.resources.postgres import PostgresResource

    settings = Settings.load()
    return {
        "postgres": PostgresResource.from_settings(settings),
        "storage": FileStorage(base_dir=str(settings.storage)),
        "model_registry": ModelRegistry(model_name=settings.model_name),
        "mlflow": mlflow_run,
    }


def failure(result: dg.ExecuteInProcessResult) -> str:
    """What the failed step told the person who reads it."""
    from reco_assets.cli.runs import failure_message

    assert not result.success
    return failure_message(result)


@pytest.fixture(scope="session")
def seeded_template(postgres_server: ServerAddress) -> str:
    """Name of a database that holds the small world, migrated: tests copy it."""
    name = f"template_{os.getpid()}"
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    settings = Settings(database_url=postgres_server.url(name))
    migrate.upgrade(settings)
    engine = create_engine_for(settings)
    seed_demo(engine, WORLD, LAST_DAY, now=datetime.now(UTC))
    engine.dispose()
    return name


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An initialised MLflow store: the migrations behind it take eight seconds."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    directory = tmp_path_factory.mktemp("mlflow")
    SqlAlchemyStore(f"sqlite:///{directory / 'mlflow.db'}", str(directory / "artifacts"))
    return directory / "mlflow.db"


@contextmanager
def _pipeline(
    server: ServerAddress, template: str, name: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Pipeline]:
    """The pipeline on a copy of that database, with that RECO_HOME; the copy stays."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    monkeypatch.setenv("RECO_HOME", str(home))
    monkeypatch.setenv("RECO_DATABASE_URL", server.url(name))
    monkeypatch.setenv("RECO_START_DATE", str(FIRST_DAY))
    with dg.DagsterInstance.ephemeral() as instance:
        yield Pipeline(home, server.url(name), instance)


def _drop(server: ServerAddress, name: str) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def pipeline(
    postgres_server: ServerAddress,
    seeded_template: str,
    mlflow_template: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Pipeline]:
    """Before its first run."""
    name = f"p_{os.getpid()}_{abs(hash(request.node.nodeid)):x}"
    (home / "mlflow").mkdir()
    shutil.copyfile(mlflow_template, home / "mlflow" / "mlflow.db")
    with _pipeline(postgres_server, seeded_template, name, home, monkeypatch) as running:
        yield running
    _drop(postgres_server, name)


@dataclass
class _Published:
    """A home and a database as the first run left them; `homes` is where copies of the home go."""

    homes: Path
    database: str
    materializations: list[dg.AssetMaterialization]
    n_copies: int = 0

    def copy_home(self) -> Path:
        """Files name the place where they were made, in SQLite too: other places have names as long."""
        self.n_copies += 1
        made, here = (str(self.homes / f"{n:06}").encode() for n in (0, self.n_copies))
        shutil.copytree(os.fsdecode(made), os.fsdecode(here))
        home = Path(os.fsdecode(here))
        for path in home.rglob("*"):
            if path.is_file() and made in (content := path.read_bytes()):
                path.write_bytes(content.replace(made, here))
        return home


@pytest.fixture(scope="session")
def _published(
    postgres_server: ServerAddress,
    seeded_template: str,
    mlflow_template: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> _Published:
    """The first run takes seconds, and most tests begin after it."""
    made = _Published(tmp_path_factory.mktemp("homes"), f"published_{os.getpid()}", [])
    home = made.homes / f"{0:06}"
    (home / "mlflow").mkdir(parents=True)
    shutil.copyfile(mlflow_template, home / "mlflow" / "mlflow.db")
    with (
        pytest.MonkeyPatch.context() as monkeypatch,
        _pipeline(postgres_server, seeded_template, made.database, home, monkeypatch) as running,
    ):
        running.extract_window()
        assert running.materialize().success
        for name in ALL_ASSETS:
            records = running.instance.fetch_materializations(dg.AssetKey(name), limit=100, ascending=True)
            made.materializations += [
                record.asset_materialization for record in records.records if record.asset_materialization
            ]
    return made


@pytest.fixture
def published(
    postgres_server: ServerAddress,
    _published: _Published,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Pipeline]:
    """After the window was extracted and the last day published."""
    name = f"q_{os.getpid()}_{abs(hash(request.node.nodeid)):x}"
    home = _published.copy_home()
    with _pipeline(postgres_server, _published.database, name, home, monkeypatch) as running:
        for materialization in _published.materializations:
            running.instance.report_runless_asset_event(materialization)
        yield running
    _drop(postgres_server, name)
