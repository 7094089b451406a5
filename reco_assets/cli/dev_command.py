"""`reco dev`."""

import json
import os
import sys
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from reco_assets.local.processes import Service
    from reco_assets.settings import Settings


@click.command("dev")
@click.option("--port", default=3000, show_default=True, help="Preferred port of the Dagster UI.")
@click.option("--mlflow-port", default=5000, show_default=True, help="Preferred port of the MLflow UI.")
@click.option("--service-port", default=8000, show_default=True, help="Preferred port of the service.")
def command(port: int, mlflow_port: int, service_port: int) -> None:
    """Dagster UI, daemon, MLflow UI and the service on one machine, on the same data as `reco demo`.

    The schedule and the sensors run: at 02:00 UTC the day that ended is processed, and alerts go to
    RECO_ALERT_URLS. Everything listens on 127.0.0.1 and stops with Ctrl-C. A port that is taken is
    replaced by a free one.
    """
    from reco_assets.alerting import check_alert_urls
    from reco_assets.cli.runs import dagster_instance
    from reco_assets.local.processes import free_port, services
    from reco_assets.local.stack import embedded_directory, local_stack
    from reco_assets.settings import Settings
    from reco_assets.store import migrate

    settings = Settings.load()
    check_alert_urls(settings.alert_urls)
    embedded = embedded_directory(settings)
    with local_stack(settings) as complete:
        if settings.database_url is None:
            migrate.upgrade(complete)
        else:
            migrate.check(complete)
        with dagster_instance():
            pass  # closes the runs of killed commands, which would take the daemon's places
        # Without a server of its own, MLflow keeps its store below RECO_HOME and gets a UI here.
        own_mlflow = settings.mlflow_tracking_uri is None
        addresses = _Addresses(
            f"http://127.0.0.1:{free_port(port)}",
            f"http://127.0.0.1:{free_port(mlflow_port)}" if own_mlflow else settings.mlflow_url,
            f"http://127.0.0.1:{free_port(service_port)}",
            free_port(0),
        )
        environment = {"RECO_DAGSTER_URL": addresses.dagster, "RECO_MLFLOW_URL": addresses.mlflow}
        environment |= dict(os.environ)
        with services(embedded) as running:
            click.echo(f"Starting; logs are in {settings.home / 'logs'}")
            try:
                if own_mlflow:
                    running.start(_mlflow(settings, addresses), environment, settings.home)
                running.start(_code_server(settings, addresses), environment, settings.home)
                running.start(
                    _service(settings, addresses),
                    environment | {"RECO_SERVICE_HOST": "127.0.0.1"},
                    settings.home,
                )
                running.wait_until_up(180, click.echo)
                for each in _webserver_and_daemon(settings, addresses):
                    running.start(each, environment, settings.home)
                running.wait_until_up(180, click.echo)
                demo = f"   a feed to try: {addresses.service}/demo" if _shows_demo(settings) else ""
                click.echo(f"\n  Dagster   {addresses.dagster}\n  MLflow    {addresses.mlflow}")
                click.echo(f"  Service   {addresses.service}{demo}\n")
                click.echo("Schedule and sensors are running. Ctrl-C stops everything.")
                while True:
                    running.check()
                    time.sleep(1)
            except (KeyboardInterrupt, SystemExit) as end:
                click.echo("\nStopping")
                if isinstance(end, SystemExit):
                    raise  # SIGTERM: its exit code stays


@dataclass(frozen=True)
class _Addresses:
    """Where the parts listen."""

    dagster: str
    mlflow: str
    service: str
    code_port: int


def _mlflow(settings: "Settings", addresses: _Addresses) -> "Service":
    from reco_assets.local.processes import Service, answers

    return Service(
        "MLflow UI",
        [
            *(sys.executable, "-m", "mlflow", "server", "--backend-store-uri", settings.tracking_uri),
            *("--default-artifact-root", settings.artifact_root, "--workers", "1"),
            *("--host", "127.0.0.1", "--port", _port(addresses.mlflow)),
        ],
        partial(answers, f"{addresses.mlflow}/health"),
        settings.home / "logs" / "mlflow.log",
    )


def _code_server(settings: "Settings", addresses: _Addresses) -> "Service":
    """Schedules, sensors and runs execute in it and below it."""
    from dagster._core.errors import DagsterUserCodeUnreachableError
    from dagster._grpc.client import DagsterGrpcClient

    from reco_assets.local.processes import Service

    client = DagsterGrpcClient(host="127.0.0.1", port=addresses.code_port)

    def is_up() -> bool:
        try:
            client.ping("")  # answered once the definitions are loaded, or an error is there to be shown
        except DagsterUserCodeUnreachableError:
            return False
        return True

    return Service(
        "Dagster code server",
        [
            *(sys.executable, "-m", "dagster", "api", "grpc", "--lazy-load-user-code"),
            *("-m", "reco_assets.definitions", "-h", "127.0.0.1", "-p", str(addresses.code_port)),
        ],
        is_up,
        settings.home / "logs" / "dagster-code-server.log",
    )


def _service(settings: "Settings", addresses: _Addresses) -> "Service":
    from reco_assets.local.processes import Service, answers

    return Service(
        "The service",
        [*(sys.executable, "-m", "reco_assets", "serve"), *("--port", _port(addresses.service))],
        partial(answers, f"{addresses.service}/api/health/live"),
        settings.home / "logs" / "service.log",
    )


def _webserver_and_daemon(settings: "Settings", addresses: _Addresses) -> "list[Service]":
    """Once the code server is up: they load no code of ours, they ask for it."""
    from reco_assets.local.processes import Service, answers

    location = {"host": "127.0.0.1", "port": addresses.code_port, "location_name": "reco_assets"}
    workspace = settings.home / "dagster" / "dev-workspace.yaml"
    workspace.write_text(json.dumps({"load_from": [{"grpc_server": location}]}))
    python, options = sys.executable, ("-w", str(workspace.absolute()))
    return [
        Service(
            "Dagster UI",
            [
                *(python, "-m", "dagster_webserver", "-h", "127.0.0.1", "-p", _port(addresses.dagster)),
                *options,
            ],
            partial(answers, f"{addresses.dagster}/server_info"),
            settings.home / "logs" / "dagster-webserver.log",
        ),
        Service(
            "Dagster daemon",
            [*(python, "-m", "dagster._daemon", "run"), *options],
            lambda: True,  # it listens nowhere; that it runs is checked all the time
            settings.home / "logs" / "dagster-daemon.log",
        ),
    ]


def _port(url: str) -> str:
    return url.rsplit(":", 1)[1]


def _shows_demo(settings: "Settings") -> bool:
    return settings.auth == "none" and settings.demo_page
