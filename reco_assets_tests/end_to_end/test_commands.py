"""`reco run`, `recommend`, `exec` and `demo` as processes of their own, on an app's database."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from reco_assets_tests.end_to_end.conftest import FIRST_DAY, LAST_DAY, Pipeline, failure

_RELATIONS = (
    "SELECT relname, relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE nspname = 'public' AND relkind IN ('r', 'v') ORDER BY 1"
)


def _reco(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "reco_assets", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ) | environment,
    )


def test_a_run_on_an_apps_database_leaves_nothing_of_dagsters_there(
    pipeline: Pipeline, open_tmp_path: Path
) -> None:
    home = open_tmp_path / "home"
    (home / "mlflow").mkdir(parents=True)
    (home / "mlflow" / "mlflow.db").write_bytes((pipeline.home / "mlflow" / "mlflow.db").read_bytes())
    pipeline.query("CREATE TABLE alembic_version AS SELECT 'the_apps_own' AS version_num")
    pipeline.query("CREATE TABLE runs (miles int)")
    before = pipeline.query(_RELATIONS)

    done = _reco("run", RECO_HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert f"raw_interactions for {FIRST_DAY} … {LAST_DAY - timedelta(days=1)}" in done.stdout
    assert pipeline.query(_RELATIONS) == before
    assert pipeline.query("SELECT version_num FROM alembic_version") == [("the_apps_own",)]
    live = pipeline.live_rows()
    assert len(live) > 500

    # The list is explained by the model that made it; shares add up.
    user = live[0][0]
    done = _reco("recommend", str(user)[:18], "-n", "3", "--voters", "100", "--json", RECO_HOME=str(home))
    assert done.returncode == 0, done.stderr
    explained = json.loads(done.stdout)
    assert explained["user_id"] == str(user)
    assert explained["model_version"] == "collaborative_filtering_v1"
    assert [post["rank"] for post in explained["posts"]] == [1, 2, 3]
    for post in explained["posts"]:
        total = sum(voter["share"] for voter in post["voters"]) + post["popularity_share"]
        assert abs(total - 1) < 1e-6
        for voter in post["voters"]:
            assert voter["interactions"] != "interaction since deleted"

    done = _reco("recommend", "no-uuid", RECO_HOME=str(home))
    assert done.returncode == 1
    assert "'no-uuid' is not a UUID" in done.stderr

    # Any command finds its way to the same parts.
    script = 'echo "$RECO_DATABASE_URL" && dagster instance info | head -3'
    done = _reco(
        "exec", "--", "sh", "-c", f"PATH={Path(sys.executable).parent}:$PATH; {script}", RECO_HOME=str(home)
    )
    assert pipeline.database_url in done.stdout
    assert str(home / "dagster") in done.stdout


def test_two_runs_of_one_day_at_once_end_with_one_live_generation(
    pipeline: Pipeline, open_tmp_path: Path
) -> None:
    home = open_tmp_path / "home"
    (home / "mlflow").mkdir(parents=True)
    (home / "mlflow" / "mlflow.db").write_bytes((pipeline.home / "mlflow" / "mlflow.db").read_bytes())
    environment = dict(os.environ) | {"RECO_HOME": str(home)}
    command = [sys.executable, "-m", "reco_assets", "run"]
    runs = [
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(2)
    ]
    said = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], "\n".join(said)
    statuses = pipeline.query("SELECT status, count(*) FROM recommendation_generations GROUP BY 1 ORDER BY 1")
    assert statuses == [("live", 1), ("superseded", 1)]
    assert len({row[3] for row in pipeline.live_rows()}) == 1


def test_files_of_another_database_are_not_mixed_in(pipeline: Pipeline) -> None:
    pipeline.extract_window()
    assert pipeline.materialize("raw_interactions", "interaction_matrix").success
    pipeline.query("UPDATE reco_created_objects SET created_at = created_at + interval '1 day'")
    message = failure(pipeline.materialize("interaction_matrix"))
    assert "extracted from another database" in message
    assert "RECO_STORAGE_DIR" in message


def test_wrong_arguments_say_what_would_be_right(pipeline: Pipeline, tmp_path: Path) -> None:
    misspelled, broken = tmp_path / "misspelled.yaml", tmp_path / "broken.yaml"
    misspelled.write_text("ops: {user_knn_model: {config: {n_neighbours: 5}}}")
    broken.write_text("ops: [")
    tomorrow = str(LAST_DAY + timedelta(days=5))
    for arguments, said in (
        (["run", "--partition", tomorrow], "not over yet"),
        (["run", "--partition", "1999-01-01"], "RECO_START_DATE"),
        (["run", "--from", str(LAST_DAY), "--to", str(FIRST_DAY)], "upside down"),
        (["run", "--assets", "user_recomendations"], "There are: raw_interactions"),
        (["run", "--to", str(LAST_DAY)], "--to needs --from"),
        (["run", "--config", str(broken)], "is not YAML"),
        (["run", "--assets", "user_knn_model", "--config", str(misspelled)], "n_neighbours"),
        (["recommend", "no-uuid"], "Nothing was published yet"),
        (["demo"], "Unset it for the demo"),
    ):
        done = _reco(*arguments)
        assert done.returncode != 0, arguments
        assert said in done.stderr, arguments
        assert "Traceback" not in done.stderr, arguments
    assert pipeline.query("SELECT count(*) FROM recommendation_generations") == [(0,)]
