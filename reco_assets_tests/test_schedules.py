"""The schedule, through the loop that Dagster's daemon runs, at a frozen clock."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.scheduler.instigation import InstigatorType, TickStatus
from dagster._core.test_utils import create_test_daemon_workspace_context, freeze_time
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._scheduler.scheduler import launch_scheduled_runs

from reco_assets.assets.partitions import daily_partitions
from reco_assets.names import PIPELINE_ASSETS
from reco_assets.schedules import (
    SCHEDULE_NAME,
    daily_recommendations,
    daily_recommendations_schedule,
)


def _asset(name: str) -> dg.AssetsDefinition:
    @dg.asset(name=name, partitions_def=daily_partitions)
    def body() -> None: ...

    return body


defs = dg.Definitions(
    assets=[_asset(name) for name in PIPELINE_ASSETS],
    jobs=[daily_recommendations],
    schedules=[daily_recommendations_schedule],
)


class Scheduler:
    """The daemon's scheduler on a real instance; runs are queued, not executed."""

    def __init__(self, workspace: WorkspaceProcessContext) -> None:
        self.workspace = workspace
        self.instance = workspace.instance

    def at(self, text: str) -> list[str]:
        """One iteration at that moment; the days for which a run came into being."""
        before = {run.run_id for run in self.instance.get_runs()}
        moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
        with freeze_time(moment):
            list(
                launch_scheduled_runs(
                    self.workspace, logging.getLogger("test"), end_datetime_utc=moment, iteration_times={}
                )
            )
        runs = [run for run in self.instance.get_runs() if run.run_id not in before]
        return sorted(run.tags["dagster/partition"] for run in runs)


@contextmanager
def _scheduler(directory: Path) -> Iterator[Scheduler]:
    origin = InProcessCodeLocationOrigin(
        LoadableTargetOrigin(python_file=__file__, attribute="defs"), location_name="reco"
    )
    queue = {"run_coordinator": {"module": "dagster.core.run_coordinator", "class": "QueuedRunCoordinator"}}
    with (
        dg.instance_for_test(temp_dir=str(directory), overrides=queue) as instance,
        create_test_daemon_workspace_context(InProcessWorkspaceLoadTarget(origin), instance) as workspace,
    ):
        yield Scheduler(workspace)


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[Scheduler]:
    with _scheduler(tmp_path) as scheduler:
        yield scheduler


def _days(first: str, last: str) -> list[str]:
    start, end = date.fromisoformat(first), date.fromisoformat(last)
    return [(start + timedelta(days=n)).isoformat() for n in range((end - start).days + 1)]


def test_it_is_on_by_default_and_covers_the_five_assets() -> None:
    assert daily_recommendations_schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    job = defs.resolve_job_def("daily_recommendations")
    assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} == set(PIPELINE_ASSETS)
    assert job.partitions_def == daily_partitions


def test_one_run_at_two_for_the_day_that_ended(scheduler: Scheduler) -> None:
    assert scheduler.at("2026-11-20 01:59:50") == []
    assert scheduler.at("2026-11-20 02:00:01") == ["2026-11-19"]
    assert scheduler.at("2026-11-20 02:00:31") == []
    run = scheduler.instance.get_runs()[0]
    assert run.tags["dagster/run_key"] == "daily_recommendations:2026-11-19"
    assert run.tags["reco/trigger"] == "schedule"


def test_a_fresh_install_runs_nothing_of_the_past(scheduler: Scheduler) -> None:
    assert scheduler.at("2026-11-20 12:00:00") == []
    assert scheduler.at("2026-11-21 02:00:10") == ["2026-11-20"]


def test_exactly_the_missed_days_are_caught_up(scheduler: Scheduler) -> None:
    scheduler.at("2026-11-20 01:00:00")
    assert scheduler.at("2026-11-20 02:00:01") == ["2026-11-19"]
    assert scheduler.at("2026-11-22 09:00:00") == ["2026-11-20", "2026-11-21"]
    assert scheduler.at("2026-11-22 09:01:00") == []
    assert scheduler.at("2026-11-23 02:00:01") == ["2026-11-22"]


def test_days_missed_before_the_first_run_ever_are_caught_up(scheduler: Scheduler) -> None:
    scheduler.at("2026-11-20 12:00:00")
    assert scheduler.at("2026-11-23 12:00:00") == ["2026-11-20", "2026-11-21", "2026-11-22"]


def test_more_missed_days_than_dagsters_own_limit_are_caught_up(scheduler: Scheduler) -> None:
    scheduler.at("2026-10-31 12:00:00")
    assert scheduler.at("2026-11-01 02:00:01") == ["2026-10-31"]
    assert scheduler.at("2026-11-11 02:30:00") == _days("2026-11-01", "2026-11-10")


