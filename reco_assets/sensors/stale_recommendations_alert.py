"""Nothing was published for longer than a day and some slack, whatever the reason."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from reco_assets.alerting import UNKNOWN_DATABASE_UNREACHABLE, Alert, age, utc
from reco_assets.names import DAILY_RUN_TIME
from reco_assets.sensors.desk import (
    MINIMUM_INTERVAL_S,
    REPAIR_DATABASE,
    DatabaseDown,
    Desk,
    describe_serving,
    opened_desk,
)
from reco_assets.settings import Settings

if TYPE_CHECKING:
    from reco_assets.store.alerts import Attempt
    from reco_assets.store.generations import Generation


@dataclass(frozen=True)
class Cursor:
    """Since when the sensor watches, and the last publication it saw, for when the database is away."""

    watching_since: datetime
    generation: str | None = None
    published_at: datetime | None = None

    def dump(self) -> str:
        """As the sensor's cursor."""
        published = self.published_at.isoformat() if self.published_at else None
        return json.dumps(
            {
                "watching_since": self.watching_since.isoformat(),
                "generation": self.generation,
                "published_at": published,
            }
        )

    @classmethod
    def load(cls, text: str | None, now: datetime) -> "Cursor":
        """A new one at the first tick."""
        try:
            stored = json.loads(text or "")
            published = stored["published_at"]
            return cls(
                datetime.fromisoformat(stored["watching_since"]),
                stored["generation"],
                datetime.fromisoformat(published) if published else None,
            )
        except (ValueError, TypeError, KeyError):
            return cls(now)


@dg.sensor(
    name="stale_recommendations_alert",
    minimum_interval_seconds=MINIMUM_INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Alerts when nothing was published within RECO_STALE_AFTER_HOURS.",
)
def stale_recommendations_alert(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """One alert per episode: its key names the generation that has become too old."""
    now = datetime.now(UTC)
    cursor = Cursor.load(context.cursor, now)
    with opened_desk(context, "stale_recommendations_alert") as desk:
        desk.catch_up()
        down = None
        try:
            live = _live(desk)
            cursor = Cursor(
                cursor.watching_since, str(live.id) if live else None, live.went_live_at if live else None
            )
        except DatabaseDown as error:
            down = str(error)
        context.update_cursor(cursor.dump())
        since = cursor.published_at or _first_due(cursor.watching_since, desk.settings)
        limit = timedelta(hours=desk.settings.stale_after_hours) if cursor.published_at else timedelta()
        if now - since <= limit:
            return dg.SkipReason(f"Not stale before {utc(since + limit)}." + (f" {down}" if down else ""))
        alert = _describe(cursor, since, down, desk, now)
        delivered = desk.tell(alert)
    return dg.SkipReason(f"Stale since {utc(since)}; " + ("all are told." if delivered else "some wait."))


def _live(desk: Desk) -> "Generation | None":
    from reco_assets.store.generations import live_generation

    return desk.database.run(live_generation)


def _first_due(watching_since: datetime, settings: Settings) -> datetime:
    """When a fresh install should have published: its first scheduled run, and the usual slack."""
    run = datetime.combine(watching_since.date(), DAILY_RUN_TIME, UTC)
    if run <= watching_since:
        run += timedelta(days=1)
    earliest = datetime.combine(settings.start_date + timedelta(days=1), DAILY_RUN_TIME, UTC)
    slack = timedelta(hours=max(1.0, settings.stale_after_hours - 24))
    return max(run, earliest) + slack


def _describe(
    cursor: Cursor,
    since: datetime,
    down: str | None,
    desk: Desk,
    now: datetime,
) -> Alert:
    settings = desk.settings
    attempt = None if down else _last_attempt(desk)
    limit = f"limit {settings.stale_after_hours:g} h, RECO_STALE_AFTER_HOURS"
    what = f"nothing was published for {age(now - since)} ({limit})"
    if cursor.published_at is None:
        what = f"nothing was ever published; the first publication was due {utc(since)}"
    url = settings.dagster_url.rstrip("/")
    run_id = attempt.dagster_run_id if attempt else None
    return Alert(
        dedupe_key=f"stale:{cursor.generation or 'never-published'}",
        kind="stale",
        title=f"Recommendations are stale: {what.split(' (')[0]}",
        what=what,
        error=_describe_attempt(attempt),
        since=since,
        serving=f"{UNKNOWN_DATABASE_UNREACHABLE} ({down})" if down else describe_serving(desk.database, now),
        run_url=f"{url}/runs/{run_id}" if run_id else f"{url}/runs",
        repair=f"{REPAIR_DATABASE}, then: reco run" if down else "reco run",
    )


def _last_attempt(desk: Desk) -> "Attempt | None":
    from reco_assets.store.alerts import last_attempt

    with desk.database.attempt():
        return desk.database.run(last_attempt)
    return None


def _describe_attempt(attempt: "Attempt | None") -> str:
    if attempt is None or attempt.status in ("live", "superseded"):
        return "no run has come as far as publishing since; is the schedule on, and the daemon running?"
    message = f": {attempt.message}" if attempt.message else ""
    return f"last attempt {utc(attempt.created_at)}, {attempt.partition_date}, {attempt.status}{message}"
