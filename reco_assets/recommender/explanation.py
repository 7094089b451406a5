"""Why a post is in a list: the score taken apart."""

from dataclasses import dataclass
from typing import Any

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


def explain_score(
    post: int,
    *,
    neighbors: Array,
    similarities: Array,
    votes: sp.csr_array,
    last_interaction_at: Array | None,
    factors: PostFactors,
    blend: float,
    allowed: Array,
) -> Explanation:
    """Take one score apart with plain numpy, by the formula of `list_scoring.recommend_to`.

    Args:
        post: which post.
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
    freshness = float(factors.freshness[post])
    if not allowed[post]:
        return Explanation(0.0, False, (), 0.0, freshness)

    totals = (similarities @ votes[neighbors]) * factors.freshness
    highest = float(np.max(totals, where=allowed, initial=0.0))
    by_votes = (1.0 - blend) * (float(totals[post]) / highest) if highest > 0 else 0.0
    by_popularity = blend * float(factors.popularity[post])
    score = by_votes + by_popularity

    voters = []
    for neighbor, similarity in zip(neighbors.tolist(), similarities.tolist(), strict=True):
        start, stop = votes.indptr[neighbor], votes.indptr[neighbor + 1]
        entry = int(start + np.searchsorted(votes.indices[start:stop], post))
        if entry < stop and votes.indices[entry] == post and score > 0:
            vote = float(votes.data[entry])
            time = None if last_interaction_at is None else int(last_interaction_at[entry])
            total = float(totals[post])
            share = by_votes / score * (freshness * similarity * vote / total) if total > 0 else 0.0
            voters.append(Voter(neighbor, similarity, vote, time, share))
    voters.sort(key=lambda voter: (-voter.share, voter.user_index))
    return Explanation(score, True, tuple(voters), by_popularity / score if score > 0 else 0.0, freshness)
