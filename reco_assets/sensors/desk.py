"""Where alerts are handed in: delivered to every channel once, remembered, tried again.

What went out is written down twice, right after each delivery: in Dagster's storage, because the
app's database may be what failed, and in `alerts_sent`, which everybody can read and the recovery
notice works from. What could not be written to the database is added once it answers again.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import dagster as dg

from reco_assets.alerting import (
    UNKNOWN_DATABASE_UNREACHABLE,
    Alert,
    Channel,
    age,
    deliver,
    parse_channels,
    utc,
)
from reco_assets.errors import RecoError, SettingsError
from reco_assets.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from reco_assets.store.generations import Generation

T = TypeVar("T")

MINIMUM_INTERVAL_S = 30
REPAIR_DATABASE = "bring PostgreSQL back (`reco doctor` says what it sees)"
_DELIVERY_BUDGET_S = 35.0
"""Dagster gives a sensor 60 s; what is not delivered by then is left to the next tick."""
_DATABASE_LIMITS = {
    "connect_timeout_s": 5.0,
    "statement_timeout_s": 10.0,
    "connection_retries": 0,
    "pool_size": 1,
}
"""A sensor must not wait for a database: the alert is about it, more often than not."""
_REMEMBERED = timedelta(days=60)


class DatabaseDown(Exception):
    """The app's database gave no answer; the message says why."""


class Desk:
    """The delivery of one sensor's alerts during one tick."""

    def __init__(self, context: dg.SensorEvaluationContext, sensor_name: str, settings: Settings) -> None:
        self.context = context
        self.settings = settings
        self.channels, problems = parse_channels(settings.alert_urls)
        for problem in problems:
            context.log.error(problem)
        if problems and not self.channels:
            # Fails the tick: the cursor stays, and what happened meanwhile is told once the URL is right.
            raise SettingsError(" ".join(problems))
        self.database = AppDatabase(settings)
        self._memory = _Memory(context.instance, sensor_name)
        self._deadline = time.monotonic() + _DELIVERY_BUDGET_S

    def tell(self, alert: Alert, only: AbstractSet[str] | None = None) -> bool:
        """Deliver to the channels that were not told yet, or to those of them in `only`.

        Returns:
            True when no channel is left that has to be told.
        """
        if not self.channels:
            self.context.log.warning(
                f"RECO_ALERT_URLS is empty; nobody is told:\n{alert.subject}\n{alert.body}"
            )
            return True
        told = self._told(alert)
        left = [c for c in self.channels if c.id not in told and (only is None or c.id in only)]
        accepted = [self._deliver(channel, alert) for channel in left]  # each of them, whatever the others do
        return all(accepted)

    def catch_up(self) -> None:
        """Write to the database what went out while it was down."""
        if missing := self._memory.unwritten():
            with self.database.attempt():
                for alert, channel, sent_at in missing:
                    self.database.run(partial(_record, alert=alert, channel=channel, sent_at=sent_at))
                    self._memory.add(alert, channel, sent_at, written=True)

    def _told(self, alert: Alert) -> AbstractSet[str]:
        told = self._memory.told(alert.dedupe_key)
        if alert.kind != "recovery":
            with self.database.attempt():
                told = told | self.database.run(partial(_channels_told, dedupe_key=alert.dedupe_key))
        return told

    def _deliver(self, channel: Channel, alert: Alert) -> bool:
        if time.monotonic() > self._deadline:
            return False
        if refusal := deliver(channel, alert):
            self.context.log.error(
                f"Alert {alert.dedupe_key} did not reach {channel.id}: {refusal}. The next tick tries again."
            )
            return False
        sent_at, written = datetime.now(UTC), False
        try:
            with self.database.attempt():
                self.database.run(partial(_record, alert=alert, channel=channel.id, sent_at=sent_at))
                written = True
        finally:
            self._memory.add(alert, channel.id, sent_at, written)
        self.context.log.info(f"Alert {alert.dedupe_key} sent to {channel.id}.")
        return True


class AppDatabase:
    """The app's database, asked at most once more after it gave no answer."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._engine: Engine | None = None
        self.down: str | None = None
        """Why it gave no answer during this tick."""

    def run(self, question: "Callable[[Connection], T]") -> T:
        """The answer, in a transaction of its own.

        Raises:
            DatabaseDown: none within seconds, or the tables are not there.
        """
        if self.down:
            raise DatabaseDown(self.down)
        from sqlalchemy.exc import SQLAlchemyError

        from reco_assets.store.database import transaction

        try:
            with transaction(self._connect()) as connection:
                return question(connection)
        except (RecoError, SQLAlchemyError) as error:
            self.down = str(error).splitlines()[0]
            raise DatabaseDown(self.down) from error

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Leave the block quietly when the database gives no answer."""
        try:
            yield
        except DatabaseDown:
            return

    def close(self) -> None:
        """Leave no connection behind: a sensor's process lives for months."""
        if self._engine is not None:
            self._engine.dispose()

    def _connect(self) -> "Engine":
        if self._engine is None:
            from reco_assets.local.stack import database_url
            from reco_assets.store.database import create_engine_for

            settings = self._settings.model_copy(update={"database_url": database_url(self._settings)})
            self._engine = create_engine_for(
                settings.model_copy(update=_DATABASE_LIMITS), application_name="reco_assets alerts"
            )
        return self._engine


