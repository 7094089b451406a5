"""What the compose file and the image say."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from reco_assets.settings import ENV_PREFIX, Settings
from reco_assets_tests.deployment.compose import (
    CHECKOUT,
    COMPOSE,
    PASSWORD,
    Image,
    environment_of,
    example_variables,
    interpolated,
    listens_on,
    runs_once,
    services,
)

DOCUMENT = CHECKOUT / "docs" / "deployment.md"


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
