"""The record of publications: one row per generation, whatever became of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID, uuid4

import sqlalchemy as sa

from reco_assets.store.schema import recommendation_generations as table
from reco_assets.store.schema import user_recommendations as rows

NOTIFY_CHANNEL: Final = "reco_generation"
"""Where the swap announces the new generation; the payload is its id."""


@dataclass(frozen=True)
class Generation:
    """One row of `recommendation_generations`.

    `status` is one of `schema.GENERATION_STATUSES`. Counts are those of the generation's own rows;
    `n_carried_over` counts the older rows that were kept beside them.
    """

    id: UUID
    partition_date: date
    status: str
    model_version: str | None
    mlflow_run_id: str | None
    dagster_run_id: str | None
    n_users: int
    n_recommendations: int
    n_carried_over: int
    n_dropped: int
    created_at: datetime
    published_at: datetime | None
    superseded_at: datetime | None
    message: str | None
    model_digest: str | None = None
    lists_digest: str | None = None
    restored_from: UUID | None = None
    dropped_reasons: Mapping[str, int] = field(default_factory=dict)

    @property
    def went_live_at(self) -> datetime:
        """When readers first saw it; for one that was never published, when it was begun."""
        return self.published_at or self.created_at


@dataclass(frozen=True)
class Origin:
    """What a generation was made from.

    `model_digest` is `recommender.artifact.artifact_digest` of the model's files, by which the service knows
    that those on its disk are the ones that were published. `lists_digest` is the SHA-256 of the file of all
    lists, by which a rollback knows them. `restored_from` is the generation that a rollback made live again;
    everything else is then that one's.
    """

    partition_date: date
    model_version: str
    mlflow_run_id: str | None = None
    dagster_run_id: str | None = None
    model_digest: str | None = None
    lists_digest: str | None = None
    restored_from: UUID | None = None


def live_generation(connection: sa.Connection) -> Generation | None:
    """The generation that readers see; None before the first publication."""
    return _one(connection, table.c.status == "live")


def generation(connection: sa.Connection, generation_id: UUID) -> Generation | None:
    """The generation with that id."""
    return _one(connection, table.c.id == generation_id)


def list_generations(connection: sa.Connection, *, limit: int = 20) -> list[Generation]:
    """The newest records first."""
    query = _select().order_by(table.c.created_at.desc(), table.c.id).limit(limit)
    return [Generation(**row) for row in connection.execute(query).mappings()]


def generations_of(connection: sa.Connection, day: date) -> list[Generation]:
    """Everything on record about that partition, the newest first."""
    query = _select().where(table.c.partition_date == day).order_by(table.c.created_at.desc(), table.c.id)
    return [Generation(**row) for row in connection.execute(query).mappings()]


def newest_published_day(connection: sa.Connection) -> date | None:
    """The newest partition that was ever live, whatever is live now; None before the first publication."""
    query = sa.select(sa.func.max(table.c.partition_date)).where(table.c.status.in_(["live", "superseded"]))
    newest: date | None = connection.scalar(query)
    return newest


def has_unexpired_rows(connection: sa.Connection, generation_id: UUID) -> bool:
    """Whether readers still use any of its own rows."""
    mine = (rows.c.generation_id == generation_id) & (rows.c.expires_at > sa.func.clock_timestamp())
    return bool(connection.scalar(sa.select(sa.exists().where(mine))))


def record_refused(
    connection: sa.Connection, origin: Origin, *, message: str, n_users: int = 0, n_recommendations: int = 0
) -> UUID:
    """Note a generation that failed a blocking check; the live one stays."""
    return _record(connection, origin, "refused", message, n_users, n_recommendations)


def record_archived(
    connection: sa.Connection, origin: Origin, *, message: str, n_users: int, n_recommendations: int
) -> UUID:
    """Note a generation that was computed and stored, but is older than the live one."""
    return _record(connection, origin, "archived", message, n_users, n_recommendations)


def record_building(connection: sa.Connection, generation_id: UUID, origin: Origin) -> None:
    """Note that a publication has begun; again with the same id after a lost connection."""
    connection.execute(sa.delete(table).where(table.c.id == generation_id, table.c.status != "live"))
    connection.execute(sa.insert(table).values(id=generation_id, status="building", **_origin(origin)))


def record_unfinished(connection: sa.Connection, message: str, *, status: str) -> int:
    """Close whatever is left `building`, and count it; the caller holds the publication lock."""
    query = sa.update(table).where(table.c.status == "building").values(status=status, message=message)
    return connection.execute(query).rowcount


def record_live(connection: sa.Connection, generation_id: UUID, **counts: Any) -> None:
    """Make `generation_id` the live one and announce it; the caller swaps in the same transaction."""
    now = sa.func.clock_timestamp()
    connection.execute(
        sa.update(table).where(table.c.status == "live").values(status="superseded", superseded_at=now)
    )
    connection.execute(
        sa.update(table).where(table.c.id == generation_id).values(status="live", published_at=now, **counts)
    )
    connection.execute(sa.select(sa.func.pg_notify(NOTIFY_CHANNEL, str(generation_id))))


def _record(
    connection: sa.Connection,
    origin: Origin,
    status: str,
    message: str,
    n_users: int,
    n_recommendations: int,
) -> UUID:
    generation_id = uuid4()
    connection.execute(
        sa.insert(table).values(
            id=generation_id,
            status=status,
            message=message,
            n_users=n_users,
            n_recommendations=n_recommendations,
            **_origin(origin),
        )
    )
    return generation_id


def _origin(origin: Origin) -> dict[str, Any]:
    return {
        "partition_date": origin.partition_date,
        "model_version": origin.model_version,
        "mlflow_run_id": origin.mlflow_run_id,
        "dagster_run_id": origin.dagster_run_id,
        "model_digest": origin.model_digest,
        "lists_digest": origin.lists_digest,
        "restored_from": origin.restored_from,
    }


def _select() -> sa.Select[Any]:
    return sa.select(*(table.c[name] for name in Generation.__dataclass_fields__))


def _one(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> Generation | None:
    row = connection.execute(_select().where(condition)).mappings().one_or_none()
    return None if row is None else Generation(**row)
