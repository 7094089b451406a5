import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from dagster._core.remote_origin import (
    InProcessCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from reco_assets.sensors.blocking_check_alert import blocking_check_alert
from reco_assets.sensors.run_failure_alert import run_failure_alert
from reco_assets_tests.sensors.conftest import App, Ticker
from reco_assets_tests.sensors.pipelines import DATABASE_GONE, DAY, NO_INTERACTIONS, run_pipeline
from reco_assets_tests.sinks import MailServer, Webhook

pytestmark = pytest.mark.usefixtures("channels")


@pytest.fixture
def sensor(instance: dg.DagsterInstance, app: App) -> Ticker:
    """Past its first tick, on a system that has published."""
    app.publish("2026-11-19", hours_ago=24)
    ticker = Ticker(run_failure_alert, instance)
    ticker.tick()
    return ticker


def test_a_failure_is_told_once_on_every_channel(
    sensor: Ticker, webhook: Webhook, mail: MailServer, app: App
) -> None:
    run_pipeline(sensor.instance, failing=NO_INTERACTIONS)
    sensor.tick()
    sensor.tick()
    assert webhook.titles == mail.titles == ["[reco] user_knn_model of 2026-11-20 failed"]
    assert [row[0] for row in app.rows()] == ["run_failure", "run_failure"]
    assert {channel.split(":")[0] for _, _, channel in app.rows()} == {"json", "mailto"}


def test_the_alert_says_all_that_is_needed_to_act(
    sensor: Ticker, webhook: Webhook, mail: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECO_DAGSTER_URL", "https://dagster.example.org/")
    run = run_pipeline(sensor.instance, failing=NO_INTERACTIONS)
    sensor.tick()
    body = webhook.received[0]["message"]
    assert f"What: user_knn_model of {DAY}" in body
    assert (
        "Error: NoInteractions: No interactions between 2026-10-22 and 2026-11-20; run `reco seed`." in body
    )
    assert f"Since: {datetime.now(UTC):%Y-%m-%d}" in body
    assert "Still served: the generation of 2026-11-19, model collaborative_filtering_v7, published" in body
    assert "(24 h ago); its last rows expire" in body
    assert "(in 48 h)" in body
    assert f"Run: https://dagster.example.org/runs/{run.run_id}" in body
    assert f"Repair: reco run --partition {DAY}" in body
    assert "Traceback" not in body
    assert mail.received[0].get_content().split() == body.split()
    assert webhook.received[0]["type"] == "failure"


def test_history_is_not_told_on_the_first_tick(
    instance: dg.DagsterInstance, app: App, webhook: Webhook
) -> None:
    run_pipeline(instance, failing=NO_INTERACTIONS)
    sensor = Ticker(run_failure_alert, instance)
    assert "from now on" in sensor.tick()
    sensor.tick()
    assert webhook.received == []


def test_failures_during_an_outage_of_the_daemon_are_told_afterwards(
    sensor: Ticker, webhook: Webhook
) -> None:
    for day in ("2026-11-18", "2026-11-19"):
        run_pipeline(sensor.instance, day, failing=NO_INTERACTIONS)
    later = Ticker(run_failure_alert, sensor.instance)
    later.cursor = sensor.cursor
    later.tick()
    assert len(webhook.received) == 2


def test_a_channel_that_is_down_gets_it_later_and_the_other_gets_it_once(
    sensor: Ticker, webhook: Webhook, mail: MailServer, app: App
) -> None:
    webhook.down = True
    run_pipeline(sensor.instance, failing=NO_INTERACTIONS)
    sensor.tick()
    sensor.tick()
    assert (len(webhook.received), len(mail.received)) == (0, 1)
    assert [channel.split(":")[0] for _, _, channel in app.rows()] == ["mailto"]
    webhook.down, mail.down = False, True
    sensor.tick()
    sensor.tick()
    assert (len(webhook.received), len(mail.received)) == (1, 1)
    assert len(app.rows()) == 2
    assert json.loads(sensor.cursor or "")["pending"] == {}


def test_a_run_that_is_retried_is_not_told_and_its_last_try_is(sensor: Ticker, webhook: Webhook) -> None:
    first = run_pipeline(sensor.instance, failing=NO_INTERACTIONS, tags={"dagster/will_retry": "true"})
    sensor.tick()
    assert webhook.received == []
    retry = {"dagster/parent_run_id": first.run_id, "dagster/will_retry": "false"}
    run = run_pipeline(sensor.instance, failing=NO_INTERACTIONS, tags=retry)
    sensor.tick()
    sensor.tick()
    assert len(webhook.received) == 1
    assert run.run_id in webhook.received[0]["message"]


def test_a_retry_that_succeeds_leaves_nothing_to_tell(sensor: Ticker, webhook: Webhook) -> None:
    first = run_pipeline(sensor.instance, failing=NO_INTERACTIONS, tags={"dagster/will_retry": "true"})
    sensor.tick()
    run_pipeline(sensor.instance, tags={"dagster/parent_run_id": first.run_id})
    sensor.tick()
    assert webhook.received == []
    assert json.loads(sensor.cursor or "")["pending"] == {}


def test_dagsters_own_retries_are_waited_for(tmp_path: Path, app: App, webhook: Webhook) -> None:
    retries = {"run_retries": {"enabled": True, "max_retries": 1, "retry_on_asset_or_op_failure": False}}
    with dg.instance_for_test(temp_dir=str(tmp_path), overrides=retries) as instance:
        sensor = Ticker(run_failure_alert, instance)
        sensor.tick()
        crashed = instance.create_run_for_job(_other_job())
        instance.report_run_failed(crashed, "The process was killed.")
        failed = run_pipeline(instance, failing=NO_INTERACTIONS)  # a step's failure is final
        sensor.tick()
        assert [failed.run_id in message["message"] for message in webhook.received] == [True]
        lineage = {"dagster/parent_run_id": crashed.run_id, "dagster/root_run_id": crashed.run_id}
        retry = instance.create_run_for_job(
            _other_job(), parent_run_id=crashed.run_id, root_run_id=crashed.run_id, tags=lineage
        )
        instance.report_run_failed(retry, "The process was killed again.")
        sensor.tick()
    assert len(webhook.received) == 2
    assert "killed again" in webhook.received[1]["message"]


def test_a_retry_that_dagster_could_not_launch_is_told(sensor: Ticker, webhook: Webhook) -> None:
    run = run_pipeline(sensor.instance, failing=NO_INTERACTIONS, tags={"dagster/will_retry": "true"})
    sensor.tick()
    sensor.instance.add_run_tags(run.run_id, {"dagster/will_retry": "false"})
    sensor.tick()
    assert len(webhook.received) == 1


def test_a_retry_that_never_came_is_told_after_a_while(
    sensor: Ticker, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_pipeline(sensor.instance, failing=NO_INTERACTIONS, tags={"dagster/will_retry": "true"})
    sensor.tick()
    assert webhook.received == []
    monkeypatch.setattr("reco_assets.sensors.failed_runs._RETRY_GRACE", timedelta())
    sensor.tick()
    assert len(webhook.received) == 1


def test_a_backfill_that_fails_every_day_is_one_alert(sensor: Ticker, webhook: Webhook) -> None:
    tags = {"dagster/backfill": "abcdefgh"}
    for day in ("2026-11-01", "2026-11-02", "2026-11-03"):
        run_pipeline(sensor.instance, day, failing=NO_INTERACTIONS, tags=tags)
    sensor.tick()
    run_pipeline(sensor.instance, "2026-11-04", failing=NO_INTERACTIONS, tags=tags)
    sensor.tick()
    assert webhook.titles == ["[reco] user_knn_model of 2026-11-01 and 2 more runs of a backfill failed"]
    body = webhook.received[0]["message"]
    assert "Backfill abcdefgh, failed so far: 2026-11-01, 2026-11-02, 2026-11-03." in body
    assert "/runs/b/abcdefgh" in body
    assert "Repair: reco run --from 2026-11-01 --to 2026-11-03" in body


def test_a_run_that_fails_before_any_step_is_told(sensor: Ticker, webhook: Webhook) -> None:
    run = sensor.instance.create_run_for_job(_other_job(), tags={"dagster/partition": DAY})
    sensor.instance.report_run_failed(run, "The code location could not be loaded.")
    sensor.tick()
    body = webhook.received[0]["message"]
    assert webhook.titles == ["[reco] empty of 2026-11-20 failed"]
    assert "the run, before any step" in body
    assert "The code location could not be loaded." in body


def test_without_a_database_it_is_told_once_and_written_down_later(
    sensor: Ticker, webhook: Webhook, mail: MailServer, app: App
) -> None:
    app.unreachable()
    run_pipeline(sensor.instance, failing=DATABASE_GONE)
    sensor.tick()
    assert len(webhook.received) == len(mail.received) == 1
    body = webhook.received[0]["message"]
    assert (
        "Still served: unknown: database unreachable (PostgreSQL at 127.0.0.1:1/app cannot be reached" in body
    )
    assert "Repair: bring PostgreSQL back (`reco doctor` says what it sees), then: reco run" in body
    assert "s3cret" not in body
    forgetful = Ticker(run_failure_alert, sensor.instance)  # the tick's end never reached Dagster
    forgetful.cursor = json.dumps({"after": 0, "pending": {}})
    forgetful.tick()
    assert len(webhook.received) == len(mail.received) == 1
    assert app.rows() == []
    app.reachable()
    sensor.tick()
    assert len(app.rows()) == 2
    assert len(webhook.received) == 1


def test_a_database_without_tables_does_not_silence_it(
    instance: dg.DagsterInstance, empty_database_url: str, monkeypatch: pytest.MonkeyPatch, webhook: Webhook
) -> None:
    monkeypatch.setenv("RECO_DATABASE_URL", empty_database_url)
    sensor = Ticker(run_failure_alert, instance)
    sensor.tick()
    run_pipeline(instance, failing=NO_INTERACTIONS)
    sensor.tick()
    sensor.tick()
    assert len(webhook.received) == 1
    assert "Run `reco migrate`" in webhook.received[0]["message"]


def test_one_wrong_url_does_not_silence_the_others(
    sensor: Ticker, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECO_ALERT_URLS", f"slack://topsecret {webhook.url}")
    run_pipeline(sensor.instance, failing=NO_INTERACTIONS)
    sensor.tick()
    assert len(webhook.received) == 1


def test_with_only_wrong_urls_the_tick_fails_and_the_alert_waits(
    sensor: Ticker, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECO_ALERT_URLS", "slack://topsecret")
    run_pipeline(sensor.instance, failing=NO_INTERACTIONS)
    with pytest.raises(Exception, match="slack://") as caught:
        sensor.tick()
    assert "topsecret" not in str(caught.value.__cause__)
    monkeypatch.setenv("RECO_ALERT_URLS", webhook.url)
    sensor.tick()
    assert len(webhook.received) == 1


def test_a_run_whose_events_cannot_be_read_is_told_and_blocks_nobody(
    sensor: Ticker, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = sensor.instance.create_run_for_job(_other_job())
    monkeypatch.setattr("reco_assets.sensors.failed_runs.examine", lambda *_: 1 / 0)
    sensor.instance.report_run_failed(run)
    sensor.tick()
    assert "its events cannot be read" in webhook.received[0]["message"]


def test_runs_of_another_code_location_are_not_ours(
    instance: dg.DagsterInstance, app: App, webhook: Webhook
) -> None:
    cursor: str | None = None
    for location in (None, "other", "reco"):
        if location:
            run = instance.create_run_for_job(_other_job(), remote_job_origin=_origin(location))
            instance.report_run_failed(run, f"The run of {location} could not start.")
        context = dg.SensorEvaluationContext(
            instance_ref=None,
            instance=instance,
            cursor=cursor,
            repository_name="__repository__",
            code_location_origin=_location("reco"),
        )
        cursor = run_failure_alert.evaluate_tick(context).cursor
    assert len(webhook.received) == 1
    assert "The run of reco could not start." in webhook.received[0]["message"]


def _location(name: str) -> InProcessCodeLocationOrigin:
    return InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="m"), location_name=name)


def _origin(location: str) -> RemoteJobOrigin:
    return RemoteJobOrigin(RemoteRepositoryOrigin(_location(location), "__repository__"), "empty")


def _other_job() -> dg.JobDefinition:
    return dg.Definitions(jobs=[_empty_job]).resolve_job_def("empty")


def test_no_connection_is_left_behind(sensor: Ticker, app: App) -> None:
    run_pipeline(sensor.instance, failing=NO_INTERACTIONS)
    sensor.tick()
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'reco_assets alerts'"
    deadline = time.monotonic() + 30
    with psycopg.connect(app.url, autocommit=True) as connection:
        while connection.execute(query).fetchone() != (0,):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_failed_check_is_left_to_the_other_sensor(sensor: Ticker, webhook: Webhook) -> None:
    checks = Ticker(blocking_check_alert, sensor.instance)
    checks.tick()
    run_pipeline(sensor.instance, covered=False)
    for ticker in (sensor, checks, sensor, checks):
        ticker.tick()
    assert webhook.titles == ["[reco] user_recommendations of 2026-11-20 refused by users_are_covered"]


@dg.op
def _nothing() -> None: ...


@dg.job(name="empty")
def _empty_job() -> None:
    _nothing()
