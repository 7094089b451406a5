"""`reco rollback` on what the pipeline really published, with the registry beside it."""

from datetime import timedelta

from click.testing import CliRunner

from reco_assets.cli.rollback_command import command
from reco_assets.errors import MissingUpstream
from reco_assets_tests.end_to_end.conftest import LAST_DAY, Pipeline

GOOD_DAY = LAST_DAY - timedelta(days=1)


def champion() -> int:
    import mlflow

    return int(
        mlflow.MlflowClient().get_model_version_by_alias("collaborative_filtering", "champion").version
    )


def test_the_day_before_goes_live_again_and_the_next_run_takes_over(pipeline: Pipeline) -> None:
    pipeline.extract_window()
    good = pipeline.materialize(day=GOOD_DAY)
    assert good.success
    good_rows = {(user, post): score for user, post, score, _ in pipeline.live_rows()}
    assert pipeline.materialize().success
    assert champion() == 2
    reco = CliRunner()

    shown = reco.invoke(command, [], catch_exceptions=False)
    assert [line.split()[:3] for line in shown.output.splitlines()] == [
        [str(LAST_DAY), "live", "collaborative_filtering_v2"],
        [str(GOOD_DAY), "superseded", "collaborative_filtering_v1"],
        ["Nothing", "was", "changed."],
    ]

    done = reco.invoke(command, ["--partition", str(GOOD_DAY)], catch_exceptions=False)
    assert done.exit_code == 0
    for part in (f"Live again: the lists of {GOOD_DAY}", good.run_id, "seen ", "Champion: ", "_v1."):
        assert part in done.output
    rows = pipeline.live_rows()
    # What was read on the last day is left out, and nothing else.
    back = {(user, post): score for user, post, score, _ in rows}
    read = set(pipeline.query("SELECT user_id, post_id FROM user_interactions"))
    assert back == {pair: score for pair, score in good_rows.items() if pair not in read}
    assert len(back) > 500
    assert pipeline.query(
        "SELECT DISTINCT g.partition_date, g.dagster_run_id, g.model_version, made.dagster_run_id "
        "FROM user_recommendations r JOIN recommendation_generations g ON g.id = r.generation_id "
        "JOIN recommendation_generations made ON made.id = g.restored_from"
    ) == [(GOOD_DAY, good.run_id, "collaborative_filtering_v1", good.run_id)]
    assert champion() == 1
    shown = reco.invoke(command, [], catch_exceptions=False)
    assert [line.split()[:2] for line in shown.output.splitlines()[:2]] == [
        [str(LAST_DAY), "superseded"],
        [str(GOOD_DAY), "live"],
    ]

    again = reco.invoke(command, ["--partition", str(GOOD_DAY)], catch_exceptions=False)
    assert "live already" in again.output
    assert pipeline.live_rows() == rows

    missing = reco.invoke(command, ["--partition", str(GOOD_DAY - timedelta(days=1))])
    assert isinstance(missing.exception, MissingUpstream)
    assert pipeline.live_rows() == rows

    assert pipeline.materialize().success
    assert pipeline.query("SELECT partition_date FROM recommendation_generations WHERE status = 'live'") == [
        (LAST_DAY,)
    ]
    assert champion() == 3
