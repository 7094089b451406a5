"""The `reco` command. Each command lives in a module of its own, imported when it is called."""

import importlib
import os
import signal
import sys

import click

from reco_assets import __version__
from reco_assets.errors import RecoError

_COMMANDS = {
    "demo": ("demo_command", "From nothing to published recommendations, with a report."),
    "dev": ("dev_command", "Dagster UI, daemon, MLflow UI and the service on one machine."),
    "serve": ("serve_command", "The service: events in, feeds out."),
    "run": ("run_command", "Run the pipeline for a day, or for a range of days."),
    "rollback": ("rollback_command", "Put an earlier day's lists live again."),
    "recommend": ("recommend_command", "Show a user's list and explain it."),
    "migrate": ("migrate_command", "Create or update the tables; never touches the app's own."),
    "seed": ("seed_command", "Fill the database with demo data of any size."),
    "import": ("import_command", "Load an existing log: CSV, Parquet or JSON lines."),
    "doctor": ("doctor_command", "Check a database that the app owns."),
    "exec": ("exec_command", "Run any command in the pipeline's environment."),
    "test": ("test_command", "Linters, types, import contracts and tests."),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click passes it
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"reco_assets.cli.{_COMMANDS[cmd_name][0]}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        # From the table above: help must not import what ten commands need.
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="reco")
def cli() -> None:
    """Daily recommendations for an app on PostgreSQL.

    \b
    reco demo                     see the whole thing work, on demo data
    reco dev                      the same data: a feed to try (/demo), Dagster and MLflow UIs
    reco migrate && reco doctor   prepare and check your own database (RECO_DATABASE_URL)
    reco run                      yesterday's recommendations, now
    reco serve                    the service: events in, feeds out, a demo page

    Settings are environment variables named RECO_…; docs/settings.md lists them.
    """


def main() -> None:
    """Entry point: expected failures print their message and exit with 1, without a traceback."""
    # So that a terminated command leaves its servers as an interrupted one does: in order.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        if os.environ.get("RECO_ALERT_URLS"):
            from reco_assets.alerting import check_alert_urls

            check_alert_urls(os.environ["RECO_ALERT_URLS"])
        cli(prog_name="reco")
    except RecoError as error:
        click.secho(f"{type(error).__name__}: {error}", fg="red", err=True)
        sys.exit(1)
