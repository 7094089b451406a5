"""What alerts need to know from the database, and which of them have gone out.

`alerts_sent` holds one row per alert and channel, written after the channel accepted the alert. A
channel that was down has no row and is tried again; the others are left alone.
"""

from collections.abc import Collection, Set
from dataclasses import dataclass
from datetime import date, datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from reco_assets.store.schema import alerts_sent, recommendation_generations, user_recommendations


@dataclass(frozen=True)
class Attempt:
    """The most recent try to make a generation, whatever came of it."""

    partition_date: date
    status: str
    created_at: datetime
    message: str | None
    dagster_run_id: str | None


@dataclass(frozen=True)
class OpenAlert:
    """An alert that went out on a channel and whose end has not been told there yet."""

    dedupe_key: str
    channel: str
    kind: str
    title: str
    first_sent: datetime
    resolved_at: datetime | None


def last_expiry(connection: sa.Connection) -> datetime | None:
    """When the last published row expires; None when no row is left."""
    last: datetime | None = connection.scalar(sa.select(sa.func.max(user_recommendations.c.expires_at)))
    return last


def last_attempt(connection: sa.Connection) -> Attempt | None:
    """The newest generation of any status, or None if there is none."""
    table = recommendation_generations
    row = connection.execute(
        sa.select(
            table.c.partition_date,
            table.c.status,
            table.c.created_at,
            table.c.message,
            table.c.dagster_run_id,
        )
        .order_by(table.c.created_at.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else Attempt(**row._mapping)


def channels_told(connection: sa.Connection, dedupe_key: str) -> Set[str]:
    """The channels on which the alert has gone out."""
    chosen = sa.select(alerts_sent.c.channel).where(alerts_sent.c.dedupe_key == dedupe_key)
    return set(connection.execute(chosen).scalars())


def record_sent(
    connection: sa.Connection, dedupe_key: str, channel: str, kind: str, title: str, sent_at: datetime
) -> bool:
    """Note that the channel accepted the alert; True if that was news."""
    statement = insert(alerts_sent).values(
        dedupe_key=dedupe_key,
        channel=channel,
        kind=kind,
        title=title,
        first_sent=sent_at,
        last_sent=sent_at,
    )
    statement = statement.on_conflict_do_update(
        index_elements=["dedupe_key", "channel"],
        set_={"last_sent": sa.func.greatest(alerts_sent.c.last_sent, statement.excluded.last_sent)},
    )
    # xmax is 0 in a row that this statement inserted.
    return bool(connection.execute(statement.returning(sa.literal_column("xmax = 0"))).scalar_one())


def open_alerts(connection: sa.Connection, channels: Collection[str]) -> list[OpenAlert]:
    """Alerts without a recovery notice: all unresolved ones, and resolved ones that wait for `channels`.

    Oldest first. A channel that is no longer configured keeps nothing open.
    """
    waiting = alerts_sent.c.resolved_at.is_(None) | alerts_sent.c.channel.in_(channels)
    rows = connection.execute(
        sa.select(
            alerts_sent.c.dedupe_key,
            alerts_sent.c.channel,
            alerts_sent.c.kind,
            alerts_sent.c.title,
            alerts_sent.c.first_sent,
            alerts_sent.c.resolved_at,
        )
        .where(alerts_sent.c.resolution_sent_at.is_(None), waiting)
        .order_by(alerts_sent.c.first_sent, alerts_sent.c.dedupe_key, alerts_sent.c.channel)
    )
    return [OpenAlert(**row._mapping) for row in rows]


def record_resolved(connection: sa.Connection, dedupe_key: str, resolved_at: datetime) -> int:
    """Note on all channels' rows that what was alerted has recovered; how many were still open."""
    done = connection.execute(
        sa.update(alerts_sent)
        .where(alerts_sent.c.dedupe_key == dedupe_key, alerts_sent.c.resolved_at.is_(None))
        .values(resolved_at=resolved_at)
    )
    return done.rowcount


def record_resolution_sent(
    connection: sa.Connection, dedupe_key: str, channel: str, sent_at: datetime
) -> bool:
    """Note that the channel accepted the recovery notice; True if that was news."""
    done = connection.execute(
        sa.update(alerts_sent)
        .where(
            alerts_sent.c.dedupe_key == dedupe_key,
            alerts_sent.c.channel == channel,
            alerts_sent.c.resolution_sent_at.is_(None),
        )
        .values(resolution_sent_at=sent_at)
    )
    return done.rowcount > 0
