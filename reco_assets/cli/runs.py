"""Launching the pipeline from the command line, with its progress on the terminal."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import click
import dagster as dg
from dagster_shared.check import CheckError

from reco_assets.errors import BadInput
from reco_assets.local.running_process import PROCESS_TAG, is_gone, this_process
from reco_assets.names import PIPELINE_ASSETS, RAW_INTERACTIONS
from reco_assets.settings import Settings

# The tags by which Dagster itself starts one run over a range of partitions.
_RANGE_START = "dagster/asset_partition_range_start"
_RANGE_END = "dagster/asset_partition_range_end"


def yesterday() -> date:
    """The newest complete day, UTC."""
    return datetime.now(UTC).date() - timedelta(days=1)


@dataclass(frozen=True)
class StepTime:
    """How long one step of a run took."""

    name: str
    seconds: float


class _Progress(logging.Handler):
    """A line per step as it starts and ends, and whatever a step says at level info and above."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)  # the level of Dagster's own events
        self.started: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        meta = getattr(record, "dagster_meta", {})
        event, step = meta.get("dagster_event"), meta.get("step_key") or ""
        if event is None:
            message = str(meta.get("orig_message", record.getMessage()))
            # What could not run because an earlier step failed is said by that step.
            if record.levelno >= logging.INFO and not message.startswith("Dependencies for step"):
                click.echo(f"    {message}")
            return
        kind = event.event_type_value
        if kind == "STEP_START":
            self.started[step] = time.monotonic()
            if step in PIPELINE_ASSETS:
                click.echo(f"  {step} …")
        elif kind in ("STEP_SUCCESS", "STEP_FAILURE") and step in PIPELINE_ASSETS:
            seconds = time.monotonic() - self.started.get(step, time.monotonic())
            mark = click.style("✓", fg="green") if kind == "STEP_SUCCESS" else click.style("✗", fg="red")
            click.echo(f"  {mark} {step:<34}{seconds:6.1f} s")
        elif kind == "STEP_UP_FOR_RETRY":
            click.echo(f"    {step} failed and will be tried again")
        elif kind == "ASSET_CHECK_EVALUATION":
            evaluation = event.event_specific_data
            if not evaluation.passed:
                blocking = evaluation.severity == dg.AssetCheckSeverity.ERROR
                click.secho(
                    f"    {'✗' if blocking else '!'} {evaluation.check_name}: {evaluation.description}",
                    fg="red" if blocking else "yellow",
                )


def _progress_logger(init_context: dg.InitLoggerContext) -> logging.Logger:  # noqa: ARG001  # Dagster passes it
    logger = logging.Logger("reco.progress", level=logging.DEBUG)
    logger.addHandler(_Progress())
    return logger


progress = dg.LoggerDefinition(_progress_logger, description="A line per step on the terminal.")
"""A logger whose handler knows Dagster's events."""


@contextmanager
def dagster_instance() -> Iterator[dg.DagsterInstance]:
    """The instance that DAGSTER_HOME (set by `local_stack`) names."""
    with dg.DagsterInstance.get() as instance:
        close_dead_runs(instance)
        yield instance


def close_dead_runs(instance: dg.DagsterInstance) -> int:
    """Close the runs on this machine whose process was killed; returns how many.

    Nobody else would for hours, and meanwhile they take the places of the daemon's queue.
    """
    unfinished = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
    closed = 0
    for run in instance.get_runs(dg.RunsFilter(statuses=unfinished)):
        if not is_gone(run.run_id, run.tags.get(PROCESS_TAG)):
            continue
        # It may have ended between the two questions: it wrote its status before it was gone.
        again = instance.get_run_by_id(run.run_id)
        if again is None or again.status not in unfinished:
            continue
        instance.report_run_failed(run, "The process of this run is gone: it was killed. Run the day again.")
        closed += 1
    return closed


def run_days(
    instance: dg.DagsterInstance,
    assets: Sequence[str],
    first: date,
    last: date,
    *,
    run_config: dict[str, Any] | None = None,
) -> list[dg.ExecuteInProcessResult]:
    """Materialise assets for every day of a range, in this process, oldest first.

    `raw_interactions` takes the whole range in one run; the others take a run per day. Stops at the
    first run that fails.
    """
    runs: list[tuple[Sequence[str], date, date]] = []
    if first != last and RAW_INTERACTIONS in assets:
        runs.append(([RAW_INTERACTIONS], first, last))
        assets = [name for name in assets if name != RAW_INTERACTIONS]
    if assets:
        n_days = (last - first).days + 1
        runs += [(assets, first + timedelta(days=n), first + timedelta(days=n)) for n in range(n_days)]
    results = []
    for selection, start, end in runs:
        click.echo(f"{', '.join(selection) if len(selection) < 5 else 'All assets'} for {_span(start, end)}")
        results.append(_materialize(instance, selection, start, end, run_config))
        if not results[-1].success:
            break
    return results


