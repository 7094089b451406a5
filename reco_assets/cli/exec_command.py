"""`reco exec`."""

import os
import subprocess
import sys
from pathlib import Path

import click


@click.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, required=True)
def command(arguments: tuple[str, ...]) -> None:
    """Run any command in the pipeline's environment.

    Starts (or joins) the embedded PostgreSQL for what has no URL of its own, and passes
    RECO_DATABASE_URL, DAGSTER_HOME, DAGSTER_POSTGRES_URL and MLFLOW_TRACKING_URI on.

    \b
    reco exec -- dagster asset materialize -m reco_assets.definitions \\
        --select '*' --partition 2026-11-20
    reco exec -- dg launch --assets '*' --partition 2026-11-20
    reco exec -- sh -c 'psql "$RECO_DATABASE_URL"'
    """
    from reco_assets.local.stack import local_stack
    from reco_assets.settings import Settings

    with local_stack(Settings.load()):
        # `.venv/bin/reco exec -- dagster …` means the dagster beside it, whatever the shell knows of.
        beside = str(Path(sys.executable).parent)
        path = os.pathsep.join([beside, *filter(None, [os.environ.get("PATH")])])
        try:
            code = subprocess.call(arguments, env={**os.environ, "PATH": path})
        except OSError as error:
            raise click.ClickException(f"Cannot run {arguments[0]!r}: {error.strerror}.") from None
    sys.exit(code)
