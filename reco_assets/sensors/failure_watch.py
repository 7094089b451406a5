"""What the two sensors on failed runs share: one tick, and the parts of an alert about runs."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import dagster as dg

from reco_assets.alerting import Alert, Kind
from reco_assets.names import USER_RECOMMENDATIONS
from reco_assets.sensors.desk import describe_serving, opened_desk
from reco_assets.sensors.failed_runs import Cursor, FailedRun, from_now_on, grouped, read_new, settle
from reco_assets.settings import Settings

_LISTED = 5

Describe = Callable[[str, Sequence[FailedRun], str, Settings], Alert]
"""Dedupe key, the runs of one incident, what is still served, settings → the alert."""


def watch_failures(
    context: dg.SensorEvaluationContext,
    sensor_name: str,
    kind: Kind,
    wanted: Callable[[FailedRun], bool],
    describe: Describe,
) -> dg.SkipReason:
    """Alert every new failure that is `wanted`; a run stays in the cursor until all channels have it.

    The first tick only notes where history ends. After an outage of the daemon the cursor is where
    it was, and everything since is told.
    """
    cursor = Cursor.load(context.cursor)
    if cursor is None:
        context.update_cursor(from_now_on(context.instance).dump())
        return dg.SkipReason("First tick: failures are alerted from now on.")
    cursor = read_new(context.instance, cursor)
    with opened_desk(context, sensor_name) as desk:
        desk.catch_up()
        now = datetime.now(UTC)
        settled = settle(context, cursor.pending, now)
        groups = grouped([item for item in settled.failed if wanted(item)], kind)
        waiting = dict(settled.waiting)
        serving = describe_serving(desk.database, now) if groups else ""
        told = 0
        for key, runs in groups.items():
            if desk.tell(describe(key, runs, serving, desk.settings)):
                told += 1
            else:
                waiting |= {item.run.run_id: item.failed_at.timestamp() for item in runs}
    context.update_cursor(Cursor(cursor.after, waiting).dump())
    return dg.SkipReason(f"{told} alerts are delivered, {len(waiting)} runs wait." if groups else "No news.")


def run_url(runs: Sequence[FailedRun], settings: Settings) -> str:
    """Where to look: the run, or the backfill that holds all of them."""
    base = settings.dagster_url.rstrip("/")
    if backfill := runs[0].backfill_id:
        return f"{base}/runs/b/{backfill}"
    return f"{base}/runs/{runs[0].run.run_id}"


def repair_command(runs: Sequence[FailedRun], settings: Settings) -> str:
    """The command that makes up for the runs."""
    days = sorted({day for item in runs for day in item.partitions})
    if not days:
        return f"open {run_url(runs, settings)} and choose Re-execute"
    planned = list(
        dict.fromkeys(asset for item in runs for assets in item.planned.values() for asset in assets)
    )
    whole = USER_RECOMMENDATIONS in planned or not planned
    only = "" if whole else f" --assets {','.join(planned)}"
    when = f"--partition {days[0]}" if len(days) == 1 else f"--from {days[0]} --to {days[-1]}"
    return f"reco run{only} {when}"


def span(runs: Sequence[FailedRun]) -> str:
    """` of 2026-11-20`, or the first of many days."""
    more = f" and {len(runs) - 1} more runs of a backfill" if len(runs) > 1 else ""
    return f"{runs[0].of_partition}{more}"


def backfill_notes(runs: Sequence[FailedRun], settings: Settings) -> tuple[str, ...]:
    """What is special about an alert that stands for a whole backfill."""
    backfill = runs[0].backfill_id
    if backfill is None:
        return ()
    days = sorted({day for item in runs for day in item.partitions})
    listed = ", ".join(days[:_LISTED]) + (f" and {len(days) - _LISTED} more" if len(days) > _LISTED else "")
    return (
        f"Backfill {backfill}, failed so far: {listed or len(runs)}.",
        f"Further failures of this backfill are not alerted one by one: {run_url(runs, settings)}",
    )
