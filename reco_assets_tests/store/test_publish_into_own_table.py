"""What a deployer added to the table survives every publication."""

import pytest
import sqlalchemy as sa

from reco_assets.errors import SchemaError
from reco_assets.store.database import transaction
from reco_assets_tests.store.published import (
    debris,
    live_pairs,
    make_world,
    post,
    publish_pairs,
    run_sql,
    statuses,
    user,
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
