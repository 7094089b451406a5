"""What every recommender is fitted on, checked once, and the way there from a log."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, Self, TypedDict, TypeVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from reco_assets.errors import BadInput
from reco_assets.recommender.interaction_log import UNKNOWN_TIME, InteractionLog
from reco_assets.recommender.interaction_matrix import InteractionMatrix
from reco_assets.recommender.masks import Masks
from reco_assets.recommender.recommendation_lists import RecommendationLists
from reco_assets.recommender.weighting import age_in_days

Array = npt.NDArray[Any]


class FitArguments(TypedDict, total=False):
    """What a `fit` may be told beside the matrix of weights; every part may be left out.

    Without times nothing ages: an undated interaction counts as one of just now, an undated post as new.
    So a plain matrix of a public data set needs no other settings than a dated one.

    Attributes:
        last_interaction_at: sparse with the entries of `weights`: when, in µs since the epoch, UTC. None:
            neither votes nor readers age, all of them count for similarity, and everybody with an
            interaction is active.
        post_created_at: (n_posts,) int64 µs or `UNKNOWN_TIME`. None: posts do not age. Those of unknown
            time among known ones count as infinitely old.
        as_of: µs or an aware datetime that ages are counted to. None: just after the newest interaction,
            or, without those, just after the newest post.
        eligible, post_author, user_author, hidden_user, hidden_author: see `Masks.build`.
        user_ids, post_ids: (…, 16) uint8 ids of the rows and columns, sorted.
    """

    last_interaction_at: Any
    post_created_at: Array | None
    as_of: int | datetime | None
    eligible: Array | None
    post_author: Array | None
    user_author: Array | None
    hidden_user: Array | None
    hidden_author: Array | None
    user_ids: Array | None
    post_ids: Array | None


class Recommender(Protocol):
    """What the model and the baselines have in common."""

    @property
    def fit(self) -> Callable[..., Any]:
        """Learn from a (n_users, n_posts) matrix of weights and `FitArguments`.

        A property for the type checker: recommenders spell out the keywords they take.
        """

    def recommend(self, user_indices: Array | None = None, n: int | None = None) -> RecommendationLists:
        """The best `n` posts for each of the users; None: for the active ones."""


R = TypeVar("R", bound=Recommender)


@dataclass(frozen=True, eq=False)
class FitInputs:
    """A matrix of interactions with what is known about users and posts.

    Attributes:
        weights: (n_users, n_posts) CSR, float64, sorted indices, positive.
        last_interaction_at: (nnz,) int64 µs, the time of each stored entry; None when unknown.
        post_created_at: (n_posts,) int64 µs or `UNKNOWN_TIME`; None when nothing is known.
        as_of_us: the instant that ages are counted to; 0 when no time is known.
        masks: who may be shown what.
        user_ids, post_ids: (…, 16) uint8, or None.
    """

    weights: sp.csr_array
    last_interaction_at: Array | None
    post_created_at: Array | None
    as_of_us: int
    masks: Masks
    user_ids: Array | None
    post_ids: Array | None

    @classmethod
    def check(
        cls,
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
    ) -> Self:
        """Check the arguments of a `fit`: `weights`, (n_users, n_posts) sparse, and `FitArguments`.

        Raises:
            BadInput: naming the argument, the value and what it must be.
        """
        matrix = _as_csr("weights", weights)
        if matrix.dtype != np.float64:
            matrix = matrix.astype(np.float64)
        if matrix.nnz and not (np.isfinite(matrix.data).all() and matrix.data.min() > 0):
            raise BadInput(
                "weights holds a value that is not positive and finite; drop such interactions first."
            )
        times = None
        if last_interaction_at is not None:
            newest = _as_csr("last_interaction_at", last_interaction_at)
            if not (
                newest.shape == matrix.shape
                and np.array_equal(newest.indptr, matrix.indptr)
                and np.array_equal(newest.indices, matrix.indices)
            ):
                raise BadInput("last_interaction_at must store a time for exactly the entries of weights.")
            times = newest.data.astype(np.int64)
        if post_created_at is not None:
            post_created_at = np.asarray(post_created_at, dtype=np.int64)
            if post_created_at.shape != (matrix.shape[1],):
                raise BadInput(
                    f"post_created_at has shape {post_created_at.shape}; expected ({matrix.shape[1]},)."
                )
        for name, ids, length in (
            ("user_ids", user_ids, matrix.shape[0]),
            ("post_ids", post_ids, matrix.shape[1]),
        ):
            if ids is not None and ids.shape != (length, 16):
                raise BadInput(f"{name} has shape {ids.shape}; expected ({length}, 16).")
        return cls(
            weights=matrix,
            last_interaction_at=times,
            post_created_at=post_created_at,
            as_of_us=_as_of_us(as_of, times, post_created_at),
            masks=Masks.build(
                matrix,
                eligible=eligible,
                post_author=post_author,
                user_author=user_author,
                hidden_user=hidden_user,
                hidden_author=hidden_author,
            ),
            user_ids=user_ids,
            post_ids=post_ids,
        )

    def entry_ages(self) -> Array:
        """(nnz,) float64: days since each entry's newest interaction, 0 without times."""
        if self.last_interaction_at is None:
            return np.zeros(self.weights.nnz)
        return age_in_days(self.last_interaction_at, self.as_of_us)

    def post_ages(self) -> Array:
        """(n_posts,) float64: days since creation, infinite where unknown, 0 without times."""
        if self.post_created_at is None:
            return np.zeros(self.weights.shape[1])
        return age_in_days(self.post_created_at, self.as_of_us)

    def active_users(self, within_days: float) -> Array:
        """(m,) int32: the users with an interaction in the last `within_days`, ascending."""
        recent = np.flatnonzero(self.entry_ages() <= within_days)
        rows = np.searchsorted(self.weights.indptr, recent, side="right") - 1
        return np.unique(rows).astype(np.int32)


