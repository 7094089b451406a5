"""The matrix that every contender works on, handed over as .npy files.

Needs numpy and scipy only: contenders with an environment of their own read it too.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Array = npt.NDArray[Any]

N_NEIGHBORS: Final = 50
N_POSTS: Final = 50
"""Length of a list."""
SAMPLE: Final = 2_000
"""Users on whom results are compared, and whom the slowest contenders stop at in large feeds."""


@dataclass(frozen=True, eq=False)
class Workload:
    """A feed, summed up.

    Attributes:
        feed, size: its names.
        n_events: what `weights` was summed up from.
        weights: (n_users, n_posts) CSR, float64, multiples of 0.1; every row and column has an entry.
        last_interaction_at: (nnz,) int64 µs since the epoch, of the entries.
        post_created_at: (n_posts,) int64 µs.
        as_of_us: the instant that ages are counted to.
    """

    feed: str
    size: str
    n_events: int
    weights: sp.csr_array
    last_interaction_at: Array
    post_created_at: Array
    as_of_us: int

    def save(self, directory: Path) -> None:
        """Write the arrays as .npy and the rest as JSON."""
        directory.mkdir(parents=True, exist_ok=True)
        for name, array in (
            ("indptr", self.weights.indptr.astype(np.int64)),
            ("indices", self.weights.indices.astype(np.int32)),
            ("weights", self.weights.data),
            ("last_interaction_at", self.last_interaction_at),
            ("post_created_at", self.post_created_at),
        ):
            np.save(directory / f"{name}.npy", array)
        rest = {name: getattr(self, name) for name in ("feed", "size", "n_events", "as_of_us")}
        (directory / "workload.json").write_text(json.dumps(rest))

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote."""
        rest = json.loads((directory / "workload.json").read_text())
        indptr, indices, weights, last, created = (
            np.load(directory / f"{name}.npy")
            for name in ("indptr", "indices", "weights", "last_interaction_at", "post_created_at")
        )
        matrix = sp.csr_array((weights, indices, indptr), shape=(len(indptr) - 1, len(created)))
        return cls(weights=matrix, last_interaction_at=last, post_created_at=created, **rest)

    @property
    def n_users(self) -> int:
        """Rows."""
        return int(self.weights.shape[0])

    def multiply_adds(self) -> int:
        """Σ over posts of readers²: what the product of the matrix with its transpose takes."""
        readers = np.bincount(self.weights.indices).astype(np.int64)
        return int((readers**2).sum())

    def sample(self) -> Array:
        """The users on whom results are compared."""
        return sample_of(self.n_users)

    def description(self) -> dict[str, str | int | float | None]:
        """Size and skew, a row of a table."""
        readers = np.sort(np.bincount(self.weights.indices))[::-1]
        reads = np.sort(np.diff(self.weights.indptr))[::-1]
        return {
            "feed": self.feed,
            "size": self.size,
            "users": self.n_users,
            "posts": int(self.weights.shape[1]),
            "events": self.n_events,
            "pairs (nnz)": int(self.weights.nnz),
            "multiply-adds": self.multiply_adds(),
            "top post, % of users": 100 * float(readers[0]) / self.n_users,
            "top 1 % of posts, % of pairs": _share(readers, 0.01),
            "top 10 %": _share(readers, 0.10),
            "busiest 1 % of users, % of pairs": _share(reads, 0.01),
            "busiest 10 %": _share(reads, 0.10),
        }


def sample_of(n_users: int) -> Array:
    """(m,) int64, ascending: always the same `SAMPLE` users, or all."""
    if n_users <= SAMPLE:
        return np.arange(n_users)
    return np.sort(np.random.default_rng(0).choice(n_users, SAMPLE, replace=False))


def normalised_rows(weights: sp.csr_array, dtype: Any) -> sp.csr_array:
    """The rows divided by their Euclidean lengths, so that a product of two is their cosine."""
    values = weights.data.astype(np.float64)
    per_row = np.diff(weights.indptr)
    lengths = np.sqrt(np.add.reduceat(values**2, weights.indptr[:-1]))
    data = (values / np.repeat(lengths, per_row)).astype(dtype)
    return sp.csr_array((data, weights.indices, weights.indptr), shape=weights.shape)


def _share(counts: Array, top: float) -> float:
    return 100 * float(counts[: max(1, round(len(counts) * top))].sum()) / float(counts.sum())
