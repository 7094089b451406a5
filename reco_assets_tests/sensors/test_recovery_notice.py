import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from reco_assets.sensors import alert_sensors
from reco_assets.sensors.blocking_check_alert import blocking_check_alert
from reco_assets.sensors.recovery_notice import recovery_notice
from reco_assets.sensors.run_failure_alert import run_failure_alert
from reco_assets.sensors.stale_recommendations_alert import stale_recommendations_alert
from reco_assets_tests.sensors.conftest import App, Ticker
from reco_assets_tests.sensors.pipelines import DATABASE_GONE, DAY, NO_INTERACTIONS, run_pipeline
from reco_assets_tests.sinks import MailServer, Webhook

pytestmark = pytest.mark.usefixtures("channels")


class Sensors:
    """All four, ticking in turn as the daemon has them."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.tickers = [Ticker(sensor, instance) for sensor in alert_sensors]

    def tick(self) -> None:
        for ticker in self.tickers:
            ticker.tick()


@pytest.fixture
def sensors(instance: dg.DagsterInstance, app: App) -> Sensors:
    app.publish("2026-11-19", hours_ago=1)
    sensors = Sensors(instance)
    sensors.tick()
    return sensors


def test_the_four_sensors_are_on_by_default() -> None:
    expected = [run_failure_alert, blocking_check_alert, stale_recommendations_alert, recovery_notice]
    assert alert_sensors == expected
    assert {sensor.default_status for sensor in alert_sensors} == {dg.DefaultSensorStatus.RUNNING}


def test_a_repaired_day_is_told_once_on_every_channel(
    sensors: Sensors, webhook: Webhook, mail: MailServer, app: App
) -> None:
    run_pipeline(sensors.instance, failing=NO_INTERACTIONS)
    sensors.tick()
    run_pipeline(sensors.instance)
    sensors.tick()
    sensors.tick()
    failed = f"user_knn_model of {DAY} failed"
    assert webhook.titles == mail.titles == [f"[reco] {failed}", f"[reco] Recovered: {failed}"]
    body = webhook.received[1]["message"]
    assert f"of {DAY} was materialised by a run that succeeded" in body
    assert "Still served: the generation of 2026-11-19" in body
    assert webhook.received[1]["type"] == "success"
    assert all(resolved and sent for resolved, sent in app.rows("resolved_at, resolution_sent_at"))


def test_an_open_failure_stays_open(sensors: Sensors, webhook: Webhook) -> None:
    run_pipeline(sensors.instance, failing=NO_INTERACTIONS)
    sensors.tick()
    run_pipeline(sensors.instance, "2026-11-10")  # another, older day
    sensors.tick()
    assert len(webhook.received) == 1


def test_a_rerun_that_fails_elsewhere_repairs_nothing(sensors: Sensors, webhook: Webhook) -> None:
    run_pipeline(sensors.instance, failing=NO_INTERACTIONS, only="user_knn_model")
    sensors.tick()
    run_pipeline(sensors.instance, covered=False)  # the model is materialised, the lists are refused
    sensors.tick()
    assert len(webhook.received) == 2
    assert not any("Recovered" in title for title in webhook.titles)


def test_a_later_day_ends_a_current_failure_and_names_the_hole(
    sensors: Sensors, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reco_assets.sensors.recovery._was_current", lambda _: True)
    run_pipeline(sensors.instance, failing=NO_INTERACTIONS)
    sensors.tick()
    run_pipeline(sensors.instance, "2026-11-21")
    sensors.tick()
    assert len(webhook.received) == 2
    assert f"`reco run --partition {DAY}`" in webhook.received[1]["message"]


def test_a_refused_day_recovers_when_a_run_passes_its_checks(sensors: Sensors, webhook: Webhook) -> None:
    run_pipeline(sensors.instance, covered=False)
    sensors.tick()
    run_pipeline(sensors.instance)
    sensors.tick()
    refused = f"user_recommendations of {DAY} refused by users_are_covered"
    assert webhook.titles == [f"[reco] {refused}", f"[reco] Recovered: {refused}"]


def test_a_publication_ends_staleness(
    instance: dg.DagsterInstance, app: App, webhook: Webhook, mail: MailServer
) -> None:
    app.publish("2026-11-18", hours_ago=40)
    sensors = Sensors(instance)
    sensors.tick()
    assert len(webhook.received) == 1
    app.publish("2026-11-20", hours_ago=0)
    sensors.tick()
    sensors.tick()
    assert len(webhook.received) == len(mail.received) == 2
    assert "recommendations of 2026-11-20 were published" in webhook.received[1]["message"]


def test_a_channel_that_is_down_hears_of_the_recovery_later(
    sensors: Sensors, webhook: Webhook, mail: MailServer
) -> None:
    run_pipeline(sensors.instance, failing=NO_INTERACTIONS)
    sensors.tick()
    run_pipeline(sensors.instance)
    mail.down = True
    sensors.tick()
    assert (len(webhook.received), len(mail.received)) == (2, 1)
    mail.down = False
    sensors.tick()
    sensors.tick()
    assert (len(webhook.received), len(mail.received)) == (2, 2)


def test_a_channel_that_never_heard_of_it_hears_nothing_of_its_end(
    sensors: Sensors, webhook: Webhook, mail: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECO_ALERT_URLS", webhook.url)
    run_pipeline(sensors.instance, failing=NO_INTERACTIONS)
    sensors.tick()
    monkeypatch.setenv("RECO_ALERT_URLS", f"{webhook.url} {mail.url}")
    run_pipeline(sensors.instance)
    sensors.tick()
    assert (len(webhook.received), len(mail.received)) == (2, 0)


def test_what_was_told_without_a_database_recovers_too(sensors: Sensors, webhook: Webhook, app: App) -> None:
    app.unreachable()
    run_pipeline(sensors.instance, failing=DATABASE_GONE)
    sensors.tick()
    sensors.tick()
    assert len(webhook.received) == 1
    app.reachable()
    run_pipeline(sensors.instance)
    sensors.tick()
    sensors.tick()
    assert [title.split(":")[0] for title in webhook.titles] == [
        f"[reco] user_knn_model of {DAY} failed",
        "[reco] Recovered",
    ]


def test_a_backfill_recovers_when_it_is_over_and_all_its_days_are_made_up_for(
    sensors: Sensors, webhook: Webhook
) -> None:
    backfill = PartitionBackfill(
        "abcdefgh", BulkActionStatus.REQUESTED, from_failure=False, tags={}, backfill_timestamp=0.0
    )
    sensors.instance.add_backfill(backfill)
    for day in ("2026-11-01", "2026-11-02"):
        run_pipeline(sensors.instance, day, failing=NO_INTERACTIONS, tags={"dagster/backfill": "abcdefgh"})
    sensors.tick()
    run_pipeline(sensors.instance, "2026-11-01")
    sensors.tick()
    assert len(webhook.received) == 1
    run_pipeline(sensors.instance, "2026-11-02")
    sensors.tick()
    assert len(webhook.received) == 1  # it still runs: the days to come may fail silently
    sensors.instance.update_backfill(backfill.with_status(BulkActionStatus.COMPLETED_FAILED))
    sensors.tick()
    sensors.tick()
    assert len(webhook.received) == 2
    assert "all 2 failed runs of backfill abcdefgh were made up for" in webhook.received[1]["message"]
