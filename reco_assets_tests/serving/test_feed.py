"""Feeds of the real service on PostgreSQL: tiers, filters on every path, budgets, pages."""

from datetime import timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from reco_assets.settings import Settings
from reco_assets_tests.serving.conftest import Start, soon
from reco_assets_tests.serving.feeds import (
    all_pages,
    ask,
    feed,
    number,
    numbers,
    script,
    sources,
)
from reco_assets_tests.store.app_databases import (
    add_people,
    add_posts,
    app,
    app_templates,
    both_id_types,
    interact,
)
from reco_assets_tests.store.conftest import settings_for
from reco_assets_tests.store.published import AUTHOR, DAY, NOW, post, publish_pairs, run_sql, user

__all__ = ["app", "app_templates"]  # fixtures


@pytest.fixture
def settings(app: sa.Engine) -> Settings:
    """In place of the fixture that `serve` uses: a database with ids of either type."""
    return settings_for(app.url.set(drivername="postgresql").render_as_string(hide_password=False))


def small_world(app: sa.Engine, n_posts: int = 9) -> None:
    add_people(app, 5)
    add_posts(app, n_posts, at=NOW - timedelta(hours=1))


def make_trending(app: sa.Engine, *posts: int) -> None:
    """In that order: the first has most readers. User 5 and the author read, nobody else."""
    for i, each in enumerate(posts):
        interact(app, 5, each, NOW - timedelta(minutes=i))


@both_id_types
def test_the_published_list_comes_as_it_was_ranked_with_all_an_app_shows(
    app: sa.Engine, start: Start
) -> None:
    small_world(app)
    publication = publish_pairs(app, [(1, 3), (1, 1), (1, 2)])
    body = feed(start())
    first = body["posts"][0]
    assert numbers(body)[:3] == [3, 1, 2]
    assert first == {
        "id": str(post(3)),
        "post_id": str(post(3)),
        "title": first["title"],
        "author_id": str(AUTHOR),
        "created_at": "2026-11-20T01:00:00Z",
        "source": "ml_recommendations",
        "score": 1.0,
        "rank": 1,
        "reason": "similar_readers",
        "propensity": 1.0,
    }
    assert first["title"] in ("post 3", None)
    assert [each["rank"] for each in body["posts"]] == list(range(1, 10))
    metadata = body["metadata"]
    assert metadata["sources"] == {"ml_recommendations": 3, "random_fallback": 6}
    assert metadata["generation_id"] == str(publication.generation_id)
    assert metadata["model_version"] == "collaborative_filtering_v1"
    assert metadata["generated_at"] == "2026-11-20T02:00:00Z"
    assert (metadata["fallback_reason"], metadata["degraded"], metadata["experiment"]) == (None, None, None)
    assert metadata["next_cursor"] is None
    assert metadata["request_id"]


BARRED = {"own": 2, "hidden": 3, "unlisted": 4, "deleted": 5, "seen": 6, "excluded": 7}


def bar(app: sa.Engine) -> None:
    """Every reason at once: of posts 1 to 9 user 1 may be shown 1, 8 and 9."""
    interact(app, 1, 8, NOW - timedelta(days=91))  # too long ago
    interact(app, 2, 9, NOW)  # somebody else
    run_sql(
        app,
        f"UPDATE posts SET author_id = '{user(1)}' WHERE id = '{post(2)}'",
        f"UPDATE posts SET author_id = '{user(3)}' WHERE id = '{post(3)}'",
        f"INSERT INTO blocks VALUES ('{user(1)}', '{user(3)}'), ('{user(2)}', '{AUTHOR}')",
        "DROP VIEW recommendable_posts",
        "CREATE VIEW recommendable_posts AS SELECT id AS post_id, author_id, created_at FROM posts "
        f"WHERE id <> '{post(4)}'",
        f"DELETE FROM posts WHERE id = '{post(5)}'",
    )
    interact(app, 1, 6, NOW - timedelta(days=89), "hide")


PATHS: dict[str, tuple[dict[str, Any], str]] = {
    "precomputed": ({"feed_tiers": ("precomputed",)}, "ml_recommendations"),
    "realtime": ({"feed_tiers": ("realtime",)}, "realtime_recommendations"),
    "trending": ({"feed_tiers": ("trending",)}, "trending_fallback"),
    "random": ({"feed_tiers": ("random",)}, "random_fallback"),
    "exploration": ({"feed_tiers": ("trending",), "exploration_share": 0.5}, "exploration"),
}


