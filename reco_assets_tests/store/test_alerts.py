from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from reco_assets.settings import Settings
from reco_assets.store import alerts, migrate
from reco_assets.store.database import create_engine_for, transaction
from reco_assets.store.generations import live_generation

NOW = datetime(2026, 11, 21, 2, 5, tzinfo=UTC)


@pytest.fixture
def connection(empty_database_url: str) -> Iterator[sa.Connection]:
    settings = Settings.load(database_url=empty_database_url)
    migrate.upgrade(settings)
    engine = create_engine_for(settings)
    with transaction(engine) as connection:
        yield connection
    engine.dispose()


def _sent(connection: sa.Connection, key: str, channel: str, at: datetime = NOW) -> bool:
    return alerts.record_sent(connection, key, channel, "run_failure", "it failed", at)


def test_sending_is_news_once_per_channel(connection: sa.Connection) -> None:
    assert _sent(connection, "a", "json:1")
    assert _sent(connection, "a", "mailto:1")
    assert not _sent(connection, "a", "json:1", NOW + timedelta(hours=1))
    assert alerts.channels_told(connection, "a") == {"json:1", "mailto:1"}
    assert alerts.channels_told(connection, "b") == set()
    row = connection.execute(
        sa.text("SELECT first_sent, last_sent FROM alerts_sent WHERE channel = 'json:1'")
    ).one()
    assert tuple(row) == (NOW, NOW + timedelta(hours=1))


def test_a_resolved_alert_stays_open_for_the_channels_that_wait(connection: sa.Connection) -> None:
    for channel in ("json:1", "mailto:1"):
        _sent(connection, "a", channel)
    assert alerts.record_resolved(connection, "a", NOW) == 2
    assert alerts.record_resolved(connection, "a", NOW + timedelta(hours=1)) == 0
    assert alerts.record_resolution_sent(connection, "a", "json:1", NOW)
    assert not alerts.record_resolution_sent(connection, "a", "json:1", NOW)
    waiting = alerts.open_alerts(connection, ["json:1", "mailto:1"])
    assert [(row.channel, row.resolved_at) for row in waiting] == [("mailto:1", NOW)]


def test_a_channel_that_is_gone_keeps_nothing_open(connection: sa.Connection) -> None:
    _sent(connection, "a", "slack:gone")
    assert len(alerts.open_alerts(connection, [])) == 1
    alerts.record_resolved(connection, "a", NOW)
    assert alerts.open_alerts(connection, ["json:1"]) == []


def test_open_alerts_come_oldest_first(connection: sa.Connection) -> None:
    _sent(connection, "young", "json:1", NOW)
    _sent(connection, "old", "json:1", NOW - timedelta(days=1))
    assert [row.dedupe_key for row in alerts.open_alerts(connection, ["json:1"])] == ["old", "young"]


def test_before_the_first_publication_nothing_is_live(connection: sa.Connection) -> None:
    assert live_generation(connection) is None
    assert alerts.last_expiry(connection) is None
    assert alerts.last_attempt(connection) is None


def test_the_live_generation_is_told_from_the_last_attempt(connection: sa.Connection) -> None:
    connection.execute(
        sa.text(
            "INSERT INTO recommendation_generations (partition_date, status, model_version, published_at,"
            " created_at) VALUES ('2026-11-19', 'superseded', 'v6', :old, :old),"
            " ('2026-11-20', 'live', 'v7', :now, :now), ('2026-11-10', 'archived', 'v3', NULL, :later)"
        ),
        {"now": NOW, "old": NOW - timedelta(days=1), "later": NOW + timedelta(hours=1)},
    )
    live = live_generation(connection)
    assert live is not None
    assert (str(live.partition_date), live.model_version, live.went_live_at) == ("2026-11-20", "v7", NOW)
    attempt = alerts.last_attempt(connection)
    assert attempt is not None
    assert (attempt.status, str(attempt.partition_date)) == ("archived", "2026-11-10")


def test_the_last_expiry_is_that_of_the_row_that_lasts_longest(connection: sa.Connection) -> None:
    connection.execute(sa.text("INSERT INTO users (id) SELECT gen_random_uuid() FROM generate_series(1, 3)"))
    connection.execute(sa.text("INSERT INTO posts (author_id, title) SELECT id, '' FROM users LIMIT 1"))
    connection.execute(
        sa.text(
            "INSERT INTO user_recommendations (user_id, post_id, score, generated_at, expires_at, "
            "model_version, generation_id) SELECT u.id, p.id, 1, :now, "
            ":now + row_number() OVER () * interval '1 hour', 'v7', gen_random_uuid() FROM users u, posts p"
        ),
        {"now": NOW},
    )
    assert alerts.last_expiry(connection) == NOW + timedelta(hours=3)
