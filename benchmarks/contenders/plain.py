"""What one writes with scipy or scikit-learn: a blocked product, and a list from it."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from sklearn.neighbors import NearestNeighbors

from benchmarks.contenders.base import SearchContender, Seconds, Stopwatch, sparse_table
from benchmarks.workload import N_NEIGHBORS, N_POSTS, normalised_rows, sample_of

Array = npt.NDArray[Any]

WHOLE_UP_TO = 20_000
"""Users; of larger feeds the sample is computed, and its time multiplied."""
_BLOCK = 128
"""Rows of a dense block: a block of products stays in the cache that the cores share."""


class _Sampled(SearchContender):
    """Too slow for all users of a large feed: serves the sample there."""

    similar: sp.csr_array
    posts: Array

    def prepare(self) -> None:
        self.users = served(self.workload.n_users)

    def scaled(self, seconds: float) -> float:
        """Seconds for all users, in proportion."""
        return in_proportion(seconds, self.users, self.workload.n_users)

    def neighbors(self) -> Array:
        return sparse_table(self.similar, self.users, N_NEIGHBORS)

    def lists(self) -> Array:
        return self.posts


class BlockedScipy(_Sampled):
    """Blocks of rows times the transposed matrix, made dense, cut with argpartition; blocks on threads."""

    def run(self) -> Seconds:
        """Normalise, neighbours, lists."""
        watch = Stopwatch()
        unit = normalised_rows(self.workload.weights, np.float32)
        transposed = unit.T.tocsr()
        fixed_s = watch.seconds()

        def best(start: int) -> sp.csr_array:
            users = self.users[start : start + _BLOCK]
            similarity = (unit[users] @ transposed).toarray()
            similarity[np.arange(len(users)), users] = 0.0
            columns, values = top_of_rows(similarity, N_NEIGHBORS)
            indptr = np.arange(len(users) + 1) * columns.shape[1]
            return sp.csr_array((values.ravel(), columns.ravel(), indptr), shape=similarity.shape)

        with ThreadPoolExecutor(self.threads) as pool:
            self.similar = sp.csr_array(sp.vstack(list(pool.map(best, range(0, len(self.users), _BLOCK)))))
        neighbors_s = fixed_s + self.scaled(watch.seconds())
        weights = self.workload.weights
        self.posts, _ = blocked_lists(self.similar, weights, weights[self.users], self.threads)
        return {"neighbors": neighbors_s, "lists": self.scaled(watch.seconds())}


class ScikitLearn(_Sampled):
    """`NearestNeighbors(metric="cosine", algorithm="brute")`, and blocked lists."""

    def run(self) -> Seconds:
        """Neighbours, lists."""
        watch = Stopwatch()
        weights = self.workload.weights
        self.similar = brute_force_neighbors(weights, self.users, self.threads)
        neighbors_s = self.scaled(watch.seconds())
        self.posts, _ = blocked_lists(self.similar, weights, weights[self.users], self.threads)
        return {"neighbors": neighbors_s, "lists": self.scaled(watch.seconds())}


def served(n_users: int) -> Array:
    """The users that what is slow computes."""
    return sample_of(n_users) if n_users > WHOLE_UP_TO else np.arange(n_users)


def in_proportion(seconds: float, users: Array, n_users: int) -> float:
    """Seconds for all users from those for some."""
    return seconds * n_users / len(users)


def brute_force_neighbors(weights: sp.csr_array, users: Array, threads: int) -> sp.csr_array:
    """(m, n_users) CSR: scikit-learn's nearest neighbours of the users, who are not their own."""
    k = min(N_NEIGHBORS + 1, weights.shape[0])  # everybody is their own nearest neighbour
    estimator = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute", n_jobs=threads)
    distances, neighbors = estimator.fit(weights).kneighbors(weights[users])
    values = np.where(neighbors == users[:, None], 0.0, 1.0 - distances)
    values[values < 1e-9] = 0.0  # 1 − distance of users without a common post is rounding
    indptr = np.arange(len(users) + 1) * k
    return sp.csr_array((values.ravel(), neighbors.ravel(), indptr), shape=(len(users), weights.shape[0]))


def blocked_lists(
    similar: sp.csr_array, weights: sp.csr_array, seen: sp.csr_array, threads: int
) -> tuple[Array, Array]:
    """Score by a product in dense blocks, mask what was seen, cut.

    Args:
        similar: (m, n_users) similarities of the users' neighbours.
        weights: (n_users, n_posts) votes.
        seen: (m, n_posts) with an entry for every post to leave out.
        threads: blocks at a time.

    Returns:
        (m, N_POSTS) int32 posts, best first, -1 after the last, and their scores.
    """
    m = seen.shape[0]
    posts = np.full((m, N_POSTS), -1, dtype=np.int32)
    scores_of = np.zeros((m, N_POSTS))

    def fill(start: int) -> None:
        part = slice(start, min(start + _BLOCK, m))
        scores = (similar[part] @ weights).toarray()
        begin, end = seen.indptr[part.start], seen.indptr[part.stop]
        rows = np.repeat(np.arange(part.stop - part.start), np.diff(seen.indptr[part.start : part.stop + 1]))
        scores[rows, seen.indices[begin:end]] = 0.0
        columns, values = top_of_rows(scores, N_POSTS)
        posts[part, : columns.shape[1]] = np.where(values > 0, columns, -1)
        scores_of[part, : columns.shape[1]] = values

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, range(0, m, _BLOCK)))
    return posts, scores_of


def top_of_rows(values: Array, k: int) -> tuple[Array, Array]:
    """(m, k) columns and values of each row's largest values, in falling order."""
    k = min(k, values.shape[1])
    columns = np.argpartition(values, -k, axis=1)[:, -k:]
    found = np.take_along_axis(values, columns, axis=1)
    order = np.argsort(-found, axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1), np.take_along_axis(found, order, axis=1)
