import json
from datetime import UTC, datetime, timedelta

import dagster as dg
import psycopg
import pytest

from reco_assets.sensors.stale_recommendations_alert import stale_recommendations_alert
from reco_assets_tests.sensors.conftest import App, Ticker
from reco_assets_tests.sinks import MailServer, Webhook

pytestmark = pytest.mark.usefixtures("channels")


@pytest.fixture
def sensor(instance: dg.DagsterInstance, app: App) -> Ticker:
    return Ticker(stale_recommendations_alert, instance)


def test_an_episode_is_told_once_on_every_channel(
    sensor: Ticker, app: App, webhook: Webhook, mail: MailServer
) -> None:
    generation = app.publish("2026-11-19", hours_ago=31)
    sensor.tick()
    sensor.tick()
    title = "[reco] Recommendations are stale: nothing was published for 31 h"
    assert webhook.titles == mail.titles == [title]
    body = webhook.received[0]["message"]
    assert "What: nothing was published for 31 h (limit 26 h, RECO_STALE_AFTER_HOURS)" in body
    assert "Still served: the generation of 2026-11-19, model collaborative_filtering_v7" in body
    assert "Repair: reco run" in body
    assert {key for _, key, _ in app.rows()} == {f"stale:{generation}"}
    assert webhook.received[0]["type"] == "warning"


def test_the_next_episode_is_told_again(sensor: Ticker, app: App, webhook: Webhook) -> None:
    app.publish("2026-11-17", hours_ago=80)
    sensor.tick()
    app.publish("2026-11-18", hours_ago=40)
    sensor.tick()
    assert len(webhook.received) == 2
    assert "all its rows have expired, readers find none" in webhook.received[0]["message"]


def test_a_fresh_publication_is_quiet_up_to_the_limit(
    sensor: Ticker, app: App, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.publish("2026-11-19", hours_ago=25.9)
    assert "Not stale before" in sensor.tick()
    assert webhook.received == []
    monkeypatch.setenv("RECO_STALE_AFTER_HOURS", "25.8")
    sensor.tick()
    assert len(webhook.received) == 1


def test_what_became_of_the_last_attempt_is_told(sensor: Ticker, app: App, webhook: Webhook) -> None:
    app.publish("2026-11-19", hours_ago=31)
    with psycopg.connect(app.url) as connection:
        connection.execute(
            "INSERT INTO recommendation_generations (partition_date, status, message, dagster_run_id)"
            " VALUES ('2026-11-20', 'refused', 'coverage 0.31 < 0.5', 'run-7')"
        )
    sensor.tick()
    body = webhook.received[0]["message"]
    assert "2026-11-20, refused: coverage 0.31 < 0.5" in body
    assert "/runs/run-7" in body


def test_a_fresh_install_is_quiet_until_its_first_day_was_due(
    sensor: Ticker, app: App, webhook: Webhook
) -> None:
    assert "Not stale before" in sensor.tick()
    first_tick = json.loads(sensor.cursor or "")
    # Installed at 01:00, so the first run was due at 02:00 and the publication by 04:00.
    yesterday = datetime.now(UTC) - timedelta(days=2)
    first_tick["watching_since"] = yesterday.replace(hour=1).isoformat()
    sensor.cursor = json.dumps(first_tick)
    sensor.tick()
    sensor.tick()
    assert len(webhook.received) == 1
    body = webhook.received[0]["message"]
    assert f"nothing was ever published; the first publication was due {yesterday:%Y-%m-%d} 04:00 UTC" in body
    assert "nothing was ever published; readers find no rows" in body


def test_an_unreachable_database_is_told_as_unknown_once_it_would_be_stale(
    sensor: Ticker, app: App, webhook: Webhook
) -> None:
    app.publish("2026-11-19", hours_ago=25)
    sensor.tick()
    app.unreachable()
    assert "cannot be reached" in sensor.tick()  # not stale yet, as far as anybody knows
    assert webhook.received == []
    known = json.loads(sensor.cursor or "")
    known["published_at"] = (datetime.now(UTC) - timedelta(hours=27)).isoformat()
    sensor.cursor = json.dumps(known)
    sensor.tick()
    sensor.tick()
    assert len(webhook.received) == 1
    assert "Still served: unknown: database unreachable" in webhook.received[0]["message"]


def test_a_channel_that_was_down_is_told_while_it_lasts(
    sensor: Ticker, app: App, webhook: Webhook, mail: MailServer
) -> None:
    app.publish("2026-11-19", hours_ago=31)
    mail.down = True
    sensor.tick()
    mail.down = False
    sensor.tick()
    sensor.tick()
    assert (len(webhook.received), len(mail.received)) == (1, 1)
