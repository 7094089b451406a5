"""Which rows of a generation go live, and what became of the others: bookkeeping in numpy.

A row is known by its key, `user number << 32 | post number`, the numbers being those of
`RecommendationRows.users` and `posts`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from reco_assets.store.copy_buffer import RecommendationRows
from reco_assets.store.eligibility import REASONS, SEEN, Standing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Outcome:
    """What is to be done about the rows that were sent, and what is then left.

    Attributes:
        drops: (m,) int64, keys of rows to delete.
        emptied: (k,) int64, numbers of the users who still exist and lose their last row.
        dropped: reason → rows, those that were never sent included.
    """

    drops: "NDArray[np.int64]"
    emptied: "NDArray[np.int64]"
    n_users: int
    n_recommendations: int
    dropped: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Screening:
    """The rows held against what the database said before they were sent."""

    rows: RecommendationRows
    standing: Standing

    @cached_property
    def verdicts(self) -> "NDArray[np.int8]":
        """(n,) positions in `REASONS`."""
        return self.standing.verdicts(self.rows)

    @property
    def kept(self) -> "NDArray[np.bool_]":
        """(n,) the rows to send."""
        kept: NDArray[np.bool_] = self.verdicts == 0
        return kept

    def users_without_rows(self) -> "NDArray[np.int64]":
        """The numbers of those for whom nothing is sent."""
        import numpy as np

        return np.flatnonzero(self._sent_per_user == 0)

    def again(self, now: Standing, seen: "NDArray[np.int64]") -> Outcome:
        """Hold the rows that were sent against what the database says now.

        Args:
            now: Asked again.
            seen: (m,) sorted keys of rows whose user has seen the post.
        """
        import numpy as np

        user, post = self.rows.users.index, self.rows.posts.index
        verdicts = self.verdicts
        if not now.says_the_same_as(self.standing):
            verdicts = now.verdicts(self.rows)
        changed = np.flatnonzero((verdicts != 0) & self.kept)
        sent_seen = seen[~np.isin(seen, row_keys(user[~self.kept], post[~self.kept]))]
        keys = np.concatenate([row_keys(user[changed], post[changed]), sent_seen])
        reasons = np.concatenate([verdicts[changed], np.full(len(sent_seen), SEEN, dtype=np.int8)])
        drops, first = np.unique(keys, return_index=True)  # the first reason of a row takes precedence
        counts = np.bincount(self.verdicts, minlength=len(REASONS))
        n_sent, counts[0] = int(counts[0]), 0
        counts += np.bincount(reasons[first], minlength=len(REASONS))
        left = self._sent_per_user - np.bincount(drops >> 32, minlength=len(self._sent_per_user))
        emptied = np.flatnonzero((self._sent_per_user > 0) & (left == 0))
        return Outcome(
            drops,
            np.setdiff1d(emptied, now.absent_users[:, 0]),
            int(np.count_nonzero(left)),
            n_sent - len(drops),
            {REASONS[code]: int(counts[code]) for code in np.flatnonzero(counts)},
        )

    @cached_property
    def _sent_per_user(self) -> "NDArray[np.int64]":
        import numpy as np

        return np.bincount(self.rows.users.index[self.kept], minlength=len(self.rows.users.ids))


def row_keys(users: "NDArray[Any]", posts: "NDArray[Any]") -> "NDArray[np.int64]":
    """(m,) int64, from numbers of users and posts."""
    import numpy as np

    keys: NDArray[np.int64] = users.astype(np.int64) << 32 | posts
    return keys


def is_in_sorted(keys: "NDArray[np.int64]", known: "NDArray[np.int64]") -> "NDArray[np.bool_]":
    """Which of the keys are among the known ones, which are sorted."""
    import numpy as np

    if not len(known):
        return np.zeros(len(keys), dtype=np.bool_)
    found: NDArray[np.bool_] = known[np.minimum(np.searchsorted(known, keys), len(known) - 1)] == keys
    return found
