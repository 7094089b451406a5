"""Runs that failed for good: which they are, what failed in them and why."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Any

import dagster as dg
from dagster_shared.error import SerializableErrorInfo

BACKFILL_TAG = "dagster/backfill"
_WILL_RETRY_TAG = "dagster/will_retry"
_SETTLING = timedelta(minutes=1)
"""Dagster stores the failure first and the run's status and retry tag a moment later."""
_RETRY_GRACE = timedelta(minutes=15)
"""A run that was to be retried and has no successor by then is alerted: the retry never came."""
_KEPT_PENDING = timedelta(days=7)
_PAGE = 200

_EVENTS = {
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.RUN_FAILURE,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
}
_WRAPPERS = ("Dagster", "RetryRequested", "Failure")


@dataclass(frozen=True)
class Cursor:
    """How far the failures were read, and the runs whose alert has not reached everybody."""

    after: int
    pending: Mapping[str, float] = field(default_factory=dict)
    """Run id to the time of its failure, in seconds since 1970."""

    def dump(self) -> str:
        """As the sensor's cursor."""
        return json.dumps({"after": self.after, "pending": dict(self.pending)})

    @classmethod
    def load(cls, text: str | None) -> "Cursor | None":
        """None at the first tick, and for a text that is not ours."""
        try:
            stored = json.loads(text or "")
            return cls(int(stored["after"]), {str(run): float(at) for run, at in stored["pending"].items()})
        except (ValueError, TypeError, KeyError, AttributeError):
            return None


@dataclass(frozen=True)
class FailedRun:
    """A run that failed and will not be retried."""

    run: dg.DagsterRun
    failed_at: datetime
    step_errors: Mapping[str, SerializableErrorInfo | None]
    """Step key to its error, of the steps that failed."""
    run_error: str
    """Why the run failed, where no step did."""
    failed_checks: Sequence[dg.AssetCheckEvaluation]
    """Blocking checks whose last evaluation failed."""
    planned: Mapping[str, Sequence[str]]
    """Step key to the assets it was to materialise."""
    materialized: frozenset[str]

    @property
    def refused(self) -> bool:
        """Whether a blocking check, rather than a fault, ended the run."""
        return bool(self.failed_checks) or "PublicationRefused" in self._error_names

    @cached_property
    def assets(self) -> list[str]:
        """The assets that the run owes, in the order of its plan; without any, those that were checked."""
        planned = [asset for assets in self.planned.values() for asset in assets]
        checked = [check.asset_key.to_user_string() for check in self.failed_checks]
        owed = [asset for asset in planned if asset not in self.materialized]
        failed = [asset for step in self.step_errors for asset in self.planned.get(step, ())]
        return list(dict.fromkeys([*failed, *checked, *owed]))

    @cached_property
    def partitions(self) -> list[str]:
        """The partition keys the run was for: none, one, or the days of a range."""
        tags = self.run.tags
        if key := tags.get("dagster/partition"):
            return [key]
        first = tags.get("dagster/asset_partition_range_start")
        last = tags.get("dagster/asset_partition_range_end")
        if not first or not last:
            return []
        start, end = date.fromisoformat(first), date.fromisoformat(last)
        return [(start + timedelta(days=n)).isoformat() for n in range((end - start).days + 1)]

    @property
    def backfill_id(self) -> str | None:
        """The backfill that the run belongs to."""
        return self.run.tags.get(BACKFILL_TAG)

    @property
    def what(self) -> str:
        """The failed steps, or the run; with partition and job."""
        steps = ", ".join(", ".join(self.planned.get(step, (step,))) for step in self.step_errors)
        subject = steps or "the run, before any step"
        job = "ad-hoc materialisation" if self.run.job_name.startswith("__") else f"job {self.run.job_name}"
        return f"{subject}{self.of_partition} ({job})"

    @property
    def of_partition(self) -> str:
        """` of 2026-11-20`, or nothing for a run without partitions."""
        if not self.partitions:
            return ""
        first, last = self.partitions[0], self.partitions[-1]
        return f" of {first}" if first == last else f" of {first} to {last}"

    @property
    def error(self) -> str:
        """The message of the error that started it, without Dagster's wrapping and without a stack."""
        for error in self.step_errors.values():
            if error is not None:
                return explain(error)
        return self.run_error

    @property
    def lost_the_database(self) -> bool:
        """Whether a lost or refused connection is among the causes."""
        return "DatabaseUnreachable" in self._error_names or "OperationalError" in self._error_names

    @cached_property
    def _error_names(self) -> set[str]:
        return {
            layer.cls_name or ""
            for error in self.step_errors.values()
            if error is not None
            for layer in _layers(error)
        }


def explain(error: SerializableErrorInfo) -> str:
    """`NoInteractions: no interactions between …`: the innermost layer that is not Dagster's."""
    layers = list(_layers(error))
    chosen = next((e for e in layers if not (e.cls_name or "").startswith(_WRAPPERS)), layers[0])
    name = chosen.cls_name or "Error"
    # "package.module.Name: text" is how Dagster spells an exception; the module tells nobody anything.
    head, separator, text = chosen.message.strip().partition(": ")
    message = text if separator and head.rpartition(".")[2] == name else chosen.message.strip()
    return f"{name}: {message}"


def _layers(error: SerializableErrorInfo | None) -> Iterator[SerializableErrorInfo]:
    while error is not None:
        yield error
        error = error.cause


