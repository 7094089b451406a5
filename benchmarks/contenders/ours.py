"""The estimator of this project, through its public methods."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from benchmarks.contenders.base import SearchContender, Seconds, Stopwatch
from benchmarks.workload import N_NEIGHBORS, N_POSTS
from reco_assets.events import DEFAULT_INTERACTION_WEIGHTS
from reco_assets.recommender.recommendation_lists import RecommendationLists
from reco_assets.recommender.user_knn import UserKNNRecommender

Array = npt.NDArray[Any]

_EVERYBODY = {"active_within_days": 3650}
_VIEW = DEFAULT_INTERACTION_WEIGHTS["view"]


class Ours(SearchContender):
    """Plain user-KNN: what the peers compute."""

    parameters: ClassVar[dict[str, Any]] = {
        "n_neighbors": N_NEIGHBORS,
        "similarity_weighting": "none",
        "vote_weighting": "raw",
        "vote_half_life_days": None,
        "freshness_half_life_days": None,
        "popularity_half_life_days": None,
        "popularity_blend": 0.0,
        "n_recommendations": N_POSTS,
        **_EVERYBODY,
    }

    ages: ClassVar[bool] = False
    """Whether the settings look at times; `fit` is given them only then."""

    model: UserKNNRecommender
    recommended: RecommendationLists

    def prepare(self) -> None:
        """The times of interactions and posts, for the variants that let them age."""
        self.times: dict[str, Any] = {}
        if not self.ages:
            return
        matrix = self.workload.weights
        self.times = {
            "last_interaction_at": sp.csr_array(
                (self.workload.last_interaction_at, matrix.indices, matrix.indptr), shape=matrix.shape
            ),
            "post_created_at": self.workload.post_created_at,
            "as_of": self.workload.as_of_us,
        }

    def run(self) -> Seconds:
        """`fit`, then `recommend` for everybody."""
        return self._run(self.threads)

    def run_on(self, threads: int) -> dict[str, Any]:
        """The same on so many threads."""
        return {"seconds": self._run(threads)}

    def _run(self, threads: int) -> Seconds:
        self.__dict__.pop("model", None)  # the memory of the last round
        self.__dict__.pop("recommended", None)
        watch = Stopwatch()
        model = UserKNNRecommender(**self.parameters, n_threads=threads)
        self.model = model.fit(self.workload.weights, **self.times)
        neighbors_s = watch.seconds()
        self.recommended = self.model.recommend()
        return {"neighbors": neighbors_s, "lists": watch.seconds()}

    def neighbors(self) -> Array:
        """Of all users."""
        return self.model.kneighbors()[0][:, :N_NEIGHBORS]

    def lists(self) -> Array:
        """Of all users."""
        table = np.full((self.workload.n_users, N_POSTS), -1, dtype=np.int32)
        table[self.recommended.user_index, self.recommended.rank - 1] = self.recommended.post_index
        return table

    def one_user(self, calls: int) -> dict[str, Any]:
        """Latencies in ms of single users' lists, from the fit and from a history of now."""
        rng = np.random.default_rng(0)
        users = rng.integers(0, self.workload.n_users, calls)
        model = self.model
        model.n_threads = 1
        histories = [self._with_a_new_post(user, rng) for user in users]
        return {
            "recommend: the list of a user of the fit": _latencies(
                [partial(model.recommend, users[n : n + 1]) for n in range(calls)]
            ),
            "fold_in: neighbours and list from a history of now": _latencies(
                [
                    partial(model.fold_in, posts, weights, user_index=int(user))
                    for user, (posts, weights) in zip(users, histories, strict=True)
                ]
            ),
        }

    def _with_a_new_post(self, user: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """The user's history with a view of a post that is not in it, where there is one."""
        row = self.workload.weights[[user]]
        others = np.setdiff1d(np.arange(row.shape[1]), row.indices)
        new = others[rng.integers(0, len(others), 1)] if len(others) else others
        return np.append(row.indices, new), np.append(row.data, np.full(len(new), _VIEW))


def _latencies(calls: Sequence[Callable[[], Any]]) -> dict[str, float]:
    calls[0]()
    milliseconds = []
    for call in calls:
        watch = Stopwatch()
        call()
        milliseconds.append(1e3 * watch.seconds())
    return {
        "calls": len(calls),
        "p50 ms": float(np.percentile(milliseconds, 50)),
        "p99 ms": float(np.percentile(milliseconds, 99)),
        "slowest ms": max(milliseconds),
    }


class OursBM25(Ours):
    """BM25 in the similarity, votes and freshness that age, 50 neighbours."""

    parameters: ClassVar[dict[str, Any]] = {
        "n_neighbors": N_NEIGHBORS,
        "similarity_weighting": "bm25_users",
        **_EVERYBODY,
    }
    ages = True


class OursDefaults(Ours):
    """Every setting as it is shipped."""

    parameters: ClassVar[dict[str, Any]] = {**_EVERYBODY}
    ages = True