@both_id_types
@pytest.mark.parametrize("path", PATHS)
def test_every_filter_holds_on_every_path_and_on_every_page(app: sa.Engine, start: Start, path: str) -> None:
    changes, source = PATHS[path]
    small_world(app)
    publish_pairs(app, [(1, i) for i in range(1, 10)])
    if path != "exploration":
        make_trending(app, *range(1, 10))
    else:
        make_trending(app, 1)  # a list of one, all others to explore
    running = start(**changes)
    script(running, posts=range(1, 10))
    begun = feed(running, limit=1)
    assert len(begun["posts"]) == 1
    bar(app)  # only now: what is in memory and in the cursor does not know
    for _ in range(10 if path == "exploration" else 1):
        found = feed(running, exclude=str(post(BARRED["excluded"])))
        if path == "exploration":
            assert set(numbers(found)) <= {1, 8, 9}
        else:
            assert sorted(numbers(found)) == [1, 8, 9]
            assert source in sources(found)
    rest = (
        feed(running, limit=9, cursor=begun["metadata"]["next_cursor"], exclude=str(post(BARRED["excluded"])))
        if begun["metadata"]["next_cursor"]
        else {"posts": []}
    )
    assert set(numbers(rest)) == {1, 8, 9} - set(numbers(begun)) or path == "exploration"


def test_explored_posts_say_so_and_carry_their_propensity(app: sa.Engine, start: Start) -> None:
    small_world(app, 30)
    make_trending(app, *range(1, 21))
    running = start(exploration_share=0.5, feed_length=20)
    body = feed(running, 4, limit=20)
    explored = [each for each in body["posts"] if each["source"] == "exploration"]
    others = [each for each in body["posts"] if each["source"] != "exploration"]
    assert explored
    assert {number(each["post_id"]) for each in explored} <= set(range(21, 31))
    assert {each["reason"] for each in explored} == {"exploration_new"}
    assert {each["propensity"] for each in others} == {0.5}
    assert all(0 < each["propensity"] < 0.25 for each in explored)
    assert len({each["post_id"] for each in body["posts"]}) == 20


def test_where_nothing_of_the_pool_may_be_shown_the_list_stays_whole(app: sa.Engine, start: Start) -> None:
    small_world(app, 30)
    make_trending(app, *range(1, 21))
    for i in range(21, 31):
        interact(app, 4, i, NOW - timedelta(days=3))
    body = feed(start(exploration_share=0.5, feed_length=20), 4, limit=20)
    assert numbers(body) == list(range(1, 21))
    assert {each["propensity"] for each in body["posts"]} == {1.0}


@pytest.mark.parametrize("limit", [1, 2, 4, 7])
def test_pages_have_no_repeats_and_no_gaps_across_a_publication_and_a_restart(
    app: sa.Engine, start: Start, limit: int
) -> None:
    small_world(app)
    first_generation = publish_pairs(app, [(1, i) for i in range(1, 10)])
    running = start()
    page = feed(running, limit=limit)
    found = numbers(page)
    publish_pairs(app, [(1, i) for i in range(9, 0, -1)], day=DAY + timedelta(days=1), version="v2")
    other_process = start()
    while cursor := page["metadata"]["next_cursor"]:
        running, other_process = other_process, running
        page = feed(running, limit=limit, cursor=cursor)
        assert page["posts"][0]["rank"] == len(found) + 1
        assert page["metadata"]["generation_id"] == str(first_generation.generation_id)
        assert page["metadata"]["model_version"] == "collaborative_filtering_v1"
        found += numbers(page)
    assert found == list(range(1, 10))
    assert numbers(feed(running))[0] == 9  # a new list is of the new generation


def test_a_post_filtered_from_a_later_page_is_replaced_by_the_next(app: sa.Engine, start: Start) -> None:
    small_world(app)
    publish_pairs(app, [(1, i) for i in range(1, 10)])
    running = start()
    cursor = feed(running, limit=3)["metadata"]["next_cursor"]
    run_sql(app, f"DELETE FROM posts WHERE id IN ('{post(4)}', '{post(6)}')")
    second = feed(running, limit=3, cursor=cursor)
    assert numbers(second) == [5, 7, 8]
    assert [each["rank"] for each in second["posts"]] == [4, 5, 6]
    assert numbers(feed(running, limit=3, cursor=second["metadata"]["next_cursor"])) == [9]


@both_id_types
def test_a_short_list_is_filled_up_from_what_is_trending_then_at_random(app: sa.Engine, start: Start) -> None:
    small_world(app)
    publish_pairs(app, [(1, 4), (1, 2)])
    make_trending(app, 7, 4, 8)
    body = feed(start())
    assert numbers(body)[:4] == [4, 2, 7, 8]
    assert sorted(numbers(body)) == list(range(1, 10))
    assert body["metadata"]["sources"] == {
        "ml_recommendations": 2,
        "trending_fallback": 2,
        "random_fallback": 5,
    }


