"""Every command line of the compose file, run as a bare process."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from reco_assets_tests.deployment.compose import CHECKOUT, PASSWORD
from reco_assets_tests.deployment.processes import UP_WITHIN_S, Deployment, deployed

_ENDED = ("SUCCESS", "FAILURE", "CANCELED")

pytestmark = pytest.mark.timeout(UP_WITHIN_S + 120)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One start for the whole module."""
    with deployed(tmp_path_factory.mktemp("deployment")) as running:
        yield running


def _graphql(deployment: Deployment, query: str, **variables: Any) -> Any:
    request = urllib.request.Request(
        f"{deployment.url('webserver')}/graphql",
        data=json.dumps({"query": query, "variables": variables}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["data"]


def test_every_command_line_works_and_every_health_check_passes(deployment: Deployment) -> None:
    assert deployment.done == {
        "postgres": "service_healthy",
        "migrate": "service_completed_successfully",
        "migrate-dagster": "service_completed_successfully",
        "mlflow": "service_healthy",
        "code-server": "service_healthy",
        "service": "service_healthy",
        "webserver": "service_healthy",
        "daemon": "service_healthy",
    }


def test_webserver_shows_the_assets_of_the_code_server(deployment: Deployment) -> None:
    nodes = _graphql(deployment, "{ assetNodes { assetKey { path } } }")["assetNodes"]

    assert {
        "raw_interactions",
        "interaction_matrix",
        "user_knn_model",
        "user_recommendations",
        "expired_recommendations_cleanup",
    } <= {node["assetKey"]["path"][-1] for node in nodes}


_LAUNCH = """mutation($parameters: ExecutionParams!) {
  launchPipelineExecution(executionParams: $parameters) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}"""
_RUN = """query($id: ID!) {
  runOrError(runId: $id) { ... on Run { status } }
  logsForRun(runId: $id) { ... on EventConnection { events { ... on LogsCapturedEvent { fileKey } } } }
}"""


def test_run_started_in_the_ui_executes_at_the_code_server_and_the_ui_shows_its_log(
    deployment: Deployment,
) -> None:
    day = str(datetime.now(UTC).date() - timedelta(days=1))
    parameters = {
        "selector": {
            "repositoryLocationName": "reco_assets",
            "repositoryName": "__repository__",
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": ["raw_interactions"]}],
            "assetCheckSelection": [],
        },
        "executionMetadata": {"tags": [{"key": "dagster/partition", "value": day}]},
    }

    launched = _graphql(deployment, _LAUNCH, parameters=parameters)["launchPipelineExecution"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run_id = launched["run"]["runId"]
    deadline = time.monotonic() + 120
    while (answer := _graphql(deployment, _RUN, id=run_id))["runOrError"]["status"] not in _ENDED:
        assert time.monotonic() < deadline, answer
        time.sleep(0.2)
    (key,) = [event["fileKey"] for event in answer["logsForRun"]["events"] if event.get("fileKey")]
    log = _graphql(
        deployment,
        "query($key: [String!]!) { capturedLogs(logKey: $key) { stderr } }",
        key=[run_id, "compute_logs", key],
    )["capturedLogs"]["stderr"]

    assert answer["runOrError"]["status"] == "SUCCESS", log
    assert "STEP_SUCCESS" in log
    assert (deployment.directory / "volumes" / "storage" / "raw_interactions" / f"{day}.parquet").is_file()


def test_each_part_keeps_its_tables_in_its_own_database(deployment: Deployment) -> None:
    port = deployment.ports["postgres", "5432"]
    for database, table in (("reco", "user_recommendations"), ("dagster", "runs"), ("mlflow", "experiments")):
        with psycopg.connect(f"postgresql://reco:{PASSWORD}@127.0.0.1:{port}/{database}") as connection:
            assert connection.execute("SELECT to_regclass(%s)", [table]).fetchone() == (table,)


def test_mlflow_answers_to_its_service_name_and_not_to_a_stranger(deployment: Deployment) -> None:
    def status(host: str) -> int:
        path = "/api/2.0/mlflow/experiments/get?experiment_id=0"
        request = urllib.request.Request(deployment.url("mlflow") + path, headers={"Host": host})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert status("mlflow:5000") == 200
    assert status("localhost:5000") == 200
    assert status("evil.example") == 403


def test_mlflow_keeps_artifacts_in_its_volume(deployment: Deployment) -> None:
    url = f"{deployment.url('mlflow')}/api/2.0/mlflow-artifacts/artifacts/probe/hello.txt"
    request = urllib.request.Request(url, data=b"hello", method="PUT")
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200

    assert (deployment.directory / "volumes/mlflow-artifacts/probe/hello.txt").read_bytes() == b"hello"


def test_instance_loads_from_the_shared_home_and_refuses_unknown_keys(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dagster as dg

    home = deployment.directory / "volumes" / "dagster-home"
    url = f"postgresql+psycopg2://reco:{PASSWORD}@127.0.0.1:{deployment.ports['postgres', '5432']}/dagster"
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", url)

    assert (home / "dagster.yaml").read_bytes() == (CHECKOUT / "dagster.yaml").read_bytes()
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert type(instance.run_storage).__name__ == "PostgresRunStorage"

    (tmp_path / "dagster.yaml").write_text("no_such_key: 1\n" + (home / "dagster.yaml").read_text())
    with pytest.raises(dg.DagsterInvalidConfigError, match="no_such_key"):
        dg.DagsterInstance.from_config(str(tmp_path))
