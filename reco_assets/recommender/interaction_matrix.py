"""Events summed up per user and post: what every model and baseline is computed from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from reco_assets.errors import BadInput
from reco_assets.recommender.artifact import consistent, read_artifact, take, write_artifact
from reco_assets.recommender.interaction_log import InteractionLog

Array = npt.NDArray[Any]

KIND = "interaction matrix"
_REDO = "reco run --partition DATE"


@dataclass(frozen=True, eq=False)
class InteractionMatrix:
    """Who did what, summed up. Rows are users, columns posts, of the log it was built from.

    Attributes:
        user_ids: (n_users, 16) uint8, sorted.
        post_ids: (n_posts, 16) uint8, sorted.
        weights: (n_users, n_posts) CSR, float64, sorted indices, every stored value positive.
        last_interaction_at: CSR of the same sparsity, int64: the pair's newest event, in
            microseconds since the epoch, UTC.
        as_of_us: the events lie strictly before this instant.
    """

    user_ids: Array
    post_ids: Array
    weights: sp.csr_array
    last_interaction_at: sp.csr_array
    as_of_us: int

    def __post_init__(self) -> None:
        shape = (len(self.user_ids), len(self.post_ids))
        for name in ("weights", "last_interaction_at"):
            if getattr(self, name).shape != shape:
                raise BadInput(f"{name} has shape {getattr(self, name).shape}; the ids say {shape}.")
        same = np.array_equal(self.weights.indptr, self.last_interaction_at.indptr) and np.array_equal(
            self.weights.indices, self.last_interaction_at.indices
        )
        if not same:
            raise BadInput("weights and last_interaction_at must store the same (user, post) pairs.")

    @classmethod
    def from_log(
        cls,
        log: InteractionLog,
        as_of_us: int,
        *,
        interaction_weights: Mapping[str, float],
        max_repeats: int = 3,
    ) -> Self:
        """Sum the weights of the events strictly before `as_of_us`.

        Of the events of one user with one post and of one type, at most `max_repeats` count; the
        newest of them all gives the time. An empty log gives a matrix without entries.

        Raises:
            BadInput: an event's type has no weight, or a parameter is out of range.
        """
        if max_repeats < 1:
            raise BadInput(f"max_repeats is {max_repeats}; it must be at least 1.")
        kept = log.created_at < as_of_us
        events: slice | Array = slice(None) if kept.all() else kept
        types = log.interaction_type[events]
        summed = sum_events(
            log.user_index[events],
            log.post_index[events],
            types,
            log.created_at[events],
            weights_of_types(log.interaction_types, types, interaction_weights),
            n_users=log.n_users,
            n_posts=log.n_posts,
            max_repeats=max_repeats,
        )
        return cls(
            user_ids=log.user_ids,
            post_ids=log.post_ids,
            weights=_csr(summed.weights, summed, log),
            last_interaction_at=_csr(summed.newest, summed, log),
            as_of_us=as_of_us,
        )

    def save(self, directory: Path | str) -> Path:
        """Write the matrix as a directory of arrays; see `artifact.write_artifact`."""
        arrays = {
            "user_ids": self.user_ids,
            "post_ids": self.post_ids,
            "indptr": self.weights.indptr.astype(np.int64),
            "indices": self.weights.indices.astype(np.int32),
            "weights": self.weights.data,
            "last_interaction_at": self.last_interaction_at.data,
        }
        return write_artifact(directory, KIND, arrays, {"as_of_us": self.as_of_us})

    @classmethod
    def load(
        cls, directory: Path | str, *, mmap: bool = True, verify: bool = True, redo: str = _REDO
    ) -> Self:
        """Read a saved matrix; `mmap` and `verify` as in `artifact.read_artifact`.

        Raises:
            MissingUpstream: there is none.
            CorruptArtifact: it cannot be read, or its arrays contradict each other.
        """
        arrays, metadata = read_artifact(directory, KIND, redo=redo, mmap=mmap, verify=verify)
        user_ids, post_ids, indptr, indices, weights, newest = take(
            arrays,
            directory,
            *("user_ids", "post_ids", "indptr", "indices", "weights", "last_interaction_at"),
            redo=redo,
        )
        shape = (len(user_ids), len(post_ids))
        with consistent(directory, redo):
            return cls(
                user_ids=user_ids,
                post_ids=post_ids,
                weights=csr_over(weights, indices, indptr, shape),
                last_interaction_at=csr_over(newest, indices, indptr, shape),
                as_of_us=int(metadata["as_of_us"]),
            )


class SummedEvents(NamedTuple):
    """Users' rows in the form of CSR, posts ascending within a row.

    `indptr` is (n_users + 1,) int64; of every pair, `posts` int32, `weights` float64, and `newest` int64 µs.
    """

    indptr: Array
    posts: Array
    weights: Array
    newest: Array


def sum_events(
    users: Array,
    posts: Array,
    types: Array,
    created_at: Array,
    type_weights: Array,
    *,
    n_users: int,
    n_posts: int,
    max_repeats: int,
) -> SummedEvents:
    """Sum events up per user and post, as `InteractionMatrix.from_log` does.

    A pair's sum depends on its own events alone, not on their order nor on other pairs.

    Args:
        users, posts, types, created_at: (n,) of each event, in any order.
        type_weights: (n_types,) by code of the type.
        n_users, n_posts: the range of the codes.
        max_repeats: at least 1.
    """
    n_types = max(1, len(type_weights))
    pairs = users.astype(np.int64) * max(1, n_posts) + posts
    triples, order = _sorted(pairs * n_types + types, max(1, n_users) * max(1, n_posts) * n_types)
    created_at = created_at[order]
    starts = np.flatnonzero(np.diff(triples, prepend=-1))
    counts = np.diff(starts, append=len(triples))
    # Sums are taken in the order of the types' codes, so that equal histories have equal weights.
    values = np.minimum(counts, max_repeats) * type_weights[triples[starts] % n_types]
    pair_of_triple = triples[starts] // n_types
    first = np.flatnonzero(np.diff(pair_of_triple, prepend=-1))
    cells = pair_of_triple[first]
    # reduceat refuses an empty input.
    weights = np.add.reduceat(values, first) if len(first) else np.empty(0)
    newest = np.maximum.reduceat(created_at, starts[first]) if len(first) else np.empty(0, np.int64)
    rows, columns = np.divmod(cells, max(1, n_posts))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n_users))]).astype(np.int64)
    return SummedEvents(indptr, columns.astype(np.int32), weights, newest)


def weights_of_types(
    interaction_types: Sequence[str], types: Array, interaction_weights: Mapping[str, float]
) -> Array:
    """(n_types,) float64, after checking that every type that occurs has a positive weight.

    Raises:
        BadInput: one has none.
    """
    occurring = {interaction_types[code] for code in np.flatnonzero(np.bincount(types)).tolist()}
    unknown = sorted(occurring - set(interaction_weights))
    if unknown:
        raise BadInput(
            f"No weight for interaction type {', '.join(map(repr, unknown))}; add it to "
            "RECO_INTERACTION_WEIGHTS (for example view=0.1,click=0.3)."
        )
    for name in sorted(occurring):
        if not 0 < interaction_weights[name] < np.inf:
            raise BadInput(
                f"The weight of {name!r} is {interaction_weights[name]}; it must be positive and finite."
            )
    return np.array([interaction_weights.get(name, 0.0) for name in interaction_types], dtype=np.float64)


def csr_over(data: Array, indices: Array, indptr: Array, shape: tuple[int, int]) -> sp.csr_array:
    """A matrix over mapped arrays; given an int64 `indptr`, scipy would widen a copy of the indices."""
    if len(data) <= np.iinfo(np.int32).max:
        indptr = indptr.astype(np.int32)
    return sp.csr_array((data, indices, indptr), shape=shape)


def _sorted(keys: Array, n_keys: int) -> tuple[Array, Array]:
    """The keys, each in 0 … n_keys - 1, in order, and which of them is where.

    Sorting numbers that carry their position is several times as fast as sorting positions. There is room
    for both up to 2^63 keys × events: a million users, half a million posts, four types and four million
    events.
    """
    bits = max(1, len(keys)).bit_length()
    if n_keys.bit_length() + bits > 63:
        order = np.argsort(keys, kind="stable")
        return keys[order], order
    carrying = np.sort(keys << bits | np.arange(len(keys)))
    return carrying >> bits, carrying & ((1 << bits) - 1)


def _csr(data: Array, summed: SummedEvents, log: InteractionLog) -> sp.csr_array:
    matrix = sp.csr_array((data, summed.posts, summed.indptr), shape=(log.n_users, log.n_posts))
    matrix.has_sorted_indices = True
    matrix.has_canonical_format = True
    return matrix
