"""What a product person accepts the feed by, as stories."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from reco_assets.settings import Settings
from reco_assets.store.database import create_engine_for
from reco_assets_tests.serving import fitted_world
from reco_assets_tests.serving.conftest import RunningService, Start, running_service, soon
from reco_assets_tests.serving.feeds import (
    PLAIN,
    all_pages,
    ask,
    feed,
    now,
    numbers,
    refresh,
    script,
    sources,
)
from reco_assets_tests.serving.own_server import OwnServer, own_server
from reco_assets_tests.store.app_databases import interact
from reco_assets_tests.store.conftest import settings_for
from reco_assets_tests.store.published import DAY, NOW, make_world, post, publish_pairs, run_sql, user


def people_and_posts(engine: sa.Engine) -> None:
    """Users 1 to 4, posts 1 to 9; half the town reads 7, then 8; user 1 has a list 1, 2, 3."""
    make_world(engine, n_users=4, n_posts=9)
    run_sql(
        engine,
        f"UPDATE posts SET created_at = '{NOW - timedelta(hours=1)}'",
        "CREATE TABLE blocks (user_id uuid, author_id uuid)",
        "CREATE OR REPLACE VIEW hidden_authors AS SELECT user_id, author_id FROM blocks",
    )
    for reader, read in ((3, 7), (4, 7), (3, 8)):
        interact(engine, reader, read, NOW)
    interact(engine, 1, 9, NOW - timedelta(days=1))
    publish_pairs(engine, [(1, 1), (1, 2), (1, 3)])


def test_a_new_user_is_shown_what_others_read_right_now(engine: sa.Engine, start: Start) -> None:
    people_and_posts(engine)
    body = feed(start(), 2)
    assert numbers(body)[:2] == [7, 8]
    assert [each["reason"] for each in body["posts"][:2]] == ["popular_now", "popular_now"]
    assert len(body["posts"]) == 9  # and then whatever else there is
    assert body["metadata"]["fallback_reason"] == "new_user"


def test_a_returning_user_is_shown_their_recommendations_and_nothing_they_have_read(
    engine: sa.Engine, start: Start
) -> None:
    people_and_posts(engine)
    running = start()
    assert numbers(feed(running, limit=3)) == [1, 2, 3]
    event = {"user_id": str(user(1)), "post_id": str(post(1)), "interaction_type": "click"}
    assert running.client.post("/api/track", json=event).json()["tracked"] == 1
    body = feed(running)
    assert numbers(body)[:2] == [2, 3]
    assert {1, 9}.isdisjoint(numbers(body))
    assert sources(body)[:2] == ["ml_recommendations"] * 2


def test_a_post_that_similar_users_read_just_now_comes_first_before_any_refit(
    engine: sa.Engine, settings: Settings, tmp_path: Path
) -> None:
    """The pipeline's own fit and publication; post 7 is written hours later, and user 2 is like user 1."""
    here = settings.model_copy(update={**PLAIN, "realtime": True, "home": tmp_path})
    fitted_world.make_readers(engine)
    publication = fitted_world.run_pipeline(here)
    moments = [fitted_world.MORNING]
    fitted_world.add_post(engine, 7, moments[0] - timedelta(minutes=30))
    with running_service(here, lambda: moments[-1]) as running:
        assert running.service.realtime.catch_up(60)
        # Before the clock goes on: whoever looks in between would find the event too old to be looked for.
        fitted_world.add_events(engine, [(2, 7, moments[0] + timedelta(minutes=1))])
        moments.append(moments[0] + timedelta(minutes=2))
        assert running.service.realtime.catch_up(60)
        body = feed(running, 1)
        assert numbers(body)[0] == 7
        assert body["posts"][0]["reason"] == "similar_readers_now"
        assert {1, 2}.isdisjoint(numbers(body))  # user 1 has read them
        assert body["metadata"]["model_version"] == "collaborative_filtering_v1"
        assert body["metadata"]["generation_id"] == str(publication.generation_id)
        assert running.client.get("/api/health/ready").json()["checks"]["model"]["state"] == "ok"


def test_whoever_blocks_an_author_never_meets_them_again(engine: sa.Engine, start: Start) -> None:
    people_and_posts(engine)
    run_sql(engine, f"UPDATE posts SET author_id = '{user(3)}' WHERE id IN ('{post(2)}', '{post(7)}')")
    running = start()
    begun = feed(running, limit=1)
    assert numbers(begun) == [1]
    run_sql(engine, f"INSERT INTO blocks VALUES ('{user(1)}', '{user(3)}')")
    assert {2, 7}.isdisjoint(numbers(feed(running)))
    continued = feed(running, cursor=begun["metadata"]["next_cursor"])  # nor in the list they are scrolling
    assert {2, 7}.isdisjoint(numbers(continued))
    assert numbers(continued)[0] == 3
    assert 7 in numbers(feed(running, 2))  # others still do


def test_a_deleted_post_is_gone_from_the_next_page_on(engine: sa.Engine, start: Start) -> None:
    people_and_posts(engine)
    running = start()
    begun = feed(running, limit=1)
    run_sql(engine, f"DELETE FROM posts WHERE id IN ('{post(2)}', '{post(8)}')")
    continued = feed(running, limit=9, cursor=begun["metadata"]["next_cursor"])
    assert numbers(continued)[:2] == [3, 7]
    assert {2, 8}.isdisjoint(numbers(continued))
    assert {2, 8}.isdisjoint(numbers(feed(running)))


def test_before_the_first_model_everybody_is_shown_what_is_popular(engine: sa.Engine, start: Start) -> None:
    make_world(engine)
    interact(engine, 3, 4, NOW)
    interact(engine, 1, 6, NOW)
    body = feed(start(realtime=True, home="/nonexistent"), 1)
    assert numbers(body)[0] == 4
    assert sources(body)[0] == "trending_fallback"
    assert body["metadata"]["fallback_reason"] == "no_recommendations"
    assert body["metadata"]["model_version"] is None


