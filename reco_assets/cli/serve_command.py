"""`reco serve`."""

import os

import click


@click.command("serve")
@click.option("--host", default=None, help="Address to listen on; default RECO_SERVICE_HOST (127.0.0.1).")
@click.option("--port", type=int, default=None, help="Port; default RECO_SERVICE_PORT (8000); 0: any.")
@click.option("--workers", type=int, default=None, help="Processes; default RECO_SERVICE_WORKERS (1).")
def command(host: str | None, port: int | None, workers: int | None) -> None:
    """The service: events in (POST /api/track), feeds out (GET /api/feeds).

    Uses the database of RECO_DATABASE_URL, or starts (or joins) the embedded one. Answers from memory while
    the database is away. Stops in order on Ctrl-C or SIGTERM: open requests are answered, accepted events
    are committed. With RECO_AUTH=none it listens on this machine only and shows a demo at /demo.
    """
    for name, value in (("HOST", host), ("PORT", port), ("WORKERS", workers)):
        if value is not None:
            os.environ[f"RECO_SERVICE_{name}"] = str(value)  # the workers read them there

    from reco_assets.local.stack import local_stack
    from reco_assets.serving.server import check, serve
    from reco_assets.settings import Settings
    from reco_assets.store import migrate

    settings = Settings.load()
    check(settings)
    with local_stack(settings, with_dagster=False) as complete:
        if settings.database_url is None:
            migrate.upgrade(complete)
        serve(complete)
