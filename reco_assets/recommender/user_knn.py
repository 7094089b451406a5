"""User-based k-nearest neighbours with separate weights for similarity and votes."""

import inspect
from pathlib import Path
from typing import Any, Self, Unpack

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from reco_assets.errors import BadInput
from reco_assets.parameters import problem_with
from reco_assets.recommender.explanation import Explanation, explain_score
from reco_assets.recommender.fit_inputs import FitArguments, FitInputs
from reco_assets.recommender.fold_in import FoldedIn, FoldIn
from reco_assets.recommender.interaction_log import rows_of
from reco_assets.recommender.list_scoring import PostFactors, Votes, recommend_to
from reco_assets.recommender.neighbor_search import NeighborIndex
from reco_assets.recommender.recommendation_lists import RecommendationLists
from reco_assets.recommender.stored_model import load_model, save_model
from reco_assets.recommender.threads import Progress, ShouldStop
from reco_assets.recommender.weighting import SimilarityWeighting, decay, vote_values

Array = npt.NDArray[Any]

_REDO = "reco run --partition DATE"


class UserKNNRecommender:
    """Recommends what similar users have read lately.

    With N(u) the `n_neighbors` users most similar to u, a(i) the age of post i and b the blend:

        votes(u, i) = 0.5^(a(i) / freshness half-life) · Σ over v in N(u) of similarity(u, v) · vote(v, i)
        score(u, i) = (1 − b) · votes(u, i) / max over allowed j of votes(u, j) + b · popularity(i)

    The sum is not divided by the similarities: Cremonesi, Koren and Turrin, "Performance of Recommender
    Algorithms on Top-N Recommendation Tasks", 2010. Half-lives: Ding and Li, "Time Weight Collaborative
    Filtering", 2005. The blend is a weighted hybrid: Burke, "Hybrid Recommender Systems", 2002.

    `similarity` is the cosine of the rows weighted by `weighting.SimilarityWeighting`, `vote` is
    `weighting.vote_values`, and `popularity` the number of readers, each decayed by the time since
    their last interaction, times the same freshness, divided by its maximum. So scores lie between 0
    and 1. Posts of score 0 are not recommended. Equal similarities and equal scores rank by the lower
    index, which with sorted ids is the lower id.

    Parameters, attributes ending in `_` after `fit`, `get_params` and `set_params` follow
    scikit-learn's conventions, and `sklearn.base.clone` works. The class does not inherit from
    `BaseEstimator`: importing that takes seconds and loads pandas, in services too.

    Args:
        n_neighbors: similar users who vote.
        similarity_weighting: see `weighting.SimilarityWeighting`.
        similarity_window_days: pairs without an interaction in so many days do not count for
            similarity; None: all count.
        shrinkage: added to the cosine's denominator (Ferrari Dacrema, Cremonesi and Jannach, "Are We
            Really Making Much Progress?", 2019).
        min_overlap: posts that two users must share to be neighbours; the hard form of significance
            weighting (Herlocker, Konstan, Borchers and Riedl, "An Algorithmic Framework for Performing
            Collaborative Filtering", 1999).
        vote_weighting: see `weighting.vote_values`.
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
        weighting_: how rows are weighted for similarity, with its statistics.
        index_: the search for the users similar to one.
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
        progress: Progress | None = None,
        should_stop: ShouldStop | None = None,
        **inputs: Unpack[FitArguments],
    ) -> Self:
        """Find everybody's neighbours and prepare the votes.

        A failed or stopped fit leaves the previous one in place.

        Args:
            weights: (n_users, n_posts) sparse, positive and finite where stored.
            progress: called with (users done, all users) from this thread.
            should_stop: asked from this thread now and then; true ends the fit.
            inputs: what else is known; see `FitArguments`.

        Raises:
            BadInput: a parameter or an argument is out of range.
            FitCancelled: `should_stop` said so.
        """
        for name in _PARAMETERS:
            if problem := problem_with(name, getattr(self, name)):
                raise BadInput(problem)
        known = FitInputs.check(weights, **inputs)
        n_users = known.weights.shape[0]
        weighting, weighted = self._weigh(known)
        neighbors, similarities = NeighborIndex.build(weighted).search(
            max(1, min(self.n_neighbors, n_users - 1)),
            shrinkage=self.shrinkage,
            min_overlap=self.min_overlap,
            n_threads=self.n_threads,
            progress=progress,
            should_stop=should_stop,
        )
        self.weighting_ = weighting
        # The tiles that suit the search for everybody do not suit that for one.
        self.index_ = NeighborIndex.build(weighted, tile_users=max(1, n_users)).without_rows()
        self.neighbors_, self.similarities_ = neighbors, similarities
        votes = vote_values(
            known.weights.data, known.entry_ages(), self.vote_weighting, self.vote_half_life_days
        )
        self.votes_ = _like(known.weights, votes)
        self.last_interaction_at_ = known.last_interaction_at
        self.post_created_at_ = known.post_created_at
        self.factors_ = self._post_factors(known)
        self.masks_ = known.masks
        self.active_users_ = known.active_users(self.active_within_days)
        self.as_of_us_ = known.as_of_us
        self.user_ids_, self.post_ids_ = known.user_ids, known.post_ids
        self._prepare_fold_in()
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
        users = self.active_users_ if user_indices is None else np.unique(self._checked(user_indices))
        users = users[users >= 0]
        posts, scores = recommend_to(
            users,
            max(1, min(self._list_length(n), self.n_posts_)),
            neighbors=self.neighbors_,
            similarities=self.similarities_,
            votes=self._fold_in.votes,
            factors=self.factors_,
            blend=self.popularity_blend,
            masks=self.masks_,
            n_threads=self.n_threads,
            progress=progress,
            should_stop=should_stop,
        )
        return RecommendationLists.from_table(users, posts, scores)

    def fold_in(
        self,
        post_indices: Any,
        weights: Any,
        last_interaction_at: Any = None,
        *,
        user_index: int = -1,
        n: int | None = None,
        blocked_authors: Any = None,
    ) -> FoldedIn:
        """One user's neighbours and list from a history of now, without a refit.

        Exact: with the history that the fit saw of `user_index`, neighbours, similarities, posts and scores
        are those of `kneighbors` and `recommend`, to the bit. How a history that the fit did not see is
        weighted is described at `FoldIn`. What does not depend on the user (the neighbours' votes, freshness,
        popularity, eligibility) is as of the fit.

        Args:
            post_indices: (m,) columns of the fitted matrix, in any order, each once: the user's whole
                history, which is what they are not shown again.
            weights: (m,) interaction weights, as in the fitted matrix.
            last_interaction_at: (m,) µs since the epoch, UTC; matters with `similarity_window_days` only.
                None: just now.
            user_index: the row of a user who was in the fit, and who is then not their own neighbour and is
                not shown their own posts nor those of authors they hid; -1 for a user who was not.
            n: length of the list at most; None: `n_recommendations`.
            blocked_authors: codes of the authors who are not shown, the user's own among them, in place of
                those of the fit; None: those of the fit, for an unknown user none.

        Returns:
            An empty history has no neighbours; its list is the part of popularity.

        Raises:
            BadInput: an argument is out of range.
        """
        return self._fold_in.recommend(
            post_indices,
            weights,
            last_interaction_at,
            user=int(self._checked([user_index])[0]),
            blocked_authors=blocked_authors,
            n=self._list_length(n),
            blend=self.popularity_blend,
        )

    def neighbors_of(
        self, post_indices: Any, weights: Any, last_interaction_at: Any = None, *, user_index: int = -1
    ) -> tuple[Array, Array]:
        """The neighbours of a history of now: the part of `fold_in` that does not age within a day.

        Args:
            post_indices, weights, last_interaction_at, user_index: as for `fold_in`.

        Returns:
            (k,) int32 users, most similar first, -1 after the last, and (k,) float32 similarities.
        """
        user = int(self._checked([user_index])[0])
        return self._fold_in.neighbors(post_indices, weights, last_interaction_at, user=user)

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
        return save_model(self, directory)

    @classmethod
    def load(
        cls, directory: Path | str, *, mmap: bool = True, verify: bool = True, redo: str = _REDO
    ) -> Self:
        """Read a saved model, which recommends exactly what the saved one did.

        Args:
            directory: what `save` was given.
            mmap: map the arrays, so that processes share them and only what is used is read.
            verify: compare checksums, which reads every byte; see `artifact.read_artifact`.
            redo: the command that makes the model again, for the error message.

        Raises:
            MissingUpstream: there is none.
            CorruptArtifact: it cannot be read, or its arrays contradict each other.
        """
        model = cls()
        load_model(model, directory, mmap=mmap, verify=verify, redo=redo)
        model._prepare_fold_in()
        return model

    def _weigh(self, known: FitInputs) -> tuple[SimilarityWeighting, sp.csr_array]:
        """The statistics of the entries that count for similarity, and the rows that are compared."""
        weights = known.weights
        if self.similarity_window_days is not None:
            recent = known.entry_ages() <= self.similarity_window_days
            # A copy: eliminate_zeros moves the indices in place, and they are the caller's.
            weights = _like(weights, np.where(recent, weights.data, 0.0)).copy()
            weights.eliminate_zeros()
        weighting = SimilarityWeighting.fit(weights, self.similarity_weighting, exact=not self.shrinkage)
        return weighting, weighting.of_matrix(weights)

    def _prepare_fold_in(self) -> None:
        self._fold_in = FoldIn(
            index=self.index_,
            weighting=self.weighting_,
            votes=Votes.of(self.votes_),
            factors=self.factors_,
            masks=self.masks_,
            as_of_us=self.as_of_us_,
            n_neighbors=self.neighbors_.shape[1],
            similarity_window_days=self.similarity_window_days,
            shrinkage=self.shrinkage,
            min_overlap=self.min_overlap,
        )

    def _post_factors(self, inputs: FitInputs) -> PostFactors:
        freshness = decay(inputs.post_ages(), self.freshness_half_life_days)
        decayed = decay(inputs.entry_ages(), self.popularity_half_life_days)
        readers = np.bincount(inputs.weights.indices, decayed, minlength=len(freshness))
        return PostFactors.of(freshness, readers, inputs.masks.eligible)

    def _checked(self, user_indices: Any) -> Array:
        users = np.atleast_1d(np.asarray(user_indices, dtype=np.int64))
        wrong = users[(users < -1) | (users >= self.n_users_)]
        if len(wrong):
            raise BadInput(f"User {wrong[0]} is not a row of the fitted matrix (0 … {self.n_users_ - 1}).")
        return users

    def _list_length(self, n: int | None) -> int:
        n = self.n_recommendations if n is None else n
        if n < 1:
            raise BadInput(f"n is {n}; a list has at least 1 post.")
        return n


_PARAMETERS = {
    name: parameter
    for name, parameter in inspect.signature(UserKNNRecommender.__init__).parameters.items()
    if name != "self"
}


def _like(matrix: sp.csr_array, data: Array) -> sp.csr_array:
    """A matrix with the same entries and other values."""
    return sp.csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)
