"""What goes wrong in practice: nothing is lost, nothing half-published, and the message says what to do."""

import os
import subprocess
import sys
import threading
import time
import uuid
from datetime import timedelta
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from reco_assets.pipeline import publication
from reco_assets_tests.end_to_end.conftest import ALL_ASSETS, FIRST_DAY, LAST_DAY, Pipeline, failure

NOON = f"{LAST_DAY} 12:00+00"


def _insert(pipeline: Pipeline, kind: str = "view", at: str = NOON, n: int = 1) -> None:
    pipeline.query(
        "INSERT INTO user_interactions (user_id, post_id, interaction_type, created_at) "
        "SELECT user_id, post_id, %s, %s FROM (SELECT user_id, post_id FROM user_interactions LIMIT 1), "
        f"generate_series(1, {n})",
        kind,
        at,
    )


def _rows_of(pipeline: Pipeline, asset: str, day: object = LAST_DAY) -> int:
    result = pipeline.materialize(asset, day=day)  # type: ignore[arg-type]
    assert result.success
    return int(result.asset_materializations_for_node(asset)[0].metadata["dagster/row_count"].value)


def test_rows_of_an_unknown_type_are_left_out_and_counted(pipeline: Pipeline) -> None:
    usual = _rows_of(pipeline, "raw_interactions")
    _insert(pipeline, kind="teleport", n=7)
    result = pipeline.materialize("raw_interactions")
    metadata = result.asset_materializations_for_node("raw_interactions")[0].metadata
    assert metadata["dagster/row_count"].value == usual
    assert metadata["rejected_rows"].value == 7


def test_a_type_without_a_weight_is_kept_and_changes_no_list(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECO_EXTRA_INTERACTION_TYPES", "hide")
    pipeline.extract_window()
    assert pipeline.materialize().success
    before = [row[:3] for row in pipeline.live_rows()]
    _insert(pipeline, kind="hide", n=7)
    result = pipeline.materialize()
    assert result.success
    metadata = result.asset_materializations_for_node("raw_interactions")[0].metadata
    assert metadata["rejected_rows"].value == 0
    assert [row[:3] for row in pipeline.live_rows()] == before


def test_times_in_the_future_and_before_the_start_reach_no_partition(pipeline: Pipeline) -> None:
    usual = _rows_of(pipeline, "raw_interactions")
    _insert(pipeline, at="2099-01-01 00:00+00")
    _insert(pipeline, at="1999-12-31 00:00+00")
    assert _rows_of(pipeline, "raw_interactions") == usual
    assert pipeline.materialize("raw_interactions", day=FIRST_DAY, until=LAST_DAY).success


def test_duplicate_rows_change_no_list(published: Pipeline) -> None:
    before = [row[:3] for row in published.live_rows()]
    # Exact copies under other ids of what stands in the window as often as max_repeats counts.
    config = {"interaction_matrix": {"max_repeats": 1}}
    assert published.materialize(config=config).success
    once = [row[:3] for row in published.live_rows()]
    published.query(
        "INSERT INTO user_interactions (user_id, post_id, interaction_type, created_at) "
        "SELECT user_id, post_id, interaction_type, created_at FROM user_interactions WHERE created_at >= %s",
        str(LAST_DAY),
    )
    assert published.materialize(config=config).success
    assert [row[:3] for row in published.live_rows()] == once
    assert len(before) > 0


def test_an_empty_day_warns_and_publishes_from_the_rest_of_the_window(pipeline: Pipeline) -> None:
    pipeline.query("DELETE FROM user_interactions WHERE created_at >= %s", str(LAST_DAY))
    pipeline.extract_window()
    result = pipeline.materialize()
    assert result.success
    warned = {e.check_name: e for e in result.get_asset_check_evaluations() if not e.passed}
    assert set(warned) == {"interactions_are_fresh", "interaction_volume_is_usual"}
    assert "reco doctor" in str(warned["interactions_are_fresh"].description)
    assert len(pipeline.live_rows()) > 0


def test_an_empty_window_is_refused_with_the_next_step(pipeline: Pipeline) -> None:
    pipeline.query("TRUNCATE user_interactions")
    pipeline.extract_window()
    message = failure(pipeline.materialize())
    assert "No interactions between" in message
    assert "reco doctor" in message
    assert pipeline.query("SELECT count(*) FROM recommendation_generations") == [(0,)]


def test_a_window_of_one_user_publishes_nothing_and_says_so(published: Pipeline) -> None:
    before = published.live_rows()
    published.query(
        "DELETE FROM user_interactions WHERE user_id <> (SELECT user_id FROM user_interactions "
        "GROUP BY 1 ORDER BY count(*) DESC LIMIT 1)"
    )
    published.extract_window()
    message = failure(published.materialize())
    assert "nothing was published" in message
    assert "model_is_not_worse_than_popularity: NDCG@10" in message
    assert published.live_rows() == before


def test_a_user_who_saw_every_post_gets_no_list_and_breaks_nothing(pipeline: Pipeline) -> None:
    user = pipeline.value("SELECT user_id FROM user_interactions GROUP BY 1 ORDER BY count(*) DESC LIMIT 1")
    pipeline.query(
        "INSERT INTO user_interactions (user_id, post_id, interaction_type, created_at) "
        "SELECT %s, id, 'view', %s FROM posts",
        user,
        NOON,
    )
    pipeline.extract_window()
    assert pipeline.materialize().success
    assert pipeline.value("SELECT count(*) FROM user_recommendations WHERE user_id = %s", user) == 0
    assert len(pipeline.live_rows()) > 0


def test_users_and_posts_deleted_between_the_steps_are_dropped(pipeline: Pipeline) -> None:
    pipeline.extract_window()
    assert pipeline.materialize(*ALL_ASSETS[:3]).success
    user = pipeline.value("SELECT user_id FROM user_interactions GROUP BY 1 ORDER BY count(*) DESC LIMIT 1")
    post = pipeline.value("SELECT id FROM posts ORDER BY created_at DESC LIMIT 1")
    pipeline.query("DELETE FROM users WHERE id = %s", user)
    pipeline.query("DELETE FROM posts WHERE id = %s", post)
    result = pipeline.materialize(*ALL_ASSETS[3:])
    assert result.success
    live = pipeline.live_rows()
    assert user not in {row[0] for row in live}
    assert post not in {row[1] for row in live}
    assert len(live) > 0


@pytest.mark.parametrize("damage", ["missing", "truncated", "garbage"])
def test_a_damaged_daily_file_names_itself_and_the_command_that_makes_it_again(
    pipeline: Pipeline, damage: str
) -> None:
    pipeline.extract_window()
    assert pipeline.materialize("raw_interactions").success
    day = LAST_DAY - timedelta(days=3)
    path = pipeline.storage.raw_day(day)
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-100] if damage == "truncated" else b"not parquet")
    message = failure(pipeline.materialize("interaction_matrix"))
    assert str(day) in message
    assert "reco run" in message
    assert "raw_interactions" in message
    # The command does repair it.
    assert pipeline.materialize("raw_interactions", day=day).success
    assert pipeline.materialize("interaction_matrix").success


