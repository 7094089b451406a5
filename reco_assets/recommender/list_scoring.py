"""What to show: the neighbours' votes, weighed, blended with popularity, masked, and cut to the best n.

A user's neighbours have voted for some posts; all others score by popularity alone, in an order that
is the same for everybody. So a list takes the posts voted for, and the first of the popular ones that
the user may see, and never looks at the rest.
"""

import threading
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from reco_assets.recommender.compiled import compiled, frozen
from reco_assets.recommender.masks import Masks
from reco_assets.recommender.selection import keep_best, room_for, sort_best_first
from reco_assets.recommender.threads import Progress, ShouldStop, run_chunks

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class PostFactors:
    """What a post's score depends on besides its voters; both (n_posts,) float64, not negative."""

    freshness: Array
    popularity: Array

    @classmethod
    def of(cls, freshness: Array, readers: Array, eligible: Array) -> Self:
        """Popularity is `readers`, (n_posts,) decayed, times freshness, divided by its maximum.

        The maximum is over eligible posts, because the others cannot be shown.
        """
        popularity = readers * freshness
        highest = popularity[eligible].max(initial=0.0)
        return cls(freshness, popularity / highest if highest > 0 else popularity)

    @cached_property
    def by_popularity(self) -> Array:
        """(m,) int32: the posts of any popularity, the most popular first, equal ones by index."""
        order = np.lexsort((np.arange(len(self.popularity)), -self.popularity))
        return order[: np.count_nonzero(self.popularity)].astype(np.int32)


class Votes(NamedTuple):
    """Users' votes, a row each, in the types of the loops: scipy would narrow `indptr`."""

    indptr: Array  # (n_voters + 1,) int64
    indices: Array  # (nnz,) int32
    data: Array  # (nnz,) float64

    @classmethod
    def of(cls, matrix: sp.csr_array) -> Self:
        """Of a CSR matrix, whose entries are shared where their types allow."""
        return cls(
            np.asarray(matrix.indptr, dtype=np.int64),
            np.asarray(matrix.indices, dtype=np.int32),
            np.asarray(matrix.data, dtype=np.float64),
        )


class _Given(NamedTuple):
    """Votes, and the factors of the posts."""

    indptr: Array
    posts: Array
    values: Array
    freshness: Array
    popularity: Array
    by_popularity: Array


class _MaskArrays(NamedTuple):
    seen_indptr: Array
    seen_posts: Array
    blocked_indptr: Array
    blocked_authors: Array
    author_indptr: Array
    author_posts: Array


class _Workspace(NamedTuple):
    """What a thread computes in."""

    totals: Array  # (n_posts,) float64, zero between rows
    posts: Array  # (n_posts + 1,) int32
    closed: Array  # (n_posts,) int32: the stamp of the last row that a post is closed for


_FOR_EVER = int(np.iinfo(np.int32).max)


class _Kept(threading.local):
    """A thread's workspace: clearing memory for all posts would take longer than most users' lists."""

    space: _Workspace
    eligible: Array = np.empty(0, dtype=np.bool_)
    stamp = _FOR_EVER  # there is no space yet

    def for_rows(self, n_rows: int, eligible: Array) -> tuple[_Workspace, int]:
        """Room for lists of these posts, and the stamp of the first of `n_rows` rows."""
        if self.stamp > _FOR_EVER - n_rows or not np.array_equal(self.eligible, eligible):
            self.space = _Workspace(
                np.zeros(len(eligible)),
                np.empty(len(eligible) + 1, dtype=np.int32),
                np.where(eligible, np.int32(0), np.int32(_FOR_EVER)),
            )
            self.eligible, self.stamp = eligible.copy(), 1
        first, self.stamp = self.stamp, self.stamp + n_rows
        return self.space, first


_KEPT = _Kept()


@compiled
def _close(stamp: int, user: int, masks: Any, closed: Array) -> None:
    """Mark the posts that the user has seen and those of blocked authors."""
    seen_posts, author_posts = masks.seen_posts, masks.author_posts
    for p in range(masks.seen_indptr[user], masks.seen_indptr[user + 1]):
        closed[seen_posts[p]] = max(closed[seen_posts[p]], stamp)
    for a in range(masks.blocked_indptr[user], masks.blocked_indptr[user + 1]):
        author = masks.blocked_authors[a]
        for p in range(masks.author_indptr[author], masks.author_indptr[author + 1]):
            closed[author_posts[p]] = max(closed[author_posts[p]], stamp)


