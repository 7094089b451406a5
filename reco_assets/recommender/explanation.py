"""Why a post is in a list: the score taken apart."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from reco_assets.recommender.list_scoring import PostFactors

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Voter:
    """A neighbour who carried a post.

    Attributes:
        user_index: the neighbour.
        similarity: to the user the list is for.
        vote: what the neighbour's interaction is worth, decay included.
        last_interaction_at: of the neighbour with the post, µs since the epoch; None when unknown.
        share: of the post's score, 0 … 1.
    """

    user_index: int
    similarity: float
    vote: float
    last_interaction_at: int | None
    share: float


@dataclass(frozen=True)
class Explanation:
    """A post's score for a user; the shares of voters and popularity add up to 1 if it is positive.

    Attributes:
        score: as in the lists; 0 for a post the user may not be shown.
        allowed: whether the user may be shown the post.
        voters: by falling share, equal ones by index.
        popularity_share: of the score, 0 … 1.
        freshness: the factor by the post's age that all votes carry.
    """

    score: float
    allowed: bool
    voters: tuple[Voter, ...]
    popularity_share: float
    freshness: float


def explain_score(post: int, **given: Any) -> Explanation:
    """One score taken apart; see `explain_scores`."""
    return explain_scores([post], **given)[0]


def explain_scores(
    posts: Sequence[int],
    *,
    neighbors: Array,
    similarities: Array,
    votes: sp.csr_array,
    last_interaction_at: Array | None,
    factors: PostFactors,
    blend: float,
    allowed: Array,
) -> list[Explanation]:
    """Take scores apart with plain numpy, by the formula of `list_scoring.recommend_to`.

    Args:
        posts: which posts.
        neighbors: (k,) the user's neighbours, -1 after the last.
        similarities: (k,) theirs.
        votes: (n_users, n_posts) CSR.
        last_interaction_at: (nnz,) times of the votes' entries, or None.
        factors: the posts' freshness and popularity.
        blend: share of popularity.
        allowed: (n_posts,) what the user may be shown.
    """
    found = neighbors >= 0
    neighbors, similarities = neighbors[found], similarities[found].astype(np.float64)
    totals = (similarities @ votes[neighbors]) * factors.freshness
    highest = float(np.max(totals, where=allowed, initial=0.0))
    voting = _Voting(neighbors, similarities, votes, last_interaction_at, totals, highest)
    return [
        voting.explain(post, factors, blend)
        if allowed[post]
        else Explanation(0.0, False, (), 0.0, float(factors.freshness[post]))
        for post in posts
    ]


class _Voting(NamedTuple):
    """What a user's neighbours voted for, and how much that was in all."""

    neighbors: Array
    similarities: Array
    votes: sp.csr_array
    last_interaction_at: Array | None
    totals: Array
    highest: float

    def explain(self, post: int, factors: PostFactors, blend: float) -> Explanation:
        freshness, total = float(factors.freshness[post]), float(self.totals[post])
        by_votes = (1.0 - blend) * (total / self.highest) if self.highest > 0 else 0.0
        by_popularity = blend * float(factors.popularity[post])
        score = by_votes + by_popularity
        voters = []
        if score > 0:
            share = by_votes / score if total > 0 else 0.0
            total = total or 1.0
            voters = [
                Voter(neighbor, similarity, vote, time, share * (freshness * similarity * vote / total))
                for neighbor, similarity, vote, time in self._votes_for(post)
            ]
        voters.sort(key=lambda voter: (-voter.share, voter.user_index))
        return Explanation(score, True, tuple(voters), by_popularity / score if score > 0 else 0.0, freshness)

    def _votes_for(self, post: int) -> Iterator[tuple[int, float, float, int | None]]:
        votes, times = self.votes, self.last_interaction_at
        for neighbor, similarity in zip(self.neighbors.tolist(), self.similarities.tolist(), strict=True):
            start, stop = votes.indptr[neighbor], votes.indptr[neighbor + 1]
            entry = int(start + np.searchsorted(votes.indices[start:stop], post))
            if entry < stop and votes.indices[entry] == post:
                time = None if times is None else int(times[entry])
                yield neighbor, similarity, float(votes.data[entry]), time
