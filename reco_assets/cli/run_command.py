"""`reco run`."""

from datetime import date, datetime, timedelta
from pathlib import Path

import click

from reco_assets.errors import BadInput
from reco_assets.names import INTERACTION_MATRIX, PIPELINE_ASSETS, RAW_INTERACTIONS
from reco_assets.settings import Settings

_DAY = click.DateTime(formats=["%Y-%m-%d"])


@click.command("run")
@click.option("--partition", type=_DAY, help="The day to run (UTC). Default: yesterday.")
@click.option("--from", "first", type=_DAY, help="First day of a range.")
@click.option("--to", "last", type=_DAY, help="Last day of a range. Default: yesterday.")
@click.option("--assets", help="Comma-separated asset names. Default: all five.")
@click.option(
    "--config",
    "config_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Run config as in Dagster's Launchpad (YAML).",
)
def command(
    partition: datetime | None,
    first: datetime | None,
    last: datetime | None,
    assets: str | None,
    config_file: Path | None,
) -> None:
    """Run the pipeline for a day, or for a range of days.

    Extracts the days of the window that were never extracted, in one run, then materialises the
    assets. Runs appear in the Dagster UI like any other. A day run again gives the same files; only
    the newest day is published.

    \b
    reco run                                             yesterday
    reco run --partition 2026-11-20                      a day, again or for the first time
    reco run --from 2026-11-01 --to 2026-11-14           a backfill, oldest day first
    reco run --assets raw_interactions --from 2026-09-01 only the extraction, one scan
    """
    from reco_assets.cli import runs
    from reco_assets.local.stack import local_stack
    from reco_assets.store import migrate

    if partition and (first or last):
        raise click.UsageError("Give either --partition or --from/--to.")
    if last and not first:
        raise click.UsageError("--to needs --from.")
    given = partition or first
    start = given.date() if given else runs.yesterday()
    end = last.date() if last else runs.yesterday() if first else start
    selection = [name.strip() for name in assets.split(",")] if assets else list(PIPELINE_ASSETS)
    if unknown := set(selection) - set(PIPELINE_ASSETS):
        raise BadInput(f"No asset {', '.join(sorted(unknown))}. There are: {', '.join(PIPELINE_ASSETS)}.")

    settings = Settings.load()
    runs.check_range(settings, start, end)
    with local_stack(settings) as complete:
        migrate.check(complete)
        with runs.dagster_instance() as instance:
            run_config = _read_config(config_file)
            results = []
            missing = missing_days(complete, start, start) if INTERACTION_MATRIX in selection else []
            if missing and missing[0] < start:
                results += runs.run_days(instance, [RAW_INTERACTIONS], missing[0], missing[-1])
            if all(result.success for result in results):
                results += runs.run_days(instance, selection, start, end, run_config=run_config)
    failed = [result for result in results if not result.success]
    if failed:
        raise click.ClickException(
            f"Run {failed[0].run_id} failed: {runs.failure_message(failed[0])}\n"
            f"See it with `reco dev`: {settings.dagster_url}/runs/{failed[0].run_id}"
        )


def missing_days(settings: Settings, first: date, last: date) -> list[date]:
    """Days before `last`, from the window of `first` on, that nobody extracted."""
    from reco_assets.resources.storage import FileStorage

    storage = FileStorage(base_dir=str(settings.storage))
    start = max(settings.start_date, first - timedelta(days=settings.window_days - 1))
    days = [start + timedelta(days=n) for n in range((last - start).days + 1)]
    return [day for day in days if day < last and not storage.raw_day(day).exists()]


def _read_config(path: Path | None) -> dict[str, object]:
    if path is None:
        return {}
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} is not YAML: {error}") from None
    if not isinstance(content, dict):
        raise BadInput(f"{path} is not a mapping; copy the form of Dagster's Launchpad.")
    return content
