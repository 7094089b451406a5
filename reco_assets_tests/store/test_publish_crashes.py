"""Publishers that die, lose their connection, meet each other or wait for a lock."""

import re
import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest
import sqlalchemy as sa

from reco_assets.errors import DatabaseBusy, DatabaseUnreachable, PublicationInProgress
from reco_assets.settings import Settings
from reco_assets.store import migrate, patience, publication_lock, table_clone
from reco_assets.store.database import create_engine_for, transaction
from reco_assets.store.publish import STAGES
from reco_assets_tests.store.conftest import settings_for
from reco_assets_tests.store.published import (
    DAY,
    debris,
    live_pairs,
    make_world,
    post,
    publish_pairs,
    run_sql,
    statuses,
    user,
)

BEFORE_THE_COMMIT = STAGES[: STAGES.index("swapped")]


@pytest.mark.parametrize("stage", STAGES)
def test_a_publisher_killed_at_any_stage_leaves_one_whole_generation_and_the_next_run_no_debris(
    settings: Settings, engine: sa.Engine, stage: str
) -> None:
    make_world(engine)
    publish_pairs(engine, [(1, 1)])
    assert settings.database_url
    with subprocess.Popen(
        [sys.executable, "-m", "reco_assets_tests.store.publisher_process", settings.database_url, stage],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "stopped\n"
        process.kill()
    assert live_pairs(engine) == ({(1, 1)} if stage in BEFORE_THE_COMMIT else {(1, 2)})
    publish_pairs(engine, [(1, 3)])  # waits until the server has noticed
    assert live_pairs(engine) == {(1, 3)}
    assert debris(engine) == []
    assert statuses(engine).count("live") == 1
    assert "building" not in statuses(engine)


@pytest.mark.parametrize("stage", STAGES)
def test_a_connection_lost_at_any_stage_is_retried_to_the_same_result(engine: sa.Engine, stage: str) -> None:
    make_world(engine)
    publish_pairs(engine, [(1, 1)])
    cut: list[str] = []

    def cut_once(now: str) -> None:
        if now == stage and not cut:
            cut.append(now)
            terminate_publisher(engine)

    publication = publish_pairs(engine, [(1, 2)], on_stage=cut_once)
    assert (publication.status, publication.n_recommendations) == ("live", 1)
    assert live_pairs(engine) == {(1, 2)}
    assert statuses(engine).count("live") == 1
    assert "building" not in statuses(engine)
    publish_pairs(engine, [(1, 3)])
    assert debris(engine) == []


def test_a_connection_that_keeps_being_lost_is_reported_and_the_old_generation_stays(
    settings: Settings, engine: sa.Engine
) -> None:
    make_world(engine)
    publish_pairs(engine, [(1, 1)])
    impatient = create_engine_for(settings.model_copy(update={"connection_retries": 1}))
    with pytest.raises(DatabaseUnreachable, match=r"127.0.0.1"):
        publish_pairs(
            impatient,
            [(1, 2)],
            on_stage=lambda stage: terminate_publisher(engine) if stage == "copied" else None,
        )
    impatient.dispose()
    assert live_pairs(engine) == {(1, 1)}


def test_of_two_publishers_one_wins_and_the_other_says_who_is_at_it(engine: sa.Engine) -> None:
    make_world(engine)
    second: list[BaseException] = []

    def try_a_second(stage: str) -> None:
        if stage == "indexed":
            with pytest.raises(PublicationInProgress, match=r"backend [0-9]+ .reco. since") as raised:
                publish_pairs(engine, [(1, 2)], wait_s=0)
            second.append(raised.value)

    publish_pairs(engine, [(1, 1)], on_stage=try_a_second)
    assert len(second) == 1
    assert live_pairs(engine) == {(1, 1)}
    assert statuses(engine) == ["live"]


def test_a_publisher_that_waits_long_enough_follows_the_one_before(engine: sa.Engine) -> None:
    make_world(engine)
    second: list[threading.Thread] = []

    def start_a_second(stage: str) -> None:
        if stage == "indexed":
            second.append(threading.Thread(target=publish_pairs, args=(engine, [(1, 2)])))
            second[0].start()
            time.sleep(0.5)
            assert statuses(engine) == ["building"]

    first = publish_pairs(engine, [(1, 1)], on_stage=start_a_second)
    second[0].join()
    assert first.status == "live"
    assert live_pairs(engine) == {(1, 2)}
    assert statuses(engine) == ["superseded", "live"]


def test_a_publisher_that_has_waited_in_vain_says_how_long_for_whom_and_what_to_do(
    engine: sa.Engine,
) -> None:
    make_world(engine)
    message: list[str] = []

    def try_a_second(stage: str) -> None:
        if stage == "indexed":
            began = time.monotonic()
            with pytest.raises(PublicationInProgress) as raised:
                publish_pairs(engine, [(1, 2)], wait_s=0.6)
            assert 0.6 <= time.monotonic() - began < 5
            message.append(str(raised.value))

    publish_pairs(engine, [(1, 1)], on_stage=try_a_second)
    pattern = r"backend (\d+) \(reco\).* Waited 0\.\d s for it\. .*pg_terminate_backend\(\1\); then run"
    assert re.search(pattern, message[0])


def test_a_publisher_that_waits_says_at_once_for_whom_and_again_every_ten_seconds(
    engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publication_lock, "_SAY_EVERY_S", 0.5)
    make_world(engine)
    said: list[str] = []
    second = threading.Thread(
        target=publish_pairs, args=(engine, [(1, 2)]), kwargs={"wait_s": 60, "say": said.append}
    )

    def start_a_second(stage: str) -> None:
        if stage == "indexed":
            second.start()
            deadline = time.monotonic() + 30
            while len(said) < 2:
                assert time.monotonic() < deadline
                time.sleep(0.02)

    publish_pairs(engine, [(1, 1)], dagster_run_id="run-7", on_stage=start_a_second)
    second.join()
    pattern = (
        r"Waiting for another publication, 0 of 60 s: backend \d+ \(reco\) since \S+ \S+ UTC, "
        rf"publishing {DAY} for Dagster run run-7 since \d\d:\d\d:\d\d UTC\."
    )
    assert re.fullmatch(pattern, said[0])
    assert all(each.startswith("Waiting for another publication") for each in said)
    assert live_pairs(engine) == {(1, 2)}


def test_an_app_in_another_schema_publishes_at_the_same_time(settings: Settings, engine: sa.Engine) -> None:
    assert settings.database_url
    other_settings = settings_for(settings.database_url, database_schema="other_app")
    migrate.upgrade(other_settings)
    other = create_engine_for(other_settings)
    make_world(engine)
    make_world(other)

    def publish_other(stage: str) -> None:
        if stage == "indexed":
            publish_pairs(other, [(2, 2)])

    publish_pairs(engine, [(1, 1)], on_stage=publish_other)
    assert (live_pairs(engine), live_pairs(other)) == ({(1, 1)}, {(2, 2)})
    other.dispose()


def test_a_reader_that_keeps_its_lock_makes_the_swap_give_up_and_changes_nothing(
    settings: Settings, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "_LOCK_ATTEMPTS", 2)
    make_world(engine)
    publish_pairs(engine, [(1, 1)])
    quick = create_engine_for(settings.model_copy(update={"lock_timeout_s": 0.05}))
    with transaction(engine) as reader:
        reader.execute(sa.text("SELECT count(*) FROM user_recommendations"))
        with pytest.raises(DatabaseBusy, match=r"Tried 2 times"):
            publish_pairs(quick, [(1, 2)], day=DAY + timedelta(days=1))
    assert live_pairs(engine) == {(1, 1)}
    assert statuses(engine) == ["live", "failed"]
    assert debris(engine) == []
    quick.dispose()


def test_a_reader_that_lets_go_only_delays_the_swap(
    settings: Settings, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_world(engine)
    publish_pairs(engine, [(1, 1)])
    quick = create_engine_for(settings.model_copy(update={"lock_timeout_s": 0.05}))
    with engine.connect() as reader:
        reader.execute(sa.text("SELECT count(*) FROM user_recommendations"))
        tries: list[float] = []

        def let_go(seconds: float) -> None:
            tries.append(seconds)
            reader.rollback()

        monkeypatch.setattr("time.sleep", let_go)
        publish_pairs(quick, [(1, 2)])
    assert tries
    assert live_pairs(engine) == {(1, 2)}
    quick.dispose()


def test_a_user_deleted_at_any_moment_of_the_build_is_not_recommended_to(engine: sa.Engine) -> None:
    for stage in STAGES[:-1]:
        if stage == "swapping":  # holds the tables: the app's DELETE waits until the swap is over
            continue
        run_sql(engine, "DELETE FROM users")
        make_world(engine)
        publish_pairs(
            engine,
            [(1, 1), (2, 1), (3, 2)],
            on_stage=lambda now, stage=stage: delete_two_people(engine) if now == stage else None,  # type: ignore[misc]
        )
        assert live_pairs(engine) == {(1, 1)}, stage


def delete_two_people(engine: sa.Engine) -> None:
    run_sql(engine, f"DELETE FROM users WHERE id = '{user(2)}'", f"DELETE FROM posts WHERE id = '{post(2)}'")


def terminate_publisher(engine: sa.Engine) -> None:
    """End the session that holds the publication lock, as an administrator or a fail-over would."""
    with transaction(engine) as connection:
        connection.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory' "
                "AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
        )


def test_a_helper_does_not_touch_the_table_of_another_publication(engine: sa.Engine) -> None:
    """It holds no advisory lock: when that was lost, another publisher may have made a table of the name."""
    run_sql(engine, "CREATE TABLE user_recommendations_next (LIKE user_recommendations)")
    with engine.connect() as connection:
        with connection.begin():
            (index, *_) = table_clone._indexes(connection)
        with pytest.raises(DatabaseBusy, match=r"replaced by another publication"):
            table_clone._build_index(connection, 1, index, 0)
    assert debris(engine) == ["user_recommendations_next"]


def test_the_scan_of_the_interactions_waits_for_the_app_to_alter_its_table(
    settings: Settings, engine: sa.Engine
) -> None:
    make_world(engine)
    run_sql(
        engine,
        "INSERT INTO user_interactions (user_id, post_id, interaction_type) "
        f"VALUES ('{user(1)}', '{post(1)}', 'view')",
    )
    quick = create_engine_for(settings.model_copy(update={"lock_timeout_s": 0.05}))
    with engine.connect() as app:
        app.execute(sa.text("LOCK TABLE user_interactions IN ACCESS EXCLUSIVE MODE"))

        def let_go(stage: str) -> None:
            if stage == "referenced":
                time.sleep(0.5)  # longer than the scan may wait for the lock
                app.rollback()

        publish_pairs(quick, [(1, 1), (1, 2)], on_stage=let_go)
    assert live_pairs(engine) == {(1, 2)}
    quick.dispose()


def test_a_scan_that_is_cut_off_begins_the_publication_anew(settings: Settings, engine: sa.Engine) -> None:
    make_world(engine)
    publish_pairs(engine, [(2, 1)])
    patient = create_engine_for(settings.model_copy(update={"lock_timeout_s": 30.0}))
    stages: list[str] = []
    with engine.connect() as app:
        app.execute(sa.text("LOCK TABLE user_interactions IN ACCESS EXCLUSIVE MODE"))

        def cut_the_waiting_scan(stage: str) -> None:
            stages.append(stage)
            if stage == "indexed" and app.in_transaction():
                while not run_sql_for_count(engine, _CUT_WAITING):
                    time.sleep(0.01)
                app.rollback()

        publication = publish_pairs(patient, [(1, 2)], on_stage=cut_the_waiting_scan)
    assert (publication.n_recommendations, publication.n_carried_over) == (1, 1)
    assert live_pairs(engine) == {(1, 2), (2, 1)}
    assert stages.count("indexed") == 2
    patient.dispose()


_CUT_WAITING = (
    "SELECT count(*) FROM (SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
    "WHERE wait_event_type = 'Lock' AND query LIKE '%FROM user_interactions%') ended"
)


def run_sql_for_count(engine: sa.Engine, query: str) -> int:
    with transaction(engine) as connection:
        return int(connection.scalar(sa.text(query)) or 0)
