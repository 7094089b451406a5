"""A run that is asked to end does so in the middle of a fit, whichever way it is asked."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

DAY = "2026-11-01"
PATIENCE_S = 180


@pytest.mark.parametrize("reached", [True, False])
def test_a_terminated_run_ends_within_its_fit_and_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reached: bool
) -> None:
    """Dagster marks the run, and sends a signal if it can reach its process."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    command = [sys.executable, "-m", "reco_assets_tests.end_to_end.terminated", DAY]
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
        dg.DagsterInstance.get() as instance,
    ):
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            assert first, (tmp_path / "log").read_text()
            run = instance.get_run_by_id(first.split()[0])
            assert run is not None
            assert run.status == dg.DagsterRunStatus.STARTED
            instance.report_run_canceling(run)
            if reached:
                os.kill(process.pid, signal.SIGINT)
            process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
        ended = instance.get_run_by_id(run.run_id)
        kinds = [entry.dagster_event_type for entry in instance.all_logs(run.run_id)]
    assert ended is not None
    assert ended.status == dg.DagsterRunStatus.CANCELED
    assert kinds.count(dg.DagsterEventType.STEP_START) == 1
    assert dg.DagsterEventType.STEP_UP_FOR_RETRY not in kinds
    assert dg.DagsterEventType.STEP_SUCCESS not in kinds
    assert "The step was left unfinished" in (tmp_path / "log").read_text()
