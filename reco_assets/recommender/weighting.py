"""What an interaction is worth: once for finding similar users, once as a vote.

The two are separate because they answer different questions. Who is like whom changes slowly and is
best read from which posts two users share, rare posts above all; what to show is news, so a vote
counts by its age.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from reco_assets.errors import BadInput
from reco_assets.recommender.interaction_log import MICROSECONDS_PER_DAY, UNKNOWN_TIME

Array = npt.NDArray[Any]

SIMILARITY_WEIGHTINGS: Final = ("none", "tfidf", "sqrt_tfidf", "binary_tfidf", "bm25")
VOTE_WEIGHTINGS: Final = ("raw", "sqrt", "binary")

BM25_K1: Final = 1.2
BM25_B: Final = 0.75


def similarity_weights(weights: sp.csr_array, weighting: str) -> sp.csr_array:
    """Weight interactions for the comparison of users.

    With w the interaction weight, N the users with an interaction, df the users of the post, and
    idf = max(0, ln(N / (1 + df))), the guarded form that `implicit` uses:

    * `none`: w
    * `tfidf`: w · idf
    * `sqrt_tfidf`: √w · idf
    * `binary_tfidf`: idf
    * `bm25`: idf · w · (K1 + 1) / (w + K1 · (1 − B + B · |u| / mean |u|)), K1 = 1.2, B = 0.75, |u|
      the user's sum of weights (Robertson and Zaragoza, "The Probabilistic Relevance Framework:
      BM25 and Beyond", 2009, eq. 3.15, with users as documents)

    A post that (nearly) everybody has seen has idf 0: it says nothing about likeness, and its
    entries are dropped. In a data set of a few users that can be every post; nobody is like
    anybody then, and lists rest on popularity.

    Args:
        weights: (n_users, n_posts) CSR, positive.
        weighting: one of `SIMILARITY_WEIGHTINGS`.

    Returns:
        (n_users, n_posts) CSR, float64, sorted indices, positive entries only.
    """
    if weighting not in SIMILARITY_WEIGHTINGS:
        raise BadInput(
            f"similarity_weighting is {weighting!r}; use one of {', '.join(SIMILARITY_WEIGHTINGS)}."
        )
    values = weights.data.astype(np.float64)
    per_user = np.diff(weights.indptr)
    if weighting == "none":
        data = values
    else:
        idf = inverse_document_frequency(weights)[weights.indices]
        if weighting == "tfidf":
            data = values * idf
        elif weighting == "sqrt_tfidf":
            data = np.sqrt(values) * idf
        elif weighting == "binary_tfidf":
            data = idf
        else:
            totals = np.asarray(weights.sum(axis=1)).ravel()
            mean = totals[per_user > 0].mean() if weights.nnz else 1.0
            length = BM25_K1 * (1.0 - BM25_B + BM25_B * np.repeat(totals / mean, per_user))
            data = idf * values * (BM25_K1 + 1.0) / (values + length)
    weighted = sp.csr_array((data, weights.indices.copy(), weights.indptr.copy()), shape=weights.shape)
    weighted.eliminate_zeros()
    return weighted


def inverse_document_frequency(weights: sp.csr_array) -> Array:
    """(n_posts,) float64: max(0, ln(N / (1 + df))), N the users with at least one interaction."""
    n_users = max(1, int(np.count_nonzero(np.diff(weights.indptr))))
    users_of_post = np.bincount(weights.indices, minlength=weights.shape[1])
    idf: Array = np.maximum(0.0, np.log(n_users / (1.0 + users_of_post)))
    return idf


def exact_weights(data: Array) -> Array:
    """The weights × 10 as whole numbers in float64 when they are multiples of 0.1, else unchanged.

    0.1 has no exact binary form; ten times it has. Products and sums of whole numbers below 2⁵³ are
    exact in any order, so equal similarities compare equal. A cosine does not see the factor.
    """
    tenths = np.rint(data * 10.0)
    return tenths if len(data) and np.abs(data * 10.0 - tenths).max() < 1e-6 else data


def vote_values(weights: Array, age_days: Array, weighting: str, half_life_days: float | None) -> Array:
    """What interactions are worth as votes: (w, √w or 1) · 0.5^(age / half-life), float64.

    Args:
        weights: (n,) interaction weights.
        age_days: (n,) days since the interaction; a negative age counts as 0.
        weighting: one of `VOTE_WEIGHTINGS`.
        half_life_days: None: votes do not age.
    """
    if weighting not in VOTE_WEIGHTINGS:
        raise BadInput(f"vote_weighting is {weighting!r}; use one of {', '.join(VOTE_WEIGHTINGS)}.")
    values = np.asarray(weights, dtype=np.float64)
    if weighting == "sqrt":
        values = np.sqrt(values)
    elif weighting == "binary":
        values = np.ones_like(values)
    return values * decay(age_days, half_life_days)


def decay(age_days: Array, half_life_days: float | None) -> Array:
    """0.5^(age / half-life), float64, 1 without a half-life; a negative age counts as 0."""
    age = np.maximum(np.asarray(age_days, dtype=np.float64), 0.0)
    return np.ones_like(age) if half_life_days is None else np.exp2(-age / half_life_days)


def age_in_days(times_us: Array, as_of_us: int) -> Array:
    """Days from each time to `as_of_us`, float64; infinite for `UNKNOWN_TIME`."""
    times = np.asarray(times_us, dtype=np.int64)
    known = times != UNKNOWN_TIME
    ages = (as_of_us - np.where(known, times, 0)) / MICROSECONDS_PER_DAY
    return np.where(known, ages, np.inf)
