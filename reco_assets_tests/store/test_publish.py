"""What a publication puts before readers."""

import threading
from datetime import datetime, timedelta
from uuid import RFC_4122, UUID

import numpy as np
import pytest
import sqlalchemy as sa

from reco_assets.errors import BadInput, PublicationRefused, SchemaError
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
    AUTHOR,
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


def test_what_became_ineligible_is_dropped_and_counted_by_reason(engine: sa.Engine) -> None:
    make_world(engine, n_users=4, n_posts=6)
    run_sql(
        engine,
        f"INSERT INTO user_interactions (user_id, post_id, interaction_type, created_at) "
        f"VALUES ('{user(1)}', '{post(1)}', 'view', '2001-01-01')",
        f"UPDATE posts SET author_id = '{user(1)}' WHERE id = '{post(2)}'",
        "CREATE OR REPLACE VIEW recommendable_posts AS "
        f"SELECT id AS post_id, author_id, created_at FROM posts WHERE id <> '{post(3)}'",
        "CREATE OR REPLACE VIEW hidden_authors AS "
        f"SELECT '{user(2)}'::uuid AS user_id, '{AUTHOR}'::uuid AS author_id",
        f"DELETE FROM posts WHERE id = '{post(4)}'",
        f"DELETE FROM users WHERE id = '{user(3)}'",
    )
    publication = publish_pairs(
        engine, [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (2, 5), (2, 2), (3, 5), (4, 1)]
    )
    assert live_pairs(engine) == {(1, 5), (2, 2), (4, 1)}
    reasons = dict.fromkeys(
        ("hidden_author", "not_recommendable", "own_post", "post_deleted", "seen", "user_deleted"), 1
    )
    assert publication.dropped_reasons == reasons
    assert (publication.n_dropped, publication.n_recommendations, publication.n_users) == (6, 3, 3)
    with transaction(engine) as connection:
        live = live_generation(connection)
    assert live
    assert live.dropped_reasons == reasons


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


def test_rows_carried_over_are_held_to_the_views_as_of_now(engine: sa.Engine) -> None:
    """User 1 has new rows, users 2 to 5 live on their old ones, of which one each has become ineligible."""
    make_world(engine, n_users=5, n_posts=6)
    publish_pairs(engine, [(u, p) for u in (2, 3, 4, 5) for p in (1, 2, 3, 4)])
    make_ineligible(engine)
    later = NOW + timedelta(hours=24)
    publication = publish_pairs(engine, [(1, 5)], day=DAY + timedelta(days=1), generated_at=later)
    assert live_pairs(engine) == {(1, 5), (2, 2), (2, 4), (3, 1), (3, 4), (5, 1), (5, 2), (5, 4)}
    assert publication.dropped_reasons == {
        "carried_over_hidden_author": 3,  # all that user 4 could still have had
        "carried_over_not_recommendable": 4,
        "carried_over_own_post": 1,
        "carried_over_seen": 1,
    }
    assert (publication.n_carried_over, publication.n_dropped) == (7, 9)


def test_an_old_list_that_replaces_an_ineligible_new_one_is_held_to_the_views_too(
    engine: sa.Engine,
) -> None:
    make_world(engine, n_users=5, n_posts=6)
    publish_pairs(engine, [(u, p) for u in (2, 3, 4) for p in (1, 2, 3, 4)])
    make_ineligible(engine)
    publication = publish_pairs(engine, [(1, 5), (2, 1), (3, 3), (4, 6)])
    assert live_pairs(engine) == {(1, 5), (2, 2), (2, 4), (3, 1), (3, 4)}
    assert publication.dropped_reasons == {
        "carried_over_hidden_author": 3,
        "carried_over_not_recommendable": 3,
        "carried_over_own_post": 1,
        "carried_over_seen": 1,
        "hidden_author": 1,
        "not_recommendable": 1,
        "seen": 1,
    }


def make_ineligible(engine: sa.Engine) -> None:
    """User 2 has seen post 1, user 3 is the author of post 2, post 3 is moderated, user 4 hides AUTHOR."""
    run_sql(
        engine,
        f"INSERT INTO user_interactions (user_id, post_id, interaction_type) "
        f"VALUES ('{user(2)}', '{post(1)}', 'view')",
        f"UPDATE posts SET author_id = '{user(3)}' WHERE id = '{post(2)}'",
        "CREATE OR REPLACE VIEW recommendable_posts AS "
        f"SELECT id AS post_id, author_id, created_at FROM posts WHERE id <> '{post(3)}'",
        "CREATE OR REPLACE VIEW hidden_authors AS SELECT u AS user_id, a AS author_id FROM (VALUES "
        f"('{user(4)}'::uuid, '{AUTHOR}'::uuid), ('{user(4)}'::uuid, '{user(3)}'::uuid)) pairs (u, a)",
    )


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


