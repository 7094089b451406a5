"""Whether contenders found the same: against ours, and against the exact product computed here.

Many similarities and scores are equal, and each library breaks ties in its own way, so equal ids are
only half of the answer. A neighbour is as good as the reference's when its exact similarity reaches
that of the last neighbour there, up to `TOLERANCE`; likewise a post of a list.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from benchmarks.contenders.base import read_results
from benchmarks.workload import N_NEIGHBORS, N_POSTS, Workload

Array = npt.NDArray[Any]

TOLERANCE: Final = 1e-6
_CHUNK = 100


@dataclass
class _Count:
    hits: float = 0.0
    of: float = 0.0

    def add(self, hits: Any, of: Any) -> None:
        self.hits += float(hits)
        self.of += float(of)

    @property
    def percent(self) -> float | None:
        return 100 * self.hits / self.of if self.of else None


@dataclass(frozen=True)
class Agreement:
    """Shares in percent over the sampled users; None where there is nothing to compare.

    Attributes:
        same_neighbors: of our neighbours, those that the contender found too.
        good_neighbors: of as many neighbours as there are to find, those as similar as the last of
            the exact product.
        same_lists: of the posts in our lists, those in the contender's.
        good_lists: of as many posts as there are, those that score as high as the last one of the
            list that follows exactly from our neighbours.
    """

    same_neighbors: float | None
    good_neighbors: float | None
    same_lists: float | None
    good_lists: float | None


def compare(workload: Workload, ours: Path, others: Mapping[str, Path]) -> dict[str, Agreement]:
    """Compare saved results on `workload.sample()`.

    Args:
        workload: what they were computed from.
        ours: the directory of our own results, which hold all users.
        others: name → directory; ours may be among them.

    Returns:
        Name → agreement.
    """
    users = workload.sample()
    _, our_neighbors, our_lists = _for_users(ours, users)
    assert our_neighbors is not None
    results = {name: _for_users(directory, users) for name, directory in others.items()}
    counts = {name: [_Count() for _ in range(4)] for name in others}
    reference = _Reference(workload)
    for start in range(0, len(users), _CHUNK):
        part = slice(start, start + _CHUNK)
        cosines = reference.cosines(users[part])
        scores = reference.scores(users[part], cosines, our_neighbors[part])
        for name, (_, neighbors, lists) in results.items():
            same_neighbors, good_neighbors, same_lists, good_lists = counts[name]
            if neighbors is not None:
                same_neighbors.add(*_common(neighbors[part], our_neighbors[part]))
                good_neighbors.add(*_as_good(neighbors[part], cosines, N_NEIGHBORS))
            same_lists.add(*_common(lists[part], our_lists[part]))
            if neighbors is not None:
                good_lists.add(*_as_good(lists[part], scores, N_POSTS))
    return {name: Agreement(*(count.percent for count in each)) for name, each in counts.items()}


class _Reference:
    """Exact similarities and scores, dense, for some users at a time."""

    def __init__(self, workload: Workload) -> None:
        weights = workload.weights
        self._weights = weights
        # Weights are multiples of 0.1: ten times them are whole, so that dot products are exact.
        tenths = sp.csr_array(
            (np.rint(weights.data * 10), weights.indices, weights.indptr), shape=weights.shape
        )
        self._tenths, self._transposed = tenths, tenths.T.tocsr()
        self._lengths = np.sqrt(np.add.reduceat(tenths.data**2, weights.indptr[:-1]))

    def cosines(self, users: Array) -> Array:
        """(m, n_users) float64, 0 for the users themselves."""
        dots = (self._tenths[users] @ self._transposed).toarray()
        cosines = dots / (self._lengths[users][:, None] * self._lengths)
        cosines[np.arange(len(users)), users] = 0.0
        return np.asarray(cosines)

    def scores(self, users: Array, cosines: Array, neighbors: Array) -> Array:
        """(m, n_posts) float64: from these neighbours, 0 for posts that were seen."""
        votes = np.zeros_like(cosines)
        rows, ranks = np.nonzero(neighbors >= 0)
        chosen = neighbors[rows, ranks]
        votes[rows, chosen] = cosines[rows, chosen]
        scores = (sp.csr_array(votes) @ self._weights).toarray()
        seen_rows, seen_posts = self._weights[users].nonzero()
        scores[seen_rows, seen_posts] = 0.0
        return np.asarray(scores)


def _for_users(directory: Path, users: Array) -> tuple[Array, Array | None, Array]:
    """The results of those users, who must be among the contender's."""
    served, neighbors, lists = read_results(directory)
    rows = np.searchsorted(served, users)
    return users, None if neighbors is None else neighbors[rows], lists[rows]


def _common(theirs: Array, ours: Array) -> tuple[int, int]:
    """How many of our entries are theirs too, and how many entries we have."""
    equal = (theirs[:, :, None] == ours[:, None, :]) & (ours >= 0)[:, None, :]
    return int(equal.any(axis=1).sum()), int((ours >= 0).sum())


def _as_good(table: Array, values: Array, k: int) -> tuple[int, int]:
    """How many entries reach the k-th largest value of their row, and how many there are to find."""
    k = min(k, values.shape[1])
    last = np.partition(values, -k, axis=1)[:, -k]
    rows, ranks = np.nonzero(table >= 0)
    found = values[rows, table[rows, ranks]]
    good = (found > 0) & (found >= last[rows] - TOLERANCE)
    return int(good.sum()), int(np.minimum((values > 0).sum(axis=1), k).sum())
