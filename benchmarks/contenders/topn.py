"""Libraries for the product of sparse matrices of which the largest entries of a row are wanted."""

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from sparse_dot_topn import sp_matmul_topn

from benchmarks.contenders.base import SearchContender, Seconds, Stopwatch, sparse_table
from benchmarks.workload import N_NEIGHBORS, N_POSTS, normalised_rows

Array = npt.NDArray[Any]


class SparseDotTopN(SearchContender):
    """Two products by `sp_matmul_topn`: neighbours, and lists from them.

    In float32, which is its faster type.
    """

    similar: sp.csr_array
    best: sp.csr_array

    def run(self) -> Seconds:
        """Normalise, neighbours, lists."""
        watch = Stopwatch()
        unit = normalised_rows(self.workload.weights, np.float32)
        # Everybody is their own nearest neighbour.
        self.similar = _product(unit, unit.T, N_NEIGHBORS + 1, self.threads)
        neighbors_s = watch.seconds()
        self.best = topn_lists(self.similar, self.workload.weights, self.threads)
        return {"neighbors": neighbors_s, "lists": watch.seconds()}

    def neighbors(self) -> Array:
        """Of all users."""
        return sparse_table(self.similar, self.users, N_NEIGHBORS)

    def lists(self) -> Array:
        """Of all users."""
        return sparse_table(self.best, np.full(len(self.users), -1), N_POSTS)


class ImplicitUserUser(SearchContender):
    """implicit's `CosineRecommender` on the transposed matrix, whose items are the users.

    It has no step from users' neighbours to lists of posts; sparse_dot_topn's lends its own, the
    fastest among the peers.
    """

    similar: sp.csr_array
    best: sp.csr_array

    def prepare(self) -> None:
        """The transposed matrix, in the type implicit takes."""
        from implicit.nearest_neighbours import CosineRecommender

        self._recommender = CosineRecommender
        self._transposed = sp.csr_matrix(self.workload.weights.T.tocsr())

    def run(self) -> Seconds:
        """Fit, lists."""
        watch = Stopwatch()
        model = self._recommender(K=N_NEIGHBORS + 1, num_threads=self.threads)
        model.fit(self._transposed, show_progress=False)
        self.similar = sp.csr_array(model.similarity)
        neighbors_s = watch.seconds()
        self.best = topn_lists(self.similar, self.workload.weights, self.threads)
        return {"neighbors": neighbors_s, "lists": watch.seconds()}

    def neighbors(self) -> Array:
        """Of all users."""
        return sparse_table(self.similar, self.users, N_NEIGHBORS)

    def lists(self) -> Array:
        """Of all users."""
        return sparse_table(self.best, np.full(len(self.users), -1), N_POSTS)


def topn_lists(similar: sp.csr_array, weights: sp.csr_array, threads: int) -> sp.csr_array:
    """(n_users, n_posts): the best unseen posts of everybody, by one product.

    What was seen is pushed below the threshold of 0 by a further block: [S, −c I] [W; seen], c above
    any score.
    """
    others = np.repeat(np.arange(similar.shape[0]), np.diff(similar.indptr)) != similar.indices
    n = similar.shape[0]
    votes = sp.csr_array(
        ((similar.data * others).astype(np.float32), similar.indices, similar.indptr), shape=(n, n)
    )
    above = np.float32(2 * votes.sum(axis=1).max() * weights.data.max())
    seen = sp.csr_array((np.ones(weights.nnz, np.float32), weights.indices, weights.indptr), weights.shape)
    left = sp.hstack([votes, -above * sp.eye_array(n, dtype=np.float32)], format="csr")
    right = sp.vstack([weights.astype(np.float32), seen], format="csr")
    return _product(left, right, N_POSTS, threads)


def _product(left: Any, right: Any, top: int, threads: int) -> sp.csr_array:
    """The largest positive entries of each row of left × right."""
    left, right = sp.csr_matrix(left), sp.csr_matrix(right)  # the only types it takes
    return sp.csr_array(sp_matmul_topn(left, right, top_n=top, threshold=0.0, sort=True, n_threads=threads))
