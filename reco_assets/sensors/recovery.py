"""When something that was alerted counts as recovered."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from reco_assets.alerting import utc
from reco_assets.sensors.failed_runs import BACKFILL_TAG, FailedRun, examine

if TYPE_CHECKING:
    from reco_assets.store.alerts import OpenAlert
    from reco_assets.store.generations import Generation

_DAILY_WORK = timedelta(days=3)
"""A failed day this recent was the pipeline's current work, which the success of a later day ends."""
_PAGE = 1000


def how_it_recovered(
    instance: dg.DagsterInstance, alert: "OpenAlert", live: "Generation | None"
) -> str | None:
    """What ended the incident, as a sentence; None while it lasts."""
    _, _, subject = alert.dedupe_key.partition(":")
    if alert.kind == "stale":
        return _published_since(alert, live, unless=subject)
    what, _, name = subject.partition(":")
    if what == "backfill":
        return _backfill_recovered(instance, alert, name, live)
    record = instance.get_run_record_by_id(name)
    if record is None:  # pruned from Dagster: a publication is what is left to go by
        return _published_since(alert, live)
    failed = examine(instance, record.dagster_run, _end(record))
    return _run_recovered(instance, failed, superseding=True)


def _published_since(alert: "OpenAlert", live: "Generation | None", unless: str = "") -> str | None:
    if live is None or str(live.id) == unless:
        return None
    if not unless and live.went_live_at <= alert.first_sent:
        return None
    return f"recommendations of {live.partition_date} were published {utc(live.went_live_at)}"


def _backfill_recovered(
    instance: dg.DagsterInstance, alert: "OpenAlert", backfill_id: str, live: "Generation | None"
) -> str | None:
    """Only when the backfill is over and each of its failed runs is made up for: later failures of it
    are not alerted, so an early notice would hide them."""
    backfill = instance.get_backfill(backfill_id)
    if backfill is not None and backfill.status.value in ("REQUESTED", "CANCELING", "FAILING"):
        return None
    wanted = dg.RunsFilter(tags={BACKFILL_TAG: backfill_id}, statuses=[dg.DagsterRunStatus.FAILURE])
    records = instance.get_run_records(wanted)
    if not records:
        return _published_since(alert, live)
    for record in records:
        failed = examine(instance, record.dagster_run, _end(record))
        if not _run_recovered(instance, failed, superseding=False):
            return None
    return f"all {len(records)} failed runs of backfill {backfill_id} were made up for"


def _run_recovered(instance: dg.DagsterInstance, failed: FailedRun, superseding: bool) -> str | None:
    if not failed.assets:
        return _job_succeeded(instance, failed)
    days = set(failed.partitions)
    made = {asset: list(_made_since(instance, asset, failed)) for asset in failed.assets}
    if all(_covers(days, [day for day, _ in runs]) for runs in made.values()):
        return f"{', '.join(failed.assets)}{failed.of_partition} was materialised by a run that succeeded"
    if not superseding or not _was_current(failed):
        return None
    last = failed.partitions[-1]
    if all(any(day is not None and day > last for day, _ in runs) for runs in made.values()):
        return (
            f"a later day's run succeeded; {last} itself is still missing and can be made up for with "
            f"`reco run --partition {last}`"
        )
    return None


def _covers(days: set[str], made: Sequence[str | None]) -> bool:
    return days <= set(made) if days else bool(made)


def _was_current(failed: FailedRun) -> bool:
    if len(failed.partitions) != 1:
        return False
    day = datetime.fromisoformat(failed.partitions[0]).replace(tzinfo=UTC)
    return failed.failed_at - day <= _DAILY_WORK


def _made_since(
    instance: dg.DagsterInstance, asset: str, failed: FailedRun
) -> Iterator[tuple[str | None, str]]:
    """Partition and run of each materialisation after the failure, by a run that succeeded as a whole."""
    wanted = dg.AssetRecordsFilter(
        asset_key=dg.AssetKey.from_user_string(asset), after_timestamp=failed.failed_at.timestamp()
    )
    records = instance.fetch_materializations(wanted, limit=_PAGE).records
    run_ids = {record.run_id for record in records} - {failed.run.run_id}
    if not run_ids:
        return
    runs = instance.get_runs(dg.RunsFilter(run_ids=list(run_ids), statuses=[dg.DagsterRunStatus.SUCCESS]))
    succeeded = {run.run_id for run in runs}
    for record in records:
        if record.run_id in succeeded:
            yield record.partition_key, record.run_id


def _job_succeeded(instance: dg.DagsterInstance, failed: FailedRun) -> str | None:
    """For a run without assets: the same job, of the same partition, succeeded afterwards."""
    tags = {name: value for name, value in failed.run.tags.items() if name == "dagster/partition"}
    later = instance.get_run_records(
        dg.RunsFilter(
            job_name=failed.run.job_name,
            statuses=[dg.DagsterRunStatus.SUCCESS],
            tags=tags,
            created_after=failed.failed_at,
        ),
        limit=1,
    )
    return f"job {failed.run.job_name}{failed.of_partition} succeeded" if later else None


def _end(record: dg.RunRecord) -> datetime:
    return datetime.fromtimestamp(record.end_time or record.create_timestamp.timestamp(), UTC)
