"""`reco demo`."""

import time
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from dagster import ExecuteInProcessResult


@click.command("demo")
def command() -> None:
    """From nothing to published recommendations, with a report.

    Starts a private PostgreSQL below RECO_HOME (.reco in the checkout), creates the tables, fills
    them with demo data, and runs the pipeline through Dagster for yesterday. Run again, it does only
    what is missing: on the same day nothing, on a later one the days since.
    """
    from datetime import UTC, datetime

    from reco_assets.cli import runs
    from reco_assets.cli.report import print_report
    from reco_assets.cli.run_command import missing_days
    from reco_assets.errors import SettingsError
    from reco_assets.local.stack import deployment_file, local_stack
    from reco_assets.names import PIPELINE_ASSETS, RAW_INTERACTIONS
    from reco_assets.settings import Settings
    from reco_assets.store import migrate
    from reco_assets.store.database import create_engine_for, transaction
    from reco_assets.store.demo_data import DemoWorld
    from reco_assets.store.demo_writer import seed_demo
    from reco_assets.store.generations import live_generation, newest_published_day

    began = time.monotonic()
    settings = Settings.load()
    if settings.database_url is not None:
        raise SettingsError(
            "RECO_DATABASE_URL is set, and the demo does not touch an app's database. Unset it for the demo; "
            "for a database of your own: `reco migrate`, `reco doctor`, `reco run`."
        )
    day = runs.yesterday()
    _heading("PostgreSQL")
    with local_stack(settings) as complete:
        migration = migrate.upgrade(complete)
        engine = create_engine_for(complete, application_name="reco demo")
        click.echo(f"  schema {migration.after}" + ("" if migration.created else ", already there"))

        _heading("Demo data")
        seeded = seed_demo(
            engine,
            DemoWorld(),
            day,
            now=datetime.now(UTC),
            progress=lambda last, rows: click.echo(f"  until {last}: {rows.interactions:,} interactions"),
        )
        if not seeded.days:
            click.echo(f"  already there until {day}")

        _heading("Pipeline")
        with runs.dagster_instance() as instance:
            with transaction(engine) as connection:
                live, newest = live_generation(connection), newest_published_day(connection)
            if live is not None and newest is not None and newest >= day:
                rolled_back = f", rolled back to {live.partition_date}" if live.restored_from else ""
                click.echo(f"  already published for {newest}{rolled_back}; `reco run` does it again")
            else:
                # Since the first partition, not only the window: every day can then be run from the UI.
                if missing := missing_days(complete, complete.start_date, day):
                    _must_succeed(runs.run_days(instance, [RAW_INTERACTIONS], missing[0], missing[-1]))
                _must_succeed(runs.run_days(instance, PIPELINE_ASSETS, day, day))
            print_report(complete, engine, instance)
        engine.dispose()
    click.echo(f"\nDone in {time.monotonic() - began:.0f} s. Next:")
    in_checkout = (deployment_file("workspace.yaml").parent / "Makefile").exists()
    make, reco = ("make", ".venv/bin/reco") if in_checkout else ("reco", "reco")
    for line, meaning in (
        (f"{make} dev", "the service with a feed to try at /demo, Dagster and MLflow UIs, schedule"),
        (f"{make} test", "the whole suite"),
        (f"{reco} recommend", "another user's list, explained"),
        (f"{reco} run --from DAY --to DAY", "backfill"),
        (f"{reco} --help", "your own data: import, migrate, doctor"),
    ):
        click.echo(f"  {line:<40}{meaning}")


def _heading(name: str) -> None:
    click.secho(name, bold=True)


def _must_succeed(results: "list[ExecuteInProcessResult]") -> None:
    from reco_assets.cli.runs import failure_message

    if not results[-1].success:
        raise click.ClickException(f"Run {results[-1].run_id} failed: {failure_message(results[-1])}")
