"""Two invented feeds of any size, the same on every machine and every day.

`demo`: the demo's (`reco seed`), in which topics, half-lives and habits make popularity and activity
about as skewed as in the public Deskdrop feed: the top tenth of its posts draw 38 % of the pairs of
user and post, its busiest tenth of users make 60 %.

`power-law`: more skewed, as feeds with a common front page are. Users' activity is log-normal
(σ = 1), a post's popularity falls with rank^-0.8, half of the events stay within the reader's one of
twenty groups of posts. A few posts are read by nearly half of the users, so a user has something in
common with most others, and comparing takes several times as long.
"""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.sizes import Size
from benchmarks.workload import Workload
from reco_assets.events import DEFAULT_INTERACTION_WEIGHTS
from reco_assets.recommender.interaction_log import MICROSECONDS_PER_DAY, InteractionLog, rows_of
from reco_assets.recommender.interaction_matrix import InteractionMatrix
from reco_assets.store.demo_data import INTERACTION_TYPES, DemoWorld

Array = npt.NDArray[Any]

LAST_DAY: Final = date(2025, 12, 31)
"""Fixed, so that the feed does not depend on the day of the benchmark."""
DAYS: Final = 30

# Of the users and posts that a demo world's window refers to, not all have an event in it.
_DEMO_USERS, _DEMO_POSTS, _DEMO_EVENTS = 1.44, 1.05, 1.02
_GROUPS = 20
_TYPE_SHARES = (0.70, 0.20, 0.07, 0.03)
"""Of view, click, like and share in the power-law feed."""
_POST_HALF_LIFE_DAYS = 1.25


def demo_world(size: Size) -> DemoWorld:
    """The demo world whose last `DAYS` days make a feed of that size."""
    return DemoWorld(
        users=round(size.users * _DEMO_USERS),
        posts=round(size.posts * _DEMO_POSTS),
        days=DAYS,
        events=round(size.events * _DEMO_EVENTS),
    )


def demo_feed(size: Size) -> InteractionLog:
    """The events of `demo_world` without a database."""
    world = demo_world(size)
    window = world.window(LAST_DAY)
    days = [world.history_day(day, window[0]) for day in world.history(window[0])]
    days += [world.day(day) for day in window]
    user_ids = _sorted_ids(np.concatenate([day.user_ids for day in days]))
    posts = np.concatenate([day.post_ids for day in days])
    order = np.lexsort(posts.T[::-1])
    post_ids = posts[order]
    return interaction_log(
        user_ids,
        post_ids,
        user_index=np.concatenate([rows_of(user_ids, day.event_user_ids) for day in days]),
        post_index=np.concatenate([rows_of(post_ids, day.event_post_ids) for day in days]),
        interaction_type=np.concatenate([day.event_type for day in days]),
        created_at=np.concatenate([day.event_created_at for day in days]),
        post_created_at=np.concatenate([day.post_created_at for day in days])[order],
    )


def power_law_feed(size: Size, seed: int = 1) -> InteractionLog:
    """Independent draws: who by a log-normal activity, what by a power of its rank."""
    rng = np.random.default_rng(seed)
    n = size.events
    users = _draw(rng, rng.lognormal(0.0, 1.0, size.users), n)
    popularity = np.arange(1, size.posts + 1) ** -0.8
    user_group = rng.integers(0, _GROUPS, size.users)
    post_group = rng.integers(0, _GROUPS, size.posts)
    posts = _draw(rng, popularity, n)
    stays = rng.random(n) < 0.5
    for group in range(_GROUPS):
        events = np.flatnonzero(stays & (user_group[users] == group))
        members = np.flatnonzero(post_group == group)
        if len(members):
            posts[events] = members[_draw(rng, popularity[members], len(events))]
    start = _end_us() - DAYS * MICROSECONDS_PER_DAY
    post_created_at = start + (rng.random(size.posts) * DAYS * MICROSECONDS_PER_DAY).astype(np.int64)
    age = rng.exponential(_POST_HALF_LIFE_DAYS / np.log(2), n) * MICROSECONDS_PER_DAY
    # An event after the end is moved to some time of the post's life before it.
    life = _end_us() - post_created_at[posts]
    age = np.where(age < life, age, rng.random(n) * life)
    return interaction_log(
        numbered_ids(size.users),
        numbered_ids(size.posts),
        user_index=users,
        post_index=posts,
        interaction_type=_draw(rng, np.array(_TYPE_SHARES), n),
        created_at=post_created_at[posts] + age.astype(np.int64),
        post_created_at=post_created_at,
    )


FEEDS: Final[dict[str, Callable[[Size], InteractionLog]]] = {"demo": demo_feed, "power-law": power_law_feed}


def workload(feed: str, size: Size) -> Workload:
    """The feed summed up as the pipeline does: weights .1 to 1.0 an event, at most three a type and pair.

    Users and posts without an event are left out, as they are when the pipeline reads a window.
    """
    log = FEEDS[feed](size)
    matrix = InteractionMatrix.from_log(
        log, _end_us(), interaction_weights=DEFAULT_INTERACTION_WEIGHTS, max_repeats=3
    )
    read = np.flatnonzero(np.bincount(matrix.weights.indices, minlength=log.n_posts))
    reads = np.flatnonzero(np.diff(matrix.weights.indptr))
    return Workload(
        feed=feed,
        size=size.name,
        n_events=log.n_interactions,
        weights=matrix.weights[reads][:, read],
        last_interaction_at=matrix.last_interaction_at[reads][:, read].data,
        post_created_at=log.post_created_at[read],
        as_of_us=_end_us(),
    )


def interaction_log(
    user_ids: Array,
    post_ids: Array,
    *,
    user_index: Array,
    post_index: Array,
    interaction_type: Array,
    created_at: Array,
    post_created_at: Array,
) -> InteractionLog:
    """A log without authors in which every post may be recommended."""
    return InteractionLog(
        user_ids=user_ids,
        post_ids=post_ids,
        author_ids=numbered_ids(0),
        user_index=user_index.astype(np.int32),
        post_index=post_index.astype(np.int32),
        interaction_type=interaction_type.astype(np.int8),
        created_at=created_at,
        post_created_at=post_created_at,
        post_author=np.full(len(post_ids), -1, dtype=np.int32),
        post_eligible=np.ones(len(post_ids), dtype=bool),
        user_author=np.full(len(user_ids), -1, dtype=np.int32),
        hidden_user=np.empty(0, dtype=np.int32),
        hidden_author=np.empty(0, dtype=np.int32),
        interaction_types=INTERACTION_TYPES,
    )


def numbered_ids(n: int) -> Array:
    """(n, 16) uint8: row numbers as ids, sorted."""
    return np.stack([np.zeros(n), np.arange(n)], axis=1).astype(">u8").view(np.uint8)


def _sorted_ids(ids: Array) -> Array:
    return np.asarray(ids[np.lexsort(ids.T[::-1])])


def _draw(rng: np.random.Generator, weights: Array, n: int) -> Array:
    """(n,) int64: positions drawn in proportion to the weights."""
    edges = np.cumsum(weights)
    places = np.searchsorted(edges, rng.random(n) * edges[-1], side="right")
    return np.asarray(np.minimum(places, len(weights) - 1))


def _end_us() -> int:
    """00:00 UTC after the last day, in microseconds since the epoch."""
    end = LAST_DAY + timedelta(days=1)
    return int(datetime(end.year, end.month, end.day, tzinfo=UTC).timestamp()) * 1_000_000
