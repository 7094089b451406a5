"""The environment that Dagster, MLflow and the pipeline share on one machine.

Everything that runs here, in this process or a child, finds its parts through environment
variables; this module is the one place that sets them.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.resources import files
from pathlib import Path

from reco_assets.errors import DatabaseUnreachable, SettingsError
from reco_assets.local.embedded_postgres import embedded_postgres, running_server
from reco_assets.settings import Settings

APP_DATABASE = "reco"
DAGSTER_DATABASE = "dagster"


@contextmanager
def local_stack(settings: Settings, *, with_dagster: bool = True) -> Iterator[Settings]:
    """Settings with a database URL, and the process environment to match, for as long as it is held.

    What has no URL (RECO_DATABASE_URL; RECO_DAGSTER_DATABASE_URL or DAGSTER_POSTGRES_URL) lives in an
    embedded PostgreSQL below RECO_HOME, which is started (or joined) and left again at the end.
    Dagster's tables never go into the app's database by default: they bring their own
    `alembic_version` and names as common as `runs`.

    Args:
        settings: As read from the environment.
        with_dagster: False for what needs the app's database only: then no server is started for Dagster.
    """
    prepare_home(settings)
    app = settings.database_url
    dagster = settings.dagster_database_url or os.environ.get("DAGSTER_POSTGRES_URL")
    with ExitStack() as stack:
        if app is None or (dagster is None and with_dagster):
            databases = (APP_DATABASE, DAGSTER_DATABASE) if app is None else (DAGSTER_DATABASE,)
            server = stack.enter_context(embedded_postgres(_server_directory(settings), databases=databases))
            app, dagster = app or server.url(APP_DATABASE), dagster or server.url(DAGSTER_DATABASE)
        complete = settings.model_copy(update={"database_url": app, "dagster_database_url": dagster})
        stack.enter_context(_environment(complete))
        yield complete


def database_url(settings: Settings) -> str:
    """The configured URL, or that of the embedded server if one is up.

    Raises:
        DatabaseUnreachable: Neither.
    """
    if settings.database_url:
        return settings.database_url
    if server := running_server(_server_directory(settings)):
        return server.url(APP_DATABASE)
    raise DatabaseUnreachable(
        "No database: RECO_DATABASE_URL is not set and no embedded PostgreSQL is running below "
        f"{settings.home}. Start one with `reco dev`, or run the command as `reco exec -- COMMAND`."
    )


def deployment_file(name: str) -> Path:
    """dagster.yaml or workspace.yaml: from the checkout, or packaged in the wheel."""
    checkout = Path(__file__).resolve().parents[2] / name
    if checkout.exists():
        return checkout
    return Path(str(files("reco_assets") / "deployment" / name))


def prepare_home(settings: Settings) -> None:
    """Create the directories below RECO_HOME and put dagster.yaml where Dagster looks for it."""
    home = settings.home
    source, target = deployment_file("dagster.yaml"), home / "dagster" / "dagster.yaml"
    try:
        for directory in (home, home / "mlflow", home / "logs", target.parent, settings.storage):
            directory.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.read_bytes() != source.read_bytes():
            shutil.copyfile(source, target)
    except OSError as error:
        raise SettingsError(
            f"Cannot write below RECO_HOME = {home} (or RECO_STORAGE_DIR): {error}. Set it to a directory "
            "that this user can write to."
        ) from None


def embedded_directory(settings: Settings) -> Path | None:
    """The directory of the embedded server if `local_stack`, still to be entered, will use one."""
    dagster = settings.dagster_database_url or os.environ.get("DAGSTER_POSTGRES_URL")
    return None if settings.database_url and dagster else _server_directory(settings)


def _dagster_url(url: str) -> str:
    """SQLAlchemy 2.1 reads a bare postgresql:// as psycopg 3, on which Dagster's storage fails."""
    import sqlalchemy as sa

    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise SettingsError(
            "RECO_DAGSTER_DATABASE_URL cannot be read. Expected postgresql://user:password@host:5432/dbname; "
            "special characters in the password must be percent-encoded."
        ) from None
    return parsed.set(drivername="postgresql+psycopg2").render_as_string(hide_password=False)


def _server_directory(settings: Settings) -> Path:
    return settings.home / "postgres"


@contextmanager
def _environment(settings: Settings) -> Iterator[None]:
    assert settings.database_url is not None
    values = {
        "RECO_HOME": str(settings.home.absolute()),
        "RECO_DATABASE_URL": settings.database_url,
        "DAGSTER_HOME": str((settings.home / "dagster").absolute()),
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }
    if settings.dagster_database_url is not None:
        values["RECO_DAGSTER_DATABASE_URL"] = settings.dagster_database_url
        values["DAGSTER_POSTGRES_URL"] = _dagster_url(settings.dagster_database_url)
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
