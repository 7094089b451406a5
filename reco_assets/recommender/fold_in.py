"""Fold-in: one user's neighbours and list from a fresh history, against a model that is already fitted."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reco_assets.errors import BadInput
from reco_assets.recommender.list_scoring import PostFactors, Votes, recommend_to
from reco_assets.recommender.masks import Masks
from reco_assets.recommender.neighbor_search import NeighborIndex
from reco_assets.recommender.weighting import SimilarityWeighting, age_in_days

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class FoldedIn:
    """What a fitted model says about one history.

    Attributes:
        post_index: (m,) int32, best first.
        score: (m,) float64, positive, falling; comparable within the list only.
        neighbors: (k,) int32, most similar first, -1 after the last.
        similarities: (k,) float32, 0 after the last.
    """

    post_index: Array
    score: Array
    neighbors: Array
    similarities: Array


@dataclass(frozen=True, eq=False)
class FoldIn:
    """Everything of a fitted model that a single history is held against, prepared once.

    A history is weighted with the statistics of the fit (`SimilarityWeighting`). They count users of the
    fit and nobody else: a user who was in it counts as a reader of the posts they had read then, not of
    those they have read since, and a user who was not does not count at all. A refit would add this one
    reader to each post, which moves ln(N / (1 + df)) by less than 1 / (1 + df). In exchange, a history
    that has not changed since the fit has the very neighbours and list that the fit gave it.

    Attributes:
        index: of the weighted rows; its own rows are not needed.
        weighting: as fitted.
        votes: of the users of the fit.
        factors: the posts' freshness and popularity.
        masks: who may be shown what.
        as_of_us: the instant that ages are counted to.
        n_neighbors, similarity_window_days, shrinkage, min_overlap: as fitted.
    """

    index: NeighborIndex
    weighting: SimilarityWeighting
    votes: Votes
    factors: PostFactors
    masks: Masks
    as_of_us: int
    n_neighbors: int
    similarity_window_days: float | None
    shrinkage: float
    min_overlap: int

    def recommend(
        self,
        posts: Array,
        weights: Array,
        last_interaction_at: Array | None,
        *,
        user: int,
        blocked_authors: Array | None,
        n: int,
        blend: float,
    ) -> FoldedIn:
        """See `UserKNNRecommender.fold_in`; `user` is a row of the fit or -1, `n` at least 1."""
        posts, weights, ages = self._history(posts, weights, last_interaction_at)
        neighbors, similarities = self._neighbors(posts, weights, ages, user)
        scored, scores = recommend_to(
            _FIRST_ROW,
            max(1, min(n, self._n_posts)),
            neighbors=neighbors[np.newaxis],
            similarities=similarities[np.newaxis],
            votes=self.votes,
            factors=self.factors,
            blend=blend,
            masks=self.masks.for_history(posts, self._blocked(user, blocked_authors)),
            n_threads=1,
        )
        listed = scored[0] >= 0
        return FoldedIn(scored[0][listed], scores[0][listed], neighbors, similarities)

    def neighbors(
        self, posts: Array, weights: Array, last_interaction_at: Array | None, *, user: int
    ) -> tuple[Array, Array]:
        """See `UserKNNRecommender.neighbors_of`; `user` is a row of the fit or -1."""
        return self._neighbors(*self._history(posts, weights, last_interaction_at), user)

    def _neighbors(self, posts: Array, weights: Array, ages: Array | None, user: int) -> tuple[Array, Array]:
        if self.similarity_window_days is not None and ages is not None:
            recent = ages <= self.similarity_window_days
            posts, weights = posts[recent], weights[recent]
        weighted = self.weighting.of_rows(posts, weights, np.array([0, len(posts)]))
        telling = weighted > 0
        if not telling.all():
            posts, weighted = posts[telling], weighted[telling]
        return self.index.search_one(
            posts,
            weighted,
            self.n_neighbors,
            exclude=user,
            shrinkage=self.shrinkage,
            min_overlap=self.min_overlap,
        )

    def _history(
        self, posts: Array, weights: Array, last_interaction_at: Array | None
    ) -> tuple[Array, Array, Array | None]:
        """Checked and by ascending post: int32, float64, and ages in days if times are given."""
        posts, weights = np.asarray(posts), np.asarray(weights, dtype=np.float64)
        if not len(posts):
            posts = posts.astype(np.int32)  # an empty list is float64 to numpy
        if posts.ndim != 1 or not np.issubdtype(posts.dtype, np.integer):
            raise BadInput(f"post_indices has shape {posts.shape} and type {posts.dtype}; expected integers.")
        if weights.shape != posts.shape:
            raise BadInput(f"weights has shape {weights.shape}; post_indices has {posts.shape}.")
        if len(posts) and not (posts.min() >= 0 and posts.max() < self._n_posts):
            wrong = posts[(posts < 0) | (posts >= self._n_posts)][0]
            raise BadInput(f"Post {wrong} is not a column of the fitted matrix (0 … {self._n_posts - 1}).")
        if not (np.isfinite(weights).all() and (weights > 0).all()):
            raise BadInput(
                "weights holds a value that is not positive and finite; drop such interactions first."
            )
        ages = None
        if last_interaction_at is not None:
            if np.shape(last_interaction_at) != posts.shape:
                raise BadInput(
                    f"last_interaction_at has shape {np.shape(last_interaction_at)}; "
                    f"post_indices has {posts.shape}."
                )
            ages = age_in_days(last_interaction_at, self.as_of_us)
        posts = posts.astype(np.int32, copy=False)
        if not (posts[1:] > posts[:-1]).all():
            order = np.argsort(posts, kind="stable")
            posts, weights = posts[order], weights[order]
            ages = None if ages is None else ages[order]
            if (twice := posts[1:] == posts[:-1]).any():
                raise BadInput(
                    f"Post {posts[1:][twice][0]} stands in the history twice; add up its weights first."
                )
        return posts, weights, ages

    def _blocked(self, user: int, blocked_authors: Array | None) -> Array:
        if blocked_authors is None:
            return self.masks.blocked_by(user) if user >= 0 else _NOBODY
        authors = np.asarray(blocked_authors, dtype=np.int32)
        if len(authors) and not authors.min() >= 0:
            raise BadInput("blocked_authors holds a negative code; leave out authors that are unknown.")
        return authors[authors < self.masks.n_authors]  # authors of none of the posts

    @property
    def _n_posts(self) -> int:
        return len(self.masks.eligible)


_FIRST_ROW = np.zeros(1, dtype=np.int32)
_NOBODY = np.empty(0, dtype=np.int32)
