"""The two loops that take the time, compiled: who is like whom, and what to show.

Both go through users in chunks that a pool of threads takes from a shared queue; the compiled code
releases the interpreter lock. Each user's row is computed by one thread from start to end in a fixed
order of summation, so the result does not depend on threads or chunks.

Ties: the lower index comes first, for neighbours as for posts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numba
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from reco_assets.recommender.masks import Masks
from reco_assets.recommender.threads import Progress, ShouldStop, run_chunks

Array = npt.NDArray[Any]
F = TypeVar("F", bound=Callable[..., Any])

# Rounding of the approximate similarity that preselects candidates stays far below this.
_SLACK = 1.0 - 1e-12
# Measured at 50,000 users: fewer lanes are longer to visit, more take longer to sort out; not a power
# of two, because a lane's values would then share one set of the cache.
_LANES = 1000
# Below this fraction of the users, walking the postings twice is cheaper than passing over all users.
_FEW = 32


def _compiled(function: F) -> F:
    """Compile without the interpreter lock; keep the machine code where the file system allows."""
    try:
        compiled: F = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no writable place for the cache, as in a read-only container
        compiled = numba.njit(nogil=True)(function)
    return compiled


# --- A list of the best k: heap with the worst on top; equal keys rank by the lower id -----------


@_compiled
def _is_worse(key: float, item: int, other_key: float, other_item: int) -> bool:
    return key < other_key or (key == other_key and item > other_item)


@_compiled
def _sift_down(keys: Array, items: Array, size: int) -> None:
    position = 0
    key, item = keys[0], items[0]
    while True:
        child = 2 * position + 1
        if child >= size:
            break
        right = child + 1
        if right < size and _is_worse(keys[right], items[right], keys[child], items[child]):
            child = right
        if not _is_worse(keys[child], items[child], key, item):
            break
        keys[position], items[position] = keys[child], items[child]
        position = child
    keys[position], items[position] = key, item


@_compiled
def _offer(keys: Array, items: Array, size: int, key: float, item: int) -> int:
    """Put (key, item) among the best `len(keys)` seen so far; returns the new size."""
    if size < len(keys):
        position = size
        while position > 0:
            parent = (position - 1) // 2
            if not _is_worse(key, item, keys[parent], items[parent]):
                break
            keys[position], items[position] = keys[parent], items[parent]
            position = parent
        keys[position], items[position] = key, item
        return size + 1
    if _is_worse(keys[0], items[0], key, item):
        keys[0], items[0] = key, item
        _sift_down(keys, items, size)
    return size


@_compiled
def _best_first(keys: Array, items: Array, size: int) -> None:
    """Turn the heap into a list, best first."""
    for last in range(size - 1, 0, -1):
        keys[0], keys[last] = keys[last], keys[0]
        items[0], items[last] = items[last], items[0]
        _sift_down(keys, items, last)


@_compiled
def _lane_maxima(values: Array, scale: Array, lanes: Array) -> None:
    """In `lanes`, each lane's maximum of values × scale, or 0: lane g holds g, g + len(lanes), ….

    Lanes are interleaved so that the maxima are taken side by side in vector registers, and written
    as a choice because `max` minds NaN, which keeps the compiler from doing so.
    """
    n_lanes = len(lanes)
    lanes[:] = 0.0
    for start in range(0, len(values), n_lanes):
        block, factors = values[start : start + n_lanes], scale[start : start + n_lanes]
        for lane in range(len(block)):
            value = block[lane] * factors[lane]
            lanes[lane] = value if value > lanes[lane] else lanes[lane]


@_compiled
def _kth_largest(lanes: Array, k: int) -> float:
    """Of the lanes' maxima, which is at most the k-th largest of all values; 0 with k lanes or fewer.

    So whatever is among the best k lies in a lane whose maximum reaches it. Visiting those few lanes
    only is what makes selection cheap.
    """
    return float(np.partition(lanes, len(lanes) - k)[len(lanes) - k]) if len(lanes) > k else 0.0


# --- Neighbours ---------------------------------------------------------------------------------


@_compiled
def _neighbors_of(
    users: Array,
    indptr: Array,
    posts: Array,
    weights: Array,
    post_indptr: Array,
    post_users: Array,
    post_weights: Array,
    squared_norms: Array,
    shrinkage: float,
    min_overlap: int,
    out_users: Array,
    out_similarities: Array,
) -> None:
    n_users, k = len(indptr) - 1, out_users.shape[1]
    dots = np.zeros(n_users)
    overlaps = np.zeros(n_users if min_overlap > 1 else 0, dtype=np.int32)
    norms = np.sqrt(squared_norms)
    scale = np.zeros(n_users)
    for v in range(n_users):
        if norms[v] > 0.0:
            scale[v] = 1.0 / norms[v]
    lanes = np.empty(max(_LANES, 8 * k))
    keys, items = np.empty(k), np.empty(k, dtype=np.int32)

    for row in range(len(users)):
        u = users[row]
        reached = 0
        for p in range(indptr[u], indptr[u + 1]):
            post, weight = posts[p], weights[p]
            reached += post_indptr[post + 1] - post_indptr[post]
            for q in range(post_indptr[post], post_indptr[post + 1]):
                dots[post_users[q]] += weight * post_weights[q]
        if min_overlap > 1:
            overlaps[:] = 0
            for p in range(indptr[u], indptr[u + 1]):
                for q in range(post_indptr[posts[p]], post_indptr[posts[p] + 1]):
                    overlaps[post_users[q]] += 1
            for v in range(n_users):
                if overlaps[v] < min_overlap:
                    dots[v] = 0.0
        dots[u] = 0.0

        size = 0
        if reached < n_users // _FEW:
            # Few entries: walk the same postings again, taking and clearing what was reached.
            for p in range(indptr[u], indptr[u + 1]):
                for q in range(post_indptr[posts[p]], post_indptr[posts[p] + 1]):
                    v = post_users[q]
                    if dots[v] > 0.0:
                        key = _rank_key(dots[v], squared_norms[v], norms[u] * norms[v], shrinkage)
                        size = _offer(keys, items, size, key, v)
                        dots[v] = 0.0
        else:
            if shrinkage > 0.0:
                for v in range(n_users):
                    scale[v] = 1.0 / (norms[u] * norms[v] + shrinkage)
            _lane_maxima(dots, scale, lanes)
            threshold = _kth_largest(lanes, k) * _SLACK
            for lane in range(len(lanes)):
                if lanes[lane] > 0.0 and lanes[lane] >= threshold:
                    for v in range(lane, n_users, len(lanes)):
                        if dots[v] > 0.0 and dots[v] * scale[v] >= threshold:
                            key = _rank_key(dots[v], squared_norms[v], norms[u] * norms[v], shrinkage)
                            size = _offer(keys, items, size, key, v)
            dots[:] = 0.0
        _best_first(keys, items, size)
        for rank in range(size):
            out_users[row, rank] = items[rank]
            # Undo the square that ranking uses; with shrinkage the key is the similarity itself.
            similarity = keys[rank] if shrinkage > 0.0 else np.sqrt(keys[rank] / squared_norms[u])
            out_similarities[row, rank] = min(1.0, similarity)
        for rank in range(size, k):
            out_users[row, rank] = -1
            out_similarities[row, rank] = 0.0


@_compiled
def _rank_key(dot: float, squared_norm: float, norm_product: float, shrinkage: float) -> float:
    """What neighbours are ranked by: dot² / ‖v‖², which orders like the cosine.

    With whole-number weights both are exact and the quotient is rounded once, so equal cosines give
    equal keys; a square root per vector would not.
    """
    return dot / (norm_product + shrinkage) if shrinkage > 0.0 else dot * dot / squared_norm


def find_neighbors(
    weights: sp.csr_array,
    users: Array,
    n_neighbors: int,
    *,
    shrinkage: float = 0.0,
    min_overlap: int = 1,
    n_threads: int | None = None,
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> tuple[Array, Array]:
    """The most similar other users of each of `users`, by the cosine of their rows.

    similarity(u, v) = u·v / (‖u‖‖v‖ + shrinkage), computed in float64. With weights that are whole
    numbers and no shrinkage the order is exact, ties included; otherwise similarities that differ by
    less than about 1e-14 of their value may rank either way, but always the same way.

    Args:
        weights: (n_users, n_posts) CSR with sorted indices, positive.
        users: (m,) rows to find neighbours for.
        n_neighbors: columns of the result.
        shrinkage: damps similarities of short vectors; 0 for the cosine.
        min_overlap: posts two users must share.
        n_threads: None: the cores this process may use.
        progress: called with (users done, m) from the calling thread.
        should_stop: asked now and then; true ends the work.

    Returns:
        (m, n_neighbors) int32 users and (m, n_neighbors) float32 similarities, most similar first,
        equal ones by lower index, filled up with -1 and 0 where fewer users share a post.

    Raises:
        FitCancelled: `should_stop` said so.
    """
    users = _frozen(users, np.int32)
    inverted = weights.tocsc()
    values = np.asarray(weights.data, dtype=np.float64)
    row_of_entry = np.repeat(np.arange(weights.shape[0]), np.diff(weights.indptr))
    # One entry after the other, in a fixed order: equal rows must get equal norms.
    squared_norms = np.bincount(row_of_entry, values * values, minlength=weights.shape[0])
    inputs = (
        _frozen(weights.indptr, np.int64),
        _frozen(weights.indices, np.uint32),
        _frozen(values, np.float64),
        _frozen(inverted.indptr, np.int64),
        _frozen(inverted.indices, np.uint32),
        _frozen(inverted.data, np.float64),
        _frozen(squared_norms, np.float64),
        float(shrinkage),
        min_overlap,
    )
    neighbors = np.empty((len(users), n_neighbors), dtype=np.int32)
    similarities = np.empty((len(users), n_neighbors), dtype=np.float32)

    def work(start: int, stop: int) -> None:
        _neighbors_of(users[start:stop], *inputs, neighbors[start:stop], similarities[start:stop])

    readers = np.diff(inverted.indptr)[weights.indices]
    cost = np.bincount(row_of_entry, readers, minlength=weights.shape[0])[users]
    run_chunks(work, cost + weights.shape[0] / 4, n_threads, progress, should_stop)
    return neighbors, similarities


# --- Scores and lists ---------------------------------------------------------------------------


@dataclass(frozen=True)
class PostFactors:
    """What a post's score depends on besides its voters; both (n_posts,) float64, not negative."""

    freshness: Array
    popularity: Array