def step_times(instance: dg.DagsterInstance, run_id: str) -> list[StepTime]:
    """Seconds per asset of a recorded run, in the order they ran."""
    stats = instance.get_run_step_stats(run_id)
    timed = [(s.start_time, s.end_time, s.step_key) for s in stats if s.start_time and s.end_time]
    return [StepTime(name, end - start) for start, end, name in sorted(timed) if name in PIPELINE_ASSETS]


def failure_message(result: dg.ExecuteInProcessResult) -> str:
    """The message of the step that failed, or of the blocking checks that stopped the run."""
    failed_checks = [
        f"{evaluation.check_name}: {evaluation.description}"
        for evaluation in result.get_asset_check_evaluations()
        if not evaluation.passed and evaluation.blocking
    ]
    for event in result.all_events:
        if event.event_type_value == "STEP_FAILURE":
            data = event.step_failure_data
            if data.user_failure_data and data.user_failure_data.description:
                return str(data.user_failure_data.description)
            if failed_checks:
                return "A blocking check failed; nothing was published. " + " ".join(failed_checks)
            error = data.error
            while error is not None and error.cause is not None:
                error = error.cause
            return error.message.strip() if error is not None else "no message"
    for event in result.all_events:
        if event.is_failure and event.is_job_event:
            cause = event.job_failure_data.error if event.job_failure_data else None
            while cause is not None and cause.cause is not None:
                cause = cause.cause
            return (cause.message if cause is not None else event.message or "no message").strip()
    return "no step failed; see the run in the Dagster UI"


def check_range(settings: Settings, first: date, last: date) -> None:
    """Refuse ranges that no partition covers.

    Raises:
        BadInput: Upside down, before RECO_START_DATE, or not over yet.
    """
    if first > last:
        raise BadInput(f"The range is upside down: {first} is after {last}.")
    if first < settings.start_date:
        raise BadInput(
            f"{first} is before the first partition {settings.start_date}. "
            "Set RECO_START_DATE to an earlier day."
        )
    if last > yesterday():
        raise BadInput(f"{last} is not over yet (UTC); the newest complete day is {yesterday()}.")


def _materialize(
    instance: dg.DagsterInstance,
    selection: Sequence[str],
    first: date,
    last: date,
    run_config: dict[str, Any] | None,
) -> dg.ExecuteInProcessResult:
    from reco_assets.definitions import defs

    job = dg.Definitions.merge(
        defs, dg.Definitions(loggers={"progress": progress})
    ).resolve_implicit_global_asset_job_def()
    partition: dict[str, Any] = {"partition_key": str(first)} if first == last else {}
    run_id = str(uuid4())
    tags = {} if first == last else {_RANGE_START: str(first), _RANGE_END: str(last)}
    try:
        return job.execute_in_process(
            instance=instance,
            run_id=run_id,
            asset_selection=[dg.AssetKey(name) for name in selection],
            run_config={"loggers": {"progress": {"config": {}}}} | _only(selection, run_config or {}),
            raise_on_error=False,
            # A command that was killed is not started again behind its user's back.
            tags=tags | {PROCESS_TAG: this_process(run_id), "dagster/max_retries": "0"},
            **partition,
        )
    except dg.DagsterInvalidConfigError as error:
        problems = "; ".join(problem.message for problem in error.errors)
        raise BadInput(f"The run config does not fit: {problems}") from None
    except CheckError as error:
        raise BadInput(f"The run config does not fit: {error}") from None


def _only(selection: Sequence[str], run_config: Mapping[str, Any]) -> dict[str, Any]:
    """The run config without the sections of assets that this run leaves out."""
    ops = run_config.get("ops")
    if not isinstance(ops, dict):
        return dict(run_config)
    kept = {
        name: section for name, section in ops.items() if name in selection or name not in PIPELINE_ASSETS
    }
    return dict(run_config) | {"ops": kept}


def _span(first: date, last: date) -> str:
    return str(first) if first == last else f"{first} … {last}"
