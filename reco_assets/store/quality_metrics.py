"""The table `quality_metrics`: one value per day, metric and segment."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from reco_assets.errors import BadInput
from reco_assets.store.schema import quality_metrics as table

EVERYBODY: Final = "all"


@dataclass(frozen=True)
class QualityMetric:
    """One measured value, with its confidence interval and the number of cases it rests on."""

    metric_date: date
    metric: str
    value: float
    segment: str = EVERYBODY
    lower: float | None = None
    upper: float | None = None
    n: int | None = None
    model_version: str | None = None
    generation_id: UUID | None = None


def record_metrics(connection: sa.Connection, metrics: Sequence[QualityMetric]) -> int:
    """Insert, or replace what was measured for the same day, metric and segment; returns how many.

    Raises:
        BadInput: The same day, metric and segment twice in one call, or a value that is not a number.
    """
    if not metrics:
        return 0
    keys = {(each.metric_date, each.metric, each.segment) for each in metrics}
    if len(keys) < len(metrics):
        raise BadInput(f"{len(metrics)} metrics for {len(keys)} keys of day, metric and segment; one each.")
    for each in metrics:
        if each.value != each.value:
            raise BadInput(f"{each.metric} of {each.metric_date} ({each.segment}) is NaN; leave it out.")
    statement = insert(table).values([asdict(each) for each in metrics])
    replaced = {name: statement.excluded[name] for name in ("value", "lower", "upper", "n")}
    replaced |= {name: statement.excluded[name] for name in ("model_version", "generation_id")}
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[table.c.metric_date, table.c.metric, table.c.segment],
            set_={**replaced, "measured_at": sa.func.now()},
        )
    )
    return len(metrics)


def read_metrics(
    connection: sa.Connection,
    start: date,
    end: date,
    *,
    metrics: Sequence[str] | None = None,
    segment: str | None = None,
) -> list[QualityMetric]:
    """The values of the days from `start` up to but without `end`, by day, metric, segment."""
    query = (
        sa.select(*(table.c[name] for name in QualityMetric.__dataclass_fields__))
        .where(table.c.metric_date >= start, table.c.metric_date < end)
        .order_by(table.c.metric_date, table.c.metric, table.c.segment)
    )
    if metrics is not None:
        query = query.where(table.c.metric.in_(metrics))
    if segment is not None:
        query = query.where(table.c.segment == segment)
    return [QualityMetric(**row) for row in connection.execute(query).mappings()]