def fit_log(
    recommender: R,
    log: InteractionLog,
    *,
    as_of_us: int,
    interaction_weights: Mapping[str, float],
    max_repeats: int = 3,
    **extra: Any,
) -> R:
    """Fit any recommender on the part of a log before `as_of_us`, and return it.

    Posts created at `as_of_us` or later are not eligible; one of unknown creation time counts as
    created when it was first seen. `extra` goes to `fit`, for example `progress` and `should_stop`.
    """
    past = log.before(as_of_us)
    matrix = InteractionMatrix.from_log(
        past, as_of_us, interaction_weights=interaction_weights, max_repeats=max_repeats
    )
    return fit_matrix(recommender, matrix, past, **extra)


def fit_matrix(recommender: R, matrix: InteractionMatrix, log: InteractionLog, **extra: Any) -> R:
    """Fit on a matrix that `log` was summed up to; the log gives what is known about the posts."""
    past = log.before(matrix.as_of_us)
    recommender.fit(
        matrix.weights,
        last_interaction_at=matrix.last_interaction_at,
        post_created_at=past.post_known_since(),
        as_of=matrix.as_of_us,
        eligible=past.post_eligible,
        post_author=past.post_author,
        user_author=past.user_author,
        hidden_user=past.hidden_user,
        hidden_author=past.hidden_author,
        user_ids=past.user_ids,
        post_ids=past.post_ids,
        **extra,
    )
    return recommender


def _as_csr(name: str, matrix: Any) -> sp.csr_array:
    try:
        csr = sp.csr_array(matrix)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{name} is not a (n_users, n_posts) sparse matrix: {error}") from error
    if not csr.has_canonical_format:
        csr = csr.copy()
        csr.sum_duplicates()
    if csr.indices.dtype != np.int32 and csr.nnz <= np.iinfo(np.int32).max:
        # What the compiled loops take: other types would be copied for every list.
        indices, indptr = csr.indices.astype(np.int32), csr.indptr.astype(np.int32)
        csr = sp.csr_array((csr.data, indices, indptr), shape=csr.shape)
    return csr


def _as_of_us(as_of: int | datetime | None, times: Array | None, post_created_at: Array | None) -> int:
    if isinstance(as_of, datetime):
        if as_of.tzinfo is None:
            raise BadInput(f"as_of is {as_of}, without a time zone; pass an aware datetime.")
        since_epoch = as_of - datetime(1970, 1, 1, tzinfo=UTC)
        return (since_epoch.days * 86_400 + since_epoch.seconds) * 1_000_000 + since_epoch.microseconds
    if as_of is not None:
        return int(as_of)
    if times is not None and len(times):
        return int(times.max()) + 1
    if post_created_at is not None and (post_created_at != UNKNOWN_TIME).any():
        return int(post_created_at.max()) + 1
    return 0
