"""Tiers become one list."""

from reco_assets.serving.feeds.lists import (
    PRECOMPUTED,
    RANDOM,
    REALTIME,
    TRENDING,
    count_sources,
    put_together,
)


def entries(kind: int, *posts: str) -> list[tuple[str, int, float]]:
    return [(post, kind, 1.0) for post in posts]


def posts(*arguments: object, **named: object) -> str:
    return "".join(entry[0] for entry in put_together(*arguments, **named))  # type: ignore[arg-type]


def test_the_best_tier_comes_first_and_the_next_ones_fill_up() -> None:
    tiers = {PRECOMPUTED: entries(PRECOMPUTED, "a", "b"), TRENDING: entries(TRENDING, "c", "d")}
    assert posts(tiers, {}, 3) == "abc"
    assert posts(tiers, {}, 9) == "abcd"
    assert posts({}, {}, 3) == ""


def test_a_post_of_two_tiers_stands_once_in_the_better_one() -> None:
    tiers = {
        REALTIME: entries(REALTIME, "a", "b"),
        TRENDING: entries(TRENDING, "b", "c", "a"),
        RANDOM: entries(RANDOM, "c", "e"),
    }
    found = put_together(tiers, {}, 9)
    assert [(post, kind) for post, kind, _ in found] == [
        ("a", REALTIME),
        ("b", REALTIME),
        ("c", TRENDING),
        ("e", RANDOM),
    ]


def test_a_post_that_a_tier_lists_twice_stands_where_it_came_first() -> None:
    twice = [("a", PRECOMPUTED, 2.0), ("b", PRECOMPUTED, 1.5), ("a", PRECOMPUTED, 1.0)]
    for slots in ({}, {PRECOMPUTED: 3}):
        assert put_together({PRECOMPUTED: twice}, slots, 9) == twice[:2]


def test_posts_that_must_not_be_in_it_are_not() -> None:
    assert posts({PRECOMPUTED: entries(PRECOMPUTED, *"abc")}, {}, 9, without=["b"]) == "ac"


def test_one_slot_is_the_last_position_of_every_ten() -> None:
    tiers = {
        PRECOMPUTED: entries(PRECOMPUTED, *"abcdefghijklmnopqrstuvwxyz"),
        TRENDING: entries(TRENDING, *"123"),
    }
    assert posts(tiers, {TRENDING: 1}, 25) == "abcdefghi1jklmnopqr2stuvw"


def test_several_slots_are_spread_and_two_tiers_do_not_collide() -> None:
    tiers = {
        PRECOMPUTED: entries(PRECOMPUTED, *"abcdefghij"),
        TRENDING: entries(TRENDING, *"123"),
        RANDOM: entries(RANDOM, *"xyz"),
    }
    assert posts(tiers, {TRENDING: 2}, 10) == "abcd1efgh2"
    assert sorted(posts(tiers, {TRENDING: 1, RANDOM: 1}, 10)) == sorted("abcdefgh1x")


def test_a_slot_whose_tier_has_nothing_left_goes_to_the_others() -> None:
    tiers = {
        PRECOMPUTED: entries(PRECOMPUTED, *"abcdefghijklmnopqrstuvwxyz"),
        TRENDING: entries(TRENDING, "1"),
    }
    assert posts(tiers, {TRENDING: 1}, 20) == "abcdefghi1jklmnopqrs"
    assert posts({PRECOMPUTED: entries(PRECOMPUTED, *"abc")}, {TRENDING: 10}, 5) == "abc"


def test_ten_slots_give_the_whole_list_to_their_tier_while_it_lasts() -> None:
    tiers = {PRECOMPUTED: entries(PRECOMPUTED, *"abc"), TRENDING: entries(TRENDING, *"12")}
    assert posts(tiers, {TRENDING: 10}, 9) == "12abc"


def test_sources_are_counted() -> None:
    mixed = [*entries(PRECOMPUTED, "a", "b"), *entries(RANDOM, "c")]
    assert count_sources(mixed) == {"ml_recommendations": 2, "random_fallback": 1}