def test_a_user_who_has_seen_all_that_is_trending_gets_the_rest(app: sa.Engine, start: Start) -> None:
    small_world(app, 60)
    make_trending(app, *range(1, 51))
    for i in range(1, 51):
        interact(app, 4, i, NOW)
    running = start(feed_length=20)
    body = feed(running, 4, limit=5)
    assert len(body["posts"]) == 5
    assert set(numbers(body)) <= set(range(51, 61))


def test_the_arm_of_random_posts_never_falls_back_on_what_is_popular(app: sa.Engine, start: Start) -> None:
    small_world(app)
    make_trending(app, 1, 2, 3)
    for i in range(4, 10):
        interact(app, 4, i, NOW)
    body = feed(start(experiment="a:random=1"), 4)
    assert sorted(numbers(body)) == [1, 2, 3]
    assert set(sources(body)) == {"random_fallback"}


def test_slots_are_kept_for_their_tier(app: sa.Engine, start: Start) -> None:
    small_world(app, 12)
    publish_pairs(app, [(1, i) for i in range(1, 11)])
    make_trending(app, 12, 11)
    body = feed(start(feed_slots={"trending": 1}), limit=10)
    assert numbers(body) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 12]


def test_slots_are_kept_for_the_list_that_stepped_aside(app: sa.Engine, start: Start) -> None:
    small_world(app)
    publish_pairs(app, [(1, 1), (1, 2)])
    interact(app, 1, 9, NOW + timedelta(minutes=1))
    running = start(feed_slots={"precomputed": 2})
    script(running, posts=[3, 4, 5, 6, 7, 8])
    body = feed(running, limit=8)
    assert numbers(body) == [3, 4, 5, 6, 1, 7, 8, 2]
    assert body["metadata"]["model_version"] == "live_v1"


def test_a_fresh_list_of_an_idle_user_goes_before_live_votes(app: sa.Engine, start: Start) -> None:
    small_world(app)
    publish_pairs(app, [(1, 1), (1, 2)])
    running = start()
    realtime = script(running, posts=[5, 6])
    assert sources(feed(running, limit=2)) == ["ml_recommendations"] * 2
    assert realtime.asked == 0


@pytest.mark.parametrize("why", ["interacted", "old", "old by its record"])
def test_an_outdated_list_steps_aside_for_live_votes(app: sa.Engine, start: Start, why: str) -> None:
    small_world(app)
    publish_pairs(app, [(1, 1), (1, 2)])
    if why == "interacted":
        interact(app, 1, 9, NOW + timedelta(minutes=1))
    elif why == "old":
        run_sql(app, f"UPDATE user_recommendations SET generated_at = '{NOW - timedelta(minutes=51)}'")
    else:
        run_sql(app, f"UPDATE recommendation_generations SET published_at = '{NOW - timedelta(minutes=51)}'")
    running = start()
    script(running, posts=[5, 6])
    body = feed(running, limit=2)
    assert numbers(body) == [5, 6]
    assert [each["reason"] for each in body["posts"]] == ["similar_readers_now"] * 2
    assert body["metadata"]["model_version"] == "live_v1"
    assert body["metadata"]["generated_at"] == "2026-11-20T02:10:00Z"
    assert body["metadata"]["fallback_reason"] is None


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        ({"fails": True}, "recommendations_failed"),
        ({"takes_s": 30}, "recommendations_late"),
        ({"posts": None}, None),
        ({"state": "loading"}, None),
    ],
)
@pytest.mark.parametrize("known_to_be_old", [False, True])
def test_the_outdated_list_is_served_after_all_when_live_votes_fail_and_the_reason_says_it(
    app: sa.Engine, start: Start, failure: dict[str, Any], reason: str | None, known_to_be_old: bool
) -> None:
    small_world(app)
    publish_pairs(app, [(1, 1), (1, 2)])
    interact(app, 1, 9, NOW + timedelta(minutes=1))
    if known_to_be_old:
        run_sql(app, f"UPDATE recommendation_generations SET published_at = '{NOW - timedelta(hours=2)}'")
    running = start(feed_recommendations_ms=2000)
    script(running, **{"posts": [5, 6], **failure})
    body = feed(running, limit=2)
    assert numbers(body) == [1, 2]
    assert sources(body) == ["ml_recommendations"] * 2
    assert body["metadata"]["fallback_reason"] == reason


def test_an_expired_list_is_nobodys_and_the_reason_says_it(app: sa.Engine, start: Start) -> None:
    small_world(app)
    publish_pairs(app, [(1, 1)], ttl=timedelta(minutes=5))
    make_trending(app, 3)
    interact(app, 1, 9, NOW)
    body = feed(start())
    assert sources(body)[0] == "trending_fallback"
    assert body["metadata"]["fallback_reason"] == "no_recommendations"
    assert body["metadata"]["generation_id"] is None


