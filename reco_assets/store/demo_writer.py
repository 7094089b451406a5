"""Puts the demo's data into the database: whole days, each once, however often it is asked to."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
import sqlalchemy as sa

from reco_assets.errors import BadInput
from reco_assets.store.database import transaction
from reco_assets.store.demo_data import INTERACTION_TYPES, DemoDay, DemoWorld
from reco_assets.store.importing_load import (
    Array,
    BulkLoader,
    Loaded,
    NewInteractions,
    NewPosts,
    NewUsers,
    analyze,
    filling,
)

_BATCH_EVENTS = 200_000
_LOOK_BACK_DAYS = 1_500
"""How long ago an earlier seeding may lie and still be continued."""

Progress = Callable[[date, Loaded], None]


@dataclass(frozen=True)
class Seeded:
    """What a seeding did: the days it added, in order, and how many rows were new."""

    days: tuple[date, ...]
    rows: Loaded


def last_complete_day(now: datetime) -> date:
    """Yesterday, UTC: the newest day whose events all lie in the past."""
    return now.astimezone(UTC).date() - timedelta(days=1)


def seed_demo(
    engine: sa.Engine,
    world: DemoWorld,
    until: date,
    *,
    now: datetime,
    beside_other_data: bool = False,
    progress: Progress | None = None,
) -> Seeded:
    """Add the days that the database lacks: the world's window, or what came after an earlier seeding.

    The window is one transaction, all or nothing. Later days are written oldest first, several to a
    transaction, so that an interrupted extension is continued by the next one.

    Args:
        engine: to a migrated database.
        world: what to seed; another world is other data.
        until: last day, at most yesterday.
        now: the present, which `until` must lie before.
        beside_other_data: allow a database that holds users who are not of this world.
        progress: told the last day and the new rows of each batch.

    Raises:
        BadInput: `until` is not over yet, or the database holds other data.
    """
    if until > last_complete_day(now):
        raise BadInput(
            f"The demo's last day is {until}, which is not over (it is {now:%Y-%m-%d %H:%M} UTC). "
            f"Seed until {last_complete_day(now)} at the latest: events must not lie in the future."
        )
    with transaction(engine) as connection:
        newest = _newest_day(connection, world)
        if newest is None and not beside_other_data:
            _refuse_other_data(connection)
    if newest is None:
        days = world.window(until)
    else:
        days = [newest + timedelta(days=step) for step in range(1, (until - newest).days + 1)]
    total = Loaded()

    def report(batch: Sequence[DemoDay], loaded: Loaded) -> None:
        nonlocal total
        total += loaded
        if progress is not None:
            progress(batch[-1].day, loaded)

    if newest is None:
        with transaction(engine) as connection, filling(connection) as under_way:
            for batch in _batches(world, days, with_history=True):
                report(batch, _load(under_way.loader, batch))
        total += Loaded(interactions=-under_way.n_removed)
    else:
        for batch in _batches(world, days, with_history=False):
            with transaction(engine) as connection:
                loaded = _load(BulkLoader(connection), batch)
            report(batch, loaded)
    if days:
        with transaction(engine) as connection:
            analyze(connection)
    return Seeded(tuple(days), total)


def _newest_day(connection: sa.Connection, world: DemoWorld) -> date | None:
    """The last day of this world that is there; days are written in order and whole."""
    first, last = connection.execute(
        sa.text("SELECT min(created_at)::date, max(created_at)::date FROM user_interactions")
    ).one()
    if first is None:
        return None
    reach = min((last - first).days, _LOOK_BACK_DAYS)
    days = [last - timedelta(days=back) for back in range(reach + 1)]
    marks = {_as_text(mark): day for day in days for mark in world.day_marks(day)}
    present = connection.scalars(
        sa.text("SELECT id::text FROM user_interactions WHERE id = ANY(:ids)"), {"ids": list(marks)}
    )
    return max((marks[mark] for mark in present), default=None)


def _refuse_other_data(connection: sa.Connection) -> None:
    if connection.scalar(sa.text("SELECT EXISTS (SELECT FROM users)")):
        n = connection.scalar(sa.text("SELECT count(*) FROM users"))
        raise BadInput(
            f"The database already holds {n:,} users who are not of this demo: an app's, an import's, or a "
            "demo's of other parameters. Seed an empty database, repeat the earlier parameters to extend "
            "that demo, or pass --beside-other-data to mix them."
        )


def _batches(world: DemoWorld, days: Sequence[date], *, with_history: bool) -> Iterator[list[DemoDay]]:
    batch: list[DemoDay] = []
    if with_history and days:
        batch = [world.history_day(day, days[0]) for day in world.history(days[0])]
    n_events = 0
    for day in days:
        batch.append(world.day(day))
        n_events += len(batch[-1].event_ids)
        if n_events >= _BATCH_EVENTS or day == days[-1]:
            yield batch
            batch, n_events = [], 0


def _load(loader: BulkLoader, days: Sequence[DemoDay]) -> Loaded:
    def joined(name: str) -> Array:
        return np.concatenate([getattr(day, name) for day in days])

    return loader.load(
        NewUsers(joined("user_ids"), joined("user_created_at")),
        NewPosts(
            joined("post_ids"),
            joined("post_author_ids"),
            joined("post_created_at"),
            [title for day in days for title in day.titles],
            [body for day in days for body in day.bodies],
        ),
        NewInteractions(
            joined("event_ids"),
            joined("event_user_ids"),
            joined("event_post_ids"),
            joined("event_type"),
            INTERACTION_TYPES,
            joined("event_created_at"),
        ),
    )


def _as_text(identifier: Array) -> str:
    digits = identifier.tobytes().hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
