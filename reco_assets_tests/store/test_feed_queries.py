"""The feed's questions: every filter, ids of both types, what fills up, what is trending."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

import psycopg
import pytest
import sqlalchemy as sa

from reco_assets.store import feed_queries, pool_queries
from reco_assets.store.feed_queries import PostFacts
from reco_assets_tests.store.app_databases import (
    BARS,
    app,
    app_templates,
    bar_deleted,
    bar_unlisted,
    both_id_types,
    interact,
    world,
)
from reco_assets_tests.store.published import AUTHOR, NOW, post, publish_pairs, run_sql, user

__all__ = ["app", "app_templates", "world"]  # fixtures
pytestmark = both_id_types

T = TypeVar("T")

SINCE = NOW - timedelta(days=90)


def ask(engine: sa.Engine, question: Callable[[psycopg.AsyncConnection[Any]], Awaitable[T]]) -> T:
    """Run one question on a connection like the service's."""

    async def run() -> T:
        url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        options = "-c timezone=UTC"
        async with await psycopg.AsyncConnection.connect(url, autocommit=True, options=options) as connection:
            return await question(connection)

    return asyncio.run(run())


def list_of(engine: sa.Engine, number: int, **changes: Any) -> feed_queries.UserList:
    arguments: dict[str, Any] = {"now": NOW, "seen_since": SINCE, **changes}
    return ask(engine, lambda c: feed_queries.user_list(c, str(user(number)), **arguments))


def eligible(engine: sa.Engine, number: int, *posts: int, **changes: Any) -> set[str]:
    arguments: dict[str, Any] = {"seen_since": SINCE, **changes}
    ids = [str(post(i)) for i in posts]
    facts, *_ = ask(
        engine, lambda c: feed_queries.eligible_posts(c, str(user(number)), post_ids=ids, **arguments)
    )
    return set(facts)


def ids(*posts: int) -> list[str]:
    return [str(post(i)) for i in posts]


def test_a_list_comes_by_score_then_id_with_what_an_answer_shows(world: sa.Engine) -> None:
    publication = publish_pairs(world, [(1, 3), (1, 2), (1, 1), (2, 1)])
    run_sql(world, f"UPDATE user_recommendations SET score = 0.5 WHERE post_id <> '{post(1)}'")
    found = list_of(world, 1)
    assert found.posts[1:] == [(str(post(2)), 0.5), (str(post(3)), 0.5)]
    assert found.posts[0][0] == str(post(1))
    title = found.eligible[str(post(1))].title
    assert title in ("post 1", None)
    assert found.eligible[str(post(1))] == PostFacts(str(AUTHOR), NOW - timedelta(hours=1), title)
    assert (found.generation_id, found.model_version, found.generated_at) == (
        str(publication.generation_id),
        "collaborative_filtering_v1",
        NOW,
    )
    assert found.known
    assert found.last_interaction is None


def test_a_title_is_there_where_the_app_has_one(world: sa.Engine) -> None:
    publish_pairs(world, [(1, 3)])
    columns = {each["name"] for each in sa.inspect(world).get_columns("posts")}
    assert list_of(world, 1).eligible[str(post(3))].title == ("post 3" if "title" in columns else None)


def test_an_expired_list_and_an_unknown_user_have_none(world: sa.Engine) -> None:
    publish_pairs(world, [(1, 1)])
    assert list_of(world, 1, now=NOW + timedelta(hours=72)).posts == []
    nobody = list_of(world, 77)
    assert (nobody.posts, nobody.known, nobody.generation_id) == ([], False, None)


@pytest.mark.parametrize("bar", BARS)
def test_every_filter_holds_for_every_question(world: sa.Engine, bar: Callable[[sa.Engine], None]) -> None:
    publish_pairs(world, [(1, 1), (1, 2), (1, 3)])
    bar(world)
    assert [post_id for post_id, _ in list_of(world, 1).posts] == ids(1, 3)
    assert eligible(world, 1, 1, 2, 3) == set(ids(1, 3))
    found = list_of(world, 1, drawn=ids(1, 2), spare=ids(2, 3, 4), needed=9)
    assert set(found.eligible) == set(ids(1, 3, 4))
    assert set(list_of(world, 4, drawn=ids(2), spare=ids(3), needed=1).eligible) == set(
        ids(3) if bar in (bar_unlisted, bar_deleted) else ids(2, 3)
    )


def test_whom_the_user_hides_is_told(world: sa.Engine) -> None:
    run_sql(world, f"INSERT INTO blocks VALUES ('{user(1)}', '{user(3)}'), ('{user(2)}', '{AUTHOR}')")
    assert list_of(world, 1).hidden_authors == {str(user(3))}
    _, hidden, known = ask(
        world, lambda c: feed_queries.eligible_posts(c, str(user(1)), seen_since=SINCE, post_ids=[])
    )
    assert (hidden, known) == ({str(user(3))}, True)


def test_spare_posts_are_judged_only_where_the_list_is_short(world: sa.Engine) -> None:
    publish_pairs(world, [(1, 1), (1, 2)])
    enough = list_of(world, 1, spare=ids(3), drawn=ids(4), needed=2)
    assert (set(enough.eligible), enough.spare_judged) == (set(ids(1, 2, 4)), False)
    short = list_of(world, 1, spare=ids(3), needed=3)
    assert (set(short.eligible), short.spare_judged) == (set(ids(1, 2, 3)), True)