@_compiled
def _recommend_to(
    users: Array,
    neighbors: Array,
    similarities: Array,
    vote_indptr: Array,
    vote_posts: Array,
    votes: Array,
    freshness: Array,
    popularity: Array,
    blend: float,
    eligible: Array,
    seen_indptr: Array,
    seen_posts: Array,
    blocked_indptr: Array,
    blocked_authors: Array,
    author_indptr: Array,
    author_posts: Array,
    out_posts: Array,
    out_scores: Array,
) -> None:
    n_posts, n = len(eligible), out_posts.shape[1]
    scores = np.empty(n_posts)
    lanes = np.empty(max(_LANES, 8 * n))
    ones = np.ones(n_posts)
    keys, items = np.empty(n), np.empty(n, dtype=np.int32)

    for row in range(len(users)):
        u = users[row]
        scores[:] = 0.0
        for j in range(neighbors.shape[1]):
            v = neighbors[u, j]
            if v < 0:
                break
            similarity = np.float64(similarities[u, j])
            for p in range(vote_indptr[v], vote_indptr[v + 1]):
                scores[vote_posts[p]] += similarity * votes[p]
        for post in range(n_posts):
            scores[post] = scores[post] * freshness[post] if eligible[post] else -np.inf
        for p in range(seen_indptr[u], seen_indptr[u + 1]):
            scores[seen_posts[p]] = -np.inf
        for a in range(blocked_indptr[u], blocked_indptr[u + 1]):
            author = blocked_authors[a]
            for p in range(author_indptr[author], author_indptr[author + 1]):
                scores[author_posts[p]] = -np.inf

        # The lanes' maxima double as the maximum that the votes are normalised by.
        _lane_maxima(scores, ones, lanes)
        highest = lanes.max()
        share = (1.0 - blend) / highest if highest > 0.0 else 0.0
        for post in range(n_posts):
            if scores[post] >= 0.0:
                scores[post] = share * scores[post] + blend * popularity[post]
        _lane_maxima(scores, ones, lanes)
        threshold = _kth_largest(lanes, n)
        size = 0
        for lane in range(len(lanes)):
            if lanes[lane] > 0.0 and lanes[lane] >= threshold:
                for post in range(lane, n_posts, len(lanes)):
                    if scores[post] > 0.0 and scores[post] >= threshold:
                        size = _offer(keys, items, size, scores[post], post)
        _best_first(keys, items, size)
        for rank in range(size):
            out_posts[row, rank] = items[rank]
            out_scores[row, rank] = keys[rank]
        for rank in range(size, n):
            out_posts[row, rank] = -1
            out_scores[row, rank] = 0.0


