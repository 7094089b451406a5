"""Runs whose process is gone although Dagster counts them as running.

Dagster's run monitoring asks the run launcher for the health of a run's process; the launcher that starts
runs below the code server cannot tell (1.13, `DefaultRunLauncher`, no `supports_check_run_worker_health`),
and leaves it to the code server to notice. If that died with its runs, only `max_runtime_seconds` is left.
This sensor is evaluated in the code server that is there now, on the machine or in the container where the
processes were, and looks. Runs whose process is noted elsewhere, or not at all, it leaves to that limit: to
end a dead run late costs hours, to end a live one costs a day's lists.
"""

import json

import dagster as dg

from reco_assets.local.running_process import PROCESS_TAG, is_gone
from reco_assets.sensors.desk import MINIMUM_INTERVAL_S
from reco_assets.sensors.failed_runs import is_ours

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

    Between the two a code server that lives has long noticed by itself. The cursor holds the runs whose
    process was not found.
    """
    before, now, n_failed = set(json.loads(context.cursor or "[]")), [], 0
    for run in context.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
        if not is_ours(context, run) or not is_gone(run.run_id, run.tags.get(PROCESS_TAG)):
            continue
        if run.run_id not in before:
            now.append(run.run_id)
            continue
        # It may have ended between our two questions: it wrote its status before it was gone.
        again = context.instance.get_run_by_id(run.run_id)
        if again is not None and again.status == dg.DagsterRunStatus.STARTED:
            context.instance.report_run_failed(again, _MESSAGE)
            n_failed += 1
    context.update_cursor(json.dumps(now))
    return dg.SkipReason(
        f"Failed {n_failed} runs whose process is gone." if n_failed else "All runs are alive."
    )