def test_grants_indexes_comments_options_and_columns_of_the_deployer_survive(engine: sa.Engine) -> None:
    make_world(engine)
    run_sql(
        engine,
        "DO $$ BEGIN CREATE ROLE reco_reader; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
        "GRANT SELECT ON user_recommendations TO reco_reader",
        "GRANT UPDATE (score) ON user_recommendations TO reco_reader WITH GRANT OPTION",
        "COMMENT ON TABLE user_recommendations IS 'it''s ours: 100%'",
        "COMMENT ON COLUMN user_recommendations.score IS 'higher is better'",
        'CREATE INDEX "their Index" ON user_recommendations (score) WHERE score > 0.5',
        "ALTER TABLE user_recommendations SET (fillfactor = 90), REPLICA IDENTITY FULL",
        "ALTER TABLE user_recommendations ADD COLUMN note text DEFAULT 'x', ADD CHECK (score > -100)",
    )
    before = definition(engine)
    assert "their Index" in str(before)
    assert "reco_reader=w*/" in str(before)
    for pair in ((1, 1), (1, 2)):
        assert publish_pairs(engine, [pair]).method == "swap"
        assert definition(engine) == before


def test_a_dependent_view_and_trigger_keep_working_because_rows_are_replaced_in_place(
    engine: sa.Engine,
) -> None:
    make_world(engine)
    publish_pairs(engine, [(1, 1), (2, 1)])
    run_sql(engine, "CREATE VIEW best AS SELECT user_id, post_id FROM user_recommendations")
    publication = publish_pairs(engine, [(1, 2)])
    assert publication.method == "in place"
    assert live_pairs(engine) == {(1, 2), (2, 1)}
    with transaction(engine) as connection:
        assert set(connection.execute(sa.text("SELECT * FROM best"))) == {
            (user(1), post(2)),
            (user(2), post(1)),
        }
    assert debris(engine) == []


def test_foreign_keys_of_others_are_refused_by_name(engine: sa.Engine) -> None:
    make_world(engine)
    run_sql(engine, "CREATE TABLE clicks (recommendation_id uuid REFERENCES user_recommendations (id))")
    with pytest.raises(SchemaError, match=r"clicks .constraint clicks_recommendation_id_fkey."):
        publish_pairs(engine, [(1, 1)])
    assert statuses(engine) == []


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


def definition(engine: sa.Engine) -> list[object]:
    """Everything the catalogue knows about the table, but its oid and rows."""
    queries = (
        "SELECT indexdef FROM pg_indexes WHERE tablename = 'user_recommendations' ORDER BY 1",
        "SELECT conname, contype, convalidated, pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE conrelid = 'user_recommendations'::regclass ORDER BY 1",
        "SELECT relacl::text, relowner, reloptions, relreplident, obj_description(oid, 'pg_class') "
        "FROM pg_class WHERE oid = 'user_recommendations'::regclass",
        "SELECT attname, atttypid, attnotnull, attacl::text, col_description(attrelid, attnum), "
        "(SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = attrelid AND adnum = attnum) "
        "FROM pg_attribute WHERE attrelid = 'user_recommendations'::regclass AND attnum > 0 ORDER BY attnum",
    )
    with transaction(engine) as connection:
        return [tuple(row) for query in queries for row in connection.execute(sa.text(query))]


def test_row_ids_are_random_uuids_all_different(engine: sa.Engine) -> None:
    make_world(engine)
    publish_pairs(engine, [(u, p) for u in (1, 2, 3, 4) for p in (1, 2, 3, 4, 5, 6)])
    with transaction(engine) as connection:
        ids = set(connection.scalars(sa.text("SELECT id FROM user_recommendations")))
    assert len(ids) == 24
    assert {(each.version, each.variant) for each in ids} == {(4, RFC_4122)}


def test_a_table_whose_row_ids_are_no_uuids_fills_them_by_its_default(engine: sa.Engine) -> None:
    make_world(engine)
    run_sql(
        engine,
        "ALTER TABLE user_recommendations ALTER id DROP DEFAULT, ALTER id TYPE text, "
        "ALTER id SET DEFAULT 'row-' || gen_random_uuid()",
    )
    publish_pairs(engine, [(1, 1), (2, 2)])
    assert live_pairs(engine) == {(1, 1), (2, 2)}
    with transaction(engine) as connection:
        assert connection.scalar(sa.text("SELECT min(left(id, 4)) FROM user_recommendations")) == "row-"


def test_generation_ids_are_uuids(engine: sa.Engine) -> None:
    make_world(engine)
    assert isinstance(publish_pairs(engine, [(1, 1)]).generation_id, UUID)


