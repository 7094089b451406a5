"""`reco dev`."""

import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
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
    from reco_assets.local.processes import Service, free_port, services
    from reco_assets.local.stack import deployment_file, local_stack
    from reco_assets.settings import Settings
    from reco_assets.store import migrate

    settings = Settings.load()
    check_alert_urls(settings.alert_urls)
    with local_stack(settings) as complete:
        if settings.database_url is None:
            migrate.upgrade(complete)
        else:
            migrate.check(complete)
        with dagster_instance():
            pass  # closes the runs of killed commands, which would take the daemon's places
        dagster_url = f"http://127.0.0.1:{free_port(port)}"
        # Without a server of its own, MLflow keeps its store below RECO_HOME and gets a UI here.
        mlflow_url = settings.mlflow_url
        if settings.mlflow_tracking_uri is None:
            mlflow_url = f"http://127.0.0.1:{free_port(mlflow_port)}"
        environment = {"RECO_DAGSTER_URL": dagster_url, "RECO_MLFLOW_URL": mlflow_url} | dict(os.environ)
        logs = settings.home / "logs"
        python = sys.executable
        with services() as running:
            if settings.mlflow_tracking_uri is None:
                running.start(
                    Service(
                        "MLflow UI",
                        [
                            *(python, "-m", "mlflow", "server", "--backend-store-uri", settings.tracking_uri),
                            *("--default-artifact-root", settings.artifact_root, "--workers", "1"),
                            *("--host", "127.0.0.1", "--port", mlflow_url.rsplit(":", 1)[1]),
                        ],
                        f"{mlflow_url}/health",
                        logs / "mlflow.log",
                    ),
                    environment,
                    settings.home,
                )
            running.start(
                Service(
                    "Dagster UI and daemon",
                    [
                        *(python, "-m", "dagster", "dev", "-w", str(deployment_file("workspace.yaml"))),
                        *("-h", "127.0.0.1", "-p", dagster_url.rsplit(":", 1)[1]),
                    ],
                    f"{dagster_url}/server_info",
                    logs / "dagster.log",
                    # It sits out a SIGTERM. Its code server notices by its heartbeat that it is gone; its
                    # webserver and daemon do not (1.13): docs/operations.md says what to do.
                    signal.SIGKILL,
                ),
                environment,
                settings.home,
            )
            service_url = f"http://127.0.0.1:{free_port(service_port)}"
            running.start(
                Service(
                    "The service",
                    [*(python, "-m", "reco_assets", "serve"), *("--port", service_url.rsplit(":", 1)[1])],
                    f"{service_url}/api/health/live",
                    logs / "service.log",
                ),
                environment | {"RECO_SERVICE_HOST": "127.0.0.1"},
                settings.home,
            )
            click.echo(f"Starting; logs are in {logs}")
            try:
                running.wait_until_healthy(180, click.echo)
                demo = f"   a feed to try: {service_url}/demo" if _shows_demo(settings) else ""
                click.echo(f"\n  Dagster   {dagster_url}\n  MLflow    {mlflow_url}")
                click.echo(f"  Service   {service_url}{demo}\n")
                click.echo("Schedule and sensors are running. Ctrl-C stops everything.")
                while True:
                    running.check()
                    time.sleep(1)
            except (KeyboardInterrupt, SystemExit) as end:
                click.echo("\nStopping")
                if isinstance(end, SystemExit):
                    raise  # SIGTERM: its exit code stays


def _shows_demo(settings: "Settings") -> bool:
    return settings.auth == "none" and settings.demo_page
