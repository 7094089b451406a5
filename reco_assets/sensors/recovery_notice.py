"""What was alerted works again."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from reco_assets.alerting import Alert, age
from reco_assets.sensors.desk import (
    MINIMUM_INTERVAL_S,
    DatabaseDown,
    Desk,
    describe_serving,
    opened_desk,
)
from reco_assets.sensors.recovery import how_it_recovered

if TYPE_CHECKING:
    from reco_assets.store.alerts import OpenAlert
    from reco_assets.store.generations import Generation


@dg.sensor(
    name="recovery_notice",
    minimum_interval_seconds=MINIMUM_INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells once, on each channel that was alerted, that the incident is over.",
)
def recovery_notice(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """One notice per alert and channel, retried until the channel takes it.

    It works from `alerts_sent` alone and keeps no cursor: without the database there is nothing to
    tell, and a channel that never heard of the incident hears nothing of its end.
    """
    with opened_desk(context, "recovery_notice") as desk:
        try:
            desk.catch_up()
            incidents = _open_incidents(desk)
            live = _live(desk) if incidents else None
            told = [_tell_if_over(desk, rows, live) for rows in incidents]
        except DatabaseDown as error:
            return dg.SkipReason(f"The database gives no answer; open alerts stay open. {error}")
    return dg.SkipReason(f"{len(incidents)} alerts open, {sum(told)} recovered.")


def _open_incidents(desk: Desk) -> list[list["OpenAlert"]]:
    """The rows to tell, one list per incident."""
    from reco_assets.store.alerts import open_alerts

    channels = [channel.id for channel in desk.channels]
    incidents: dict[str, list[OpenAlert]] = {}
    for row in desk.database.run(lambda connection: open_alerts(connection, channels)):
        incidents.setdefault(row.dedupe_key, []).append(row)
    return list(incidents.values())


def _live(desk: Desk) -> "Generation | None":
    from reco_assets.store.generations import live_generation

    return desk.database.run(live_generation)


def _tell_if_over(desk: Desk, rows: Sequence["OpenAlert"], live: "Generation | None") -> bool:
    from reco_assets.store.alerts import record_resolved

    now = datetime.now(UTC)
    first = rows[0]
    ended_by = how_it_recovered(desk.context.instance, first, live)
    resolved_at = max((row.resolved_at for row in rows if row.resolved_at), default=None)
    if ended_by is None and resolved_at is None:
        return False
    desk.database.run(lambda connection: record_resolved(connection, first.dedupe_key, now))
    notice = Alert(
        dedupe_key=f"recovery:{first.dedupe_key}",
        kind="recovery",
        title=f"Recovered: {first.title}",
        what=ended_by or "the incident is over",
        since=resolved_at or now,
        serving=describe_serving(desk.database, now),
        repair="nothing to do",
        notes=(f"It was alerted {age(now - first.first_sent)} ago.",),
        incident=first.dedupe_key,
    )
    desk.tell(notice, only={row.channel for row in rows})
    return True