@pytest.mark.parametrize("stage", STAGES[: STAGES.index("referenced") + 1])
def test_what_becomes_ineligible_while_the_rows_are_built_is_dropped_too(
    engine: sa.Engine, stage: str
) -> None:
    make_world(engine, n_users=5, n_posts=6)

    def make_ineligible_at(now: str) -> None:
        if now == stage:
            make_ineligible(engine)

    pairs = [(u, p) for u in (2, 3, 4, 5) for p in (1, 2, 3, 4)]
    publication = publish_pairs(engine, pairs, on_stage=make_ineligible_at)
    assert live_pairs(engine) == {(2, 2), (2, 4), (3, 1), (3, 4), (5, 1), (5, 2), (5, 4)}
    assert publication.dropped_reasons == {
        "hidden_author": 3,
        "not_recommendable": 4,
        "own_post": 1,
        "seen": 1,
    }
    assert (publication.n_users, publication.n_recommendations, publication.n_dropped) == (3, 7, 9)


def test_an_interaction_during_the_publication_counts_as_seen(engine: sa.Engine) -> None:
    make_world(engine)

    def read_post_1(stage: str) -> None:
        if stage == "indexed":  # after the scan of all interactions
            run_sql(
                engine,
                "INSERT INTO user_interactions (user_id, post_id, interaction_type) "
                f"VALUES ('{user(1)}', '{post(1)}', 'view'), ('{user(2)}', '{post(2)}', 'view')",
            )

    publication = publish_pairs(engine, [(1, 1), (1, 2), (2, 1)], on_stage=read_post_1)
    assert live_pairs(engine) == {(1, 2), (2, 1)}
    assert publication.dropped_reasons == {"seen": 1}


def test_a_row_with_several_reasons_counts_once_under_the_first(engine: sa.Engine) -> None:
    make_world(engine)
    run_sql(
        engine,
        f"INSERT INTO user_interactions (user_id, post_id, interaction_type) "
        f"VALUES ('{user(1)}', '{post(1)}', 'view'), ('{user(2)}', '{post(1)}', 'view')",
        f"CREATE OR REPLACE VIEW hidden_authors AS SELECT id AS user_id, '{AUTHOR}'::uuid AS author_id "
        f"FROM users WHERE id = '{user(1)}'",
    )
    publication = publish_pairs(engine, [(1, 1), (2, 1), (2, 2)])
    assert publication.dropped_reasons == {"hidden_author": 1, "seen": 1}
    assert (publication.n_dropped, publication.n_recommendations) == (2, 1)


def test_any_author_of_a_post_that_the_view_names_counts(engine: sa.Engine) -> None:
    """Post 1 is by users 3 and 4 together: neither gets it, nor does user 1, who hides user 4."""
    make_world(engine)
    run_sql(
        engine,
        "CREATE OR REPLACE VIEW recommendable_posts AS SELECT id AS post_id, author_id, created_at "
        f"FROM posts WHERE id <> '{post(1)}' UNION ALL SELECT id, a, created_at FROM posts, "
        f"(VALUES ('{user(3)}'::uuid), ('{user(4)}'::uuid)) authors (a) WHERE id = '{post(1)}'",
        f"CREATE OR REPLACE VIEW hidden_authors AS SELECT '{user(1)}'::uuid AS user_id, "
        f"'{user(4)}'::uuid AS author_id",
    )
    publication = publish_pairs(engine, [(u, p) for u in (1, 2, 3, 4) for p in (1, 2)])
    assert live_pairs(engine) == {(1, 2), (2, 1), (2, 2), (3, 2), (4, 2)}
    assert publication.dropped_reasons == {"hidden_author": 1, "own_post": 2}


def test_one_connection_is_enough(settings: Settings) -> None:
    engine = create_engine_for(settings.model_copy(update={"pool_size": 1, "connect_timeout_s": 1.0}))
    make_world(engine)
    publish_pairs(engine, [(1, 1)])
    assert publish_pairs(engine, [(2, 2)]).n_carried_over == 1
    assert live_pairs(engine) == {(1, 1), (2, 2)}
    engine.dispose()


def test_defaults_and_autovacuum_options_of_the_deployer_survive(engine: sa.Engine) -> None:
    make_world(engine)
    run_sql(
        engine,
        "ALTER TABLE user_recommendations ALTER expires_at SET DEFAULT now() + '1 day'::interval, "
        "ALTER model_version SET DEFAULT 'by hand: 100%'",
    )
    before = definition(engine)
    publish_pairs(engine, [(1, 1)])
    assert definition(engine) == before
    run_sql(engine, "ALTER TABLE user_recommendations SET (fillfactor = 90, autovacuum_enabled = on)")
    before = definition(engine)
    publish_pairs(engine, [(1, 2)])
    assert definition(engine) == before


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
