import dagster as dg
import pytest

from reco_assets.errors import PublicationRefused
from reco_assets.sensors.blocking_check_alert import blocking_check_alert
from reco_assets.sensors.run_failure_alert import run_failure_alert
from reco_assets_tests.sensors.conftest import App, Ticker
from reco_assets_tests.sensors.pipelines import DAY, NO_INTERACTIONS, run_pipeline
from reco_assets_tests.sinks import MailServer, Webhook

pytestmark = pytest.mark.usefixtures("channels")


@pytest.fixture
def sensor(instance: dg.DagsterInstance, app: App) -> Ticker:
    app.publish("2026-11-19", hours_ago=24)
    ticker = Ticker(blocking_check_alert, instance)
    ticker.tick()
    return ticker


def test_a_failed_check_is_told_once_with_value_limit_and_message(
    sensor: Ticker, webhook: Webhook, mail: MailServer, app: App
) -> None:
    run = run_pipeline(sensor.instance, covered=False)
    sensor.tick()
    sensor.tick()
    title = f"[reco] user_recommendations of {DAY} refused by users_are_covered"
    assert webhook.titles == mail.titles == [title]
    body = webhook.received[0]["message"]
    assert "user_recommendations: users_are_covered, value 0.31, limit 0.5: too few users" in body
    assert "Still served: the generation of 2026-11-19, model collaborative_filtering_v7" in body
    assert "what is still served is the last good publication" in body
    assert f"/runs/{run.run_id}" in body
    assert f"reco run --partition {DAY}" in body
    assert [row[0] for row in app.rows()] == ["blocking_check", "blocking_check"]


def test_a_refusal_without_a_recorded_check_is_told_with_its_message(
    sensor: Ticker, webhook: Webhook
) -> None:
    failures = Ticker(run_failure_alert, sensor.instance)
    failures.tick()
    run_pipeline(sensor.instance, failing=PublicationRefused("NDCG 0.21 is below popularity's 0.28."))
    sensor.tick()
    failures.tick()
    assert len(webhook.received) == 1
    assert "PublicationRefused: NDCG 0.21 is below popularity's 0.28." in webhook.received[0]["message"]


def test_a_check_that_does_not_block_is_not_told(sensor: Ticker, webhook: Webhook) -> None:
    @dg.asset(check_specs=[dg.AssetCheckSpec("is_usual", asset="raw_interactions", blocking=False)])
    def raw_interactions() -> dg.MaterializeResult:
        return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=False, check_name="is_usual")])

    assert dg.materialize([raw_interactions], instance=sensor.instance).success
    sensor.tick()
    assert webhook.received == []


def test_a_check_in_a_step_of_its_own_counts_as_well(sensor: Ticker, webhook: Webhook) -> None:
    failures = Ticker(run_failure_alert, sensor.instance)
    failures.tick()

    @dg.asset
    def interaction_matrix() -> None: ...

    @dg.asset_check(asset=interaction_matrix, blocking=True)
    def weights_are_valid() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False, metadata={"value": -1.0, "limit": 0.0})

    defs = dg.Definitions(assets=[interaction_matrix], asset_checks=[weights_are_valid])
    defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=sensor.instance, raise_on_error=False
    )
    sensor.tick()
    failures.tick()
    assert webhook.titles == ["[reco] interaction_matrix refused by weights_are_valid"]
    assert "weights_are_valid, value -1, limit 0" in webhook.received[0]["message"]


def test_an_ordinary_failure_is_left_to_the_other_sensor(sensor: Ticker, webhook: Webhook) -> None:
    run_pipeline(sensor.instance, failing=NO_INTERACTIONS)
    sensor.tick()
    assert webhook.received == []


def test_a_refused_backfill_is_one_alert(sensor: Ticker, webhook: Webhook) -> None:
    for day in ("2026-11-01", "2026-11-02"):
        run_pipeline(sensor.instance, day, covered=False, tags={"dagster/backfill": "abcdefgh"})
    sensor.tick()
    assert len(webhook.received) == 1
