"""What a publication puts before readers."""

import threading
from datetime import datetime, timedelta
from uuid import RFC_4122, UUID

import numpy as np
import pytest
import sqlalchemy as sa

from reco_assets.errors import BadInput, PublicationRefused
from reco_assets.settings import Settings
from reco_assets.store.binary_copy import rising_uuids
from reco_assets.store.copy_buffer import RecommendationRows
from reco_assets.store.database import create_engine_for, transaction
from reco_assets.store.generations import (
    Origin,
    list_generations,
    live_generation,
    record_archived,
    record_refused,
)
from reco_assets.store.publish import STAGES, publish
from reco_assets_tests.store.published import (
    DAY,
    NOW,
    as_array,
    debris,
    live_pairs,
    make_world,
    post,
    publish_pairs,
    rows_of,
    run_sql,
    statuses,
    user,
)


def test_readers_find_every_value_as_it_was_given(engine: sa.Engine) -> None:
    make_world(engine)
    publication = publish_pairs(engine, [(1, 1), (1, 2)], version="collaborative_filtering_v7")
    with transaction(engine) as connection:
        rows = connection.execute(
            sa.text(
                "SELECT user_id, post_id, score, generated_at, expires_at, model_version, generation_id "
                "FROM user_recommendations ORDER BY score DESC"
            )
        ).all()
    common = (NOW, NOW + timedelta(hours=72), "collaborative_filtering_v7", publication.generation_id)
    assert rows == [(user(1), post(1), 1.0, *common), (user(1), post(2), 0.5, *common)]


def test_stages_are_reported_in_order(engine: sa.Engine) -> None:
    make_world(engine)
    stages: list[str] = []
    publish_pairs(engine, [(1, 1)], on_stage=stages.append)
    assert tuple(stages) == STAGES


def test_the_swap_supersedes_the_old_generation_and_announces_the_new_one(engine: sa.Engine) -> None:
    make_world(engine)
    first = publish_pairs(engine, [(1, 1)])
    with engine.connect() as listener:
        driver = listener.connection.driver_connection
        assert driver
        driver.set_autocommit(True)
        driver.execute("LISTEN reco_generation")
        second = publish_pairs(engine, [(1, 2)])
        heard = [note.payload for note in driver.notifies(timeout=5, stop_after=1)]
        driver.execute("UNLISTEN *")
        driver.set_autocommit(False)
    assert heard == [str(second.generation_id)]
    assert second.replaced == first.generation_id
    with transaction(engine) as connection:
        live = live_generation(connection)
        newest, older = list_generations(connection)
    assert live == newest
    assert newest.id == second.generation_id
    assert (newest.n_users, newest.n_recommendations, newest.n_dropped) == (1, 1, 0)
    assert (older.status, older.superseded_at is not None) == ("superseded", True)


