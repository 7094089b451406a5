"""The pools in memory: read in the background, kept when that fails."""

import asyncio
import logging
from datetime import timedelta

import pytest
import sqlalchemy as sa

from reco_assets.errors import DatabaseUnreachable
from reco_assets.serving.database import Database
from reco_assets.serving.feeds.trending import Trending
from reco_assets.settings import Settings
from reco_assets_tests.serving.conftest import SOON_S, Serve, soon
from reco_assets_tests.serving.feeds import PLAIN, feed, now, numbers, sources
from reco_assets_tests.store.app_databases import app, app_templates, both_id_types, interact, world
from reco_assets_tests.store.conftest import settings_for
from reco_assets_tests.store.published import NOW, make_world, post, publish_pairs, run_sql, user

__all__ = ["app", "app_templates", "world"]  # fixtures


def pools_of(settings: Settings, *, patience_s: float = SOON_S) -> Trending:
    """What one refresh reads."""

    async def run() -> Trending:
        database = Database(settings, settings.database_url, application_name="test", size=2)
        await database.start()
        await database.wait_available(patience_s)
        trending = Trending(database, settings, now)
        try:
            await trending.refresh()
        finally:
            await database.stop()
        return trending

    return asyncio.run(run())


def url_of(engine: sa.Engine) -> str:
    return engine.url.set(drivername="postgresql").render_as_string(hide_password=False)


@both_id_types
def test_a_refresh_reads_what_is_popular_what_is_new_and_a_sample(world: sa.Engine) -> None:
    interact(world, 1, 3, NOW)
    interact(world, 2, 3, NOW)
    interact(world, 2, 5, NOW)
    run_sql(world, f"UPDATE posts SET created_at = '{NOW + timedelta(hours=1)}' WHERE id = '{post(6)}'")
    pools = pools_of(settings_for(url_of(world))).pools
    assert [post_id for post_id, _, _ in pools.trending] == [str(post(3)), str(post(5))]
    assert pools.newest == {str(post(i)) for i in range(1, 6)}  # the sixth is of the future
    assert set(pools.sample) == {str(post(i)) for i in range(1, 7)}
    assert set(pools.explorable) == set(pools.sample)
    assert set(pools.facts) == set(pools.sample)
    assert (pools.read_at, pools.published_at) == (now(), None)


def test_every_post_of_a_large_catalogue_gets_its_turn_in_the_sample(app: sa.Engine) -> None:
    run_sql(
        app,
        f"INSERT INTO users (id) VALUES ('{user(1)}')",
        f"INSERT INTO posts (id, author_id, title) SELECT gen_random_uuid(), '{user(1)}', '' "
        "FROM generate_series(1, 2000)",
    )
    met: set[str] = set()
    for _ in range(12):
        sample = pools_of(settings_for(url_of(app))).pools.sample
        assert 200 < len(sample) <= 480
        met.update(sample)
    assert len(met) > 1600  # 12 samples of about 430: 94 % are expected


def test_every_post_of_a_small_catalogue_is_in_the_sample_wherever_its_id_lies(app: sa.Engine) -> None:
    """Random points between the least and the greatest of these ids all lie near the two."""
    ids = [f"00000000-0000-4000-8000-{i:012x}" for i in range(100)] + ["ffffffff-0000-4000-8000-000000000000"]
    run_sql(
        app,
        f"INSERT INTO users (id) VALUES ('{user(1)}')",
        *(f"INSERT INTO posts (id, author_id, title) VALUES ('{i}', '{user(1)}', '')" for i in ids),
    )
    assert set(pools_of(settings_for(url_of(app))).pools.sample) == set(ids)


@pytest.mark.parametrize("app", ["text"], indirect=True)
def test_ids_that_are_no_uuids_are_passed_over(world: sa.Engine) -> None:
    run_sql(world, f"INSERT INTO posts (id, author_id, headline) VALUES ('cuid-123', '{user(1)}', 'x')")
    run_sql(world, f"INSERT INTO posts (id, author_id, headline) VALUES ('{post(7)}', '{user(1)}', 'x')")
    trending = pools_of(settings_for(url_of(world)))
    assert "cuid-123" not in trending.pools.facts
    assert str(post(1)) in trending.pools.facts


def test_the_first_request_after_the_start_waits_for_the_first_refresh(
    serve: Serve, engine: sa.Engine
) -> None:
    make_world(engine)
    assert len(feed(serve(**PLAIN))["posts"]) == 6


def test_what_is_new_is_known_after_the_next_refresh(serve: Serve, engine: sa.Engine) -> None:
    make_world(engine)
    running = serve(**{**PLAIN, "trending_refresh_s": 0.1})
    assert sources(feed(running))[0] == "random_fallback"
    interact(engine, 3, 4, running.service.clock())
    assert soon(lambda: sources(feed(running))[0] == "trending_fallback")
    assert numbers(feed(running))[0] == 4


def test_a_refresh_that_fails_leaves_the_pools_says_so_once_and_is_tried_again(
    serve: Serve, engine: sa.Engine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_world(engine)
    failed: list[Exception] = []
    refresh = Trending.refresh

    async def noted(self: Trending) -> None:
        try:
            await refresh(self)
        except Exception as error:
            failed.append(error)
            raise

    monkeypatch.setattr(Trending, "refresh", noted)
    running = serve(**{**PLAIN, "trending_refresh_s": 0.05})
    logging.getLogger().addHandler(caplog.handler)  # the service has taken the others away
    assert len(feed(running)["posts"]) == 6
    pools = running.service.trending.pools
    run_sql(engine, "ALTER TABLE user_interactions RENAME TO away")
    assert soon(lambda: len(failed) >= 4)
    assert running.service.trending.pools.facts == pools.facts
    assert sum("stay as they were read" in each.getMessage() for each in caplog.records) == 1
    run_sql(engine, "ALTER TABLE away RENAME TO user_interactions")
    read_at = running.service.trending.pools.read_at
    assert soon(lambda: running.service.trending.pools.read_at != read_at)


def test_without_a_database_a_refresh_is_an_error_and_nothing_is_lost() -> None:
    with pytest.raises(DatabaseUnreachable):
        pools_of(settings_for("postgresql://nobody@127.0.0.1:1/nothing"), patience_s=0)


def test_feeds_are_read_from_the_replica(serve: Serve, engine: sa.Engine, world: sa.Engine) -> None:
    """Another database in its place: what it lacks is not shown."""
    make_world(engine, n_posts=3)
    publish_pairs(engine, [(1, 3)])
    publish_pairs(world, [(1, 2)])
    running = serve(clock=now, replica_url=url_of(world), **PLAIN)
    assert numbers(feed(running, limit=1)) == [2]
    assert len(feed(running)["posts"]) == 6


def test_a_refresh_may_take_longer_than_a_feed(engine: sa.Engine, settings: Settings) -> None:
    make_world(engine)
    run_sql(
        engine,
        "ALTER VIEW recommendable_posts RENAME TO quick",
        "CREATE VIEW recommendable_posts AS SELECT post_id, author_id, created_at "
        "FROM (SELECT pg_sleep(0.4)) AS slow, quick",
    )
    short = settings.model_copy(update={"feed_timeout_s": 0.2})
    assert len(pools_of(short).pools.sample) == 6
