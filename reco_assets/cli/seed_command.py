"""`reco seed`: the demo's data."""

from datetime import UTC, datetime

import click

from reco_assets.settings import Settings


@click.command("seed")
@click.option("--users", default=2_000, show_default=True, help="Users of the window.")
@click.option("--posts", default=3_000, show_default=True, help="Posts of the window.")
@click.option("--days", default=45, show_default=True, help="Days of the window, which ends with --until.")
@click.option("--events", default=120_000, show_default=True, help="About how many interactions it has.")
@click.option("--seed", default=1, show_default=True, help="Another number gives another, equal feed.")
@click.option(
    "--until", type=click.DateTime(["%Y-%m-%d"]), metavar="DATE", help="Last day (UTC); default: yesterday."
)
@click.option(
    "--beside-other-data", is_flag=True, help="Seed although the database holds users of another origin."
)
def command(
    users: int, posts: int, days: int, events: int, seed: int, until: datetime | None, beside_other_data: bool
) -> None:
    """Fill the database with an invented feed to try things on.

    Users with drifting interests, posts that live for days, and skewed popularity. The same
    parameters give the same rows, whenever and wherever. Run again later, it adds the days that have
    passed since and changes nothing else; run again the same day, it adds nothing.

    \b
    Examples:
      reco seed                                        the demo, up to yesterday
      reco seed --users 200 --posts 300 --events 6000  small and quick
      reco seed --users 20000 --posts 20000 --events 1000000
      reco seed --until 2026-10-31                     as if that day had just ended

    Without RECO_DATABASE_URL it goes to the embedded PostgreSQL below RECO_HOME. Missing tables are
    created first, as by `reco migrate`.
    """
    from reco_assets.local.stack import local_stack
    from reco_assets.store import migrate
    from reco_assets.store.database import create_engine_for
    from reco_assets.store.demo_data import DemoWorld
    from reco_assets.store.demo_writer import last_complete_day, seed_demo

    world = DemoWorld(users=users, posts=posts, days=days, events=events, seed=seed)
    now = datetime.now(UTC)
    last = until.date() if until else last_complete_day(now)
    with local_stack(Settings.load(), with_dagster=False) as settings:
        migrate.upgrade(settings)
        engine = create_engine_for(settings, application_name="reco-seed")
        try:
            seeded = seed_demo(
                engine,
                world,
                last,
                now=now,
                beside_other_data=beside_other_data,
                progress=lambda day, rows: click.echo(f"  … {day}: {rows.interactions:,} interactions"),
            )
        finally:
            engine.dispose()
    if not seeded.days:
        click.echo(f"Nothing to add: the demo is there up to {last} or later.")
        return
    rows = seeded.rows
    click.echo(
        f"Seeded {seeded.days[0]} to {seeded.days[-1]}: {rows.users:,} users, {rows.posts:,} posts, "
        f"{rows.interactions:,} interactions."
    )
    if seeded.days[0] < settings.start_date:
        click.echo(
            f"Days before RECO_START_DATE ({settings.start_date}) have no partition; set it to "
            f"{seeded.days[0]} to process them too."
        )
