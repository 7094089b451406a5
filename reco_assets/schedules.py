"""When the pipeline runs: every day at 02:00 UTC, for the day that has just ended."""

from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from itertools import takewhile

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorType  # not exported; asks only for schedules

from reco_assets.assets.partitions import daily_partitions
from reco_assets.names import DAILY_RUN_TIME, PIPELINE_ASSETS, USER_RECOMMENDATIONS

SCHEDULE_NAME = "daily_recommendations_schedule"
MAX_CATCH_UP_DAYS = 31
"""Missed days beyond these are named in the tick's log and left to a backfill."""

daily_recommendations = dg.define_asset_job(
    "daily_recommendations",
    selection=dg.AssetSelection.assets(*PIPELINE_ASSETS),
    description="All five assets of one day, from interactions to published recommendations.",
)


@dg.schedule(
    name=SCHEDULE_NAME,
    job=daily_recommendations,
    cron_schedule=f"{DAILY_RUN_TIME.minute} {DAILY_RUN_TIME.hour} * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Daily at 02:00 UTC for the day that ended, and for the days that were missed before it.",
)
def daily_recommendations_schedule(
    context: dg.ScheduleEvaluationContext,
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Request the run of yesterday, after those of the days that an outage swallowed.

    Dagster itself catches nothing up: its scheduler looks at the last missed tick only, because no
    schedule carries a partition set any more, whatever `max_catchup_runs` says (1.13,
    `_scheduler/scheduler.py`, "has no partition set, so not trying to catch up"). A tick that fails
    (code location unreachable, storage hiccup) is not repeated by default either. So each tick looks
    back to the last day that was requested.
    """
    ended = context.scheduled_execution_time.date() - timedelta(days=1)
    if ended < _start_date():
        yield dg.SkipReason(f"{ended} is before the first partition, {_start_date()} (RECO_START_DATE).")
        return
    for day in missed_days(context, ended):
        yield _request(day, trigger="catch-up")
    yield _request(ended, trigger="schedule")


def missed_days(context: dg.ScheduleEvaluationContext, ended: date) -> Sequence[date]:
    """The days before `ended` that the schedule should have requested and did not, oldest first.

    Days count as missed after the last requested one; when none was ever requested, from the moment
    the schedule was first seen running. Days on which somebody had switched the schedule off were not
    missed, and neither were days that were filled by hand meanwhile.
    """
    if context.instance_ref is None:  # evaluated by hand, without a history
        return []
    requested = _newest_requested_day(context.instance, before=ended)
    on_since = _first_day_due(context.instance, requested is not None)
    start = max(filter(None, (requested and requested + timedelta(days=1), on_since)), default=ended)
    start = max(start, _start_date())
    oldest = ended - timedelta(days=MAX_CATCH_UP_DAYS)
    if start < oldest:
        context.log.warning(
            f"No runs were requested for {start} to {oldest - timedelta(days=1)}. Only the last "
            f"{MAX_CATCH_UP_DAYS} missed days are caught up; backfill the assets for the others."
        )
        start = oldest
    by_hand = context.instance.get_materialized_partitions(dg.AssetKey(USER_RECOMMENDATIONS))
    days = (start + timedelta(days=n) for n in range(MAX_CATCH_UP_DAYS))
    return [day for day in takewhile(lambda day: day < ended, days) if day.isoformat() not in by_hand]


def _request(day: date, trigger: str) -> dg.RunRequest:
    # The run key makes one run of a tick that is evaluated twice, after a crash halfway for instance.
    return dg.RunRequest(
        run_key=f"daily_recommendations:{day}",
        partition_key=day.isoformat(),
        tags={"reco/trigger": trigger, "reco/day": day.isoformat()},
    )


def _newest_requested_day(instance: dg.DagsterInstance, before: date) -> date | None:
    # A run that was created but never launched is requested again: Dagster then launches that same run.
    launched = [status for status in dg.DagsterRunStatus if status != dg.DagsterRunStatus.NOT_STARTED]
    runs = instance.get_runs(
        dg.RunsFilter(
            job_name=daily_recommendations.name,
            tags={"dagster/schedule_name": SCHEDULE_NAME},
            statuses=launched,
        ),
        limit=2 * MAX_CATCH_UP_DAYS,
    )
    days = (date.fromisoformat(key) for run in runs if (key := run.tags.get("dagster/partition")))
    return max((day for day in days if day < before), default=None)


def _first_day_due(instance: dg.DagsterInstance, ran_before: bool) -> date | None:
    """The first day that fell due after the schedule was switched on, if that bounds the search.

    A schedule that is on by default gets a new state, with a new start, whenever its code location
    was gone for a while; that start bounds nothing once there were runs. A start that somebody set
    by switching the schedule on always does.
    """
    for state in instance.all_instigator_state(instigator_type=InstigatorType.SCHEDULE):
        start = getattr(state.instigator_data, "start_timestamp", None)
        by_default = state.status.value == "DECLARED_IN_CODE"
        if state.instigator_name != SCHEDULE_NAME or not start or (ran_before and by_default):
            continue
        since = datetime.fromtimestamp(start, tz=daily_partitions.start.tzinfo)
        # Switched on before 02:00: yesterday is the first day due. After: today.
        return since.date() - timedelta(days=1 if since.time() <= DAILY_RUN_TIME else 0)
    return None


def _start_date() -> date:
    return daily_partitions.start.date()
