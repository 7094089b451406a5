"""Real parts for the alert sensors: a webhook, a mail server, PostgreSQL, a Dagster instance."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import dagster as dg
import psycopg
import pytest

from reco_assets.local.embedded_postgres import ServerAddress
from reco_assets.settings import Settings
from reco_assets.store import migrate
from reco_assets_tests.sinks import MailServer, Webhook


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        yield instance


class App:
    """The app's database as the sensors see it, with a hand on the publications."""

    def __init__(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.url = url
        self._monkeypatch = monkeypatch
        self.reachable()

    def reachable(self) -> None:
        self._monkeypatch.setenv("RECO_DATABASE_URL", self.url)

    def unreachable(self) -> None:
        self._monkeypatch.setenv("RECO_DATABASE_URL", "postgresql://app:s3cret@127.0.0.1:1/app")

    def publish(self, day: str, *, hours_ago: float, model: str = "collaborative_filtering_v7") -> UUID:
        """A live generation that was published so long ago; the one before is superseded."""
        generation, published_at = uuid4(), datetime.now(UTC) - timedelta(hours=hours_ago)
        user, post = uuid4(), uuid4()
        with psycopg.connect(self.url) as connection:
            connection.execute("UPDATE recommendation_generations SET status = 'superseded'")
            connection.execute(
                "INSERT INTO recommendation_generations"
                " (id, partition_date, status, model_version, published_at, created_at)"
                " VALUES (%s, %s, 'live', %s, %s, %s)",
                (generation, day, model, published_at, published_at),
            )
            connection.execute("INSERT INTO users (id) VALUES (%s)", (user,))
            connection.execute(
                "INSERT INTO posts (id, author_id, title) VALUES (%s, %s, 'a post')", (post, user)
            )
            connection.execute(
                "INSERT INTO user_recommendations"
                " (user_id, post_id, score, generated_at, expires_at, model_version, generation_id)"
                " VALUES (%s, %s, 1, %s, %s, %s, %s)",
                (user, post, published_at, published_at + timedelta(hours=72), model, generation),
            )
        return generation

    def rows(self, columns: str = "kind, dedupe_key, channel") -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url) as connection:
            query = f"SELECT {columns} FROM alerts_sent ORDER BY first_sent, dedupe_key, channel"
            return connection.execute(query).fetchall()  # type: ignore[call-overload, no-any-return]


@pytest.fixture(scope="session")
def _migrated_url(postgres_server: ServerAddress) -> str:
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE alert_sensors")
    url = postgres_server.url("alert_sensors")
    migrate.upgrade(Settings.load(database_url=url))
    return url


@pytest.fixture
def app(_migrated_url: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> App:
    with psycopg.connect(_migrated_url) as connection:
        connection.execute("TRUNCATE users, posts, recommendation_generations, alerts_sent CASCADE")
    return App(_migrated_url, monkeypatch)


@pytest.fixture
def channels(webhook: Webhook, mail: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alerts go to the webhook and to the mail server."""
    monkeypatch.setenv("RECO_ALERT_URLS", f"{webhook.url}, {mail.url}")


class Ticker:
    """A sensor evaluated again and again with its own cursor, as the daemon does."""

    def __init__(self, sensor: dg.SensorDefinition, instance: dg.DagsterInstance) -> None:
        self.sensor = sensor
        self.instance = instance
        self.cursor: str | None = None

    def tick(self) -> str:
        """One evaluation; what it says it did. A tick that raises leaves the cursor alone."""
        with dg.build_sensor_context(instance=self.instance, cursor=self.cursor) as context:
            data = self.sensor.evaluate_tick(context)
        self.cursor = data.cursor
        assert not data.run_requests
        return data.skip_message or ""
