"""`reco migrate`: the database's tables."""

import click

from reco_assets.settings import Settings


@click.command("migrate")
@click.option("--revision", default="head", show_default=True, help="Revision to go up to.")
@click.option("--down", metavar="REV", help="Go back to this revision; `base` drops all that we created.")
@click.option("--check", is_flag=True, help="Change nothing; fail unless database and package agree.")
@click.option("--yes", is_flag=True, help="Do not ask before --down drops tables.")
def command(revision: str, down: str | None, check: bool, yes: bool) -> None:
    """Create the tables that are missing, in one transaction.

    Tables that the app already has are never altered, only used; when they cannot be used, the error
    says why. `reco doctor` shows the same without touching anything.

    \b
    Examples:
      reco migrate              create or update what is missing
      reco migrate --check      for a deployment's start-up probe
      reco migrate --down base  drop what migrations created; the app's own tables stay

    Without RECO_DATABASE_URL it works on the embedded PostgreSQL below RECO_HOME.
    """
    from reco_assets.local.stack import local_stack
    from reco_assets.store import migrate

    if down is not None and (check or revision != "head"):
        raise click.UsageError("--down goes back, --revision and --check do not; use one of them.")
    with local_stack(Settings.load(), with_dagster=False) as settings:
        if check:
            click.echo(f"The schema is at revision {migrate.check(settings)}, as this package needs.")
            return
        if down is not None:
            if not yes:
                click.confirm(f"Going back to {down} drops tables with their rows. Go on?", abort=True)
            done = migrate.downgrade(settings, down)
        else:
            done = migrate.upgrade(settings, revision)
    for name in done.created:
        click.echo(f"  created {name}")
    for name in done.dropped:
        click.echo(f"  dropped {name}")
    if done.before == done.after and not done.created and not done.dropped:
        click.echo(f"Nothing to do: the schema is at revision {done.after or 'none'}.")
    else:
        click.echo(f"Revision {done.before or 'none'} → {done.after or 'none'}.")
