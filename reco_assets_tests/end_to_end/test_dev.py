"""`reco dev` as a whole: webserver, daemon, schedule, sensors and MLflow, over real sockets."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from reco_assets.local.embedded_postgres import running_server
from reco_assets.local.stack import local_stack
from reco_assets.resources.storage import FileStorage
from reco_assets.settings import Settings
from reco_assets.store import migrate
from reco_assets.store.database import create_engine_for
from reco_assets.store.demo_writer import seed_demo
from reco_assets.store.extract import extract_interactions
from reco_assets_tests.end_to_end.conftest import ALL_ASSETS, FIRST_DAY, LAST_DAY, WORLD
from reco_assets_tests.sinks import MailServer, Webhook

BACKFILL_DAYS = [str(LAST_DAY - timedelta(days=n)) for n in (2, 1, 0)]


class Dev:
    """A running `reco dev`, asked through its GraphQL endpoint."""

    def __init__(self, home: Path, url: str) -> None:
        self.home = home
        self.url = url

    def ask(self, query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            content = json.load(answer)
        assert "errors" not in content, content
        return content["data"]

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        server = running_server(self.home / "postgres")
        assert server is not None
        with psycopg.connect(server.url("reco")) as connection:
            return connection.execute(statement).fetchall()

    def launch(self, *assets: str, day: str) -> str:
        """Start a run as the UI's Materialize button does; returns its id."""
        data = self.ask(
            "mutation($p: ExecutionParams!) { launchPipelineExecution(executionParams: $p) { __typename "
            "... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }",
            p={
                "selector": {
                    "repositoryLocationName": "reco_assets",
                    "repositoryName": "__repository__",
                    "pipelineName": "daily_recommendations",
                    "assetSelection": [{"path": [name]} for name in assets],
                },
                "runConfigData": {},
                "mode": "default",
                "executionMetadata": {"tags": [{"key": "dagster/partition", "value": day}]},
            },
        )["launchPipelineExecution"]
        assert data["__typename"] == "LaunchRunSuccess", data
        return str(data["run"]["runId"])

    def status_of(self, run_id: str) -> str:
        data = self.ask("query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }", id=run_id)
        return str(data["runOrError"]["status"])


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 300) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.5)
    return value


