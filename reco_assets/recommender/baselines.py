"""The simple recommenders that a model has to beat, with the same masks and the same output."""

from abc import ABC, abstractmethod
from typing import Any, Self, Unpack

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from reco_assets.errors import BadInput
from reco_assets.recommender.fit_inputs import FitArguments, FitInputs, Recommender
from reco_assets.recommender.list_scoring import PostFactors, recommend_to
from reco_assets.recommender.recommendation_lists import RecommendationLists
from reco_assets.recommender.weighting import decay

Array = npt.NDArray[Any]

_DRAWS = 256


class _Baseline:
    """What the baselines share: checked inputs and the default users and length.

    Args:
        n_recommendations: length of a list.
        active_within_days: `recommend()` serves users with an interaction in so many days.
    """

    def __init__(self, *, n_recommendations: int = 50, active_within_days: float = 30) -> None:
        self.n_recommendations = n_recommendations
        self.active_within_days = active_within_days

    def fit(self, weights: Any, **inputs: Unpack[FitArguments]) -> Self:
        """Take a (n_users, n_posts) matrix of weights and `FitArguments`.

        Raises:
            BadInput: one of them is out of range.
        """
        self.inputs_ = FitInputs.check(weights, **inputs)
        return self

    def _users(self, user_indices: Array | None) -> Array:
        if user_indices is None:
            return self.inputs_.active_users(self.active_within_days)
        users = np.unique(np.asarray(user_indices, dtype=np.int64))
        n_users = self.inputs_.weights.shape[0]
        if len(users) and not (users[0] >= -1 and users[-1] < n_users):
            raise BadInput(f"User {users[-1]} is not a row of the fitted matrix (0 … {n_users - 1}).")
        return users[users >= 0].astype(np.int32)

    def _length(self, n: int | None) -> int:
        n = self.n_recommendations if n is None else n
        if n < 1:
            raise BadInput(f"n is {n}; a list has at least 1 post.")
        return max(1, min(n, int(self.inputs_.weights.shape[1])))


class _PostScores(_Baseline, ABC):
    """A baseline that scores posts the same for everybody."""

    def recommend(self, user_indices: Array | None = None, n: int | None = None) -> RecommendationLists:
        """The best allowed posts of positive score; equal scores rank by the lower index."""
        users, n = self._users(user_indices), self._length(n)
        shape = self.inputs_.weights.shape
        posts, scores = recommend_to(
            users,
            n,
            neighbors=np.empty((shape[0], 0), dtype=np.int32),
            similarities=np.empty((shape[0], 0), dtype=np.float32),
            votes=sp.csr_array(shape, dtype=np.float64),
            factors=PostFactors(np.ones(shape[1]), self.post_scores()),
            blend=1.0,
            masks=self.inputs_.masks,
        )
        return RecommendationLists.from_table(users, posts, scores)

    @abstractmethod
    def post_scores(self) -> Array:
        """(n_posts,) float64, not negative."""


class PopularityRecommender(_PostScores):
    """Most readers first, each decayed by the time since they last interacted, times post freshness.

    Args:
        half_life_days: of a reader; None: all of the window count alike.
        freshness_half_life_days: post age that halves a score; None: age does not matter.
        n_recommendations, active_within_days: as for the model.
    """

    def __init__(
        self,
        *,
        half_life_days: float | None = None,
        freshness_half_life_days: float | None = None,
        n_recommendations: int = 50,
        active_within_days: float = 30,
    ) -> None:
        super().__init__(n_recommendations=n_recommendations, active_within_days=active_within_days)
        self.half_life_days = half_life_days
        self.freshness_half_life_days = freshness_half_life_days

    def post_scores(self) -> Array:
        """(n_posts,) float64: Σ over readers of 0.5^(age / half-life), times freshness."""
        readers = decay(self.inputs_.entry_ages(), self.half_life_days)
        freshness = decay(self.inputs_.post_ages(), self.freshness_half_life_days)
        counts = np.bincount(self.inputs_.weights.indices, readers, minlength=len(freshness))
        scores: Array = counts * freshness
        return scores


class NewestRecommender(_PostScores):
    """Newest posts first; posts of unknown age are not recommended, unless no age at all is known."""

    def post_scores(self) -> Array:
        """(n_posts,) float64: 1 / (1 + age in days), which is 0 for an unknown age."""
        return 1.0 / (1.0 + np.maximum(self.inputs_.post_ages(), 0.0))


class RandomRecommender(_Baseline):
    """Allowed posts in random order: what "better than random" is measured against.

    Args:
        rng: asked once for a seed; a user's list depends on that seed and the user alone.
        n_recommendations, active_within_days: as for the model.
    """

    def __init__(
        self, *, rng: np.random.Generator, n_recommendations: int = 50, active_within_days: float = 30
    ) -> None:
        super().__init__(n_recommendations=n_recommendations, active_within_days=active_within_days)
        self._seed = int(rng.integers(2**63))

    def recommend(self, user_indices: Array | None = None, n: int | None = None) -> RecommendationLists:
        """The allowed posts in random order, cut to `n`; the score is 1 / rank."""
        users, n = self._users(user_indices), self._length(n)
        posts = np.full((len(users), n), -1, dtype=np.int32)
        for row, user in enumerate(users.tolist()):
            order = self._random_order(user, n)
            posts[row, : len(order)] = order
        scores = np.broadcast_to(1.0 / np.arange(1, n + 1), posts.shape)
        return RecommendationLists.from_table(users, posts, scores)

    def _random_order(self, user: int, n: int) -> Array:
        """The first `n` of one fixed random order of the user's allowed posts.

        Drawing with replacement and dropping repeats is such an order too, and spares shuffling a whole
        catalogue for a list of ten; only what a fixed number of draws leaves over is shuffled.
        """
        rng = np.random.default_rng([self._seed, user])
        allowed = self.inputs_.masks.allowed(user)
        if not allowed.any():
            return np.empty(0, dtype=np.int64)
        drawn = rng.integers(len(allowed), size=_DRAWS)
        drawn = drawn[allowed[drawn]]
        order = drawn[np.sort(np.unique(drawn, return_index=True)[1])]
        if len(order) < n:
            allowed[order] = False
            order = np.concatenate([order, rng.permutation(np.flatnonzero(allowed))])
        return order[:n]


def default_baselines(rng: np.random.Generator) -> dict[str, Recommender]:
    """The baselines every evaluation shows; half-lives of those that decay are from backtests."""
    return {
        "popularity": PopularityRecommender(),
        "decayed_popularity": PopularityRecommender(half_life_days=0.25),
        "popularity_x_freshness": PopularityRecommender(half_life_days=0.25, freshness_half_life_days=2.0),
        "newest": NewestRecommender(),
        "random": RandomRecommender(rng=rng),
    }
