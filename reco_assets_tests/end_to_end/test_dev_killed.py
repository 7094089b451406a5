"""`kill -9` of `reco dev`: nothing of it stays, and it starts again."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reco_assets.local.embedded_postgres import running_server

PORTS = ("--port", "0", "--mlflow-port", "0", "--service-port", "0")


def start_dev(home: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """`reco dev` once it is up, and the ports that it names."""
    process = subprocess.Popen(
        [*(sys.executable, "-m", "reco_assets", "dev"), *PORTS],
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ) | {"RECO_HOME": str(home)},
    )
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if "Ctrl-C" in line:
            return process, [int(port) for port in re.findall(r"http://127\.0\.0\.1:(\d+)\s", said)]
    raise AssertionError(said)


def processes_of(home: Path) -> dict[int, str]:
    """Whatever still has this home in its environment, and the server that it used."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"RECO_HOME={home}".encode() in (entry / "environ").read_bytes():
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it has just ended
            continue
    return found


def soon(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.timeout(600)
def test_nothing_of_a_killed_reco_dev_stays_and_the_next_one_starts(
    open_tmp_path: Path, mlflow_template: Path
) -> None:
    home = open_tmp_path / "home"
    (home / "mlflow").mkdir(parents=True)
    (home / "mlflow" / "mlflow.db").write_bytes(mlflow_template.read_bytes())
    first, ports = start_dev(home)
    assert len(ports) == 3
    found = " ".join(processes_of(home).values())
    for part in ("dagster_webserver", "dagster._daemon", "dagster api grpc", "mlflow", "serve", "watchdog"):
        assert part in found, part
    server = running_server(home / "postgres")
    assert server is not None

    first.kill()
    first.communicate()
    assert soon(lambda: processes_of(home) == {}), processes_of(home)
    assert [port for port in (*ports, server.port) if not is_free(port)] == []

    second, again = start_dev(home)
    assert len(again) == 3
    second.send_signal(signal.SIGINT)
    second.communicate()
    assert processes_of(home) == {}
    assert running_server(home / "postgres") is None
