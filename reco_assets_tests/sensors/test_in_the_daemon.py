"""The sensors in the loop that Dagster's daemon runs, loaded from a code location."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run_iterator
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.scheduler.instigation import InstigatorType, SensorInstigatorData, TickStatus
from dagster._core.test_utils import create_test_daemon_workspace_context, freeze_time
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.sensor import execute_sensor_iteration

from reco_assets.sensors import alert_sensors
from reco_assets_tests.sensors.conftest import App
from reco_assets_tests.sensors.pipelines import ASSETS, DAY, NO_INTERACTIONS, run_pipeline, trouble
from reco_assets_tests.sinks import Webhook

pytestmark = pytest.mark.usefixtures("channels")

defs = dg.Definitions(
    assets=ASSETS,
    jobs=[dg.define_asset_job("daily_recommendations", selection="*")],
    sensors=alert_sensors,
    executor=dg.in_process_executor,
)


@pytest.fixture
def workspace(instance: dg.DagsterInstance) -> Iterator[WorkspaceProcessContext]:
    origin = InProcessCodeLocationOrigin(
        LoadableTargetOrigin(python_file=__file__, attribute="defs"), location_name="reco"
    )
    with create_test_daemon_workspace_context(InProcessWorkspaceLoadTarget(origin), instance) as workspace:
        yield workspace


class Daemon:
    """One iteration a minute."""

    def __init__(self, workspace: WorkspaceProcessContext) -> None:
        self.workspace = workspace
        self.now = datetime.now(UTC)

    def iterate(self) -> None:
        self.now += timedelta(minutes=1)
        with freeze_time(self.now):
            list(execute_sensor_iteration(self.workspace, logging.getLogger("test"), None, None))

    def ticks(self) -> dict[str, list[TickStatus]]:
        instance = self.workspace.instance
        states = instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
        return {
            state.instigator_name: [
                tick.status for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id)
            ]
            for state in states
        }

    def cursors(self) -> dict[str, str | None]:
        states = self.workspace.instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
        return {
            state.instigator_name: state.instigator_data.cursor
            for state in states
            if isinstance(state.instigator_data, SensorInstigatorData)
        }


def test_all_four_run_and_a_failure_is_told_once_and_recovers_once(
    workspace: WorkspaceProcessContext, app: App, webhook: Webhook
) -> None:
    app.publish("2026-11-19", hours_ago=1)
    daemon = Daemon(workspace)
    daemon.iterate()
    assert set(daemon.ticks()) == {
        *("run_failure_alert", "blocking_check_alert", "stale_recommendations_alert", "recovery_notice")
    }
    assert daemon.cursors()["run_failure_alert"] is not None  # kept although the tick asked for no run
    _launch(workspace)
    daemon.iterate()
    daemon.iterate()
    assert webhook.titles == [f"[reco] user_knn_model of {DAY} failed"]
    run_pipeline(workspace.instance)
    daemon.iterate()
    daemon.iterate()
    assert len(webhook.received) == 2
    assert {status for statuses in daemon.ticks().values() for status in statuses} == {TickStatus.SKIPPED}


def _launch(workspace: WorkspaceProcessContext) -> None:
    """A run of the code location itself, with its origin, that fails."""
    location = workspace.create_request_context().get_code_location("reco")
    repository = next(iter(location.get_repositories().values()))
    job = repository.get_full_job("daily_recommendations")
    trouble.model, trouble.covered = NO_INTERACTIONS, True
    definition = defs.resolve_job_def("daily_recommendations")
    run = workspace.instance.create_run_for_job(
        definition, tags={"dagster/partition": DAY}, remote_job_origin=job.get_remote_origin()
    )
    list(execute_run_iterator(InMemoryJob(definition), run, workspace.instance))
