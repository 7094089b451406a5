import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reco_assets.local.processes import Service, ServiceDied, free_port, services


def _wait_until_gone(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_servers_end_with_a_parent_that_was_killed() -> None:
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from reco_assets.local.processes import Service, services\n"
        "with services() as running:\n"
        "    sleep = Service('sleep', ['sleep', '60'], '', Path('/dev/null'))\n"
        "    running.start(sleep, {'PATH': '/bin:/usr/bin'}, Path('/'))\n"
        "    print(running._processes[0][1].pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    assert _wait_until_gone(child)


def test_a_server_that_ends_early_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", "print('no such option'); raise SystemExit(2)"]
    with services() as running:
        running.start(Service("the server", command, "http://127.0.0.1:1", log), dict(os.environ), tmp_path)
        with pytest.raises(ServiceDied, match=r"(?s)the server ended with code 2.*no such option"):
            running.wait_until_healthy(30, print)


def test_a_taken_port_is_replaced() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) != port
