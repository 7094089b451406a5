"""A PostgreSQL of the benchmark's own, filled with the demo's feed, gone afterwards."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from benchmarks.feeds import DAYS, LAST_DAY, demo_world
from benchmarks.rounds import Say
from benchmarks.sizes import Size
from reco_assets.local.embedded_postgres import embedded_postgres
from reco_assets.settings import Settings
from reco_assets.store import migrate
from reco_assets.store.database import create_engine_for, transaction
from reco_assets.store.demo_writer import seed_demo

STRAIGHTFORWARD_TABLE: Final = "straightforward_recommendations"
"""Like `user_recommendations`, indexes included, without its foreign keys."""

HOLDOUT_DAYS: Final = 1


@contextmanager
def seeded_database(size: Size, directory: Path, say: Say, last_day: date = LAST_DAY) -> Iterator[Settings]:
    """A server with default durability whose `user_interactions` hold the feed; stopped at the end.

    Writes `options.json` into the directory: what `settings_of` makes the settings from again.
    """
    home = directory / "postgres"
    try:
        with embedded_postgres(home, databases=("reco",)) as server:
            options = {
                "database_url": server.url("reco"),
                "home": str(directory / "home"),
                "last_day": str(last_day),
            }
            (directory / "options.json").write_text(json.dumps(options))
            settings = settings_of(options)
            migrate.upgrade(settings)
            engine = create_engine_for(settings, application_name="benchmark")
            world = demo_world(size)
            seeded = seed_demo(engine, world, last_day, now=datetime.now(UTC))
            say(f"  {seeded.rows.interactions:,} interactions loaded by binary COPY")
            with transaction(engine) as connection:
                connection.execute(
                    sa.text(f"CREATE TABLE {STRAIGHTFORWARD_TABLE} (LIKE user_recommendations INCLUDING ALL)")
                )
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(sa.text("VACUUM (ANALYZE)"))
            engine.dispose()
            yield settings
    finally:
        moved_to = home / "moved-to"  # where the server's account cannot enter the directory
        if moved_to.exists():
            shutil.rmtree(moved_to.read_text().strip(), ignore_errors=True)


def settings_of(options: dict[str, Any]) -> Settings:
    """The settings as shipped, but for the place, the feed's window and a hold-out of one day."""
    return Settings(
        database_url=options["database_url"],
        home=Path(options["home"]),
        start_date=demo_world(Size("", 1, 1, 1)).window(last_day_of(options))[0],
        window_days=DAYS,
        holdout_days=HOLDOUT_DAYS,
    )


def last_day_of(options: dict[str, Any]) -> date:
    """The last day of the feed in the database."""
    return date.fromisoformat(options["last_day"])
