"""Child processes that live and die together."""

import ctypes
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from reco_assets.errors import RecoError

_STOP_TIMEOUT_S = 15.0
_PR_SET_PDEATHSIG = 1  # from linux/prctl.h


@dataclass(frozen=True)
class Service:
    """A server to start: its command line, and the URL that answers 200 once it is up."""

    name: str
    command: Sequence[str]
    health_url: str
    log: Path
    death_signal: int = signal.SIGTERM
    """What it gets when its parent was killed."""


class ServiceDied(RecoError):
    """A server ended, or did not come up; the message holds the end of its log."""


class Services:
    """Started servers. Each has a process group of its own, because Dagster's own children ignore
    Ctrl-C in a terminal's group and would outlive their parent."""

    def __init__(self) -> None:
        self._processes: list[tuple[Service, subprocess.Popen[bytes]]] = []

    def start(self, service: Service, environment: Mapping[str, str], cwd: Path) -> None:
        """Start without waiting; output goes to the service's log file."""
        service.log.parent.mkdir(parents=True, exist_ok=True)
        with service.log.open("ab") as log:
            process = subprocess.Popen(
                service.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=cwd,
                start_new_session=True,
                preexec_fn=partial(_die_with_parent, service.death_signal),
            )
        self._processes.append((service, process))

    def wait_until_healthy(self, timeout_s: float, say: Callable[[str], None]) -> None:
        """Return when every health URL answers.

        Raises:
            ServiceDied: One ended, or took longer than `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        waiting = [service for service, _ in self._processes]
        while waiting:
            self.check()
            for service in list(waiting):
                if _answers(service.health_url):
                    waiting.remove(service)
                    say(f"{service.name} is up")
            if waiting and time.monotonic() > deadline:
                raise ServiceDied(
                    f"{waiting[0].name} did not answer at {waiting[0].health_url} within {timeout_s:g} s. "
                    f"The end of {waiting[0].log}:\n{_tail(waiting[0].log)}"
                )
            time.sleep(0.2)

    def check(self) -> None:
        """Raise `ServiceDied` if one has ended."""
        for service, process in self._processes:
            if (code := process.poll()) is not None:
                raise ServiceDied(
                    f"{service.name} ended with code {code}. The end of {service.log}:\n{_tail(service.log)}"
                )

    def stop(self) -> None:
        """Terminate all groups, newest first; kill what is still there after some seconds."""
        for number, timeout_s in ((signal.SIGTERM, _STOP_TIMEOUT_S), (signal.SIGKILL, 5.0)):
            groups = [process.pid for _, process in reversed(self._processes)]
            for group in groups:
                _signal_group(group, number)
            deadline = time.monotonic() + timeout_s
            while any(map(_group_alive, groups)) and time.monotonic() < deadline:
                for _, process in self._processes:
                    process.poll()
                time.sleep(0.05)


@contextmanager
def services() -> Iterator[Services]:
    """Servers that are stopped at the end, whatever happens."""
    running = Services()
    try:
        yield running
    finally:
        running.stop()


def free_port(preferred: int) -> int:
    """`preferred` if nobody listens there, else any free port."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            # As servers do it: a port whose last connections are still closing counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ServiceDied("No free TCP port on 127.0.0.1.")


def _die_with_parent(number: int) -> None:
    """Ask Linux for a signal when the parent is gone, kill -9 included; elsewhere do without."""
    try:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    except (OSError, AttributeError):
        return


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


def _group_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _tail(log: Path, lines: int = 25) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
