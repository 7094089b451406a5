"""User-based k-nearest neighbours with separate weights for similarity and votes."""

import inspect
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from reco_assets.errors import BadInput, CorruptArtifact
from reco_assets.recommender.artifact import read_artifact, take, write_artifact
from reco_assets.recommender.explanation import Explanation, explain_score
from reco_assets.recommender.fit_inputs import FitInputs
from reco_assets.recommender.interaction_log import rows_of
from reco_assets.recommender.list_scoring import PostFactors, recommend_to
from reco_assets.recommender.masks import Masks
from reco_assets.recommender.neighbor_search import NeighborIndex
from reco_assets.recommender.recommendation_lists import RecommendationLists
from reco_assets.recommender.threads import Progress, ShouldStop
from reco_assets.recommender.weighting import (
    SIMILARITY_WEIGHTINGS,
    VOTE_WEIGHTINGS,
    decay,
    exact_weights,
    similarity_weights,
    vote_values,
)

Array = npt.NDArray[Any]

KIND = "user-knn model"
_REDO = "reco run --partition DATE"
# What was seen are the entries of the votes.
_MASK_ARRAYS = tuple(name for name in Masks.__dataclass_fields__ if not name.startswith("seen_"))
_REQUIRED_ARRAYS = (
    *("neighbors", "similarities", "vote_indptr", "vote_posts", "votes"),
    *("freshness", "popularity", "active_users"),
    *_MASK_ARRAYS,
)

# name: (low, high, may be None, whole number); a low of 0 is excluded for half-lives
_RANGES: dict[str, tuple[float, float, bool, bool]] = {
    "n_neighbors": (1, 10_000, False, True),
    "similarity_window_days": (1, 3650, True, False),
    "shrinkage": (0, 1000, False, False),
    "min_overlap": (1, 1000, False, True),
    "vote_half_life_days": (0, 3650, True, False),
    "freshness_half_life_days": (0, 3650, True, False),
    "popularity_blend": (0, 1, False, False),
    "popularity_half_life_days": (0, 3650, True, False),
    "n_recommendations": (1, 100_000, False, True),
    "active_within_days": (0, 3650, False, False),
    "n_threads": (1, 4096, True, True),
}