def test_with_no_posts_at_all_the_list_is_empty_and_says_why(app: sa.Engine, start: Start) -> None:
    add_people(app, 1)
    body = feed(start())
    assert body["posts"] == []
    assert body["metadata"]["fallback_reason"] == "nothing_to_recommend"
    assert body["metadata"]["next_cursor"] is None


@pytest.mark.parametrize("locked", ["user_recommendations", "posts"])
def test_a_locked_table_costs_quality_and_no_answer(app: sa.Engine, start: Start, locked: str) -> None:
    """Without `user_recommendations` trending posts answer, filtered; without `posts` those in memory."""
    small_world(app)
    publish_pairs(app, [(1, 1), (1, 2)])
    make_trending(app, 3, 4)
    running = start(feed_recommendations_ms=50, feed_timeout_s=2 if locked == "posts" else 20)
    interact(app, 1, 4, NOW)
    url = app.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as holder:
        holder.execute(f"LOCK TABLE {locked} IN ACCESS EXCLUSIVE MODE")
        body = feed(running)
    assert sources(body)[0] == "trending_fallback"
    assert body["metadata"]["fallback_reason"] == "recommendations_late"
    if locked == "posts":
        assert body["metadata"]["degraded"] == "database_slow"
        assert numbers(body)[:2] == [3, 4]
    else:
        assert body["metadata"]["degraded"] is None
        assert numbers(body)[0] == 3
        assert 4 not in numbers(body)
    # Nothing is left stuck.
    assert soon(lambda: sources(feed(running, limit=2)) == ["ml_recommendations"] * 2)


def test_a_broken_view_costs_quality_and_no_answer(app: sa.Engine, start: Start) -> None:
    small_world(app)
    publish_pairs(app, [(1, 1), (1, 2)])
    make_trending(app, 3, 4)
    running = start()
    run_sql(app, "DROP VIEW hidden_authors")
    body = feed(running)
    assert numbers(body)[:2] == [3, 4]
    assert body["metadata"]["degraded"] == "database_error"


def test_what_was_served_is_counted(app: sa.Engine, start: Start) -> None:
    small_world(app)
    publish_pairs(app, [(1, 1), (1, 2)])
    running = start()
    feed(running, 1, limit=2)
    feed(running, 4, limit=2)
    text = running.client.get("/metrics").text
    assert 'reco_feed_posts_total{source="ml_recommendations"} 2.0' in text
    assert 'reco_feed_fallbacks_total{reason="new_user"} 1.0' in text
    assert 'route="/api/feeds",source="ml_recommendations",status="200"' in text


@both_id_types
def test_pages_of_a_mixed_list_cover_every_post_once(app: sa.Engine, start: Start) -> None:
    small_world(app, 40)
    publish_pairs(app, [(1, i) for i in range(1, 11)])
    make_trending(app, *range(5, 20))
    running = start(exploration_share=0.2)
    pages = all_pages(running, limit=6)
    found = [each for page in pages for each in numbers(page)]
    assert len(found) == len(set(found))
    assert [each["rank"] for page in pages for each in page["posts"]] == list(range(1, len(found) + 1))


def test_a_list_is_as_long_as_the_setting_says(app: sa.Engine, start: Start) -> None:
    small_world(app, 30)
    running = start(feed_length=12)
    assert [len(page["posts"]) for page in all_pages(running, 4, limit=5)] == [5, 5, 2]


def test_a_user_whom_the_app_does_not_know_is_answered_too(app: sa.Engine, start: Start) -> None:
    small_world(app)
    body = feed(start(), 77)
    assert len(body["posts"]) == 9
    assert body["metadata"]["fallback_reason"] == "unknown_user"
    assert ask(start(), None).status_code == 400


@pytest.mark.parametrize("tiers", [("realtime", "trending"), ("precomputed", "realtime", "trending")])
def test_a_deleted_user_gets_nothing_that_memory_has_of_them(
    app: sa.Engine, start: Start, tiers: tuple[str, ...]
) -> None:
    small_world(app)
    make_trending(app, 4, 5)
    running = start(feed_tiers=tiers)
    realtime = script(running, posts=[1, 2])
    assert numbers(feed(running))[:2] == [1, 2]
    run_sql(app, f"DELETE FROM users WHERE id = '{user(1)}'")
    body = feed(running)
    assert numbers(body)[:2] == [4, 5]
    assert "realtime_recommendations" not in sources(body)
    metadata = body["metadata"]
    assert (metadata["fallback_reason"], metadata["model_version"]) == ("unknown_user", None)
    assert realtime.asked == (1 if tiers[0] == "precomputed" else 2)  # not at all where that is known first
