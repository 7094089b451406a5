"""Rows that a publication leaves out: deleted, ineligible, hidden, own and seen posts."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from reco_assets.store.database import transaction
from reco_assets.store.generations import (
    live_generation,
)
from reco_assets.store.publish import STAGES
from reco_assets_tests.store.published import (
    AUTHOR,
    DAY,
    NOW,
    live_pairs,
    make_world,
    post,
    publish_pairs,
    run_sql,
    user,
)


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