def test_whoever_scrolls_sees_one_list_while_tomorrows_is_published(engine: sa.Engine, start: Start) -> None:
    people_and_posts(engine)
    running = start()
    begun = feed(running, limit=2)
    publish_pairs(engine, [(1, 6), (1, 2), (1, 1)], day=DAY + timedelta(days=1), version="v2")
    continued = feed(running, limit=9, cursor=begun["metadata"]["next_cursor"])
    assert numbers(begun) + numbers(continued)[:1] == [1, 2, 3]
    assert len({*numbers(begun), *numbers(continued)}) == 8
    assert numbers(feed(running, limit=1)) == [6]


def test_an_experiment_shows_each_arm_its_feed_and_says_which(engine: sa.Engine, start: Start) -> None:
    make_world(engine, n_users=40, n_posts=9)
    publish_pairs(engine, [(i, 1 + i % 9) for i in range(1, 41)])
    interact(engine, 40, 5, NOW)
    text = "ml_vs_random:ml=50,random=25,trending=25"
    running = start(experiment=text)
    first = {}
    for i in range(1, 40):
        body = feed(running, i, limit=1)
        experiment = body["metadata"]["experiment"]
        assert experiment["name"] == "ml_vs_random"
        first[i] = (experiment["arm"], sources(body)[0], body["metadata"]["fallback_reason"])
    assert set(first.values()) == {
        ("ml", "ml_recommendations", None),
        ("random", "random_fallback", "experiment_arm"),
        ("trending", "trending_fallback", "experiment_arm"),
    }
    again = start(experiment=text)
    for i, (arm, _, _) in first.items():  # after a restart, in another process: the same
        assert feed(again, i)["metadata"]["experiment"]["arm"] == arm
    pages = all_pages(running, 1, limit=4)
    assert {page["metadata"]["experiment"]["arm"] for page in pages} == {first[1][0]}


@pytest.fixture
def server(open_tmp_path: Any) -> Iterator[OwnServer]:
    """A PostgreSQL that a test may take down."""
    with own_server(open_tmp_path / "postgres") as own:
        engine = create_engine_for(settings_for(own.url))
        people_and_posts(engine)
        engine.dispose()
        yield own


def take_down(server: OwnServer, running: RunningService) -> None:
    """Kill it, and wait until its last process has noticed."""
    server.kill()
    assert soon(lambda: feed(running, 4)["metadata"]["degraded"] is not None)


def test_while_the_database_is_gone_feeds_come_from_memory_and_say_so(server: OwnServer) -> None:
    server.query(f"UPDATE posts SET author_id = '{user(3)}' WHERE id = '{post(8)}'")
    server.query(f"INSERT INTO blocks VALUES ('{user(1)}', '{user(3)}')")
    # Whoever waited for what is not there would wait longer than the client does.
    with running_service(settings_for(server.url, **{**PLAIN, "feed_timeout_s": 60}), now) as running:
        refresh(running)
        begun = feed(running, limit=2)
        assert numbers(begun) == [1, 2]
        take_down(server, running)
        bodies = [feed(running, i) for i in (1, 2, 3, 4) * 5]
        for body in bodies:
            assert sources(body)[0] == "trending_fallback"
            assert body["metadata"]["degraded"] == "database_unreachable"
            assert body["metadata"]["fallback_reason"] == "database_unreachable"
        assert numbers(bodies[1])[:2] == [7, 8]
        assert bodies[1]["posts"][0]["title"] == "post 7"
        assert 8 not in numbers(bodies[0])  # whom user 1 has blocked is remembered
        assert 8 not in numbers(bodies[2])  # it is user 3's own
        continued = feed(running, limit=2, cursor=begun["metadata"]["next_cursor"])
        assert numbers(continued) == [3, 7]  # a list once begun goes on
        assert continued["metadata"]["degraded"] == "database_unreachable"
        server.start()
        assert soon(lambda: not feed(running)["metadata"]["degraded"])
        assert numbers(feed(running, limit=3)) == [1, 2, 3]


def test_while_the_database_is_gone_live_votes_go_on_and_what_was_read_stays_away(server: OwnServer) -> None:
    with running_service(settings_for(server.url, **PLAIN), now) as running:
        refresh(running)
        script(running, posts=[5, 6], state="late", seen_posts=[7])
        take_down(server, running)
        body = feed(running, 1)
        assert numbers(body)[:3] == [5, 6, 8]
        assert sources(body)[:3] == ["realtime_recommendations"] * 2 + ["trending_fallback"]
        assert body["metadata"]["degraded"] == "database_unreachable"
        server.start()


def test_while_a_database_hangs_feeds_are_answered(server: OwnServer) -> None:
    settings = settings_for(server.url, **{**PLAIN, "feed_timeout_s": 2.0})
    with running_service(settings, now) as running:
        refresh(running)
        assert numbers(feed(running, limit=3)) == [1, 2, 3]
        with server.hanging():
            body = feed(running, 2)
            assert numbers(body)[:2] == [7, 8]
            assert body["metadata"]["degraded"] in ("database_slow", "database_unreachable")


def test_a_service_that_never_saw_its_database_answers_with_an_empty_list() -> None:
    settings = settings_for("postgresql://nobody@127.0.0.1:1/nothing", **PLAIN)
    with running_service(settings, now) as running:
        answer = ask(running, 1)
    assert answer.status_code == 200
    body = answer.json()
    assert body["posts"] == []
    assert body["metadata"]["degraded"] == "database_unreachable"
    assert body["metadata"]["fallback_reason"] == "database_unreachable"
