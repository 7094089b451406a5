"""The lists a recommender hands out."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class RecommendationLists:
    """Users' lists as flat arrays of one row per recommendation, sorted by user, then rank.

    A user without a recommendation has no row. Indices are rows of the matrix the recommender was
    fitted on.

    Attributes:
        user_index: (n_rows,) int32.
        post_index: (n_rows,) int32.
        rank: (n_rows,) int32, 1 for the best post.
        score: (n_rows,) float64, positive, falling with the rank; comparable within a list only.
    """

    user_index: Array
    post_index: Array
    rank: Array
    score: Array

    def __len__(self) -> int:
        return len(self.user_index)

    @classmethod
    def from_table(cls, users: Array, posts: Array, scores: Array) -> Self:
        """From (m,) users and their (m, n) posts and scores, best first, -1 after the last post."""
        if not (users[1:] > users[:-1]).all():
            order = np.argsort(users, kind="stable")
            users, posts, scores = users[order], posts[order], scores[order]
        listed = posts >= 0
        lengths = np.count_nonzero(listed, axis=1)
        full = bool(listed.all())
        # A mask and not pairs of indices, which would be the largest arrays of all.
        ranks = np.broadcast_to(np.arange(1, posts.shape[1] + 1, dtype=np.int32), posts.shape)
        return cls(
            user_index=np.repeat(users.astype(np.int32, copy=False), lengths),
            post_index=(posts.reshape(-1) if full else posts[listed]).astype(np.int32, copy=False),
            rank=ranks.reshape(-1) if full else ranks[listed],
            score=(scores.reshape(-1) if full else scores[listed]).astype(np.float64, copy=False),
        )

    @classmethod
    def empty(cls) -> Self:
        """No lists at all."""
        return cls.from_table(np.empty(0, np.int32), np.empty((0, 1), np.int32), np.empty((0, 1)))

    @property
    def n_users(self) -> int:
        """Number of users with a list."""
        return len(np.unique(self.user_index))

    def of(self, user: int) -> Array:
        """One user's post indices, best first; empty for a user without a list."""
        start, stop = np.searchsorted(self.user_index, [user, user + 1])
        return self.post_index[start:stop]
