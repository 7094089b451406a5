"""Explored positions: how many, which posts, and whether the logged propensities are the frequencies."""

import random
from collections import Counter
from math import sqrt

import pytest

from reco_assets.serving.feeds.exploration import NO_DRAW, Draw, Propensities, draw, place

LIST = [f"list {i}" for i in range(10)]
POOL = [f"pool {i}" for i in range(20)]
DRAWS = 20_000


@pytest.mark.parametrize("refused", [0, 5])
def test_logged_propensities_are_the_frequencies(refused: int) -> None:
    """5 of the pool's 20 posts are not for this user: the 15 others share the positions."""
    rng = random.Random(1)
    allowed = set(POOL[refused:])
    share, stood, weight = 0.2, Counter[tuple[int, str]](), Counter[tuple[int, str]]()
    for _ in range(DRAWS):
        drawn = draw(len(LIST), POOL, share, rng)
        shown, propensities = place(LIST, drawn, [post for post in drawn.posts if post in allowed])
        for position, post in enumerate(shown):
            explored = post in allowed
            stood[position, post] += 1
            weight[position, post] += 1 / (propensities.explored if explored else propensities.ordinary)
    for position in range(len(LIST)):
        assert_close(stood[position, LIST[position]], 1 - share)
        for post in allowed:
            assert_close(stood[position, post], share / len(allowed))
    # Whoever divides by what was logged counts each post once for each draw.
    for count in weight.values():
        assert count / DRAWS == pytest.approx(1, abs=0.35)
    for position in range(len(LIST)):
        explored_weight = sum(weight[position, post] for post in allowed) / len(allowed)
        assert explored_weight / DRAWS == pytest.approx(1, abs=0.05)
    assert sum(stood.values()) == DRAWS * len(LIST)


def assert_close(count: int, p: float) -> None:
    assert abs(count / DRAWS - p) <= 4.5 * sqrt(p * (1 - p) / DRAWS) + 0.002


def test_with_the_whole_pool_allowed_propensities_are_exact() -> None:
    drawn = Draw((1, 3), ("a", "b", "c"), pool_size=30, share=0.06)
    shown, propensities = place(["0", "1", "2", "3", "4"], drawn, ["a", "b", "c"])
    assert shown == ["0", "a", "2", "b", "4"]
    assert propensities == Propensities(pytest.approx(0.94), pytest.approx(0.002))


def test_no_post_stands_twice() -> None:
    rng = random.Random(2)
    for _ in range(200):
        drawn = draw(50, POOL, 0.5, rng)
        shown, _ = place([f"list {i}" for i in range(50)], drawn, drawn.posts)
        assert len(set(shown)) == 50


def test_without_a_pool_or_a_share_nothing_is_explored() -> None:
    rng = random.Random(3)
    assert draw(10, [], 0.5, rng) == NO_DRAW
    assert draw(10, POOL, 0.0, rng) == NO_DRAW
    assert place(LIST, NO_DRAW, []) == (LIST, Propensities(1.0, 0.0))


def test_where_no_drawn_post_is_allowed_the_list_stays_and_says_so() -> None:
    drawn = Draw((0,), ("a", "b"), pool_size=2, share=0.5)
    assert place(LIST, drawn, []) == (LIST, Propensities(1.0, 0.0))


def test_positions_behind_a_short_list_are_nobodys() -> None:
    drawn = Draw((0, 7), ("a", "b"), pool_size=2, share=0.5)
    assert place(["x"], drawn, ["a", "b"])[0] == ["a"]


def test_the_same_chance_gives_the_same_draw() -> None:
    assert draw(100, POOL, 0.1, random.Random(9)) == draw(100, POOL, 0.1, random.Random(9))
