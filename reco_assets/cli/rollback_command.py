"""`reco rollback`: an earlier day's lists, live again."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from reco_assets.pipeline.rollback import ArchivedDay, RolledBack
    from reco_assets.settings import Settings


@click.command("rollback")
@click.option(
    "--partition",
    type=click.DateTime(["%Y-%m-%d"]),
    help="The day whose lists are to be live. Default: show.",
)
def command(partition: datetime | None) -> None:
    """Put the archived lists of an earlier day live again, after bad ones went out.

    Without --partition it changes nothing and shows the days that there are, and why some cannot be used.
    The lists go the way of any publication: swapped in at once, without posts and users that are gone or
    hidden by now and without posts read since. The service computes live votes with that day's model, and
    `champion` marks it. The next nightly run replaces the lists as usual; see "Bad lists went out" in
    docs/operations.md.

    \b
    reco rollback                            which days can be live again
    reco rollback --partition 2026-11-20     that day's lists, now
    """
    from reco_assets.errors import TrackingUnavailable
    from reco_assets.local.stack import local_stack
    from reco_assets.pipeline.publication import align_champion
    from reco_assets.pipeline.rollback import archived_days, roll_back
    from reco_assets.resources.mlflow_tracking import ModelRegistry
    from reco_assets.resources.postgres import PostgresResource
    from reco_assets.resources.storage import FileStorage
    from reco_assets.settings import Settings

    with local_stack(Settings.load(), with_dagster=False) as settings:
        postgres = PostgresResource.from_settings(settings)
        storage = FileStorage(base_dir=str(settings.storage))
        engine = postgres.engine
        try:
            storage.check_database(postgres.identity())
            if partition is None:
                _show(archived_days(engine, storage))
                return
            done = roll_back(
                engine,
                storage,
                partition.date(),
                ttl_hours=settings.ttl_hours,
                now=datetime.now(UTC),
                say=click.echo,
            )
            _say_what_was_done(done, settings)
            try:
                align_champion(ModelRegistry(model_name=settings.model_name), postgres)
                click.echo(f"Champion: {done.live.model_version}.")
            except TrackingUnavailable as error:  # the lists are live, which matters more
                click.echo(
                    f"The alias champion was not moved; the next nightly run does it. {error}", err=True
                )
        finally:
            engine.dispose()


def _show(days: "Sequence[ArchivedDay]") -> None:
    for each in days:
        if (made := each.source) is None:
            click.echo(f"{each.day}  unusable   {each.problem}")
            continue
        # A day that was superseded or never live may be live again, by a generation of its own.
        status = "live" if each.is_live else made.status
        click.echo(
            f"{each.day}  {status:<10} {made.model_version}  {made.n_recommendations:,} rows for "
            f"{made.n_users:,} users, made {made.created_at:%Y-%m-%d %H:%M} UTC"
        )
    click.echo("Nothing was changed." if days else "No lists are archived. Run `reco run` first.")


def _say_what_was_done(done: "RolledBack", settings: "Settings") -> None:
    source, live, publication = done.source, done.live, done.publication
    made = (
        f"{source.model_version}, computed {source.created_at:%Y-%m-%d %H:%M} UTC "
        f"by run {source.dagster_run_id}"
    )
    if publication is None:
        click.echo(f"The lists of {source.partition_date} are live already ({made}). Nothing was changed.")
    else:
        click.echo(f"Live again: the lists of {source.partition_date} ({made}).")
        click.echo(
            f"  generation {live.id}, from generation {source.id}\n"
            f"  {publication.n_recommendations:,} rows for {publication.n_users:,} users, "
            f"valid for {settings.ttl_hours:g} hours; {publication.n_carried_over:,} older rows kept"
        )
        dropped = ", ".join(f"{reason} {n:,}" for reason, n in publication.dropped_reasons.items())
        click.echo(f"  {publication.n_dropped:,} rows left out{': ' + dropped if dropped else ''}")
        if done.replaced is not None:
            click.echo(
                f"  replaced the lists of {done.replaced.partition_date}, generation {done.replaced.id}"
            )
    if done.model_problem:
        click.echo(
            f"No live votes until the next nightly run: {done.model_problem}. Feeds show the published lists "
            "and their fallbacks.",
            err=True,
        )
