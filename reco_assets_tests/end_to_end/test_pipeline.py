"""The chain from raw interactions to published recommendations, through Dagster, on real parts."""

import filecmp
import os
import subprocess
import sys
import time
import uuid
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest

from reco_assets_tests.end_to_end.conftest import FIRST_DAY, LAST_DAY, Pipeline, failure


def test_a_day_runs_from_interactions_to_published_lists_with_exact_provenance(pipeline: Pipeline) -> None:
    pipeline.extract_window()
    result = pipeline.materialize()
    assert result.success

    # Every archived row is live, with its score, under one generation.
    archived = pq.read_table(pipeline.storage.recommendations(LAST_DAY)).to_pylist()
    live = {(row[0], row[1]): row[2] for row in pipeline.live_rows()}
    assert live == {
        (uuid.UUID(bytes=row["user_id"]), uuid.UUID(bytes=row["post_id"])): row["score"] for row in archived
    }
    assert len(live) > 500

    # From a row back to the runs that made it.
    generation = pipeline.query(
        "SELECT DISTINCT g.partition_date, g.status, g.dagster_run_id, g.mlflow_run_id, g.model_version, "
        "g.n_recommendations FROM user_recommendations r JOIN recommendation_generations g ON g.id = "
        "r.generation_id AND g.model_version = r.model_version"
    )
    assert len(generation) == 1
    day, status, dagster_run, mlflow_run, version, n_rows = generation[0]
    assert (day, status, dagster_run, version, n_rows) == (
        LAST_DAY,
        "live",
        result.run_id,
        "collaborative_filtering_v1",
        len(live),
    )

    import mlflow

    run = mlflow.get_run(mlflow_run)
    assert run.info.status == "FINISHED"
    assert run.data.tags["dagster_run_id"] == result.run_id
    assert run.data.params["n_neighbors"] == "200"
    assert run.data.params["partition"] == str(LAST_DAY)
    assert {"user_knn.ndcg", "popularity.ndcg", "random.ndcg"} <= set(run.data.metrics)
    files = {file.path for file in mlflow.artifacts.list_artifacts(run_id=mlflow_run)}
    assert {"holdout.png", "evaluation.json"} <= files
    client = mlflow.MlflowClient()
    assert int(client.get_model_version_by_alias("collaborative_filtering", "champion").version) == 1

    # Every check ran and holds.
    checks = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    assert len(checks) == 13
    blocking = {
        name: passed for name, passed in checks.items() if "usual" not in name and "fresh" not in name
    }
    assert all(blocking.values()), blocking
    assert pipeline.value("SELECT count(*) FROM quality_metrics WHERE metric = 'holdout_ndcg'") == 6


def test_a_registered_version_recommends_what_was_published(pipeline: Pipeline) -> None:
    import mlflow
    import pandas as pd

    pipeline.extract_window()
    assert pipeline.materialize().success
    user = pipeline.value("SELECT user_id FROM user_recommendations LIMIT 1")
    published = pipeline.query(
        "SELECT post_id::text, score FROM user_recommendations WHERE user_id = %s ORDER BY 2 DESC, post_id",
        user,
    )
    model = mlflow.pyfunc.load_model("models:/collaborative_filtering@champion")
    assert model.metadata.signature.inputs.input_names() == ["user_id"]
    unknown = "00000000-0000-4000-8000-000000000000"
    predicted = model.predict(pd.DataFrame({"user_id": [str(user), unknown, "no uuid"]}))
    assert set(predicted["user_id"]) == {str(user)}
    assert list(predicted["rank"]) == list(range(1, len(published) + 1))
    ordered = predicted.sort_values(["score", "post_id"], ascending=[False, True])
    assert list(zip(ordered["post_id"], ordered["score"], strict=True)) == published


