"""Lists from the daily neighbours and their votes as of now, for one user at a time.

By the same code as the batch: on the same data, with the same neighbours, the same posts and scores to
the bit.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from reco_assets.recommender.explanation import Explanation, explain_scores
from reco_assets.recommender.id_space import IdSpace
from reco_assets.recommender.list_scoring import PostFactors, Votes, recommend_to
from reco_assets.recommender.live_rows import RowsView
from reco_assets.recommender.masks import Masks
from reco_assets.recommender.user_knn import UserKNNRecommender
from reco_assets.recommender.weighting import age_in_days, vote_values

Array = npt.NDArray[Any]

_QUICK_ENTRIES = 20_000
"""Of the neighbours' rows together: so many are summed up in less than a millisecond."""
_FIRST_ROW = np.zeros(1, dtype=np.int32)


@dataclass(frozen=True)
class LiveAnswer:
    """A user's list.

    Attributes:
        post_ids: 16 bytes each, best first.
        scores: positive, falling; comparable within the list only.
        folded_in: whether the neighbours were found anew, because the user's history has changed.
    """

    post_ids: list[bytes]
    scores: list[float]
    folded_in: bool


@dataclass(frozen=True, eq=False)
class ExplainedPost:
    """A post of a user's list, with the ids of the neighbours who carried it in the order of its voters."""

    post_id: bytes
    explanation: Explanation
    voter_ids: list[bytes]


class _Question(NamedTuple):
    """What one user's list is made from: of each neighbour a row of `votes`, of each vote `voted_at`, µs."""

    neighbors: Array
    similarities: Array
    folded_in: bool
    votes: Votes
    voted_at: Array
    masks: Masks


