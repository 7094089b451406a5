"""Authors, ages and eligibility of many posts at once."""

from datetime import UTC, datetime

import numpy as np
import sqlalchemy as sa

from reco_assets.store.catalogue import catalogue, hidden_pairs
from reco_assets.store.database import transaction
from reco_assets_tests.store.published import AUTHOR, as_array, make_world, post, run_sql, user


def test_posts_come_back_in_the_order_asked_with_deleted_and_excluded_ones_ineligible(
    engine: sa.Engine,
) -> None:
    make_world(engine, n_posts=3)
    run_sql(
        engine,
        f"UPDATE posts SET created_at = '2026-11-01 06:00:00.000001+00' WHERE id = '{post(3)}'",
        "CREATE OR REPLACE VIEW recommendable_posts AS "
        f"SELECT id AS post_id, author_id, created_at FROM posts WHERE id <> '{post(1)}'",
    )
    asked = as_array([post(3), post(99), post(1), post(2)])
    with transaction(engine) as connection:
        found = catalogue(connection, asked)
        again = catalogue(connection, asked[:1])
    assert found.eligible.tolist() == [True, False, False, True]
    assert found.author_ids[0].tobytes() == AUTHOR.bytes
    assert not found.author_ids[1:3].any()
    moment = datetime(2026, 11, 1, 6, 0, 0, 1, tzinfo=UTC).replace(tzinfo=None)
    assert found.created_at[0] == np.datetime64(moment)
    assert np.isnat(found.created_at).tolist() == [False, True, True, False]
    assert again.eligible.tolist() == [True]


def test_no_posts_give_an_empty_catalogue(engine: sa.Engine) -> None:
    with transaction(engine) as connection:
        found = catalogue(connection, as_array([]))
    assert (found.eligible.shape, found.author_ids.shape) == ((0,), (0, 16))


def test_hidden_authors_come_as_positions_of_the_users_asked(engine: sa.Engine) -> None:
    make_world(engine)
    with transaction(engine) as connection:
        assert len(hidden_pairs(connection, as_array([user(1)])).user_positions) == 0
    run_sql(
        engine,
        "CREATE OR REPLACE VIEW hidden_authors AS "
        f"SELECT '{user(2)}'::uuid AS user_id, '{AUTHOR}'::uuid AS author_id "
        f"UNION ALL SELECT '{user(3)}', NULL",
    )
    with transaction(engine) as connection:
        pairs = hidden_pairs(connection, as_array([user(1), user(3), user(2)]))
    assert pairs.user_positions.tolist() == [2]
    assert pairs.author_ids.tobytes() == AUTHOR.bytes