@contextmanager
def opened_desk(context: dg.SensorEvaluationContext, sensor_name: str) -> Iterator[Desk]:
    """The desk of a sensor for one tick."""
    desk = Desk(context, sensor_name, Settings.load())
    try:
        yield desk
    finally:
        desk.database.close()


def describe_serving(database: AppDatabase, now: datetime) -> str:
    """What readers get at this moment, for an alert."""
    from reco_assets.store.alerts import last_expiry
    from reco_assets.store.generations import live_generation

    try:
        live, expiry = database.run(lambda connection: (live_generation(connection), last_expiry(connection)))
    except DatabaseDown as error:
        return f"{UNKNOWN_DATABASE_UNREACHABLE} ({error})"
    return _describe_generation(live, expiry, now)


def _describe_generation(live: "Generation | None", expiry: datetime | None, now: datetime) -> str:
    if live is None:
        return "nothing was ever published; readers find no rows"
    text = (
        f"the generation of {live.partition_date}, model {live.model_version or 'unknown'}, published "
        f"{utc(live.went_live_at)} ({age(now - live.went_live_at)} ago)"
    )
    if expiry is None or expiry <= now:
        return f"{text}; all its rows have expired, readers find none"
    return f"{text}; its last rows expire {utc(expiry)} (in {age(expiry - now)})"


def _record(connection: "Connection", alert: Alert, channel: str, sent_at: datetime) -> None:
    from reco_assets.store.alerts import record_resolution_sent, record_sent

    if alert.kind == "recovery":
        record_resolution_sent(connection, alert.incident, channel, sent_at)
    else:
        record_sent(connection, alert.dedupe_key, channel, alert.kind, alert.title, sent_at)


def _channels_told(connection: "Connection", dedupe_key: str) -> AbstractSet[str]:
    from reco_assets.store.alerts import channels_told

    return channels_told(connection, dedupe_key)


class _Memory:
    """What one sensor sent, in Dagster's storage: {dedupe key: {…, channels: {id: {at, written}}}}.

    One document per sensor: Dagster never runs two ticks of a sensor at a time, so nothing is lost
    between reading and writing it.
    """

    def __init__(self, instance: dg.DagsterInstance, sensor_name: str) -> None:
        self._storage = instance.daemon_cursor_storage
        self._key = f"reco_assets/alerts_sent/{sensor_name}"
        stored = self._storage.get_cursor_values({self._key}).get(self._key)
        self._sent: dict[str, dict[str, Any]] = json.loads(stored) if stored else {}

    def told(self, dedupe_key: str) -> AbstractSet[str]:
        return set(self._sent.get(dedupe_key, {}).get("channels", {}))

    def add(self, alert: Alert, channel: str, sent_at: datetime, written: bool) -> None:
        entry = self._sent.setdefault(
            alert.dedupe_key,
            {"kind": alert.kind, "title": alert.title, "incident": alert.incident, "channels": {}},
        )
        entry["channels"][channel] = {"at": sent_at.isoformat(), "written": written}
        self._forget_before(sent_at - _REMEMBERED)
        self._storage.set_cursor_values({self._key: json.dumps(self._sent)})

    def unwritten(self) -> Sequence[tuple[Alert, str, datetime]]:
        return [
            (_remembered_alert(key, entry), channel, datetime.fromisoformat(sent["at"]))
            for key, entry in self._sent.items()
            for channel, sent in entry["channels"].items()
            if not sent["written"]
        ]

    def _forget_before(self, moment: datetime) -> None:
        def last(entry: dict[str, Any]) -> datetime:
            return max(datetime.fromisoformat(sent["at"]) for sent in entry["channels"].values())

        self._sent = {key: entry for key, entry in self._sent.items() if last(entry) >= moment}


def _remembered_alert(dedupe_key: str, entry: dict[str, Any]) -> Alert:
    """As much of a sent alert as its row in the database needs."""
    return Alert(
        dedupe_key,
        entry["kind"],
        entry["title"],
        what="",
        since=datetime.min.replace(tzinfo=UTC),
        serving="",
        repair="",
        incident=entry["incident"],
    )
