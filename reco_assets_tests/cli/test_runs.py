import os
import socket
import subprocess
import sys

import dagster as dg

from reco_assets.cli.runs import close_dead_runs
from reco_assets.local.running_process import PROCESS_TAG, this_process


def _unfinished_run(instance: dg.DagsterInstance, process: str | None) -> str:
    @dg.job
    def job() -> None: ...

    return instance.create_run_for_job(job, tags={PROCESS_TAG: process} if process else {}).run_id


def test_runs_of_killed_commands_are_closed_and_no_others() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    host = socket.gethostname()
    with dg.DagsterInstance.ephemeral() as instance:
        gone = _unfinished_run(instance, f"{host}:{child.pid}:12345")
        reused = _unfinished_run(
            instance, f"{host}:{os.getpid()}:1"
        )  # the pid lives, but it is another process
        alive = _unfinished_run(instance, this_process())
        elsewhere = _unfinished_run(instance, "another-host:1:1")
        daemons = _unfinished_run(instance, None)
        assert close_dead_runs(instance) == 2
        statuses = {run.run_id: run.status.value for run in instance.get_runs()}
    assert {statuses[gone], statuses[reused]} == {"FAILURE"}
    assert {statuses[alive], statuses[elsewhere], statuses[daemons]} == {"NOT_STARTED"}
