"""Small logs and matrices for the tests."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from reco_assets.recommender.interaction_log import MICROSECONDS_PER_DAY, UNKNOWN_TIME, InteractionLog

DAY = MICROSECONDS_PER_DAY
TYPES = ("view", "click", "like", "share")
WEIGHTS = {"view": 0.1, "click": 0.3, "like": 0.7, "share": 1.0}


def ids(n: int, first_byte: int = 0) -> np.ndarray:
    """(n, 16) ascending ids; the last bytes are zero, which byte strings like to lose."""
    rows = np.zeros((n, 16), dtype=np.uint8)
    rows[:, 0] = first_byte
    rows[:, 12:14] = np.arange(n, dtype=">u2").reshape(-1, 1).view(np.uint8)
    return rows


def make_log(
    events: Sequence[tuple[int, int, str, float]],
    *,
    n_users: int,
    n_posts: int,
    n_authors: int = 0,
    **changes: Any,
) -> InteractionLog:
    """A log of (user, post, type, day) events; a day may be a fraction."""
    users, posts, types, days = zip(*events, strict=True) if events else ((), (), (), ())
    fields: dict[str, Any] = {
        "user_ids": ids(n_users, 1),
        "post_ids": ids(n_posts, 2),
        "author_ids": ids(n_authors, 3),
        "user_index": np.array(users, dtype=np.int32),
        "post_index": np.array(posts, dtype=np.int32),
        "interaction_type": np.array([TYPES.index(name) for name in types], dtype=np.int8),
        "created_at": np.array([round(day * DAY) for day in days], dtype=np.int64),
        "post_created_at": np.full(n_posts, UNKNOWN_TIME),
        "post_author": np.full(n_posts, -1, dtype=np.int32),
        "post_eligible": np.ones(n_posts, dtype=bool),
        "user_author": np.full(n_users, -1, dtype=np.int32),
        "hidden_user": np.empty(0, dtype=np.int32),
        "hidden_author": np.empty(0, dtype=np.int32),
        "interaction_types": TYPES,
    }
    return InteractionLog(**(fields | changes))


def random_log(
    rng: np.random.Generator, *, n_users: int = 40, n_posts: int = 60, n: int = 900
) -> InteractionLog:
    """Ten days of events with authors, hidden pairs and ineligible posts."""
    n_authors = 8
    return make_log(
        list(
            zip(
                rng.integers(n_users, size=n).tolist(),
                (n_posts * rng.random(n) ** 2).astype(int).tolist(),
                rng.choice(TYPES, n).tolist(),
                (10 * rng.random(n)).tolist(),
                strict=True,
            )
        ),
        n_users=n_users,
        n_posts=n_posts,
        n_authors=n_authors,
        post_created_at=np.where(
            rng.random(n_posts) < 0.2, UNKNOWN_TIME, (11 * DAY * rng.random(n_posts)).astype(np.int64)
        ),
        post_author=rng.integers(-1, n_authors, n_posts).astype(np.int32),
        post_eligible=rng.random(n_posts) < 0.9,
        user_author=np.where(np.arange(n_users) < 4, np.arange(n_users), -1).astype(np.int32),
        hidden_user=rng.integers(n_users, size=20).astype(np.int32),
        hidden_author=rng.integers(n_authors, size=20).astype(np.int32),
    )


def checkerboard(n: int) -> sp.csr_array:
    """User u read the posts of its parity except post u: the one that a neighbour's votes point to."""
    rows, columns = np.indices((n, n))
    return sp.csr_array(((rows + columns) % 2 == 0) & (rows != columns), dtype=np.float64)


def times_like(matrix: sp.csr_array, days: Any = 0.0) -> sp.csr_array:
    """Times of the entries of `matrix`: one for all, or one each."""
    data = np.broadcast_to(np.asarray(days) * DAY, matrix.nnz).astype(np.int64)
    return sp.csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)
