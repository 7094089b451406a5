"""`reco import`: a file of interactions into the database."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from reco_assets.settings import Settings


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--user-column", metavar="NAME", help="Who; guessed from the usual names.")
@click.option("--item-column", metavar="NAME", help="What they saw; becomes the post.")
@click.option("--type-column", metavar="NAME", help="What they did.")
@click.option("--time-column", metavar="NAME", help="When; becomes created_at.")
@click.option("--title-column", metavar="NAME", help="Title of the posts that are created.")
@click.option("--author-column", metavar="NAME", help="Author of the posts that are created, a user id.")
@click.option("--type", "constant_type", metavar="TYPE", help="Type of all rows, for files without one.")
@click.option(
    "--map-type",
    "mappings",
    multiple=True,
    metavar="NAME=TYPE",
    help="Read a type of the file as a known one, such as bookmark=share. Repeatable.",
)
@click.option(
    "--time-unit",
    type=click.Choice(["auto", "s", "ms", "us", "ns", "iso"]),
    default="auto",
    show_default=True,
    help="Numbers since 1970 in seconds, ms, µs or ns, or ISO 8601. Without a zone it is UTC.",
)
@click.option("--namespace", metavar="NAME", help="Set apart from other sources that number alike.")
@click.option("--encoding", default="utf-8", show_default=True, help="Of CSV and JSON lines.")
@click.option("--delimiter", metavar="CHAR", help="Of CSV; default: what the header has most of.")
@click.option(
    "--max-bad",
    default="10%",
    show_default=True,
    metavar="N|P%",
    help="Load nothing when more rows are bad.",
)
@click.option(
    "--rejects", type=click.Path(path_type=Path, dir_okay=False), help="CSV to write all bad rows to."
)
@click.option("--dry-run", is_flag=True, help="Only check the file; the database is not touched.")
def command(
    file: Path,
    mappings: tuple[str, ...],
    rejects: Path | None,
    dry_run: bool,
    **given: Any,
) -> None:
    """Import interactions from FILE: CSV, Parquet or JSON lines, gzipped or not.

    Users and posts that are not there yet are created. Ids that are UUIDs are kept, any other id gets
    a UUID that is always the same. Rows that agree in user, item, type and time are one interaction,
    so that importing a file again adds nothing. The whole file is checked before anything is loaded;
    an interrupted import goes on where it stopped when the same command is run again.

    \b
    Examples:
      reco import events.csv.gz --dry-run
      reco import events.parquet --user-column visitor --time-column ts
      reco import clicks.jsonl --type click --rejects bad.csv
      reco import deskdrop.csv.gz --map-type bookmark=share \\
          --map-type comment=share --map-type follow=share
    """
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from reco_assets.store.importing_check import ImportOptions, check_file, refuse_if_too_bad

    options = ImportOptions(type_map=dict(_pair(text) for text in mappings), **given)
    settings = Settings.load()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("checking …", total=None)

        def show(phase: str, rows: int) -> None:
            bar.update(task, description=f"{phase} … {rows:,} rows")

        checked = check_file(
            file,
            options,
            known_types=settings.interaction_weights,
            start_date=settings.start_date,
            now=datetime.now(UTC),
            rejects=rejects,
            progress=show,
        )
        bar.stop()
        _report(checked, settings, rejects)
        refuse_if_too_bad(checked, options.max_bad)
        if not dry_run:
            bar.start()
            _load(checked, options, settings, show, bar)
    if dry_run:
        click.echo("Dry run: nothing was loaded.")


def _load(checked: Any, options: Any, settings: Settings, show: Any, bar: Any) -> None:
    from reco_assets.local.stack import local_stack
    from reco_assets.store import migrate
    from reco_assets.store.database import create_engine_for
    from reco_assets.store.importing import load_checked

    with local_stack(settings, with_dagster=False) as complete:
        migrate.upgrade(complete)
        engine = create_engine_for(complete, application_name="reco-import")
        try:
            done = load_checked(engine, checked, options, progress=show)
        except KeyboardInterrupt:
            bar.stop()
            click.echo("Interrupted. Run the same command again: it goes on after what is loaded.")
            raise
        finally:
            engine.dispose()
    bar.stop()
    if done.resumed_after:
        click.echo(f"Went on after row {done.resumed_after:,}, where an earlier run had stopped.")
    click.echo(
        f"Loaded {done.rows.interactions:,} interactions, {done.rows.users:,} new users and "
        f"{done.rows.posts:,} new posts."
    )
    click.echo(
        f"{done.repeated:,} rows repeat another one; {done.already_there:,} interactions were there already."
    )


def _report(checked: Any, settings: Settings, rejects: Path | None) -> None:
    roles = ", ".join(f"{role} = {name}" for role, name in checked.source.roles.items())
    click.echo(f"Columns: {roles}; time read as {checked.rules.time_unit}.")
    kinds = ", ".join(f"{name} {n:,}" for name, n in checked.types.most_common())
    click.echo(
        f"{checked.n_rows:,} rows: {checked.n_good:,} good ({kinds or 'none'}), {checked.n_bad:,} bad."
    )
    if checked.first_us is not None:
        first, last = (
            datetime.fromtimestamp(us / 1e6, tz=UTC).strftime("%Y-%m-%d %H:%M")
            for us in (checked.first_us, checked.last_us)
        )
        click.echo(f"From {first} to {last} UTC, {len(checked.users):,} users, {len(checked.posts):,} posts.")
    if checked.before_start:
        click.echo(
            f"Warning: {checked.before_start:,} rows lie before RECO_START_DATE ({settings.start_date}); no "
            "partition will hold them. Set it to an earlier date to use them."
        )
    for reason, n in checked.bad_by_reason.most_common():
        click.echo(f"  {n:,} × {reason}")
    for name, n in checked.unknown_types.most_common(10):
        click.echo(f"  {n:,} rows are of type {name!r}; take them in with --map-type {name}=TYPE")
    for row, reason, value in checked.first_bad:
        click.echo(f"  row {row:,}: {reason}: {value!r}")
    if checked.n_bad > len(checked.first_bad):
        where = f"in {rejects}" if rejects else "with --rejects FILE"
        click.echo(f"  … and {checked.n_bad - len(checked.first_bad):,} more, {where}")


def _pair(text: str) -> tuple[str, str]:
    name, separator, target = text.partition("=")
    if not separator or not name.strip() or not target.strip():
        raise click.UsageError(f"--map-type {text!r}: expected NAME=TYPE, such as bookmark=share.")
    return name.strip(), target.strip()