class NeighborCache:
    """Neighbours of users whose history has changed, until it changes again; the least used go first.

    At 200 neighbours 2 KB a user.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._found: OrderedDict[int, tuple[int, Array, Array]] = OrderedDict()

    def get(self, user: int, version: int) -> tuple[Array, Array] | None:
        """Neighbours and similarities, if they are of this version of the history."""
        with self._lock:
            found = self._found.get(user)
            if found is None or found[0] != version:
                return None
            self._found.move_to_end(user)
            return found[1:]

    def put(self, user: int, version: int, neighbors: Array, similarities: Array) -> None:
        """Keep them."""
        with self._lock:
            self._found[user] = (version, neighbors, similarities)
            self._found.move_to_end(user)
            while len(self._found) > self._size:
                self._found.popitem(last=False)


@dataclass(frozen=True, eq=False)
class LiveState:
    """Everything as of one instant; nothing in it changes, so any thread may read it.

    Attributes:
        model: of the day.
        as_of_us: the instant that ages are counted to; events lie strictly before it.
        user_ids, post_ids: codes; may know more than this state has arrays for.
        rows: who did what.
        factors: the posts' freshness and popularity.
        masks: who may be shown what, of the fit, with today's eligible posts.
        author_ids: (n_authors, 16) of the codes in `masks`.
        later_posts: posts that the fit did not know, by the id of their author.
        hidden_by: authors that users hide whom the fit did not know, by the user's code.
        neighbors_found: shared by all states of a day.
    """

    model: UserKNNRecommender
    as_of_us: int
    user_ids: IdSpace
    post_ids: IdSpace
    rows: RowsView
    factors: PostFactors
    masks: Masks
    author_ids: IdSpace
    later_posts: Mapping[bytes, Sequence[int]]
    hidden_by: Mapping[int, Sequence[bytes]]
    neighbors_found: NeighborCache

    @property
    def n_users(self) -> int:
        """Users of the fit and later ones."""
        return len(self.rows.slot)

    @property
    def n_posts(self) -> int:
        """Posts of the fit and later ones."""
        return len(self.factors.freshness)

    def user(self, user_id: bytes) -> int:
        """The user's code; -1 for one without an event by now."""
        code = self.user_ids.code(user_id)
        known = code < self.n_users and (code < self.model.n_users_ or self.rows.version(code) > 0)
        return code if known else -1

    def posts(self, post_ids: Iterable[bytes]) -> list[int]:
        """The codes of those that are known."""
        codes = (self.post_ids.code(post_id) for post_id in post_ids)
        return [code for code in codes if 0 <= code < self.n_posts]

    def seen(self, user_id: bytes) -> list[bytes]:
        """The posts that the user interacted with, within the fit's window and since."""
        user = self.user(user_id)
        return [] if user < 0 else self.post_ids.ids_of(self.rows.row(user).posts)

    def is_quick(self, user_id: bytes) -> bool:
        """Whether `recommend` takes less than a millisecond: neighbours are known, their rows are short."""
        user = self.user(user_id)
        if user < 0:
            return True
        known = self._known_neighbors(user)
        return known is not None and self.rows.n_entries(known[0]) <= _QUICK_ENTRIES

    def recommend(self, user_id: bytes, n: int, *, closed: Iterable[bytes] = ()) -> LiveAnswer | None:
        """The best `n` posts for a user, without those in `closed`; None for a user without an event."""
        user = self.user(user_id)
        if user < 0:
            return None
        question = self._question(user, user_id, closed)
        posts, scores = recommend_to(
            _FIRST_ROW,
            max(1, min(n, self.n_posts)),
            neighbors=np.arange(len(question.neighbors), dtype=np.int32)[np.newaxis],
            similarities=question.similarities[np.newaxis],
            votes=question.votes,
            factors=self.factors,
            blend=self.model.popularity_blend,
            masks=question.masks,
            n_threads=1,
        )
        listed = int(np.count_nonzero(posts[0] >= 0))
        return LiveAnswer(
            self.post_ids.ids_of(posts[0, :listed]), scores[0, :listed].tolist(), question.folded_in
        )

    def explain(self, user_id: bytes, post_ids: Sequence[bytes]) -> list[ExplainedPost]:
        """What the posts' scores for a user are made of; unknown posts and users are left out."""
        user, posts = self.user(user_id), self.posts(post_ids)
        if user < 0:
            return []
        question = self._question(user, user_id, ())
        votes = question.votes
        shape = (len(question.neighbors), self.n_posts)
        explanations = explain_scores(
            posts,
            neighbors=np.arange(len(question.neighbors)),
            similarities=question.similarities,
            votes=sp.csr_array((votes.data, votes.indices, votes.indptr), shape=shape),
            last_interaction_at=question.voted_at,
            factors=self.factors,
            blend=self.model.popularity_blend,
            allowed=question.masks.allowed(0),
        )
        voters = question.neighbors.tolist()
        return [
            ExplainedPost(
                self.post_ids.id_of(post),
                explanation,
                [self.user_ids.id_of(voters[voter.user_index]) for voter in explanation.voters],
            )
            for post, explanation in zip(posts, explanations, strict=True)
        ]

    def neighbors(self, user: int) -> tuple[Array, Array, bool]:
        """Users of the fit like this one, their similarities, and whether they were found anew."""
        found = self._known_neighbors(user)
        if found is None:
            posts, weights, times = self.rows.row(user)
            known = posts < self.model.n_posts_
            row = user if user < self.model.n_users_ else -1
            found = _without_end(
                *self.model.neighbors_of(posts[known], weights[known], times[known], user_index=row)
            )
            self.neighbors_found.put(user, self.rows.version(user), *found)
        return *found, not self._is_as_in_the_fit(user)

    def _known_neighbors(self, user: int) -> tuple[Array, Array] | None:
        if self._is_as_in_the_fit(user):
            return _without_end(self.model.neighbors_[user], self.model.similarities_[user])
        return self.neighbors_found.get(user, self.rows.version(user))

    def _is_as_in_the_fit(self, user: int) -> bool:
        return user < self.model.n_users_ and not self.rows.version(user)

    def _question(self, user: int, user_id: bytes, closed: Iterable[bytes]) -> _Question:
        neighbors, similarities, folded_in = self.neighbors(user)
        rows = self.rows.gather(neighbors, with_weights=self.model.vote_weighting != "binary")
        values = vote_values(
            rows.entries.weights,
            age_in_days(rows.entries.times, self.as_of_us),
            self.model.vote_weighting,
            self.model.vote_half_life_days,
        )
        votes = Votes(rows.indptr, rows.entries.posts, values)
        masks = self._masks(user, user_id, closed)
        return _Question(neighbors, similarities, folded_in, votes, rows.entries.times, masks)

    def _masks(self, user: int, user_id: bytes, closed: Iterable[bytes]) -> Masks:
        authors = [user_id, *self.hidden_by.get(user, ())]
        codes = [code for code in map(self.author_ids.code, authors) if 0 <= code < self.masks.n_authors]
        if user < self.model.n_users_:
            of_fit = self.masks.blocked_by(user).tolist()
            authors += [self.author_ids.id_of(code) for code in of_fit]
            codes += of_fit
        posts = self.posts(closed)
        for author in authors:
            posts += (post for post in self.later_posts.get(author, ()) if post < self.n_posts)
        seen = np.concatenate([self.rows.row(user).posts, np.array(posts, dtype=np.int32)])
        return self.masks.for_history(seen, np.array(codes, dtype=np.int32))


def _without_end(neighbors: Array, similarities: Array) -> tuple[Array, Array]:
    """Lists are filled up with -1 behind the last neighbour."""
    n = int(np.count_nonzero(neighbors >= 0))
    return neighbors[:n], similarities[:n]