def test_an_outage_of_months_is_caught_up_to_the_bound(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reco_assets.schedules.MAX_CATCH_UP_DAYS", 4)
    scheduler.at("2026-07-31 12:00:00")
    assert scheduler.at("2026-08-01 02:00:01") == ["2026-07-31"]
    assert scheduler.at("2026-11-11 02:30:00") == _days("2026-11-06", "2026-11-10")


def test_a_failed_tick_is_made_up_for_the_next_day(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler.at("2026-11-20 01:00:00")
    scheduler.at("2026-11-20 02:00:01")
    with monkeypatch.context() as patch:
        patch.setattr(
            "reco_assets.schedules._newest_requested_day", lambda *_, **__: (_ for _ in ()).throw(OSError())
        )
        assert scheduler.at("2026-11-21 02:00:01") == []
    assert scheduler.at("2026-11-22 02:00:01") == ["2026-11-20", "2026-11-21"]


def test_missed_days_survive_a_lost_schedule_state(scheduler: Scheduler) -> None:
    scheduler.at("2026-11-20 01:00:00")
    scheduler.at("2026-11-20 02:00:01")
    _forget_state(scheduler.instance)
    assert scheduler.at("2026-11-22 12:00:00") == []  # a new state starts now
    assert scheduler.at("2026-11-23 02:00:01") == _days("2026-11-20", "2026-11-22")


def test_days_filled_by_hand_meanwhile_are_not_run_again(scheduler: Scheduler) -> None:
    scheduler.at("2026-11-20 01:00:00")
    scheduler.at("2026-11-20 02:00:01")
    _materialize(scheduler.instance, "2026-11-20")
    assert scheduler.at("2026-11-23 02:00:01") == ["2026-11-21", "2026-11-22"]


def test_days_on_which_somebody_had_switched_it_off_are_not_missed(scheduler: Scheduler) -> None:
    scheduler.at("2026-11-20 01:00:00")
    scheduler.at("2026-11-20 02:00:01")
    schedule = _remote_schedule(scheduler.workspace)
    scheduler.instance.stop_schedule(schedule.get_remote_origin_id(), schedule.selector_id, schedule)
    with freeze_time(datetime(2026, 11, 25, 12, tzinfo=UTC)):
        scheduler.instance.start_schedule(schedule)
    assert scheduler.at("2026-11-26 02:00:01") == ["2026-11-25"]


def test_a_tick_evaluated_twice_makes_one_run(scheduler: Scheduler) -> None:
    scheduler.at("2026-11-20 01:00:00")
    scheduler.at("2026-11-20 02:00:01")
    assert scheduler.at("2026-11-22 02:00:01") == ["2026-11-20", "2026-11-21"]
    tick = scheduler.instance.get_ticks(*_ids(scheduler.workspace), limit=1)[0]
    # As after a crash between launching and writing the tick's end.
    scheduler.instance.update_tick(tick.with_status(TickStatus.STARTED))
    assert scheduler.at("2026-11-22 02:00:31") == []


def test_before_the_first_partition_it_says_why_it_skips() -> None:
    context = dg.build_schedule_context(scheduled_execution_time=datetime(2026, 1, 1, 2, tzinfo=UTC))
    with freeze_time(datetime(2026, 1, 1, 2, tzinfo=UTC)):
        data = daily_recommendations_schedule.evaluate_tick(context)
    assert not data.run_requests
    assert "2025-12-31 is before the first partition" in (data.skip_message or "")


def test_without_a_history_yesterday_alone_is_requested() -> None:
    moment = datetime(2026, 11, 20, 2, tzinfo=UTC)
    with freeze_time(moment):
        context = dg.build_schedule_context(
            scheduled_execution_time=moment, repository_def=defs.get_repository_def()
        )
        data = daily_recommendations_schedule.evaluate_tick(context)
    assert [request.partition_key for request in _requests(data.run_requests)] == ["2026-11-19"]


def _requests(requests: Sequence[dg.RunRequest] | None) -> Sequence[dg.RunRequest]:
    return requests or []


def _remote_schedule(workspace: WorkspaceProcessContext):  # type: ignore[no-untyped-def]
    location = workspace.create_request_context().get_code_location("reco")
    return next(iter(location.get_repositories().values())).get_schedule(SCHEDULE_NAME)


def _ids(workspace: WorkspaceProcessContext) -> tuple[str, str]:
    schedule = _remote_schedule(workspace)
    return schedule.get_remote_origin_id(), schedule.selector_id


def _forget_state(instance: dg.DagsterInstance) -> None:
    for state in instance.all_instigator_state(instigator_type=InstigatorType.SCHEDULE):
        instance.delete_instigator_state(state.instigator_origin_id, state.selector_id)


def _materialize(instance: dg.DagsterInstance, day: str) -> None:
    upstream, *_, last = (_asset(name) for name in ("raw_interactions", "user_recommendations"))
    assert dg.materialize([upstream, last], partition_key=day, instance=instance).success