def test_readers_polling_during_publications_see_whole_generations_only(engine: sa.Engine) -> None:
    make_world(engine, n_users=20, n_posts=6)
    odd = [(u, p) for u in range(1, 21) for p in (1, 3, 5)]
    even = [(u, p) for u in range(1, 21) for p in (2, 4, 6)]
    publish_pairs(engine, odd)
    seen: set[tuple[int, int]] = set()
    wrong: list[object] = []
    stop = threading.Event()

    def poll() -> None:
        query = sa.text("SELECT count(*), count(DISTINCT generation_id) FROM user_recommendations")
        while not stop.is_set():
            try:
                with transaction(engine) as connection:
                    seen.add(tuple(connection.execute(query).one()))
            except Exception as error:
                wrong.append(error)

    readers = [threading.Thread(target=poll) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for turn in range(6):
            publish_pairs(engine, even if turn % 2 == 0 else odd)
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert wrong == []
    assert seen == {(60, 1)}


@pytest.mark.parametrize("users", ["ANALYZE users", "DELETE FROM posts WHERE false"], ids=["few", "many"])
def test_users_absent_from_the_new_generation_keep_their_list_until_it_expires(
    engine: sa.Engine, users: str
) -> None:
    """Whether they are looked for among the users, or among the old rows when users are many or uncounted."""
    make_world(engine, n_users=3)
    run_sql(engine, users)
    publish_pairs(engine, [(1, 1), (2, 1)])
    later = NOW + timedelta(hours=24)
    pairs = [(1, 2), (3, 2)]
    publication = publish_pairs(engine, pairs, day=DAY + timedelta(days=1), generated_at=later)
    assert live_pairs(engine) == {*pairs, (2, 1)}
    assert (publication.n_carried_over, publication.n_recommendations) == (1, 2)
    expired = NOW + timedelta(hours=72)
    pairs = [(1, 3), (3, 3)]
    publication = publish_pairs(engine, pairs, day=DAY + timedelta(days=3), generated_at=expired)
    assert live_pairs(engine) == set(pairs)
    assert publication.n_carried_over == 0


def test_a_user_whose_every_new_row_is_dropped_keeps_the_old_list(engine: sa.Engine) -> None:
    make_world(engine)
    publish_pairs(engine, [(1, 1), (2, 1)])
    run_sql(engine, f"DELETE FROM posts WHERE id = '{post(2)}'")
    publish_pairs(engine, [(1, 3), (2, 2)])
    assert live_pairs(engine) == {(1, 3), (2, 1)}


def test_an_older_partition_is_archived_and_leaves_the_table_alone(engine: sa.Engine) -> None:
    make_world(engine)
    publish_pairs(engine, [(1, 1)])
    older = publish_pairs(engine, [(1, 2), (2, 2)], day=DAY - timedelta(days=1))
    assert (older.status, older.n_users, older.n_recommendations) == ("archived", 2, 2)
    assert "2026-11-18 is older than the live one, 2026-11-19" in older.message
    assert live_pairs(engine) == {(1, 1)}
    assert statuses(engine) == ["live", "archived"]


@pytest.mark.parametrize("pairs", [[], [(7, 1)]], ids=["no rows", "every row dropped"])
def test_an_empty_generation_is_refused(engine: sa.Engine, pairs: list[tuple[int, int]]) -> None:
    make_world(engine)
    publish_pairs(engine, [(1, 1)])
    with pytest.raises(PublicationRefused, match=r"None of the [01] recommendations"):
        publish_pairs(engine, pairs)
    assert live_pairs(engine) == {(1, 1)}
    assert statuses(engine) == ["live", "refused"]
    assert debris(engine) == []


def test_a_refused_publication_can_be_followed_at_once(engine: sa.Engine) -> None:
    make_world(engine)
    with pytest.raises(PublicationRefused):
        publish_pairs(engine, [])
    assert publish_pairs(engine, [(1, 1)]).status == "live"


def test_a_pair_given_twice_is_bad_input(engine: sa.Engine) -> None:
    make_world(engine)
    with pytest.raises(BadInput, match=r"occurs twice"):
        publish_pairs(engine, [(1, 1), (1, 1)])
    assert statuses(engine) == ["failed"]
    assert debris(engine) == []


def test_scores_that_are_not_numbers_and_ids_of_another_shape_are_bad_input() -> None:
    ids = as_array([user(1)])
    with pytest.raises(BadInput, match=r"1 of 1 scores are not finite"):
        RecommendationRows(ids, ids, np.array([np.nan]))
    with pytest.raises(BadInput, match=r"post_ids is uint8 of shape \(1, 8\)"):
        RecommendationRows(ids, ids[:, :8], np.array([1.0]))


def test_times_without_a_zone_are_bad_input(engine: sa.Engine) -> None:
    naive = datetime(2026, 11, 20)  # noqa: DTZ001
    with pytest.raises(BadInput, match=r"need a time zone"):
        publish(
            engine,
            rows_of([(1, 1)]),
            partition_date=DAY,
            generated_at=naive,
            expires_at=naive,
            model_version="v",
        )


def test_refused_and_archived_generations_can_be_recorded(engine: sa.Engine) -> None:
    with transaction(engine) as connection:
        refused = record_refused(connection, Origin(DAY, "v1"), message="worse than popularity")
        record_archived(
            connection, Origin(DAY, "v1", "m", "d"), message="old", n_users=2, n_recommendations=9
        )
    with transaction(engine) as connection:
        found = {each.status: each for each in list_generations(connection)}
        assert live_generation(connection) is None
    assert (found["refused"].id, found["refused"].message) == (refused, "worse than popularity")
    assert (found["archived"].n_recommendations, found["archived"].dagster_run_id) == (9, "d")


def test_only_one_generation_can_be_live(engine: sa.Engine) -> None:
    insert = "INSERT INTO recommendation_generations (partition_date, status) VALUES ('2026-11-19', 'live')"
    run_sql(engine, insert)
    with pytest.raises(sa.exc.IntegrityError, match=r"recommendation_generations_one_live"):
        run_sql(engine, insert)


def test_rows_reach_a_table_larger_than_one_copy_chunk(settings: Settings) -> None:
    engine = create_engine_for(settings)
    run_sql(
        engine,
        "INSERT INTO users SELECT ('a0000000-0000-4000-8000-' || lpad(to_hex(i), 12, '0'))::uuid "
        "FROM generate_series(1, 300) i",
        "INSERT INTO posts (id, author_id, title) SELECT ('b0000000-0000-4000-8000-' || "
        "lpad(to_hex(i), 12, '0'))::uuid, (SELECT min(id::text)::uuid FROM users), '' "
        "FROM generate_series(1, 200) i",
    )
    pairs = [(u, p) for u in range(2, 301) for p in range(1, 201)]
    publish_pairs(engine, pairs)
    assert live_pairs(engine) == set(pairs)
    engine.dispose()


def test_row_ids_are_random_uuids_all_different(engine: sa.Engine) -> None:
    make_world(engine)
    publish_pairs(engine, [(u, p) for u in (1, 2, 3, 4) for p in (1, 2, 3, 4, 5, 6)])
    with transaction(engine) as connection:
        ids = set(connection.scalars(sa.text("SELECT id FROM user_recommendations")))
    assert len(ids) == 24
    assert {(each.version, each.variant) for each in ids} == {(4, RFC_4122)}


def test_generation_ids_are_uuids(engine: sa.Engine) -> None:
    make_world(engine)
    assert isinstance(publish_pairs(engine, [(1, 1)]).generation_id, UUID)


def test_one_connection_is_enough(settings: Settings) -> None:
    engine = create_engine_for(settings.model_copy(update={"pool_size": 1, "connect_timeout_s": 1.0}))
    make_world(engine)
    publish_pairs(engine, [(1, 1)])
    assert publish_pairs(engine, [(2, 2)]).n_carried_over == 1
    assert live_pairs(engine) == {(1, 1), (2, 2)}
    engine.dispose()


def test_nothing_of_a_publication_stays_in_the_session(engine: sa.Engine) -> None:
    make_world(engine)
    publish_pairs(engine, [(1, 1)])
    publish_pairs(engine, [(2, 1)])
    with engine.connect() as connection:
        temporary = "SELECT relname FROM pg_class WHERE relnamespace = pg_my_temp_schema()"
        assert list(connection.scalars(sa.text(temporary))) == []
        assert connection.scalar(sa.text("SHOW enable_indexscan")) == "on"
        assert connection.scalar(sa.text("SHOW maintenance_work_mem")) == "64MB"


def test_row_ids_rise_with_the_rows_so_that_their_index_needs_no_sorting() -> None:
    ids = np.concatenate([rising_uuids(0, 600, 1000), rising_uuids(600, 1000, 1000)])
    texts = [bytes(each).hex() for each in ids]
    assert texts == sorted(set(texts))
    assert {(UUID(each).version, UUID(each).variant) for each in texts} == {(4, RFC_4122)}
    assert len(rising_uuids(0, 1, 1)) == 1