@compiled
def _sum_votes(
    neighbors: Array, similarities: Array, given: Any, bounds: Array, totals: Array, posts: Array
) -> int:
    """Sum the neighbours' votes in `totals`; returns how many `posts` got any, each listed once."""
    indptr, vote_posts, values = given.indptr, given.posts, given.values
    n_neighbors = 0
    for neighbor in neighbors:
        if neighbor < 0:
            break
        # Rows lie far apart in memory. Asking for their beginnings at once lets the processor fetch
        # them side by side; one after the other they would take longer than the sums.
        first = indptr[neighbor]
        bounds[n_neighbors, 0], bounds[n_neighbors, 1] = first, indptr[neighbor + 1]
        bounds[n_neighbors, 2] = vote_posts[first] if first < len(vote_posts) else 0
        n_neighbors += 1
    n_posts = 0
    for j in range(n_neighbors):
        similarity = np.float64(similarities[j])
        for p in range(np.uint64(bounds[j, 0]), np.uint64(bounds[j, 1])):
            post, vote = vote_posts[p], similarity * values[p]
            posts[n_posts] = post
            n_posts += (totals[post] == 0.0) & (vote != 0.0)
            totals[post] += vote
    return n_posts


@compiled
def _recommend_to(
    users: Array,
    neighbors: Array,
    similarities: Array,
    given: Any,
    blend: float,
    masks: Any,
    space: Any,
    stamp: int,
    out_posts: Array,
    out_scores: Array,
) -> None:
    freshness, popularity, by_popularity = given.freshness, given.popularity, given.by_popularity
    n, room = out_posts.shape[1], room_for(out_posts.shape[1])
    totals, posts, closed = space.totals, space.posts, space.closed
    bounds = np.empty((neighbors.shape[1], 3), dtype=np.int64)
    keys, items, scratch = np.empty(room), np.empty(room, dtype=np.int32), np.empty(room)

    for row in range(len(users)):
        u = users[row]
        _close(stamp + row, u, masks, closed)
        n_voted = _sum_votes(neighbors[u], similarities[u], given, bounds, totals, posts)
        n_open, highest = 0, 0.0
        for i in range(n_voted):
            post = posts[i]
            total = totals[post] * freshness[post] if closed[post] < stamp + row else 0.0
            totals[post] = total if total > 0.0 else 0.0
            posts[n_open] = post
            n_open += total > 0.0
            highest = total if total > highest else highest

        size, floor = 0, 0.0
        if blend > 0.0:
            for post in by_popularity:
                score = blend * popularity[post]
                if score == 0.0:
                    break
                if closed[post] < stamp + row and totals[post] == 0.0:
                    keys[size], items[size] = score, post
                    size += 1
                    if size == n:
                        floor = keys[size - 1]
                        break
        for i in range(n_open):
            post = posts[i]
            # The quotient first: 1 / highest is infinite where votes have all but decayed.
            score = (1.0 - blend) * (totals[post] / highest) + blend * popularity[post]
            totals[post] = 0.0
            if score >= floor and score > 0.0:
                keys[size], items[size] = score, post
                size += 1
                if size == room:
                    floor, size = keep_best(keys, items, n, scratch), n
        if size > n:
            keep_best(keys[:size], items[:size], n, scratch)
            size = n
        sort_best_first(keys[:size], items[:size])
        out_posts[row, :size], out_scores[row, :size] = items[:size], keys[:size]
        out_posts[row, size:], out_scores[row, size:] = -1, 0.0


def recommend_to(
    users: Array,
    n: int,
    *,
    neighbors: Array,
    similarities: Array,
    votes: Votes | sp.csr_array,
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
        users: (m,) rows of `neighbors` and of `masks`.
        n: columns of the result, at least 1.
        neighbors: (n_users, k) int32 rows of `votes`, -1 after the last.
        similarities: (n_users, k) float32.
        votes: (n_voters, n_posts), not negative; `Votes` when it is asked often.
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
    users = frozen(users, np.int32)
    posts = np.empty((len(users), n), dtype=np.int32)
    scores = np.empty((len(users), n))
    inputs = (
        frozen(neighbors, np.int32),
        frozen(similarities, np.float32),
        _Given(
            frozen(votes.indptr, np.int64),
            frozen(votes.indices, np.uint32),
            frozen(votes.data, np.float64),
            frozen(factors.freshness, np.float64),
            frozen(factors.popularity, np.float64),
            frozen(factors.by_popularity, np.int32),
        ),
        float(blend),
        _MaskArrays(
            frozen(masks.seen_indptr, np.int64),
            frozen(masks.seen_posts, np.int32),
            frozen(masks.blocked_indptr, np.int64),
            frozen(masks.blocked_authors, np.int32),
            frozen(masks.author_indptr, np.int64),
            frozen(masks.author_posts, np.int32),
        ),
    )

    def work(start: int, stop: int) -> None:
        space = _KEPT.for_rows(stop - start, masks.eligible)
        _recommend_to(users[start:stop], *inputs, *space, posts[start:stop], scores[start:stop])

    run_chunks(work, np.ones(len(users)), n_threads, progress, should_stop)
    return posts, scores
