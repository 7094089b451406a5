"""Filling a table whose indexes are built afterwards."""

from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from reco_assets.store.database import transaction
from reco_assets.store.importing_load import NewInteractions, can_fill, filling
from reco_assets_tests.store.published import as_array, make_world, post, run_sql, user

INDEXES = "SELECT indexrelid FROM pg_index WHERE indrelid = 'user_interactions'::regclass ORDER BY 1"


def interactions(*rows: tuple[int, int, int]) -> NewInteractions:
    """(number of the interaction, user, post)."""
    return NewInteractions(
        as_array(user(5000 + number) for number, _, _ in rows),
        as_array(user(u) for _, u, _ in rows),
        as_array(post(p) for _, _, p in rows),
        np.zeros(len(rows), dtype=np.int64),
        ["view"],
        np.full(len(rows), 1_760_000_000_000_000),
    )


def found(engine: sa.Engine, query: str) -> list[Any]:
    with transaction(engine) as connection:
        return list(connection.scalars(sa.text(query)))


def test_interactions_of_unknown_users_and_posts_are_taken_out_again(engine: sa.Engine) -> None:
    make_world(engine)
    with transaction(engine) as connection, filling(connection) as under_way:
        assert under_way.loader.load_interactions(interactions((1, 1, 1), (2, 77, 1), (3, 2, 77))) == 3
    assert under_way.n_removed == 2
    assert found(engine, "SELECT user_id FROM user_interactions") == [user(1)]


def test_of_interactions_with_the_same_id_the_first_stays(engine: sa.Engine) -> None:
    make_world(engine)
    with transaction(engine) as connection, filling(connection) as under_way:
        under_way.loader.load_interactions(interactions((1, 1, 1), (2, 2, 2)))
        under_way.loader.load_interactions(interactions((1, 3, 3), (1, 4, 4), (3, 2, 2)))
    assert under_way.n_removed == 2
    assert found(engine, "SELECT user_id FROM user_interactions ORDER BY id") == [user(1), user(2), user(2)]


def test_a_load_that_fails_leaves_the_indexes_as_they_were(engine: sa.Engine) -> None:
    make_world(engine)
    before = found(engine, INDEXES)

    def fail() -> None:
        with transaction(engine) as connection, filling(connection) as under_way:
            under_way.loader.load_interactions(interactions((1, 1, 1)))
            raise RuntimeError("pulled out")

    with pytest.raises(RuntimeError, match="pulled out"):
        fail()
    assert found(engine, INDEXES) == before
    assert found(engine, "SELECT count(*) FROM user_interactions") == [0]


OBSTACLES = {
    "comment": "COMMENT ON INDEX user_interactions_post_id_idx IS 'ours'",
    "foreign key": "CREATE TABLE reads (interaction_id uuid REFERENCES user_interactions (id))",
    "view": "CREATE VIEW latest AS SELECT i.*, count(*) FROM user_interactions i GROUP BY i.id",
    "publication": "CREATE PUBLICATION events FOR TABLE user_interactions",
    "trigger": "CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; "
    "CREATE TRIGGER noted BEFORE INSERT ON user_interactions FOR EACH ROW EXECUTE FUNCTION noted()",
    "rows": f"INSERT INTO user_interactions (user_id, post_id, interaction_type) "
    f"VALUES ('{user(1)}', '{post(1)}', 'view')",
}


@pytest.mark.parametrize("obstacle", OBSTACLES.values(), ids=OBSTACLES)
def test_a_table_whose_indexes_must_stay_keeps_them_and_is_loaded_all_the_same(
    engine: sa.Engine, obstacle: str
) -> None:
    make_world(engine)
    with transaction(engine) as connection:
        assert can_fill(connection)
    run_sql(engine, obstacle)
    before = found(engine, INDEXES)
    with transaction(engine) as connection, filling(connection) as under_way:
        rows = interactions((1, 1, 1), (2, 77, 1), (3, 2, 2))
        assert under_way.loader.load_interactions(rows) == 2
        assert list(connection.scalars(sa.text(INDEXES))) == before
    assert under_way.n_removed == 0
