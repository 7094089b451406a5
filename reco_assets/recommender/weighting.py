"""What an interaction is worth: once for finding similar users, once as a vote.

The two are separate because they answer different questions. Who is like whom changes slowly and is
best read from which posts two users share, rare posts above all; what to show is news, so a vote
counts by its age.
"""

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from reco_assets.errors import BadInput
from reco_assets.parameters import problem_with
from reco_assets.recommender.interaction_log import MICROSECONDS_PER_DAY, UNKNOWN_TIME

Array = npt.NDArray[Any]

BM25_K1: Final = 1.2
BM25_B: Final = 0.75

_TENTHS_TOLERANCE: Final = 1e-6
_LEAST_EXPONENT: Final = -1022.0


@dataclass(frozen=True, eq=False)
class SimilarityWeighting:
    """A weighting of interactions for the comparison of users, with its statistics of a fitted matrix.

    With w the interaction weight, N the users with an interaction, df the users of the post, and
    idf = max(0, ln(N / (1 + df))), the guarded form that `implicit` uses (without the guard):

    * `none`: w
    * `tfidf`: w · idf (Salton and Buckley, "Term-Weighting Approaches in Automatic Text Retrieval", 1988)
    * `sqrt_tfidf`: √w · idf (`implicit.nearest_neighbours.tfidf_weight`)
    * `binary_tfidf`: idf
    * `bm25_users`: idf · w · (K1 + 1) / (w + K1 · (1 − B + B · |u| / mean |u|)), K1 = 1.2, B = 0.75, |u|
      the user's sum of weights (Robertson and Zaragoza, "The Probabilistic Relevance Framework:
      BM25 and Beyond", 2009, eq. 3.15, users as documents and posts as terms;
      `implicit.nearest_neighbours.bm25_weight` of a users × posts matrix)
    * `bm25_posts`: the same with posts as documents and users as terms: |i|, the post's sum of weights,
      in place of |u|, which damps popular posts, and as idf that of the user, max(0, ln(M / (1 + posts of
      the user))), M the posts with an interaction. It is a factor of the whole row, which a cosine sees
      only beside a shrinkage. This is what the user-KNN of published tables computes:
      `okapi_BM_25(URM.T).T` in the `UserKNNCFRecommender` of Ferrari Dacrema, Cremonesi and Jannach, "Are
      We Really Making Much Progress?", 2019.

    A post that (nearly) everybody has seen has idf 0: it says nothing about likeness, and its entries are
    dropped; likewise, with `bm25_posts`, a user who has seen (nearly) every post. In a data set of a few
    users and posts that can be all of them; nobody is like anybody then, and lists rest on popularity.

    A row weighted by itself has the very bits that it has within the fitted matrix: sums are taken in the
    order of the posts, and logarithms are looked up.

    Attributes:
        name: one of `parameters.SimilarityWeighting`.
        of_posts: (n_posts,) float64: the idf, with `bm25_posts` |i| / mean |i|; empty with `none`.
        of_counts: (n_posts + 1,) float64, with `bm25_posts` only: the idf of a user by the number of
            their posts; otherwise empty.
        mean_length: mean |u| of the users with an interaction; 1 without any.
        in_tenths: weights are counted in tenths, see `tenths`.
    """

    name: str
    of_posts: Array
    of_counts: Array
    mean_length: float
    in_tenths: bool

    @classmethod
    def fit(cls, weights: sp.csr_array, name: str, *, exact: bool = False) -> Self:
        """Take the statistics of a matrix.

        Args:
            weights: (n_users, n_posts) CSR, positive.
            name: one of `parameters.SimilarityWeighting`.
            exact: with `none`, count in tenths if all weights are multiples of 0.1. A cosine does not
                see the factor 10; what is added to its denominator does.
        """
        if problem := problem_with("similarity_weighting", name):
            raise BadInput(problem)
        of_posts = of_counts = np.empty(0)
        mean_length, in_tenths = 1.0, False
        if name == "none":
            in_tenths = exact and all_in_tenths(weights.data)
        elif name == "bm25_posts":
            totals = np.bincount(weights.indices, weights.data, minlength=weights.shape[1])
            of_posts = totals / _mean_of_positive(totals)
            of_counts = _idf(int(np.count_nonzero(totals)), np.arange(weights.shape[1] + 1))
        else:
            of_posts = inverse_document_frequency(weights)
            mean_length = _mean_of_positive(_row_sums(weights.data, weights.indptr))
        return cls(name, of_posts, of_counts, mean_length, in_tenths)

    def of_rows(self, posts: Array, weights: Array, indptr: Array) -> Array:
        """(nnz,) float64: the entries of rows, weighted; 0 for those that say nothing.

        Args:
            posts: (nnz,) of the fitted matrix, ascending within a row.
            weights: (nnz,) interaction weights.
            indptr: (n_rows + 1,) where rows begin, as in CSR.
        """
        values = np.asarray(weights, dtype=np.float64)
        match self.name:
            case "none":
                return tenths(values) if self.in_tenths else values
            case "tfidf":
                return values * self.of_posts[posts]
            case "sqrt_tfidf":
                return np.sqrt(values) * self.of_posts[posts]
            case "binary_tfidf":
                return np.asarray(self.of_posts[posts])
            case "bm25_users":
                length = np.repeat(_row_sums(values, indptr) / self.mean_length, np.diff(indptr))
                return self.of_posts[posts] * _saturated(values, length)
            case _:
                n_posts = np.diff(indptr)
                return np.repeat(self.of_counts[n_posts], n_posts) * _saturated(values, self.of_posts[posts])

    def of_matrix(self, weights: sp.csr_array) -> sp.csr_array:
        """The matrix, weighted: (n_users, n_posts) CSR, float64, sorted indices, positive entries only."""
        data = self.of_rows(weights.indices, weights.data, weights.indptr)
        weighted = sp.csr_array((data, weights.indices.copy(), weights.indptr.copy()), shape=weights.shape)
        weighted.eliminate_zeros()
        return weighted