class UserKNNRecommender:
    """Recommends what similar users have read lately.

    With N(u) the `n_neighbors` users most similar to u, a(i) the age of post i and b the blend:

        votes(u, i) = 0.5^(a(i) / freshness half-life) · Σ over v in N(u) of similarity(u, v) · vote(v, i)
        score(u, i) = (1 − b) · votes(u, i) / max over allowed j of votes(u, j) + b · popularity(i)

    `similarity` is the cosine of the rows weighted by `weighting.similarity_weights`, `vote` is
    `weighting.vote_values`, and `popularity` the number of readers, each decayed by the time since
    their last interaction, times the same freshness, divided by its maximum. So scores lie between 0
    and 1. Posts of score 0 are not recommended. Equal similarities and equal scores rank by the lower
    index, which with sorted ids is the lower id.

    Parameters, attributes ending in `_` after `fit`, `get_params` and `set_params` follow
    scikit-learn's conventions, and `sklearn.base.clone` works. The class does not inherit from
    `BaseEstimator`: importing that takes seconds and loads pandas, in services too.

    Args:
        n_neighbors: similar users who vote, 1 … 10,000.
        similarity_weighting: one of `weighting.SIMILARITY_WEIGHTINGS`.
        similarity_window_days: pairs without an interaction in so many days do not count for
            similarity; None: all count.
        shrinkage: added to the cosine's denominator.
        min_overlap: posts that two users must share to be neighbours.
        vote_weighting: one of `weighting.VOTE_WEIGHTINGS`.
        vote_half_life_days: days after which a vote counts half; None: votes do not age.
        freshness_half_life_days: post age that halves a score; None: age does not matter.
        popularity_blend: the share b, 0 … 1.
        popularity_half_life_days: of a reader in `popularity`; None: readers do not age.
        n_recommendations: length of a list.
        active_within_days: `recommend()` serves users with an interaction in so many days.
        n_threads: None: the cores this process may use. Does not change the result.

    Attributes:
        neighbors_: (n_users, min(n_neighbors, n_users − 1)) int32, most similar first, -1 after the last.
        similarities_: float32 of the same shape, 0 after the last.
        votes_: (n_users, n_posts) CSR, float64.
        last_interaction_at_: (nnz,) int64 µs of the entries of `votes_`, or None.
        post_created_at_: (n_posts,) int64 µs, or None.
        factors_: the posts' freshness and popularity.
        masks_: who may be shown what.
        active_users_: (m,) int32, ascending.
        as_of_us_: the instant that ages are counted to, µs since the epoch.
        user_ids_, post_ids_: (…, 16) uint8, or None.
    """

    def __init__(
        self,
        *,
        n_neighbors: int = 200,
        similarity_weighting: str = "binary_tfidf",
        similarity_window_days: float | None = None,
        shrinkage: float = 0.0,
        min_overlap: int = 1,
        vote_weighting: str = "binary",
        vote_half_life_days: float | None = 1.0,
        freshness_half_life_days: float | None = 1.0,
        popularity_blend: float = 0.2,
        popularity_half_life_days: float | None = 0.25,
        n_recommendations: int = 50,
        active_within_days: float = 30,
        n_threads: int | None = None,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.similarity_weighting = similarity_weighting
        self.similarity_window_days = similarity_window_days
        self.shrinkage = shrinkage
        self.min_overlap = min_overlap
        self.vote_weighting = vote_weighting
        self.vote_half_life_days = vote_half_life_days
        self.freshness_half_life_days = freshness_half_life_days
        self.popularity_blend = popularity_blend
        self.popularity_half_life_days = popularity_half_life_days
        self.n_recommendations = n_recommendations
        self.active_within_days = active_within_days
        self.n_threads = n_threads

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002  # scikit-learn passes it
        """The parameters by name."""
        return {name: getattr(self, name) for name in _PARAMETERS}

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name; they take effect with the next `fit`."""
        unknown = sorted(set(params) - set(_PARAMETERS))
        if unknown:
            raise BadInput(f"Unknown parameter {', '.join(unknown)}; there are {', '.join(_PARAMETERS)}.")
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        changed = {n: v for n, v in self.get_params().items() if v != _PARAMETERS[n].default}
        return f"{type(self).__name__}({', '.join(f'{n}={v!r}' for n, v in changed.items())})"

    def fit(
        self,
        weights: Any,
        *,
        last_interaction_at: Any = None,
        post_created_at: Array | None = None,
        as_of: int | datetime | None = None,
        eligible: Array | None = None,
        post_author: Array | None = None,
        user_author: Array | None = None,
        hidden_user: Array | None = None,
        hidden_author: Array | None = None,
        user_ids: Array | None = None,
        post_ids: Array | None = None,
        progress: Progress | None = None,
        should_stop: ShouldStop | None = None,
    ) -> Self:
        """Find everybody's neighbours and prepare the votes.

        The arguments are those of `FitInputs.check`, and `progress(users done, all users)` and
        `should_stop()`, both called from this thread. A failed or stopped fit leaves the previous
        one in place.

        Raises:
            BadInput: a parameter or an argument is out of range.
            FitCancelled: `should_stop` said so.
        """
        self._check_params()
        inputs = FitInputs.check(
            weights,
            last_interaction_at=last_interaction_at,
            post_created_at=post_created_at,
            as_of=as_of,
            eligible=eligible,
            post_author=post_author,
            user_author=user_author,
            hidden_user=hidden_user,
            hidden_author=hidden_author,
            user_ids=user_ids,
            post_ids=post_ids,
        )
        n_users = inputs.weights.shape[0]
        index = NeighborIndex.build(self._similarity_matrix(inputs))
        neighbors, similarities = index.search(
            max(1, min(self.n_neighbors, n_users - 1)),
            shrinkage=self.shrinkage,
            min_overlap=self.min_overlap,
            n_threads=self.n_threads,
            progress=progress,
            should_stop=should_stop,
        )
        self.neighbors_, self.similarities_ = neighbors, similarities
        votes = vote_values(
            inputs.weights.data, inputs.entry_ages(), self.vote_weighting, self.vote_half_life_days
        )
        self.votes_ = _like(inputs.weights, votes)
        self.last_interaction_at_ = inputs.last_interaction_at
        self.post_created_at_ = inputs.post_created_at
        self.factors_ = self._post_factors(inputs)
        self.masks_ = inputs.masks
        self.active_users_ = inputs.active_users(self.active_within_days)
        self.as_of_us_ = inputs.as_of_us
        self.user_ids_, self.post_ids_ = inputs.user_ids, inputs.post_ids
        return self

    def kneighbors(self, user_indices: Array | None = None) -> tuple[Array, Array]:
        """Neighbours and similarities of the users; None: of all.

        Returns:
            (m, k) int32 users, most similar first, -1 after the last, and (m, k) float32 similarities.
        """
        users = np.arange(self.n_users_) if user_indices is None else self._checked(user_indices)
        known = users >= 0
        k = self.neighbors_.shape[1]
        neighbors = np.full((len(users), k), -1, dtype=np.int32)
        similarities = np.zeros((len(users), k), dtype=np.float32)
        neighbors[known] = self.neighbors_[users[known]]
        similarities[known] = self.similarities_[users[known]]
        return neighbors, similarities

    def recommend(
        self,
        user_indices: Array | None = None,
        n: int | None = None,
        *,
        progress: Progress | None = None,
        should_stop: ShouldStop | None = None,
    ) -> RecommendationLists:
        """The best posts for each of the users, a user once.

        Args:
            user_indices: (m,) rows of the fitted matrix, in any order, active or not; -1, an unknown
                user, gets an empty list. None: the active users.
            n: length of a list at most; None: `n_recommendations`.
            progress: called with (users done, all users).
            should_stop: true ends the work with `FitCancelled`.
        """
        n = self.n_recommendations if n is None else n
        if n < 1:
            raise BadInput(f"n is {n}; a list has at least 1 post.")
        users = self.active_users_ if user_indices is None else np.unique(self._checked(user_indices))
        users = users[users >= 0]
        posts, scores = recommend_to(
            users,
            max(1, min(n, self.n_posts_)),
            neighbors=self.neighbors_,
            similarities=self.similarities_,
            votes=self.votes_,
            factors=self.factors_,
            blend=self.popularity_blend,
            masks=self.masks_,
            n_threads=self.n_threads,
            progress=progress,
            should_stop=should_stop,
        )
        return RecommendationLists.from_table(users, posts, scores)

    def rows_of_users(self, user_ids: Array) -> Array:
        """Row of each of the (m, 16) ids, -1 for an unknown user.

        Raises:
            BadInput: the model was fitted without ids.
        """
        if self.user_ids_ is None:
            raise BadInput("The model was fitted without user_ids; pass them to fit.")
        return rows_of(self.user_ids_, user_ids)

    def explain(self, user_index: int, post_index: int) -> Explanation:
        """What a post's score for a user is made of, in a list or not."""
        user, post = int(self._checked([user_index])[0]), int(post_index)
        if user < 0 or not 0 <= post < self.n_posts_:
            raise BadInput(f"User {user_index}, post {post_index}: no such row or column.")
        return explain_score(
            post,
            neighbors=self.neighbors_[user],
            similarities=self.similarities_[user],
            votes=self.votes_,
            last_interaction_at=self.last_interaction_at_,
            factors=self.factors_,
            blend=self.popularity_blend,
            allowed=self.masks_.allowed(user),
        )

    @property
    def n_users_(self) -> int:
        """Users of the fitted matrix."""
        return int(self.votes_.shape[0])

    @property
    def n_posts_(self) -> int:
        """Posts of the fitted matrix."""
        return int(self.votes_.shape[1])

    def save(self, directory: Path | str) -> Path:
        """Write the fitted model as a directory of arrays; see `artifact.write_artifact`."""
        arrays = {
            "neighbors": self.neighbors_,
            "similarities": self.similarities_,
            "vote_indptr": self.votes_.indptr.astype(np.int64),
            "vote_posts": self.votes_.indices.astype(np.int32),
            "votes": self.votes_.data,
            "freshness": self.factors_.freshness,
            "popularity": self.factors_.popularity,
            "active_users": self.active_users_,
            **{name: getattr(self.masks_, name) for name in _MASK_ARRAYS},
            **{n: a for n, a in self._optional_arrays().items() if a is not None},
        }
        # A sweep over np.arange sets numpy scalars, which JSON does not know.
        params = {n: v.item() if isinstance(v, np.generic) else v for n, v in self.get_params().items()}
        metadata = {"params": params, "as_of_us": self.as_of_us_, "n_posts": self.n_posts_}
        return write_artifact(directory, KIND, arrays, metadata)

    @classmethod
    def load(cls, directory: Path | str, *, mmap: bool = True, redo: str = _REDO) -> Self:
        """Read a saved model, which recommends exactly what the saved one did.

        Raises:
            MissingUpstream: there is none.
            CorruptArtifact: it cannot be read, or its arrays contradict each other.
        """
        arrays, metadata = read_artifact(directory, KIND, redo=redo, mmap=mmap)
        take(arrays, directory, *_REQUIRED_ARRAYS, redo=redo)
        try:
            model = cls(**metadata["params"])
            shape = (len(arrays["neighbors"]), int(metadata["n_posts"]))
            model.votes_ = sp.csr_array(
                (arrays["votes"], arrays["vote_posts"], arrays["vote_indptr"]), shape=shape
            )
            model.as_of_us_ = int(metadata["as_of_us"])
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptArtifact(
                f"{directory} contradicts itself: {error} Remove it and make it again with `{redo}`."
            ) from error
        model.neighbors_, model.similarities_ = arrays["neighbors"], arrays["similarities"]
        model.factors_ = PostFactors(arrays["freshness"], arrays["popularity"])
        model.masks_ = Masks(
            seen_indptr=arrays["vote_indptr"],
            seen_posts=arrays["vote_posts"],
            **{name: arrays[name] for name in _MASK_ARRAYS},
        )
        model.active_users_ = arrays["active_users"]
        for name in model._optional_arrays():
            setattr(model, f"{name}_", arrays.get(name))
        return model

    def _optional_arrays(self) -> dict[str, Array | None]:
        names = ("last_interaction_at", "post_created_at", "user_ids", "post_ids")
        return {name: getattr(self, f"{name}_", None) for name in names}

    def _similarity_matrix(self, inputs: FitInputs) -> sp.csr_array:
        weights = inputs.weights
        if self.similarity_window_days is not None:
            recent = inputs.entry_ages() <= self.similarity_window_days
            # A copy: eliminate_zeros moves the indices in place, and they are the caller's.
            weights = _like(weights, np.where(recent, weights.data, 0.0)).copy()
            weights.eliminate_zeros()
        weighted = similarity_weights(weights, self.similarity_weighting)
        # The factor 10 cancels in a cosine, but not beside a shrinkage.
        return weighted if self.shrinkage else _like(weighted, exact_weights(weighted.data))

    def _post_factors(self, inputs: FitInputs) -> PostFactors:
        freshness = decay(inputs.post_ages(), self.freshness_half_life_days)
        readers = decay(inputs.entry_ages(), self.popularity_half_life_days)
        popularity = np.bincount(inputs.weights.indices, readers, minlength=len(freshness)) * freshness
        # Normalised over eligible posts, because the others cannot be shown.
        highest = popularity[inputs.masks.eligible].max(initial=0.0)
        return PostFactors(freshness, popularity / highest if highest > 0 else popularity)

    def _checked(self, user_indices: Any) -> Array:
        users = np.atleast_1d(np.asarray(user_indices, dtype=np.int64))
        wrong = users[(users < -1) | (users >= self.n_users_)]
        if len(wrong):
            raise BadInput(f"User {wrong[0]} is not a row of the fitted matrix (0 … {self.n_users_ - 1}).")
        return users

    def _check_params(self) -> None:
        for name, allowed in (
            ("similarity_weighting", SIMILARITY_WEIGHTINGS),
            ("vote_weighting", VOTE_WEIGHTINGS),
        ):
            if getattr(self, name) not in allowed:
                raise BadInput(f"{name} is {getattr(self, name)!r}; use one of {', '.join(allowed)}.")
        for name, (low, high, optional, whole) in _RANGES.items():
            value = getattr(self, name)
            if value is None and optional:
                continue
            number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
            excluded = name.endswith("half_life_days") and value == 0
            if (
                not number
                or not low <= value <= high
                or (whole and not isinstance(value, (int, np.integer)))
                or excluded
            ):
                kind = "a whole number" if whole else "a number"
                bounds = f"above {low:g} and at most {high:g}" if excluded else f"from {low:g} to {high:g}"
                raise BadInput(
                    f"{name} is {value!r}; it must be {kind} {bounds}{' or None' if optional else ''}."
                )


_PARAMETERS = {
    name: parameter
    for name, parameter in inspect.signature(UserKNNRecommender.__init__).parameters.items()
    if name != "self"
}


def _like(matrix: sp.csr_array, data: Array) -> sp.csr_array:
    """A matrix with the same entries and other values."""
    return sp.csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)
