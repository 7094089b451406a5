"""A blocking check refused what a run had made, and the last good recommendations stay."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from reco_assets.alerting import Alert
from reco_assets.sensors.desk import MINIMUM_INTERVAL_S
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
    name="blocking_check_alert",
    minimum_interval_seconds=MINIMUM_INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Alerts once for every run that a blocking quality check ended.",
)
def blocking_check_alert(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """One alert per refused run, or per backfill, naming each failed check with value and limit."""
    return watch_failures(
        context,
        "blocking_check_alert",
        "blocking_check",
        wanted=lambda item: item.refused,
        describe=_describe,
    )


def _describe(key: str, runs: Sequence[FailedRun], serving: str, settings: Settings) -> Alert:
    first = runs[0]
    subject = first.assets[0] if first.assets else first.run.job_name
    names = ", ".join(check.check_name for check in first.failed_checks)
    repair = repair_command(runs, settings)
    return Alert(
        dedupe_key=key,
        kind="blocking_check",
        title=f"{subject}{span(runs)} refused" + (f" by {names}" if names else ""),
        what="; ".join(map(_describe_check, first.failed_checks)) or first.what,
        error="" if first.failed_checks else first.error,
        since=first.failed_at,
        serving=serving,
        run_url=run_url(runs, settings),
        repair=f"mend the cause (docs/alerts.md, “A check refused to publish”), then: {repair}",
        notes=(
            "Nothing of this run reached the readers: what is still served is the last good publication.",
            *backfill_notes(runs, settings),
        ),
    )


def _describe_check(check: dg.AssetCheckEvaluation) -> str:
    """`user_recommendations: users_are_covered, value 0.31, limit 0.5: 31 % of …`."""
    metadata: Mapping[str, Any] = {name: item.value for name, item in check.metadata.items()}
    facts = "".join(f", {name} {_short(metadata[name])}" for name in ("value", "limit") if name in metadata)
    message = metadata.get("message") or check.description
    subject = f"{check.asset_key.to_user_string()}: {check.check_name}{facts}"
    return f"{subject}: {message}" if message else subject


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
