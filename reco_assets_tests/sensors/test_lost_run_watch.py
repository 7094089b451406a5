"""Runs that were killed together with their code server."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.test_utils import create_test_daemon_workspace_context, freeze_time
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import GrpcServerTarget
from dagster._daemon.sensor import execute_sensor_iteration
from dagster._grpc.client import DagsterGrpcClient

from reco_assets.local.processes import free_port
from reco_assets.local.running_process import PROCESS_TAG, start_of
from reco_assets.sensors.lost_run_watch import lost_run_watch
from reco_assets_tests.sensors.conftest import App, Ticker
from reco_assets_tests.sensors.pipelines import DAY
from reco_assets_tests.sinks import Webhook


class CodeServer:
    """A code server in a process group of its own, which is killed as a whole or alone."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "dagster", "api", "grpc", "-m", "reco_assets_tests.sensors.hanging"),
                *("-h", "127.0.0.1", "-p", str(self.port), "--location-name", "reco"),
            ],
            start_new_session=True,
        )
        client = DagsterGrpcClient(host="127.0.0.1", port=self.port)

        def answers() -> bool:
            assert self.process.poll() is None
            try:
                client.ping("")
            except DagsterUserCodeUnreachableError:
                return False
            return True

        wait_for(answers, "the code server", seconds=120)

    def kill(self, *, with_runs: bool) -> None:
        if with_runs:
            os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()
        self.process.wait()


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.1)


@pytest.fixture
def code_server(app: App, channels: None, instance: dg.DagsterInstance) -> Iterator[CodeServer]:
    server = CodeServer(free_port(0))
    yield server
    server.kill(with_runs=True)


@pytest.fixture
def workspace(code_server: CodeServer, instance: dg.DagsterInstance) -> Iterator[WorkspaceProcessContext]:
    target = GrpcServerTarget(
        host="127.0.0.1", port=code_server.port, socket=None, location_name="reco", use_ssl=False
    )
    with create_test_daemon_workspace_context(target, instance) as workspace:
        yield workspace


class Daemon:
    """One iteration of the sensors a minute, and the launcher."""

    def __init__(self, workspace: WorkspaceProcessContext) -> None:
        self.workspace = workspace
        self.now = datetime.now(UTC)

    def iterate(self) -> None:
        self.workspace.refresh_workspace()
        self.now += timedelta(minutes=1)
        with freeze_time(self.now):
            list(execute_sensor_iteration(self.workspace, logging.getLogger("test"), None, None))

    def launch(self) -> str:
        """A run of the day, once it is in its step."""
        from reco_assets_tests.sensors.hanging import defs

        instance, context = self.workspace.instance, self.workspace.create_request_context()
        repository = next(iter(context.get_code_location("reco").get_repositories().values()))
        job = repository.get_full_job("daily_recommendations")
        run = instance.create_run_for_job(
            defs.resolve_job_def("daily_recommendations"),
            tags={"dagster/partition": DAY},
            remote_job_origin=job.get_remote_origin(),
            job_code_origin=job.get_python_origin(),
        )
        instance.launch_run(run.run_id, context)
        started = dg.DagsterEventType.STEP_START
        wait_for(lambda: instance.all_logs(run.run_id, of_type=started), "the step to start")
        return run.run_id

    def status(self, run_id: str) -> str:
        run = self.workspace.instance.get_run_by_id(run_id)
        assert run is not None
        return run.status.value


def test_a_run_that_was_killed_with_its_code_server_is_failed_within_two_ticks_and_alerted_once(
    workspace: WorkspaceProcessContext, code_server: CodeServer, app: App, webhook: Webhook
) -> None:
    app.publish("2026-11-19", hours_ago=1)
    daemon = Daemon(workspace)
    daemon.iterate()
    run_id = daemon.launch()
    daemon.iterate()
    code_server.kill(with_runs=True)
    code_server.start()
    assert daemon.status(run_id) == "STARTED"  # nobody else has noticed
    daemon.iterate()
    assert daemon.status(run_id) == "STARTED"
    daemon.iterate()
    assert daemon.status(run_id) == "FAILURE"
    for _ in range(4):
        daemon.iterate()
    assert webhook.titles == [f"[reco] daily_recommendations of {DAY} failed"]
    assert "process of this run is gone" in str(webhook.received[0])


def test_a_run_that_outlives_its_code_server_is_left_alone(
    workspace: WorkspaceProcessContext, code_server: CodeServer, app: App
) -> None:
    daemon = Daemon(workspace)
    daemon.iterate()
    run_id = daemon.launch()
    orphans = code_server.process.pid
    try:
        code_server.kill(with_runs=False)
        code_server.start()
        for _ in range(4):
            daemon.iterate()
        assert daemon.status(run_id) == "STARTED"
    finally:
        os.killpg(orphans, signal.SIGKILL)
    daemon.iterate()
    daemon.iterate()
    assert daemon.status(run_id) == "FAILURE"


def test_whose_process_is_gone_is_failed_and_what_nobody_here_can_judge_is_not(
    instance: dg.DagsterInstance,
) -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    host, own_start = socket.gethostname(), start_of(os.getpid())
    assert own_start

    @dg.job
    def job() -> None: ...

    def started(tags: dict[str, str]) -> str:
        run_id = instance.create_run_for_job(job, tags=tags).run_id
        event = dg.DagsterEvent(event_type_value="PIPELINE_START", job_name="job")
        instance.report_dagster_event(event, run_id)
        return run_id

    def executed_by(process: str) -> str:
        run_id = started({})
        instance.add_run_tags(run_id, {PROCESS_TAG: f"{run_id}:{process}"})
        return run_id

    killed = executed_by(f"{host}:{child.pid}:12345")
    pid_used_again = executed_by(f"{host}:{os.getpid()}:{own_start - 1}")
    others = {
        "alive": executed_by(f"{host}:{os.getpid()}:{own_start}"),
        "another host's, the pid is nobody's here": executed_by(f"another-host:{child.pid}:12345"),
        "another host's, the pid is somebody else's here": executed_by(f"another-host:{os.getpid()}:1"),
        "the tags are those of the run before": started({PROCESS_TAG: f"{killed}:{host}:{child.pid}:12345"}),
        "noted by an older version": started({PROCESS_TAG: f"{host}:{child.pid}:12345"}),
        "nothing is noted yet": started({}),
    }
    watch = Ticker(lost_run_watch, instance)
    assert watch.tick() == "All runs are alive."
    assert "Failed 2 runs" in watch.tick()
    assert watch.tick() == "All runs are alive."
    failed = instance.get_run_ids(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
    assert set(failed) == {killed, pid_used_again}
    alive = instance.get_run_ids(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    assert [why for why, run_id in others.items() if run_id not in alive] == []


def test_a_zombie_is_not_running() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert start_of(child.pid) is None
    child.wait()
    assert start_of(child.pid) is None