def recommend_to(
    users: Array,
    n: int,
    *,
    neighbors: Array,
    similarities: Array,
    votes: sp.csr_array,
    factors: PostFactors,
    blend: float,
    masks: Masks,
    n_threads: int | None = None,
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> tuple[Array, Array]:
    """The best `n` posts for each of `users`, among those that `masks` lets them see.

    score(u, i) = (1 − blend) · votes(u, i) / max over allowed j of votes(u, j) + blend · popularity(i),
    votes(u, i) = freshness(i) · Σ over neighbours v of similarity(u, v) · vote(v, i).

    Args:
        users: (m,) rows of `votes`.
        n: columns of the result.
        neighbors: (n_users, k) int32 neighbours of every user, -1 after the last.
        similarities: (n_users, k) float32.
        votes: (n_users, n_posts) CSR.
        factors: the posts' freshness and popularity.
        blend: share of popularity in the score, 0 … 1.
        masks: who may see what.
        n_threads: None: the cores this process may use.
        progress: called with (users done, m) from the calling thread.
        should_stop: asked now and then; true ends the work.

    Returns:
        (m, n) int32 posts and (m, n) float64 scores, best first, equal scores by lower index, filled
        up with -1 and 0; posts of score 0 are left out.

    Raises:
        FitCancelled: `should_stop` said so.
    """
    users = _frozen(users, np.int32)
    posts = np.empty((len(users), n), dtype=np.int32)
    scores = np.empty((len(users), n))
    inputs = (
        _frozen(neighbors, np.int32),
        _frozen(similarities, np.float32),
        _frozen(votes.indptr, np.int64),
        _frozen(votes.indices, np.uint32),
        _frozen(votes.data, np.float64),
        _frozen(factors.freshness, np.float64),
        _frozen(factors.popularity, np.float64),
        float(blend),
        _frozen(masks.eligible, np.bool_),
        _frozen(masks.seen_indptr, np.int64),
        _frozen(masks.seen_posts, np.int32),
        _frozen(masks.blocked_indptr, np.int64),
        _frozen(masks.blocked_authors, np.int32),
        _frozen(masks.author_indptr, np.int64),
        _frozen(masks.author_posts, np.int32),
    )

    def work(start: int, stop: int) -> None:
        _recommend_to(users[start:stop], *inputs, posts[start:stop], scores[start:stop])

    cost = np.ones(len(users))
    run_chunks(work, cost, n_threads, progress, should_stop)
    return posts, scores


def _frozen(array: Array, dtype: Any) -> Array:
    """A contiguous read-only view, without a copy where the type allows.

    numba compiles once more for each mix of writable and memory-mapped arrays; this leaves one.
    """
    array = np.ascontiguousarray(array)
    if array.dtype == np.int32 and dtype is np.uint32:
        array = array.view(np.uint32)  # indices are never negative
    frozen = np.asarray(array, dtype=dtype).view(np.ndarray)
    frozen.flags.writeable = False
    return frozen