@pytest.mark.parametrize("asset", ["interaction_matrix", "user_knn_model"])
def test_a_damaged_artifact_names_itself_and_the_command_that_makes_it_again(
    published: Pipeline, asset: str
) -> None:
    before = published.live_rows()
    directory = (
        published.storage.log(LAST_DAY)
        if asset == "interaction_matrix"
        else published.storage.model(LAST_DAY)
    )
    victim = max(directory.glob("*.npy"), key=lambda path: path.stat().st_size)
    content = bytearray(victim.read_bytes())
    content[-1] ^= 0xFF
    victim.write_bytes(bytes(content))
    following = ALL_ASSETS[ALL_ASSETS.index(asset) + 1]
    message = failure(published.materialize(following))
    assert str(victim) in message
    assert f"reco run --partition {LAST_DAY}" in message
    assert published.live_rows() == before


@pytest.mark.parametrize("asset", ALL_ASSETS)
def test_an_unreachable_database_fails_the_step_after_retries_and_loses_nothing(
    published: Pipeline, asset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = published.live_rows()
    monkeypatch.setenv("RECO_DATABASE_URL", "postgresql://reco:s3cret@127.0.0.1:1/app")
    monkeypatch.setenv("RECO_CONNECTION_RETRIES", "0")
    monkeypatch.setenv("RECO_CONNECT_TIMEOUT_S", "1")
    monkeypatch.setattr("reco_assets.assets.partitions.RETRY_DELAY_S", 0.01)
    result = published.materialize(asset)
    message = failure(result)
    assert "127.0.0.1:1" in message
    assert "s3cret" not in message
    assert sum(e.event_type_value == "STEP_UP_FOR_RETRY" for e in result.all_events) == 2
    assert published.live_rows() == before


def test_two_runs_of_one_partition_at_once_both_end_well(pipeline: Pipeline) -> None:
    pipeline.extract_window()
    results = []

    def run() -> None:
        with dg.DagsterInstance.ephemeral() as instance:  # its SQLite serves one thread
            results.append(pipeline.materialize("raw_interactions", "interaction_matrix", instance=instance))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.success for result in results] == [True, True]
    assert pipeline.materialize(*ALL_ASSETS[2:]).success


