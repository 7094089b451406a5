"""What no algorithm of this kind can be faster than on this machine.

The product of the matrix with its transpose, a row at a time into one accumulator (Gustavson, "Two
fast algorithms for sparse matrices", 1978), adds to Σ over posts of readers² places in an order that
the data decide. This does those additions and nothing else: no value is read, nothing is cleared or
selected. Chunks, threads and their queue are the ones our kernel uses.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numba
import numpy as np
import numpy.typing as npt

from benchmarks.contenders.base import Contender, Seconds, Stopwatch
from benchmarks.workload import Workload
from reco_assets.recommender.threads import run_chunks

Array = npt.NDArray[Any]


def _scatter_add(
    start: int,
    stop: int,
    indptr: Array,
    posts: Array,
    weights: Array,
    post_indptr: Array,
    post_users: Array,
    sums: Array,
) -> None:
    for u in range(start, stop):
        for p in range(indptr[u], indptr[u + 1]):
            weight = weights[p]
            for q in range(post_indptr[posts[p]], post_indptr[posts[p] + 1]):
                sums[post_users[q]] += weight


_compiled = cast(Callable[..., None], numba.njit(nogil=True, cache=True)(_scatter_add))


class ScatterBound(Contender):
    """The additions, into float32 and into float64."""

    def load(self, directory: Path, threads: int) -> None:
        """Postings by post, ids as uint32."""
        matrix = Workload.load(directory).weights
        inverted = matrix.tocsc()
        self._threads = threads
        self._arrays = (
            matrix.indptr.astype(np.int64),
            matrix.indices.astype(np.uint32),
            inverted.indptr.astype(np.int64),
            inverted.indices.astype(np.uint32),
        )
        self._weights = matrix.data
        readers = np.diff(inverted.indptr)[matrix.indices]
        self._cost = np.add.reduceat(readers, matrix.indptr[:-1])

    def run(self) -> Seconds:
        """Both, one after the other."""
        return {np.dtype(kind).name: self._seconds(kind) for kind in (np.float32, np.float64)}

    def _seconds(self, kind: Any) -> float:
        indptr, posts, post_indptr, post_users = self._arrays
        weights = self._weights.astype(kind)

        def work(start: int, stop: int) -> None:
            sums = np.zeros(len(indptr) - 1, dtype=kind)
            _compiled(start, stop, indptr, posts, weights, post_indptr, post_users, sums)

        watch = Stopwatch()
        run_chunks(work, self._cost, self._threads, None, None)
        return watch.seconds()
