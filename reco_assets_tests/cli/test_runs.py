import os
import socket
import subprocess
import sys

import dagster as dg

from reco_assets.cli.runs import close_dead_runs
from reco_assets.local.running_process import PROCESS_TAG, this_process


def _unfinished_run(instance: dg.DagsterInstance, process: str = "") -> str:
    @dg.job
    def job() -> None: ...

    run_id = instance.create_run_for_job(job).run_id
    if process:
        instance.add_run_tags(run_id, {PROCESS_TAG: f"{run_id}:{process}"})
    return run_id


def test_runs_of_killed_processes_are_closed_and_no_others() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    host = socket.gethostname()
    with dg.DagsterInstance.ephemeral() as instance:
        gone = _unfinished_run(instance, f"{host}:{child.pid}:12345")
        reused = _unfinished_run(instance, f"{host}:{os.getpid()}:1")  # the pid lives: another process
        alive = _unfinished_run(instance)
        instance.add_run_tags(alive, {PROCESS_TAG: this_process(alive)})
        elsewhere = _unfinished_run(instance, "another-host:1:1")
        not_started = _unfinished_run(instance)
        executed_again = _unfinished_run(instance)  # Dagster copies the tags of the run before
        instance.add_run_tags(executed_again, {PROCESS_TAG: f"{gone}:{host}:{child.pid}:12345"})
        assert close_dead_runs(instance) == 2
        statuses = {run.run_id: run.status.value for run in instance.get_runs()}
    assert {statuses[gone], statuses[reused]} == {"FAILURE"}
    assert {statuses[run] for run in (alive, elsewhere, not_started, executed_again)} == {"NOT_STARTED"}
