"""Expired rows go, in batches; all others stay."""

from datetime import timedelta

import sqlalchemy as sa

from reco_assets.store.database import transaction
from reco_assets.store.retention import delete_batch, delete_expired
from reco_assets_tests.store.published import NOW, live_pairs, make_world, publish_pairs, run_sql, user

ALL = [(u, p) for u in (1, 2) for p in (1, 2, 3)]


def test_nothing_is_deleted_before_it_expires(engine: sa.Engine) -> None:
    make_world(engine)
    publish_pairs(engine, ALL)
    assert delete_expired(engine, now=NOW + timedelta(hours=71), batch_size=2) == 0
    assert live_pairs(engine) == set(ALL)


def test_expired_rows_are_deleted_whatever_the_batch_size(engine: sa.Engine) -> None:
    make_world(engine)
    publish_pairs(engine, ALL)
    run_sql(engine, f"UPDATE user_recommendations SET expires_at = '{NOW}' WHERE user_id = '{user(1)}'")
    assert delete_expired(engine, now=NOW, batch_size=2) == 3
    assert live_pairs(engine) == {(2, 1), (2, 2), (2, 3)}


def test_a_batch_deletes_no_more_than_it_may_and_skips_locked_rows(engine: sa.Engine) -> None:
    make_world(engine)
    publish_pairs(engine, ALL)
    late = NOW + timedelta(hours=72)
    with transaction(engine) as holder:
        holder.execute(sa.text(f"DELETE FROM user_recommendations WHERE user_id = '{user(1)}'"))
        with transaction(engine) as connection:
            assert delete_batch(connection, late, 2) == 2
        assert delete_expired(engine, now=late, batch_size=10) == 1
    assert live_pairs(engine) == set()
