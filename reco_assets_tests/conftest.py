"""Fixtures that the whole suite shares. PostgreSQL is real in every test that touches SQL."""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_postgresql.janitor import DatabaseJanitor

from reco_assets.local.embedded_postgres import ServerAddress, embedded_postgres
from reco_assets_tests.sinks import mail, webhook

# A shell starts background jobs with SIGINT ignored, and what they start inherits that: `make test &` would
# wait in vain for the servers that it interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

__all__ = ["mail", "webhook"]  # fixtures, found here by every test

# An installed package comes without the source tree that these check.
_IN_CHECKOUT = (Path(__file__).parents[1] / "docs").exists()
collect_ignore = (
    []
    if _IN_CHECKOUT
    else [
        "test_docs.py",
        "deployment",
        "test_locks.py",
        "test_event_log.py",
        "recommender/test_model_doc.py",
        "benchmarks",
    ]
)

_LONGEST_FIRST = (
    "end_to_end/test_dev.py",
    "end_to_end/test_faults.py",
    "end_to_end/test_pipeline.py",
    "end_to_end/test_commands.py",
    "sensors/test_lost_run_watch.py",
    "end_to_end/test_dev_killed.py",
    "deployment/test_processes.py",
    "benchmarks/test_serving.py",
    "benchmarks/test_pipeline.py",
    "benchmarks/test_search.py",
    "pipeline/test_rollback.py",
    "sensors/test_recovery_notice.py",
)
"""Where several processes share the files, one that takes minutes must not begin when the others end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, in one process as in several; the others keep their order."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(_LONGEST_FIRST)}
    if missing := [path.name for path in places if not path.exists()]:
        raise pytest.UsageError(f"_LONGEST_FIRST names {missing}, which there is not (any more).")
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own RECO_… settings must not bend a test."""
    for name in list(os.environ):
        if name.upper().startswith(("RECO_", "DAGSTER_", "MLFLOW_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def _open_directory() -> Iterator[Path]:
    """Outside pytest's own (mode 700), which the account that PostgreSQL runs as under root cannot enter."""
    with tempfile.TemporaryDirectory(prefix="reco-tests-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


@pytest.fixture
def open_tmp_path(_open_directory: Path) -> Path:
    """Like `tmp_path`, for tests that start a server of their own."""
    directory = Path(tempfile.mkdtemp(prefix="test-", dir=_open_directory))
    directory.chmod(0o755)
    return directory


@pytest.fixture(scope="session")
def postgres_server(_open_directory: Path) -> Iterator[ServerAddress]:
    """One server for the session, without the durability a test does not need."""
    with embedded_postgres(
        _open_directory / "postgres",
        options={"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"},
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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """In continuous integration a skipped test is a failed one: nobody would notice it."""
    report = yield
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped under CI: {report.longrepr}"
    return report
