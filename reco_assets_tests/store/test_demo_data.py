from dataclasses import fields
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import numpy as np
import pytest

from reco_assets.errors import BadInput
from reco_assets.store.demo_data import DAY_US, INTERACTION_TYPES, DemoDay, DemoWorld

WORLD = DemoWorld(users=300, posts=400, days=20, events=12_000)
UNTIL = date(2026, 10, 31)


def _keys(ids: np.ndarray) -> list[bytes]:
    return [identifier.tobytes() for identifier in ids]


@pytest.fixture(scope="module")
def days() -> list[DemoDay]:
    window = WORLD.window(UNTIL)
    return [
        *(WORLD.history_day(day, window[0]) for day in WORLD.history(window[0])),
        *(WORLD.day(day) for day in window),
    ]


def test_a_window_has_the_users_and_posts_asked_for_and_about_the_events(days: list[DemoDay]) -> None:
    assert len({key for day in days for key in _keys(day.user_ids)}) == 300
    assert len({key for day in days for key in _keys(day.post_ids)}) == 400
    assert sum(len(day.event_ids) for day in days) == pytest.approx(12_000, rel=0.1)


def test_a_day_is_the_same_on_its_own_and_in_any_order() -> None:
    day = date(2026, 10, 7)
    first = WORLD.day(day)
    DemoWorld(users=300, posts=400, days=20, events=12_000).day(date(2027, 1, 1))
    again = DemoWorld(users=300, posts=400, days=20, events=12_000).day(day)
    for field in fields(DemoDay):
        assert np.array_equal(getattr(first, field.name), getattr(again, field.name)), field.name


def test_the_numbers_of_a_known_day_never_change() -> None:
    """A database seeded last month must still match; change this only on purpose."""
    day = WORLD.day(date(2026, 10, 7))
    assert str(UUID(bytes=day.event_ids[0].tobytes())) == "fe645e8c-e177-81d4-b9b6-5a509708473d"
    assert (len(day.event_ids), len(day.user_ids), len(day.post_ids)) == (645, 3, 13)
    assert day.titles[0] == "How we learned to trust pour-overs: what went wrong"


def test_another_seed_or_size_shares_no_id() -> None:
    day = date(2026, 10, 7)
    ids = [
        set(_keys(world.day(day).event_ids)) | set(_keys(world.day(day).user_ids))
        for world in (WORLD, DemoWorld(300, 400, 20, 12_000, seed=2), DemoWorld(301, 400, 20, 12_000))
    ]
    assert not ids[0] & ids[1]
    assert not ids[0] & ids[2]


def test_events_come_after_sign_up_and_post_and_stay_in_their_day(days: list[DemoDay]) -> None:
    signed_up = {k: t for d in days for k, t in zip(_keys(d.user_ids), d.user_created_at, strict=True)}
    posted = {k: t for d in days for k, t in zip(_keys(d.post_ids), d.post_created_at, strict=True)}
    for day in days:
        midnight = (day.day - date(1970, 1, 1)).days * DAY_US
        for times in (day.user_created_at, day.post_created_at, day.event_created_at):
            assert ((times >= midnight) & (times < midnight + DAY_US)).all()
        for user, post, at in zip(
            _keys(day.event_user_ids), _keys(day.event_post_ids), day.event_created_at, strict=True
        ):
            assert signed_up[user] <= at
            assert posted[post] < at
        for author, at in zip(_keys(day.post_author_ids), day.post_created_at, strict=True):
            assert signed_up[author] <= at


def test_views_lead_to_fewer_clicks_likes_and_shares(days: list[DemoDay]) -> None:
    counts = np.bincount(np.concatenate([day.event_type for day in days]), minlength=4)
    assert INTERACTION_TYPES == ("view", "click", "like", "share")
    assert list(counts) == sorted(counts, reverse=True)
    for day in days:
        seen = set(zip(_keys(day.event_user_ids), _keys(day.event_post_ids), strict=True))
        views = day.event_type == 0
        viewed = set(zip(_keys(day.event_user_ids[views]), _keys(day.event_post_ids[views]), strict=True))
        assert seen == viewed


def test_activity_and_popularity_are_skewed_and_some_users_come_once(days: list[DemoDay]) -> None:
    for name in ("event_user_ids", "event_post_ids"):
        _, counts = np.unique(
            np.concatenate([getattr(day, name) for day in days]).view("V16"), return_counts=True
        )
        counts[::-1].sort()
        assert counts[: len(counts) // 10].sum() > 0.25 * counts.sum()
        assert (counts == 1).any()


def test_attention_fades_within_days(days: list[DemoDay]) -> None:
    posted = {k: t for d in days for k, t in zip(_keys(d.post_ids), d.post_created_at, strict=True)}
    ages = [
        at - posted[post]
        for day in days
        for post, at in zip(_keys(day.event_post_ids), day.event_created_at, strict=True)
    ]
    assert 0.5 < np.median(ages) / DAY_US < 2


def test_every_day_brings_users_posts_and_titles_to_read() -> None:
    world = DemoWorld()
    for back in range(3):
        day = world.day(UNTIL - timedelta(days=back))
        assert len(day.user_ids) > 0
        assert len(day.titles) == len(day.bodies) == len(day.post_ids) > 0
        assert all(title[0].isupper() and "{" not in title for title in day.titles)


@pytest.mark.parametrize("size", [(1, 1, 1, 1), (3, 2, 400, 5), (5, 1, 2, 50)])
def test_tiny_worlds_work(size: tuple[int, int, int, int]) -> None:
    world = DemoWorld(*size)
    window = world.window(UNTIL)
    for day in window:
        generated = world.day(day)
        assert len(generated.event_ids) == len(generated.event_created_at)


@pytest.mark.parametrize(("name", "value"), [("users", 0), ("days", 4_000), ("seed", -1)])
def test_impossible_sizes_are_refused_with_the_limit(name: str, value: int) -> None:
    with pytest.raises(BadInput, match=f"{name} is"):
        DemoWorld(**{name: value})


def test_the_demo_size_holds_something_to_learn() -> None:
    """Topics are hidden, so only co-reading can tell: two readers of a post must share more than chance."""
    world = DemoWorld(users=500, posts=600, days=15, events=30_000)
    window = world.window(UNTIL)
    days = [world.day(day) for day in window]
    users = np.unique(np.concatenate([d.event_user_ids for d in days]).view("V16"), return_inverse=True)[1]
    posts = np.unique(np.concatenate([d.event_post_ids for d in days]).view("V16"), return_inverse=True)[1]
    matrix = np.zeros((users.max() + 1, posts.max() + 1))
    matrix[users, posts] = 1
    degree = np.outer(matrix.sum(1), matrix.sum(0)) / matrix.sum()
    residual = matrix - degree
    observed = np.linalg.svd(residual, compute_uv=False)[0]
    shuffled = residual.copy()
    rng = np.random.default_rng(0)
    for column in range(shuffled.shape[1]):
        rng.shuffle(shuffled[:, column])
    assert observed > 1.3 * np.linalg.svd(shuffled, compute_uv=False)[0]


def test_the_epoch_of_the_numbering_is_utc() -> None:
    day = WORLD.day(date(2026, 10, 7))
    first = datetime.fromtimestamp(int(day.event_created_at[0]) / 1e6, tz=UTC)
    assert first.date() == date(2026, 10, 7)