@pytest.fixture
def dev(
    open_tmp_path: Path,
    webhook: Webhook,
    mail: MailServer,
    mlflow_template: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Dev]:
    home = open_tmp_path / "home"
    (home / "mlflow").mkdir(parents=True)
    (home / "mlflow" / "mlflow.db").write_bytes(mlflow_template.read_bytes())
    monkeypatch.setenv("RECO_HOME", str(home))
    monkeypatch.setenv("RECO_START_DATE", str(FIRST_DAY))
    monkeypatch.setenv("RECO_ALERT_URLS", f"{webhook.url} {mail.url}")
    _seed_and_extract(until=LAST_DAY - timedelta(days=2))
    command = [sys.executable, "-m", "reco_assets", "dev"]
    ports = ["--port", "0", "--mlflow-port", "0", "--service-port", "0"]
    process = subprocess.Popen([*command, *ports], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = []
    try:
        for line in process.stdout:
            said.append(line)
            if "Ctrl-C" in line:
                break
        address = next((line.split()[-1] for line in said if line.strip().startswith("Dagster  ")), None)
        assert address is not None, "".join(said)
        yield Dev(home, address)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
    assert running_server(home / "postgres") is None
    assert _processes_below(home) == []


def _seed_and_extract(until: date) -> None:
    """What `reco seed` and `reco run --assets raw_interactions` do, up to but without that day."""
    with local_stack(Settings.load(), with_dagster=False) as settings:
        migrate.upgrade(settings)
        engine = create_engine_for(settings)
        seed_demo(engine, WORLD, LAST_DAY, now=datetime.now(UTC))
        engine.dispose()
        storage = FileStorage(base_dir=str(settings.storage))
        with storage.writing("raw_interactions", print):
            extract_interactions(settings, FIRST_DAY, until, storage.raw_interactions, settings.tracked_types)


def _processes_below(home: Path) -> list[str]:
    """Command lines of processes that still have this home in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes()
            if f"RECO_HOME={home}".encode() in environment and int(entry.name) != os.getpid():
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except (OSError, ProcessLookupError):
            continue
    return found


def _digests(home: Path, day: str) -> dict[str, str]:
    paths = [path for path in (home / "storage").rglob("*") if path.is_file() and day in str(path)]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.mark.timeout(900)
def test_backfill_replay_failure_and_recovery_through_the_daemon(
    dev: Dev, webhook: Webhook, mail: MailServer
) -> None:
    # Three days of all assets: three generations, one of them live.
    data = dev.ask(
        "mutation($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p) { __typename "
        "... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }",
        p={"assetSelection": [{"path": [name]} for name in ALL_ASSETS], "partitionNames": BACKFILL_DAYS},
    )["launchPartitionBackfill"]
    assert data["__typename"] == "LaunchBackfillSuccess", data
    backfill = data["backfillId"]

    def status() -> str:
        answer = dev.ask(
            "query($id: String!) { partitionBackfillOrError(backfillId: $id) "
            "{ ... on PartitionBackfill { status } } }",
            id=backfill,
        )
        return str(answer["partitionBackfillOrError"]["status"])

    wait_for(lambda: status() not in ("REQUESTED",), "the backfill", seconds=450)
    assert status() == "COMPLETED_SUCCESS"
    generations = dev.sql("SELECT partition_date::text, status FROM recommendation_generations ORDER BY 1")
    assert [day for day, _ in generations] == BACKFILL_DAYS
    assert [each for _, each in generations].count("live") == 1
    assert generations[-1] == (BACKFILL_DAYS[-1], "live")
    assert webhook.titles == []

    # A replayed day gives identical files and leaves what is live alone. Meanwhile another run fails:
    # one alert to each channel.
    older, newest = BACKFILL_DAYS[1], BACKFILL_DAYS[-1]
    before = _digests(dev.home, older)
    assert len(before) > 30
    live = dev.sql("SELECT id FROM recommendation_generations WHERE status = 'live'")
    damaged = dev.home / "storage" / "user_knn_model" / newest / "model" / "votes.npy"
    good = damaged.read_bytes()
    damaged.write_bytes(b"not an array")
    replay = dev.launch(*ALL_ASSETS, day=older)
    failing = dev.launch("user_recommendations", day=newest)
    wait_for(lambda: dev.status_of(failing) == "FAILURE", "the run to fail")
    wait_for(lambda: dev.status_of(replay) in ("SUCCESS", "FAILURE"), "the replay")
    assert dev.status_of(replay) == "SUCCESS"
    assert _digests(dev.home, older) == before
    assert dev.sql("SELECT id FROM recommendation_generations WHERE status = 'live'") == live
    statuses = "SELECT status FROM recommendation_generations WHERE partition_date = '" + older + "'"
    assert ("archived",) in dev.sql(statuses)
    wait_for(lambda: webhook.titles and mail.titles, "the alerts")
    assert f"{dev.url}/runs/{failing}" in json.dumps(webhook.received[0])
    assert "CorruptArtifact" in json.dumps(webhook.received[0])

    # The next success: one notice to each channel, and no second alert by any tick in between.
    damaged.write_bytes(good)
    repair = dev.launch("user_recommendations", day=newest)
    wait_for(lambda: dev.status_of(repair) == "SUCCESS", "the repair")
    wait_for(lambda: len(webhook.titles) > 1 and len(mail.titles) > 1, "the recovery notice")
    assert len(webhook.titles) == len(mail.titles) == 2
    assert "ecovered" in webhook.titles[1]
