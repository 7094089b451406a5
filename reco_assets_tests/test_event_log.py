"""The statement in docs/operations.md that shortens Dagster's event log takes nothing that is needed."""

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import dagster as dg
import psycopg
import pytest

import reco_assets
from reco_assets.local.embedded_postgres import ServerAddress
from reco_assets.pipeline.fitting import RegisteredVersion
from reco_assets.pipeline.provenance import provenance_metadata, registered_version

OPERATIONS = Path(reco_assets.__file__).resolve().parent.parent / "docs" / "operations.md"
OLD, NEW = "2026-01-10", "2026-11-20"
VERSION = RegisteredVersion(7, "collaborative_filtering_v7", "mlflow-run", "experiment", "digest")


@dg.asset(
    partitions_def=dg.DailyPartitionsDefinition(start_date="2026-01-01"),
    check_specs=[dg.AssetCheckSpec("users_are_covered", asset="user_knn_model")],
)
def user_knn_model(context: dg.AssetExecutionContext) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
    context.log.info("a line of the log")
    yield dg.AssetCheckResult(passed=True, check_name="users_are_covered")
    yield dg.MaterializeResult(metadata=provenance_metadata(VERSION))


@dg.asset
def failing() -> None:
    raise dg.Failure("a failure", allow_retries=False)


@pytest.fixture
def dagster_url(postgres_server: ServerAddress) -> Iterator[str]:
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE event_log")
        yield postgres_server.url("event_log")
        connection.execute("DROP DATABASE event_log WITH (FORCE)")


def test_old_steps_go_and_partitions_provenance_checks_failures_and_newer_runs_stay(
    dagster_url: str, tmp_path: Path
) -> None:
    storage = {"postgres": {"postgres_url": dagster_url.replace("postgresql://", "postgresql+psycopg2://")}}
    (statement,) = re.findall(r"```sql\n(.*DELETE FROM event_logs.*?)```", OPERATIONS.read_text(), re.DOTALL)
    with (
        dg.instance_for_test(overrides={"storage": storage}, temp_dir=str(tmp_path)) as instance,
        psycopg.connect(dagster_url, autocommit=True) as database,
    ):
        old = [
            dg.materialize([user_knn_model], partition_key=OLD, instance=instance).run_id,
            dg.materialize([failing], instance=instance, raise_on_error=False).run_id,
        ]
        database.execute("UPDATE event_logs SET timestamp = timestamp - interval '200 days'")
        new = dg.materialize([user_knn_model], partition_key=NEW, instance=instance).run_id
        of_new = len(instance.all_logs(new))
        (size,) = database.execute("SELECT sum(length(event)) FROM event_logs").fetchone() or (0,)
        gone = database.execute(statement).rowcount
        assert gone > 10
        (left,) = database.execute("SELECT sum(length(event)) FROM event_logs").fetchone() or (0,)
        assert left < size

        assert instance.get_materialized_partitions(user_knn_model.key) == {OLD, NEW}
        assert registered_version(instance, date.fromisoformat(OLD)) == VERSION
        assert [instance.get_run_by_id(run).status.value for run in (*old, new)] == [  # type: ignore[union-attr]
            *("SUCCESS", "FAILURE", "SUCCESS")
        ]
        kinds = {entry.dagster_event_type.value for run in old for entry in instance.all_logs(run)}  # type: ignore[union-attr]
        assert {"PIPELINE_SUCCESS", "PIPELINE_FAILURE", "STEP_FAILURE", "ASSET_CHECK_EVALUATION"} <= kinds
        assert not {kind for kind in kinds if kind.startswith("STEP_")} - {"STEP_FAILURE", "STEP_SKIPPED"}
        assert len(instance.all_logs(new)) == of_new
        failures = instance.fetch_run_status_changes(dg.DagsterEventType.RUN_FAILURE, limit=10).records
        assert [record.event_log_entry.run_id for record in failures] == [old[1]]
        # What Dagster itself offers: the partition would count as never materialised.
        instance.delete_run(old[0])
        assert instance.get_materialized_partitions(user_knn_model.key) == {NEW}