def test_an_interaction_since_the_list_was_made_is_told(world: sa.Engine) -> None:
    publish_pairs(world, [(1, 1)])
    interact(world, 1, 6, NOW - timedelta(seconds=1))
    assert not list_of(world, 1).read_since
    interact(world, 1, 6, NOW + timedelta(seconds=1))
    assert list_of(world, 1, now=NOW + timedelta(seconds=2)).read_since


def test_a_score_that_is_no_number_is_zero(world: sa.Engine) -> None:
    publish_pairs(world, [(1, 1), (1, 2)])
    run_sql(world, f"UPDATE user_recommendations SET score = 'NaN' WHERE post_id = '{post(2)}'")
    assert list_of(world, 1).posts[1] == (str(post(2)), 0.0)


def trending(engine: sa.Engine, **changes: Any) -> list[tuple[str, float]]:
    arguments: dict[str, Any] = {
        "now": NOW,
        "since": NOW - timedelta(hours=48),
        "types": ["view", "like"],
        "half_life_days": 0.25,
        "freshness_half_life_days": None,
        "max_events": 1000,
        "n": 10,
        **changes,
    }
    found = ask(engine, lambda c: pool_queries.trending_posts(c, **arguments))
    return [(each.post_id, each.score) for each in found]


def test_trending_counts_each_reader_once_by_the_last_time_decayed(world: sa.Engine) -> None:
    """Post 1: two readers, 6 h ago and now: 0.5 + 1. Post 2: one reader who came three times: 1."""
    interact(world, 1, 1, NOW - timedelta(hours=6))
    interact(world, 2, 1, NOW, "like")
    for hours in (0, 1, 2):
        interact(world, 3, 2, NOW - timedelta(hours=hours))
    interact(world, 4, 3, NOW, "hide")  # has no weight
    interact(world, 4, 4, NOW + timedelta(seconds=1))  # later than now
    interact(world, 4, 5, NOW - timedelta(hours=49))  # before the window
    assert trending(world) == [(str(post(1)), pytest.approx(1.5)), (str(post(2)), pytest.approx(1.0))]
    assert trending(world, half_life_days=None)[0] == (str(post(1)), pytest.approx(2.0))
    assert trending(world, n=1) == [(str(post(1)), pytest.approx(1.5))]


def test_trending_prefers_the_newer_post_and_reads_no_more_than_it_may(world: sa.Engine) -> None:
    run_sql(
        world,
        f"UPDATE posts SET created_at = '{NOW - timedelta(days=2)}' WHERE id = '{post(1)}'",
        f"UPDATE posts SET created_at = '{NOW}' WHERE id = '{post(2)}'",
    )
    interact(world, 1, 1, NOW - timedelta(seconds=1))
    interact(world, 1, 2, NOW)
    assert trending(world, freshness_half_life_days=1.0) == [
        (str(post(2)), pytest.approx(1.0)),
        (str(post(1)), pytest.approx(0.25, rel=1e-4)),
    ]
    assert [post_id for post_id, _ in trending(world, max_events=1)] == ids(2)


def test_ages_beyond_any_float_are_no_error(world: sa.Engine) -> None:
    interact(world, 1, 1, NOW - timedelta(days=29))
    window = {"since": NOW - timedelta(days=30), "half_life_days": 1e-6, "freshness_half_life_days": 1e-6}
    [(post_id, score)] = trending(world, **window)
    assert post_id == str(post(1))
    assert 0 < score < 1e-100


def test_the_newest_posts_are_those_of_the_past(world: sa.Engine) -> None:
    run_sql(
        world,
        f"UPDATE posts SET created_at = '{NOW}' WHERE id = '{post(4)}'",
        f"UPDATE posts SET created_at = '{NOW + timedelta(hours=1)}' WHERE id = '{post(5)}'",
    )
    found = ask(world, lambda c: pool_queries.newest_posts(c, now=NOW, n=2))
    assert found[0].post_id == str(post(4))
    assert found[1].post_id in ids(1, 2, 3, 6)
    assert found[0].facts.created_at == NOW


def test_every_post_can_be_met_around_a_point(world: sa.Engine) -> None:
    assert ask(world, pool_queries.id_range) == (str(post(1)), str(post(6)))

    def around(point: Any) -> set[str]:
        found = ask(world, lambda c: pool_queries.posts_from(c, [str(point)], each=2))
        return {each.post_id for each in found}

    assert around(post(3)) == set(ids(1, 2, 3, 4))
    assert around(post(1)) == set(ids(1, 2))
    assert around(post(7)) == set(ids(5, 6))


def test_without_posts_there_is_no_range_and_nothing_around(app: sa.Engine) -> None:
    assert ask(app, pool_queries.id_range) is None
    assert ask(app, lambda c: pool_queries.posts_from(c, [str(post(1))], each=2)) == []
    assert ask(app, lambda c: pool_queries.newest_posts(c, now=NOW, n=5)) == []


def test_the_live_generation_says_when_it_was_published(world: sa.Engine) -> None:
    assert ask(world, pool_queries.published_at) is None
    publish_pairs(world, [(1, 1)])
    assert ask(world, pool_queries.published_at) is not None