def test_a_full_disk_fails_the_step_and_keeps_the_previous_files(
    published: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = published.home / "storage"
    before = {path: path.read_bytes() for path in storage.rglob("*") if path.is_file()}
    script = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2048, resource.RLIM_INFINITY))\n"
        "from datetime import date, timedelta\n"
        "from pathlib import Path\n"
        "from reco_assets.errors import StorageFull\n"
        "from reco_assets.settings import Settings\n"
        "from reco_assets.store.extract import extract_interactions\n"
        "day = date.fromisoformat(sys.argv[1])\n"
        "settings = Settings.load()\n"
        "try:\n"
        "    extract_interactions(settings, day, day + timedelta(days=1), Path(sys.argv[2]),"
        " sorted(settings.interaction_weights))\n"
        "except StorageFull as error:\n"
        "    print(error)\n"
        "    sys.exit(3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(LAST_DAY), str(published.storage.raw_interactions)],
        capture_output=True,
        text=True,
        env=dict(os.environ),
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert "untouched" in done.stdout
    after = {path: path.read_bytes() for path in storage.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize("stage", ["copied", "indexed", "validated", "swapping", "swapped"])
def test_a_run_killed_during_publication_leaves_one_whole_generation(published: Pipeline, stage: str) -> None:
    before = published.live_rows()
    script = (
        "import os, signal, sys\n"
        "from datetime import date\n"
        "import dagster as dg\n"
        "from reco_assets.pipeline import publication\n"
        "from reco_assets.store import publish as store_publish\n"
        "def kill_at(stage):\n"
        "    if stage == sys.argv[1]:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "original = store_publish.publish\n"
        "publication.publish = lambda *a, **k: original(*a, on_stage=kill_at, **k)\n"
        "from reco_assets_tests.end_to_end.killed import publish_again\n"
        "publish_again(date.fromisoformat(sys.argv[2]))\n"
    )
    assert publication.publish is not None
    killed = subprocess.run(
        [sys.executable, "-c", script, stage, str(LAST_DAY)],
        capture_output=True,
        text=True,
        env=dict(os.environ),
        check=False,
    )
    assert killed.returncode == -9, killed.stderr
    live = published.live_rows()
    assert len({row[3] for row in live}) == 1
    assert [row[:3] for row in live] == [row[:3] for row in before]
    # The next run finds the lock free and the debris cleared.
    _wait_until_lock_is_free(published)
    assert published.materialize("user_recommendations").success
    tables = published.query(
        "SELECT relname FROM pg_class WHERE relname LIKE 'user_recommendations%%' AND relkind = 'r'"
    )
    assert tables == [("user_recommendations",)]
    assert published.value("SELECT count(*) FROM recommendation_generations WHERE status = 'building'") == 0


def _wait_until_lock_is_free(pipeline: Pipeline) -> None:
    """The server notices a killed client within moments."""
    deadline = time.monotonic() + 20
    while pipeline.value(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = "
        "(SELECT oid FROM pg_database WHERE datname = current_database())"
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_lost_connection_during_publication_is_survived(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.extract_window()
    assert pipeline.materialize(*ALL_ASSETS[:3]).success
    original = publication.publish
    cut = []

    def publish_with_a_cut(*args: object, **kwargs: object) -> object:
        def cut_once(stage: str) -> None:
            if stage == "indexed" and not cut:
                cut.append(stage)
                with psycopg.connect(pipeline.database_url) as connection:
                    connection.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = "
                        "current_database() AND pid <> pg_backend_pid()"
                    )

        return original(*args, on_stage=cut_once, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(publication, "publish", publish_with_a_cut)
    assert pipeline.materialize("user_recommendations").success
    assert cut == ["indexed"]
    assert pipeline.value("SELECT count(DISTINCT generation_id) FROM user_recommendations") == 1


def test_hidden_authors_and_ineligible_posts_stay_out_of_every_list(pipeline: Pipeline) -> None:
    user = pipeline.value("SELECT user_id FROM user_interactions GROUP BY 1 ORDER BY count(*) DESC LIMIT 1")
    author = pipeline.value("SELECT author_id FROM posts GROUP BY 1 ORDER BY count(*) DESC LIMIT 1")
    banned = pipeline.value("SELECT post_id FROM user_interactions GROUP BY 1 ORDER BY count(*) DESC LIMIT 1")
    pipeline.query(
        "CREATE OR REPLACE VIEW recommendable_posts AS "
        "SELECT id AS post_id, author_id, created_at FROM posts "
        f"WHERE id <> '{uuid.UUID(str(banned))}'"
    )
    pipeline.query(
        f"CREATE OR REPLACE VIEW hidden_authors AS SELECT '{uuid.UUID(str(user))}'::uuid AS user_id, "
        f"'{uuid.UUID(str(author))}'::uuid AS author_id"
    )
    pipeline.extract_window()
    assert pipeline.materialize().success
    assert pipeline.value("SELECT count(*) FROM user_recommendations WHERE post_id = %s", banned) == 0
    assert (
        pipeline.value(
            "SELECT count(*) FROM user_recommendations r JOIN posts p ON p.id = r.post_id "
            "WHERE r.user_id = %s AND p.author_id = %s",
            user,
            author,
        )
        == 0
    )
    assert pipeline.value("SELECT count(*) FROM user_recommendations WHERE user_id = %s", user) > 0


def test_without_a_place_for_files_the_step_says_so(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocked = tmp_path / "a-file"
    blocked.write_text("")
    monkeypatch.setenv("RECO_STORAGE_DIR", str(blocked / "storage"))
    message = failure(pipeline.materialize("raw_interactions"))
    assert "Set RECO_STORAGE_DIR to a directory" in message
