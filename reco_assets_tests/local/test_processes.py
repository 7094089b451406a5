import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reco_assets.local.processes import Service, ServiceDied, free_port, services


def _wait_until_gone(pid: int) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "600"], preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN))
print(child.pid, flush=True)
time.sleep(600)
"""
"""Sits out what it is asked to do, and so does what it has started."""

PARENT = """
import sys, time
from pathlib import Path
from reco_assets.local import processes
from reco_assets.local.processes import Service, services
processes._STOP_TIMEOUT_S = 0.5
with services() as running:
    log = Path(sys.argv[1])
    running.start(Service("server", [sys.executable, "-c", sys.argv[2]], log.exists, log), {}, Path("/"))
    while not log.read_text().strip():
        time.sleep(0.01)
    print(running._processes[0][1].pid, log.read_text().strip(), running._watchdog.pid, flush=True)
    if sys.argv[3] == "wait":
        time.sleep(600)
"""


@pytest.mark.parametrize("end", ["killed", "in order"])
def test_servers_and_what_they_started_end_with_their_parent_however_it_ends(
    tmp_path: Path, end: str
) -> None:
    how = "wait" if end == "killed" else "end"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "log"), STUBBORN, how],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 3
    if end == "killed":
        parent.kill()
    parent.communicate()
    assert parent.returncode == (-9 if end == "killed" else 0)
    assert [pid for pid in pids if not _wait_until_gone(pid)] == []


def test_servers_of_a_job_in_the_background_can_be_interrupted(tmp_path: Path) -> None:
    """A shell starts it with SIGINT ignored, which servers would inherit."""
    log = tmp_path / "log"
    handled = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with services() as running:
            server = Service("server", [sys.executable, "-c", handled], lambda: True, log)
            running.start(server, dict(os.environ), tmp_path)
            running._processes[0][1].wait()
    finally:
        signal.signal(signal.SIGINT, before)
    assert log.read_text() == "True\n"


def test_a_watchdog_that_is_gone_ends_everything_while_that_can_still_be_done(tmp_path: Path) -> None:
    with services() as running:
        sleep = Service("sleep", ["sleep", "600"], lambda: True, tmp_path / "log")
        running.start(sleep, dict(os.environ), tmp_path)
        running.check()
        running._watchdog.kill()
        running._watchdog.wait()
        with pytest.raises(ServiceDied, match=r"The watchdog ended with code -9"):
            running.check()
        pid = running._processes[0][1].pid
    assert _wait_until_gone(pid)


def test_a_server_that_could_not_start_without_a_watchdog_is_not_blamed(tmp_path: Path) -> None:
    with services() as running:
        running._watchdog.kill()
        running._watchdog.wait()
        sleep = Service("sleep", ["sleep", "600"], lambda: False, tmp_path / "log")
        running.start(sleep, dict(os.environ), tmp_path)
        running._processes[0][1].wait()
        with pytest.raises(ServiceDied, match=r"The watchdog ended with code -9"):
            running.wait_until_up(30, print)


def test_no_python_code_runs_between_fork_and_exec(tmp_path: Path) -> None:
    """Where there are threads it could wait for ever. gRPC registers such callbacks."""
    program = """
import os, sys
from pathlib import Path
from reco_assets.local.processes import Service, services
os.register_at_fork(before=lambda: print("forked"))
with services() as running:
    log = Path(sys.argv[1])
    running.start(Service("server", [sys.executable, "-c", "print('up')"], log.exists, log), {}, Path("/"))
    running._processes[0][1].wait()
"""
    log = tmp_path / "log"
    ended = subprocess.run(
        [sys.executable, "-c", program, str(log)], capture_output=True, text=True, check=True
    )
    assert (ended.stdout, log.read_text()) == ("", "up\n")


def test_a_server_that_ends_early_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", "print('no such option'); raise SystemExit(2)"]
    with services() as running:
        server = Service("the server", command, lambda: False, log)
        running.start(server, dict(os.environ), tmp_path)
        with pytest.raises(ServiceDied, match=r"(?s)the server ended with code 2.*no such option"):
            running.wait_until_up(30, print)


def test_a_taken_port_is_replaced() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) != port