def inverse_document_frequency(weights: sp.csr_array) -> Array:
    """(n_posts,) float64: max(0, ln(N / (1 + df))), N the users with at least one interaction."""
    n_users = int(np.count_nonzero(np.diff(weights.indptr)))
    return _idf(n_users, np.bincount(weights.indices, minlength=weights.shape[1]))


def _idf(n_documents: int, frequencies: Array) -> Array:
    idf: Array = np.maximum(0.0, np.log(max(1, n_documents) / (1.0 + frequencies)))
    return idf


def _mean_of_positive(values: Array) -> float:
    positive = values[values > 0]
    return float(positive.mean()) if len(positive) else 1.0


def _saturated(weights: Array, length: Array) -> Array:
    """BM25's term frequency, with the document's length in units of the mean."""
    return weights * (BM25_K1 + 1.0) / (weights + BM25_K1 * (1.0 - BM25_B + BM25_B * length))


def _row_sums(values: Array, indptr: Array) -> Array:
    """(n_rows,) float64, summed one entry after the other: the same bits for a row alone."""
    row_of_entry = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    return np.bincount(row_of_entry, values, minlength=len(indptr) - 1)


def tenths(weights: Array) -> Array:
    """The weights × 10, float64, as whole numbers where they are multiples of 0.1.

    0.1 has no exact binary form; ten times it has. Products and sums of whole numbers below 2⁵³ are
    exact in any order, so equal similarities compare equal.
    """
    scaled = weights * 10.0
    whole = np.rint(scaled)
    return np.where((np.abs(scaled - whole) < _TENTHS_TOLERANCE) & (whole > 0), whole, scaled)


def all_in_tenths(weights: Array) -> bool:
    """Whether there are weights and all are multiples of 0.1."""
    counted = tenths(weights)
    return len(weights) > 0 and bool((counted == np.rint(counted)).all())


def vote_values(weights: Array, age_days: Array, weighting: str, half_life_days: float | None) -> Array:
    """What interactions are worth as votes: (w, √w or 1) · 0.5^(age / half-life), float64.

    Args:
        weights: (n,) interaction weights.
        age_days: (n,) days since the interaction; a negative age counts as 0.
        weighting: `raw`, `sqrt` or `binary`.
        half_life_days: None: votes do not age.
    """
    if problem := problem_with("vote_weighting", weighting):
        raise BadInput(problem)
    if weighting == "binary":
        return decay(age_days, half_life_days)
    values = np.asarray(weights, dtype=np.float64)
    return (np.sqrt(values) if weighting == "sqrt" else values) * decay(age_days, half_life_days)


def decay(age_days: Array, half_life_days: float | None) -> Array:
    """0.5^(age / half-life), float64, 1 without a half-life; a negative age counts as 0.

    After 1022 half-lives nothing is left: processors take a hundred times as long for the powers that follow,
    which are too small for a normal number, and with a half-life of minutes most of a window is so old.
    """
    age = np.maximum(np.asarray(age_days, dtype=np.float64), 0.0)
    if half_life_days is None:
        return np.ones_like(age)
    exponents = age / -half_life_days
    left = exponents >= _LEAST_EXPONENT
    decayed: Array = np.exp2(np.maximum(exponents, _LEAST_EXPONENT)) * left
    return decayed


def age_in_days(times_us: Array, as_of_us: int) -> Array:
    """Days from each time to `as_of_us`, float64; infinite for `UNKNOWN_TIME`."""
    times = np.asarray(times_us, dtype=np.int64)
    known = times != UNKNOWN_TIME
    if known.all():  # as nearly always
        return np.asarray((as_of_us - times) / MICROSECONDS_PER_DAY)
    ages = (as_of_us - np.where(known, times, 0)) / MICROSECONDS_PER_DAY
    return np.where(known, ages, np.inf)