def read_new(instance: dg.DagsterInstance, cursor: Cursor) -> Cursor:
    """The cursor behind all failures known by now, with the new ones pending."""
    after, pending = cursor.after, dict(cursor.pending)
    while True:
        wanted = dg.RunStatusChangeRecordsFilter(dg.DagsterEventType.RUN_FAILURE, after_storage_id=after)
        records = instance.fetch_run_status_changes(wanted, limit=_PAGE, ascending=True).records
        for record in records:
            after = record.storage_id
            pending[record.event_log_entry.run_id] = record.timestamp
        if len(records) < _PAGE:
            return Cursor(after, pending)


def from_now_on(instance: dg.DagsterInstance) -> Cursor:
    """The cursor of a sensor's first tick: what failed before it was installed is not news."""
    newest = instance.fetch_run_status_changes(dg.DagsterEventType.RUN_FAILURE, limit=1).records
    return Cursor(newest[0].storage_id if newest else 0)


@dataclass(frozen=True)
class Settled:
    """Pending runs, sorted by whether they can be judged yet."""

    failed: Sequence[FailedRun]
    waiting: Mapping[str, float]


def settle(context: dg.SensorEvaluationContext, pending: Mapping[str, float], now: datetime) -> Settled:
    """Which of the runs failed for good; runs that are not this project's or are retried drop out."""
    failed: list[FailedRun] = []
    waiting: dict[str, float] = {}
    for run_id, at in pending.items():
        failed_at = datetime.fromtimestamp(at, UTC)
        run = context.instance.get_run_by_id(run_id)
        if run is None or not is_ours(context, run) or now - failed_at > _KEPT_PENDING:
            continue
        verdict = _for_good(context.instance, run, now - failed_at)
        if verdict is None:
            waiting[run_id] = at
        elif verdict:
            failed.append(_examine_anyhow(context, run, failed_at))
    return Settled(failed, waiting)


def _for_good(instance: dg.DagsterInstance, run: dg.DagsterRun, since: timedelta) -> bool | None:
    """Whether the failure stands; None while that is open."""
    settling = since < _SETTLING
    if run.status != dg.DagsterRunStatus.FAILURE:
        return None if settling else False
    will_retry = run.tags.get(_WILL_RETRY_TAG)
    if will_retry is None and instance.run_retries_enabled and settling:
        return None
    if will_retry != "true":
        # Dagster also turns the tag back to "false" when launching the retry failed.
        return True
    if run.tags.get("dagster/auto_retry_run_id") or _has_successor(instance, run):
        return False  # the retry speaks for itself, whether it succeeds or fails
    return True if since > _RETRY_GRACE else None


def _has_successor(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    return bool(instance.get_run_ids(dg.RunsFilter(tags={"dagster/parent_run_id": run.run_id}), limit=1))


def is_ours(context: dg.SensorEvaluationContext, run: dg.DagsterRun) -> bool:
    """Runs of this code location, ad-hoc ones included, and those started in-process by `reco run`."""
    if run.remote_job_origin is None:
        return True  # no code location launched it; only this project's own commands do that
    repository = run.remote_job_origin.repository_origin
    here = context.code_location_origin
    if here is not None and repository.code_location_origin.location_name != here.location_name:
        return False
    return context.repository_name is None or repository.repository_name == context.repository_name


def _examine_anyhow(
    context: dg.SensorEvaluationContext, run: dg.DagsterRun, failed_at: datetime
) -> FailedRun:
    try:
        return examine(context.instance, run, failed_at)
    except Exception as error:
        # An alert with little in it beats none, for this run and for all that would queue up behind it.
        context.log.exception(f"The events of run {run.run_id} cannot be read")
        return FailedRun(run, failed_at, {}, f"its events cannot be read: {error}", [], {}, frozenset())


def examine(instance: dg.DagsterInstance, run: dg.DagsterRun, failed_at: datetime) -> FailedRun:
    """Read from the run's events what failed and why."""
    steps: dict[str, SerializableErrorInfo | None] = {}
    checks: dict[Any, dg.AssetCheckEvaluation] = {}
    planned: dict[str, list[str]] = {}
    materialized: set[str] = set()
    run_error = ""
    for record in instance.get_records_for_run(run.run_id, of_type=_EVENTS).records:
        event = record.event_log_entry.dagster_event
        if event is None:
            continue
        step = event.step_key or ""
        match event.event_type:
            case dg.DagsterEventType.STEP_FAILURE:
                steps[step] = event.step_failure_data.error
            case dg.DagsterEventType.RUN_FAILURE:
                data = event.event_specific_data  # none when a run could not be launched
                error = getattr(data, "error", None)
                run_error = explain(error) if error else (event.message or "")
            case dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                evaluation: Any = event.event_specific_data
                checks[evaluation.asset_check_key] = evaluation
            case dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED if event.asset_key:
                planned.setdefault(step, []).append(event.asset_key.to_user_string())
            case dg.DagsterEventType.ASSET_MATERIALIZATION if event.asset_key:
                materialized.add(event.asset_key.to_user_string())
    failed_checks = [c for c in checks.values() if not c.passed and c.blocking and _is_error(c)]
    planned = {step: list(dict.fromkeys(assets)) for step, assets in planned.items()}
    return FailedRun(run, failed_at, steps, run_error, failed_checks, planned, frozenset(materialized))


def _is_error(evaluation: dg.AssetCheckEvaluation) -> bool:
    return evaluation.severity == dg.AssetCheckSeverity.ERROR


def grouped(failed: Sequence[FailedRun], kind: str) -> dict[str, list[FailedRun]]:
    """By dedupe key: each run is an alert of its own, except that a backfill is one altogether.

    A backfill over ninety days that fails on each of them is one incident with one cause.
    """
    groups: dict[str, list[FailedRun]] = {}
    for item in failed:
        key = f"backfill:{item.backfill_id}" if item.backfill_id else f"run:{item.run.run_id}"
        groups.setdefault(f"{kind}:{key}", []).append(item)
    return groups
