"""A run failed and its retries are used up."""

from collections.abc import Sequence

import dagster as dg

from reco_assets.alerting import Alert
from reco_assets.sensors.desk import MINIMUM_INTERVAL_S, REPAIR_DATABASE
from reco_assets.sensors.failed_runs import FailedRun
from reco_assets.sensors.failure_watch import (
    backfill_notes,
    repair_command,
    run_url,
    span,
    watch_failures,
)
from reco_assets.settings import Settings


@dg.sensor(
    name="run_failure_alert",
    minimum_interval_seconds=MINIMUM_INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Alerts once for every run of this project that failed for good.",
)
def run_failure_alert(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """One alert per failed run, or per backfill; what a blocking check ended is the other sensor's."""
    return watch_failures(
        context, "run_failure_alert", "run_failure", wanted=lambda item: not item.refused, describe=_describe
    )


def _describe(key: str, runs: Sequence[FailedRun], serving: str, settings: Settings) -> Alert:
    first = runs[0]
    subject = first.assets[0] if first.step_errors and first.assets else first.run.job_name
    repair = repair_command(runs, settings)
    if first.lost_the_database:
        repair = f"{REPAIR_DATABASE}, then: {repair}"
    return Alert(
        dedupe_key=key,
        kind="run_failure",
        title=f"{subject}{span(runs)} failed",
        what=first.what,
        error=first.error,
        since=first.failed_at,
        serving=serving,
        run_url=run_url(runs, settings),
        repair=repair,
        notes=backfill_notes(runs, settings),
    )
