"""Connections, their settings, retries, and driver errors in our words."""

import subprocess
import sys

import psycopg
import pytest
import sqlalchemy as sa

from reco_assets.errors import DatabaseBusy, DatabaseUnreachable, SchemaError, SettingsError
from reco_assets.settings import Settings
from reco_assets.store.database import (
    connect_with_retry,
    create_engine_for,
    describe,
    native_url,
    run_transaction,
    transaction,
)
from reco_assets_tests.store.conftest import settings_for

SESSION = ("search_path", "TimeZone", "statement_timeout", "lock_timeout", "application_name")


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2", "postgresql+asyncpg"])
def test_every_spelling_of_the_scheme_reaches_psycopg_3(settings: Settings, scheme: str) -> None:
    assert settings.database_url
    url = settings.database_url.replace("postgresql", scheme, 1)
    engine = create_engine_for(settings_for(url))
    with transaction(engine) as connection:
        assert isinstance(connection.connection.driver_connection, psycopg.Connection)
    engine.dispose()


def test_engine_and_native_url_open_the_same_kind_of_session(settings: Settings) -> None:
    changed = settings.model_copy(update={"statement_timeout_s": 7.0, "lock_timeout_s": 1.5})
    expected = ["public", "UTC", "7s", "1500ms", "me"]
    engine = create_engine_for(changed, application_name="me")
    with transaction(engine) as connection:
        assert [connection.scalar(sa.text(f"SHOW {name}")) for name in SESSION] == expected
    engine.dispose()
    with psycopg.connect(native_url(changed, application_name="me")) as driver:
        shown = [row[0] for name in SESSION for row in driver.execute(f"SHOW {name}")]
    assert shown == expected


def test_a_prisma_url_works_and_its_schema_must_agree(settings: Settings) -> None:
    assert settings.database_url
    engine = create_engine_for(settings_for(settings.database_url + "?schema=public&connection_limit=5"))
    with transaction(engine) as connection:
        assert connection.scalar(sa.text("SELECT 1")) == 1
    engine.dispose()
    with pytest.raises(SettingsError, match=r"RECO_DATABASE_SCHEMA=app"):
        create_engine_for(settings_for(settings.database_url + "?schema=app"))


def test_urls_that_cannot_work_are_refused_without_showing_the_password() -> None:
    for url in (None, "mysql://u:hidden@h/x", "postgresql://u:hidden@h:port/x"):
        with pytest.raises(SettingsError) as raised:
            create_engine_for(settings_for("").model_copy(update={"database_url": url}))
        assert "hidden" not in str(raised.value)


def test_a_refused_connection_is_tried_again_as_often_as_the_setting_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    engine = create_engine_for(settings_for("postgresql://u:hidden@127.0.0.1:1/x", connection_retries=4))
    with pytest.raises(DatabaseUnreachable, match=r"127.0.0.1:1/x") as raised, transaction(engine):
        pass
    assert "hidden" not in str(raised.value)
    assert len(pauses) == 4
    assert describe(engine) == "127.0.0.1:1/x"


def test_a_wrong_password_is_not_tried_again(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    url = sa.make_url(settings.database_url or "").set(password="wrong")
    engine = create_engine_for(settings_for(url.render_as_string(hide_password=False)))
    with pytest.raises(SettingsError, match=r"refuses the login"), transaction(engine):
        pass
    assert pauses == []


def test_a_statement_that_runs_too_long_is_busy(settings: Settings) -> None:
    engine = create_engine_for(settings.model_copy(update={"statement_timeout_s": 0.05}))
    with pytest.raises(DatabaseBusy, match=r"RECO_STATEMENT_TIMEOUT_S"), transaction(engine) as connection:
        connection.execute(sa.text("SELECT pg_sleep(5)"))
    engine.dispose()


def test_a_pool_without_a_free_connection_is_busy(settings: Settings) -> None:
    engine = create_engine_for(settings.model_copy(update={"pool_size": 1, "connect_timeout_s": 0.05}))
    with transaction(engine), pytest.raises(DatabaseBusy, match=r"RECO_POOL_SIZE"), transaction(engine):
        pass
    engine.dispose()


def test_a_missing_table_names_the_command(engine: sa.Engine) -> None:
    with pytest.raises(SchemaError, match=r"Run `reco migrate`"), transaction(engine) as connection:
        connection.execute(sa.text("SELECT * FROM nothing_here"))


def test_a_mistake_in_the_sql_stays_what_it_is(engine: sa.Engine) -> None:
    with pytest.raises(sa.exc.ProgrammingError), transaction(engine) as connection:
        connection.execute(sa.text("SELEC 1"))


def test_a_block_that_raises_is_rolled_back(engine: sa.Engine) -> None:
    with pytest.raises(KeyError), transaction(engine) as connection:  # noqa: PT012 (the block is what is tested)
        connection.execute(sa.text("CREATE TABLE half_done (i int)"))
        raise KeyError
    with transaction(engine) as connection:
        assert connection.scalar(sa.text("SELECT to_regclass('half_done')")) is None


def test_run_transaction_starts_over_when_the_connection_is_lost(engine: sa.Engine) -> None:
    tries: list[int] = []

    def work(connection: sa.Connection) -> int:
        tries.append(len(tries))
        pid = connection.scalar(sa.text("SELECT pg_backend_pid()"))
        if len(tries) == 1:
            with transaction(engine) as other:
                other.execute(sa.text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        return connection.scalar(sa.text("SELECT 42")) or 0

    assert run_transaction(engine, work) == 42
    assert tries == [0, 1]


def test_a_connection_that_died_in_the_pool_is_replaced_unnoticed(engine: sa.Engine) -> None:
    with connect_with_retry(engine) as connection:
        pid = connection.scalar(sa.text("SELECT pg_backend_pid()"))
    with psycopg.connect(
        engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    ) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    with transaction(engine) as connection:
        assert connection.scalar(sa.text("SELECT 1")) == 1


def test_importing_the_store_loads_neither_numpy_nor_arrow_nor_alembic() -> None:
    code = (
        "import sys\n"
        "import reco_assets.store.publish, reco_assets.store.extract, reco_assets.store.catalogue\n"
        "import reco_assets.store.migrate, reco_assets.store.lookups, reco_assets.store.retention\n"
        "print([m for m in ('numpy', 'pyarrow', 'adbc_driver_postgresql', 'alembic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