def test_a_replayed_day_gives_identical_files(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.extract_window()
    assert pipeline.materialize().success
    first = tmp_path / "first"
    (pipeline.home / "storage").rename(first)
    pipeline.extract_window()
    assert pipeline.materialize().success
    names = sorted(
        str(path.relative_to(first))
        for path in first.rglob("*")
        if path.is_file() and "locks" not in path.parts
    )
    again = pipeline.home / "storage"
    assert len(names) > 40
    same, different, missing = filecmp.cmpfiles(first, again, names, shallow=False)
    assert (different, missing) == ([], [])
    assert len(same) == len(names)


def test_an_older_day_is_archived_and_the_live_generation_kept(published: Pipeline) -> None:
    before = published.live_rows()
    older = LAST_DAY - timedelta(days=2)
    result = published.materialize(day=older)
    assert result.success
    assert published.live_rows() == before
    assert published.storage.recommendations(older).exists()
    materialization = next(
        e for e in result.asset_materializations_for_node("user_recommendations") if e.asset_key
    )
    assert materialization.metadata["status"].value == "archived"
    assert "kept" in str(materialization.metadata["outcome"].value)
    statuses = published.query("SELECT partition_date, status FROM recommendation_generations ORDER BY 1")
    assert statuses == [(older, "archived"), (LAST_DAY, "live")]
    import mlflow

    champion = mlflow.MlflowClient().get_model_version_by_alias("collaborative_filtering", "champion")
    assert int(champion.version) == 1


def test_the_same_day_again_replaces_its_generation(published: Pipeline) -> None:
    first = published.live_rows()
    assert published.materialize().success
    again = published.live_rows()
    assert [row[:3] for row in again] == [row[:3] for row in first]
    assert published.query(
        "SELECT status, count(*) FROM recommendation_generations GROUP BY 1 ORDER BY 1"
    ) == [
        ("live", 1),
        ("superseded", 1),
    ]


def test_a_range_is_extracted_in_one_run_as_day_by_day(pipeline: Pipeline, tmp_path: Path) -> None:
    result = pipeline.materialize("raw_interactions", day=FIRST_DAY, until=LAST_DAY)
    assert result.success
    assert len(result.asset_materializations_for_node("raw_interactions")) == 14
    ranged = tmp_path / "ranged"
    pipeline.storage.raw_interactions.rename(ranged)
    for n in range(3):
        assert pipeline.materialize("raw_interactions", day=FIRST_DAY + timedelta(days=n)).success
    names = sorted(path.name for path in pipeline.storage.raw_interactions.glob("*.parquet"))
    assert len(names) == 3
    assert filecmp.cmpfiles(ranged, pipeline.storage.raw_interactions, names, shallow=False)[0] == names


def test_cleanup_deletes_what_expired_and_nothing_else(published: Pipeline) -> None:
    published.query(
        "UPDATE user_recommendations SET expires_at = now() - interval '1 minute' WHERE user_id IN "
        "(SELECT user_id FROM user_recommendations GROUP BY 1 ORDER BY 1 LIMIT 2)"
    )
    expired = published.value("SELECT count(*) FROM user_recommendations WHERE expires_at < now()")
    kept = published.value("SELECT count(*) FROM user_recommendations WHERE expires_at > now()")
    result = published.materialize("expired_recommendations_cleanup")
    event = result.asset_materializations_for_node("expired_recommendations_cleanup")[0]
    assert event.metadata["deleted_rows"].value == expired > 0
    assert published.value("SELECT count(*) FROM user_recommendations") == kept


def test_settings_of_a_single_run_reach_the_model(pipeline: Pipeline) -> None:
    pipeline.extract_window()
    config = {"user_knn_model": {"n_neighbors": 3, "n_recommendations": 4, "vote_weighting": "sqrt"}}
    assert pipeline.materialize(config=config).success
    longest = "SELECT max(n) FROM (SELECT count(*) AS n FROM user_recommendations GROUP BY user_id) AS lists"
    assert pipeline.value(longest) == 4


def test_a_setting_out_of_range_is_refused_before_any_step_writes(pipeline: Pipeline) -> None:
    pipeline.extract_window()
    before = sorted(pipeline.storage.raw_interactions.iterdir())
    result = pipeline.materialize(config={"user_knn_model": {"n_neighbors": 0}})
    message = failure(result)
    assert "user_knn_model: n_neighbors = 0" in message
    assert "greater than or equal to 1" in message
    assert not any(e.event_type_value == "STEP_UP_FOR_RETRY" for e in result.all_events)
    assert sorted(pipeline.storage.raw_interactions.iterdir()) == before


def test_every_asset_is_described_owned_grouped_and_typed() -> None:
    from reco_assets.definitions import defs

    graph = defs.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description, key
        assert node.owners == ["team:recommendations"], key
        assert node.group_name == "recommendations", key
        assert node.kinds, key
        assert isinstance(node.partitions_def, dg.DailyPartitionsDefinition), key


def test_a_model_that_failed_its_check_cannot_be_published_around_it(published: Pipeline) -> None:
    before = published.live_rows()

    import json

    path = published.storage.evaluation(LAST_DAY)
    evaluation = json.loads(path.read_text())
    evaluation["verdict"] |= {"passed": False, "message": "NDCG 0.1 against 0.4 of newest."}
    path.write_text(json.dumps(evaluation))
    result = published.materialize("user_recommendations")
    message = failure(result)
    assert "NDCG 0.1 against 0.4 of newest" in message
    assert f"reco run --partition {LAST_DAY}" in message
    assert published.live_rows() == before
    failed = [e.check_name for e in result.get_asset_check_evaluations() if not e.passed]
    assert failed == ["model_passed_its_checks"]
    assert published.query("SELECT status FROM recommendation_generations ORDER BY created_at") == [
        ("live",),
        ("refused",),
    ]


def test_a_check_can_be_asked_again_without_its_asset(pipeline: Pipeline) -> None:
    pipeline.extract_window()
    assert pipeline.materialize("raw_interactions", "interaction_matrix").success
    result = pipeline.ask_check("interaction_matrix", "window_is_not_empty")
    assert [(e.check_name, e.passed) for e in result.get_asset_check_evaluations()] == [
        ("window_is_not_empty", True)
    ]


def test_a_window_that_failed_its_check_cannot_be_published_around_it(
    published: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = published.live_rows()
    monkeypatch.setenv("RECO_MIN_INTERACTIONS", "1000000")
    assert "window_is_not_empty" in failure(published.materialize())
    message = failure(published.materialize("user_knn_model", "user_recommendations"))
    assert "window_was_not_empty" in message
    assert published.live_rows() == before


def test_lists_are_never_judged_by_another_log_than_their_model_was_fitted_on(published: Pipeline) -> None:
    published.query("DELETE FROM users WHERE id = (SELECT user_id FROM user_interactions LIMIT 1)")
    before = published.live_rows()
    published.extract_window()
    assert published.materialize("raw_interactions", "interaction_matrix").success
    message = failure(published.materialize("user_recommendations"))
    assert "rebuilt since" in message
    assert "--assets user_knn_model,user_recommendations" in message
    assert published.live_rows() == before
    assert published.materialize("user_knn_model", "user_recommendations").success


def test_the_alias_follows_the_live_model_even_after_a_cut_off_publication(published: Pipeline) -> None:
    assert published.materialize("user_knn_model").success
    import mlflow

    client = mlflow.MlflowClient()
    client.set_registered_model_alias("collaborative_filtering", "champion", "2")
    assert published.materialize("expired_recommendations_cleanup").success
    assert int(client.get_model_version_by_alias("collaborative_filtering", "champion").version) == 1


def test_no_password_shows_in_the_definitions(monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "from reco_assets.definitions import defs\n"
        "from dagster._core.remote_representation.external_data import RepositorySnap\n"
        "print(repr(RepositorySnap.from_def(defs.get_repository_def())))\n"
        "from reco_assets.settings import Settings\n"
        "print(Settings.load())\n"
    )
    monkeypatch.setenv("RECO_DATABASE_URL", "postgresql://app:hunter2@db/app")
    monkeypatch.setenv("RECO_MLFLOW_TRACKING_URI", "https://bob:hunter2@mlflow.example.org")
    monkeypatch.setenv("RECO_ALERT_URLS", "json://user:hunter2@127.0.0.1/hook")
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert "user_recommendations" in done.stdout
    assert "hunter2" not in done.stdout


def test_archives_go_by_when_they_were_written(published: Pipeline) -> None:
    storage = published.storage
    old = storage.model(LAST_DAY - timedelta(days=1)).parent
    old.mkdir(parents=True)
    long_ago = time.time() - 100 * 86_400
    os.utime(old, (long_ago, long_ago))
    result = published.materialize("expired_recommendations_cleanup")
    event = result.asset_materializations_for_node("expired_recommendations_cleanup")[0]
    assert event.metadata["removed_files"].value == [f"user_knn_model/{old.name}"]
    assert storage.model(LAST_DAY).exists()
