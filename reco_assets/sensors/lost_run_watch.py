"""Runs whose process is gone although Dagster counts them as running.

Dagster's run monitoring asks the run launcher for the health of a run's process; the launcher that starts
runs below the code server cannot tell (1.13, `DefaultRunLauncher`, no `supports_check_run_worker_health`),
and leaves it to the code server to notice. If that died with its runs, only `max_runtime_seconds` is left.
This sensor is evaluated in the code server that is there now, on the machine or in the container where the
processes were, and looks.
"""

import json
from collections.abc import Mapping

import dagster as dg
from dagster._core.storage.tags import GRPC_INFO_TAG

from reco_assets.local.running_process import PROCESS_TAG, began_after, is_gone, start_of
from reco_assets.sensors.desk import MINIMUM_INTERVAL_S
from reco_assets.sensors.failed_runs import is_ours

_GONE = "gone"
_MESSAGE = (
    "The process of this run is gone: it was killed together with the code server, or the machine went down. "
    "Nothing of it was half-published. Run the day again."
)


@dg.sensor(
    name="lost_run_watch",
    minimum_interval_seconds=MINIMUM_INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Fails runs whose process is gone, so that they are retried or alerted and free their place.",
)
def lost_run_watch(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Fail each run whose process two ticks in a row did not find.

    Between the two a code server that lives has long noticed by itself. The cursor holds, for each run, the
    start of its process, or that it was not found.
    """
    before: Mapping[str, str] = json.loads(context.cursor or "{}")
    now, n_failed = {}, 0
    for run in context.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
        if not is_ours(context, run):
            continue
        found = _find(context.instance, run, before.get(run.run_id))
        if found == before.get(run.run_id) == _GONE:
            # It may have ended between our two questions: it wrote its status before it was gone.
            again = context.instance.get_run_by_id(run.run_id)
            if again is not None and again.status == dg.DagsterRunStatus.STARTED:
                context.instance.report_run_failed(again, _MESSAGE)
                n_failed += 1
        elif found is not None:
            now[run.run_id] = found
    context.update_cursor(json.dumps(now))
    return dg.SkipReason(
        f"Failed {n_failed} runs whose process is gone." if n_failed else "All runs are alive."
    )


def _find(instance: dg.DagsterInstance, run: dg.DagsterRun, seen: str | None) -> str | None:
    """The start of the run's process, or `_GONE`; None where nobody here can tell."""
    if noted := run.tags.get(PROCESS_TAG):  # a `reco` command executes it
        return _GONE if is_gone(noted) else noted
    if GRPC_INFO_TAG not in run.tags:  # not below a code server: other launchers watch their runs
        return None
    process = _process_on_record(instance, run)
    if process is None:
        return None
    pid, noted_at = process
    start = start_of(pid)
    if start is None:
        return _GONE
    if seen not in (None, _GONE):
        return seen if seen == str(start) else _GONE
    return _GONE if began_after(start, noted_at) else str(start)


def _process_on_record(instance: dg.DagsterInstance, run: dg.DagsterRun) -> tuple[int, float] | None:
    """Pid of the process that executes the run, and when it said so, in seconds since 1970."""
    records = instance.get_records_for_run(
        run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT, ascending=False
    ).records
    for record in records:
        event = record.event_log_entry.dagster_event
        metadata = event.engine_event_data.metadata if event is not None else {}
        if "pid" in metadata:
            return int(str(metadata["pid"].value)), record.event_log_entry.timestamp
    return None
