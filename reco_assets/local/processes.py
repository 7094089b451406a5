"""Child processes that live and die together."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from reco_assets.errors import RecoError
from reco_assets.local import launch, watchdog

_STOP_TIMEOUT_S = 15.0
_LAUNCH = (sys.executable, "-I", "-S", launch.__file__)
"""Without site-packages it has become the server after some milliseconds."""


@dataclass(frozen=True)
class Service:
    """A server to start: its command line, and whether it is up, which is asked several times a second."""

    name: str
    command: Sequence[str]
    is_up: Callable[[], bool]
    log: Path


class ServiceDied(RecoError):
    """A server ended, or did not come up; the message holds the end of its log."""


class Services:
    """Started servers, each in a process group of its own: what they start themselves ends with them."""

    def __init__(self, embedded: Path | None = None) -> None:
        self._processes: list[tuple[Service, subprocess.Popen[bytes]]] = []
        self._up: list[Service] = []
        reading, self._pipe = os.pipe()
        self._watchdog = subprocess.Popen(
            [sys.executable, "-m", watchdog.__name__, *([str(embedded)] if embedded else [])],
            stdin=reading,
            start_new_session=True,
        )
        os.close(reading)

    def start(self, service: Service, environment: Mapping[str, str], cwd: Path) -> None:
        """Start without waiting; output goes to the service's log file."""
        service.log.parent.mkdir(parents=True, exist_ok=True)
        with service.log.open("ab") as log:
            process = subprocess.Popen(
                [*_LAUNCH, str(self._pipe), *service.command],
                pass_fds=[self._pipe],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=cwd,
                start_new_session=True,
            )
        self._processes.append((service, process))

    def wait_until_up(self, timeout_s: float, say: Callable[[str], None]) -> None:
        """Return when every server that was started is up, and `say` so of each that was not up before.

        Raises:
            ServiceDied: One ended, or took longer than `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        waiting = [service for service, _ in self._processes if service not in self._up]
        while waiting:
            self.check()
            for service in list(waiting):
                if service.is_up():
                    waiting.remove(service)
                    self._up.append(service)
                    say(f"{service.name} is up")
            if waiting and time.monotonic() > deadline:
                raise ServiceDied(
                    f"{waiting[0].name} did not answer within {timeout_s:g} s. "
                    f"The end of {waiting[0].log}:\n{_tail(waiting[0].log)}"
                )
            time.sleep(0.2)

    def check(self) -> None:
        """Raise `ServiceDied` if one has ended."""
        # First: without it no server can start, and that is not the server's fault.
        if (code := self._watchdog.poll()) is not None:
            raise ServiceDied(
                f"The watchdog ended with code {code}: nobody would end the servers after a kill -9. "
                "Start again."
            )
        for service, process in self._processes:
            if (code := process.poll()) is not None:
                raise ServiceDied(
                    f"{service.name} ended with code {code}. The end of {service.log}:\n{_tail(service.log)}"
                )

    def stop(self) -> None:
        """Terminate all groups; kill what is still there after some seconds."""
        groups = [process.pid for _, process in self._processes]
        watchdog.end_groups(groups, _STOP_TIMEOUT_S, reap=self._reap)
        with suppress(BrokenPipeError):  # somebody has killed the watchdog
            os.write(self._pipe, f"{watchdog.DONE}\n".encode())
        os.close(self._pipe)
        self._watchdog.wait()

    def _reap(self) -> None:
        for _, process in self._processes:
            process.poll()


@contextmanager
def services(embedded: Path | None = None) -> Iterator[Services]:
    """Servers that are stopped at the end, whatever happens, a `kill -9` of this process included.

    Args:
        embedded: directory of the embedded PostgreSQL that they use, which then stops after them.
    """
    running = Services(embedded)
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


def answers(url: str) -> bool:
    """Whether the URL answers 200 now."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _tail(log: Path, lines: int = 25) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
