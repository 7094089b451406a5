"""One user's list, counts, and the plans of the queries that must stay fast."""

from datetime import timedelta

import sqlalchemy as sa

from reco_assets.store import retention
from reco_assets.store.database import transaction
from reco_assets.store.lookups import _LIST, recommendations_of, table_counts, user_exists
from reco_assets_tests.store.published import NOW, make_world, post, publish_pairs, run_sql, user


def test_a_list_is_ranked_by_score_then_post_with_titles(engine: sa.Engine) -> None:
    make_world(engine)
    publication = publish_pairs(engine, [(1, 3), (1, 2), (2, 1)])
    run_sql(engine, "UPDATE user_recommendations SET score = 1")
    with transaction(engine) as connection:
        found = recommendations_of(connection, user(1), now=NOW)
        assert [(each.rank, each.post_id, each.title) for each in found] == [
            (1, post(2), "post 2"),
            (2, post(3), "post 3"),
        ]
        assert {each.generation_id for each in found} == {publication.generation_id}
        assert len(recommendations_of(connection, user(1), now=NOW, n=1)) == 1
        assert recommendations_of(connection, user(77), now=NOW) == []
        assert recommendations_of(connection, user(1), now=NOW + timedelta(hours=72)) == []
        assert user_exists(connection, user(1))
        assert not user_exists(connection, user(77))


def test_counts_tell_expired_from_live(engine: sa.Engine) -> None:
    make_world(engine, n_users=3, n_posts=2)
    publish_pairs(engine, [(1, 1), (1, 2), (2, 1)])
    run_sql(engine, f"UPDATE user_recommendations SET expires_at = '{NOW}' WHERE user_id = '{user(2)}'")
    with transaction(engine) as connection:
        counts = table_counts(connection, now=NOW)
    assert (counts.n_users, counts.n_posts, counts.n_interactions, counts.last_interaction) == (4, 2, 0, None)
    assert (counts.n_recommendations, counts.n_users_with_recommendations, counts.n_expired) == (2, 1, 1)


def test_the_feed_query_reads_one_user_through_the_score_index(engine: sa.Engine) -> None:
    fill(engine)
    plan = explain(engine, _LIST, {"user_id": str(user(1)), "now": NOW, "n": 10})
    assert "user_recommendations_user_id_score_idx" in plan
    assert "Seq Scan on user_recommendations" not in plan


def test_the_expiry_query_reads_through_the_expiry_index(engine: sa.Engine) -> None:
    fill(engine)
    plan = explain(engine, retention._DELETE_BATCH, {"now": NOW, "n": 10})
    assert "user_recommendations_expires_at_idx" in plan
    assert "Seq Scan" not in plan


def test_deleting_a_post_finds_its_recommendations_and_interactions_by_index(engine: sa.Engine) -> None:
    fill(engine)
    for table in ("user_recommendations", "user_interactions"):
        query = sa.text(f"DELETE FROM {table} WHERE post_id = :post_id")
        plan = explain(engine, query, {"post_id": str(post(1))})
        assert f"{table}_post_id_idx" in plan


def fill(engine: sa.Engine) -> None:
    """Enough rows that the planner has a choice."""
    make_world(engine, n_users=200, n_posts=100)
    run_sql(
        engine,
        "INSERT INTO user_interactions (user_id, post_id, interaction_type) "
        "SELECT u.id, p.id, 'view' FROM users u, posts p",
        "INSERT INTO user_recommendations (user_id, post_id, score, generated_at, expires_at, model_version, "
        "generation_id) SELECT u.id, p.id, random(), now(), "
        "timestamptz '2026-11-25' + random() * interval '1 day', "
        "'v', gen_random_uuid() FROM users u, posts p",
        "ANALYZE",
    )


def explain(engine: sa.Engine, query: sa.TextClause, parameters: dict[str, object]) -> str:
    with transaction(engine) as connection:
        lines = connection.execute(sa.text(f"EXPLAIN {query.text}"), parameters).scalars()
        return "\n".join(lines)
