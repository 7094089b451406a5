"""A window of interactions in integer codes, with the catalogue they refer to."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from reco_assets.errors import BadInput
from reco_assets.recommender.artifact import consistent, read_artifact, take, write_artifact

Array = npt.NDArray[Any]

UNKNOWN_TIME = np.iinfo(np.int64).min
"""Stands for a creation time that is not known."""

MICROSECONDS_PER_DAY = 86_400_000_000

KIND = "interaction log"
_REDO = "reco run --partition DATE"


@dataclass(frozen=True, eq=False)
class InteractionLog:
    """The events of a window and a snapshot of what they refer to.

    Ids are the 16 bytes of a UUID, sorted and unique; everything else refers to them by row. Authors
    have a code space of their own, because a post's author or a hidden author need not be a user of
    the window. Events come in any order and may repeat.

    Attributes:
        user_ids: (n_users, 16) uint8.
        post_ids: (n_posts, 16) uint8; may hold posts without an event.
        author_ids: (n_authors, 16) uint8.
        user_index: (n,) int32, row of `user_ids`.
        post_index: (n,) int32, row of `post_ids`.
        interaction_type: (n,) int8, position in `interaction_types`.
        created_at: (n,) int64, microseconds since the epoch, UTC.
        post_created_at: (n_posts,) int64, microseconds since the epoch, or `UNKNOWN_TIME`.
        post_author: (n_posts,) int32, row of `author_ids`, or -1 when unknown.
        post_eligible: (n_posts,) bool: may be recommended.
        user_author: (n_users,) int32: the user's row in `author_ids`, or -1 for who wrote nothing.
        hidden_user: (n_hidden,) int32, row of `user_ids`: who hides …
        hidden_author: (n_hidden,) int32, row of `author_ids`: … whom.
        interaction_types: the names that `interaction_type` codes.
    """

    user_ids: Array
    post_ids: Array
    author_ids: Array
    user_index: Array
    post_index: Array
    interaction_type: Array
    created_at: Array
    post_created_at: Array
    post_author: Array
    post_eligible: Array
    user_author: Array
    hidden_user: Array
    hidden_author: Array
    interaction_types: tuple[str, ...]

    def __post_init__(self) -> None:
        for name, dtype in _DTYPES.items():
            array = getattr(self, name)
            if not isinstance(array, np.ndarray) or array.dtype != dtype:
                found = getattr(array, "dtype", type(array).__name__)
                raise BadInput(f"{name} is {found}; an interaction log needs {np.dtype(dtype)}.")
        for name in ("user_ids", "post_ids", "author_ids"):
            _check_ids(name, getattr(self, name))
        for names, length in (
            (("user_index", "post_index", "interaction_type", "created_at"), self.n_interactions),
            (("post_created_at", "post_author", "post_eligible"), self.n_posts),
            (("user_author",), self.n_users),
            (("hidden_user", "hidden_author"), len(self.hidden_user)),
        ):
            for name in names:
                if getattr(self, name).shape != (length,):
                    raise BadInput(f"{name} has shape {getattr(self, name).shape}; expected ({length},).")
        for name, low, limit in (
            ("user_index", 0, self.n_users),
            ("post_index", 0, self.n_posts),
            ("interaction_type", 0, len(self.interaction_types)),
            ("post_author", -1, len(self.author_ids)),
            ("user_author", -1, len(self.author_ids)),
            ("hidden_user", 0, self.n_users),
            ("hidden_author", 0, len(self.author_ids)),
        ):
            codes = getattr(self, name)
            if len(codes) and not (low <= codes.min() and codes.max() < limit):
                bad = int(np.flatnonzero((codes < low) | (codes >= limit))[0])
                raise BadInput(f"{name}[{bad}] is {codes[bad]}; it must lie in {low} … {limit - 1}.")

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.user_ids)

    @property
    def n_posts(self) -> int:
        """Number of posts, those without an event included."""
        return len(self.post_ids)

    @property
    def n_interactions(self) -> int:
        """Number of events."""
        return len(self.created_at)

    def post_known_since(self) -> Array:
        """(n_posts,) int64: when each post was created, else first seen, else `UNKNOWN_TIME`."""
        first_seen = np.full(self.n_posts, np.iinfo(np.int64).max)
        np.minimum.at(first_seen, self.post_index, self.created_at)
        first_seen[first_seen == np.iinfo(np.int64).max] = UNKNOWN_TIME
        return np.where(self.post_created_at == UNKNOWN_TIME, first_seen, self.post_created_at)

    def before(self, cutoff_us: int) -> Self:
        """The log as of `cutoff_us`: events strictly before it; later posts are not eligible.

        The code space stays, so indices of the two logs mean the same. A post of unknown creation
        time counts as created when it was first seen. Eligibility, authors and hidden pairs are the
        snapshot's: their history is not in the log.
        """
        kept = self.created_at < cutoff_us
        known_since = self.post_known_since()
        existed = (known_since < cutoff_us) & (known_since != UNKNOWN_TIME)
        return replace(
            self,
            user_index=self.user_index[kept],
            post_index=self.post_index[kept],
            interaction_type=self.interaction_type[kept],
            created_at=self.created_at[kept],
            post_eligible=self.post_eligible & existed,
        )

    def save(self, directory: Path | str) -> Path:
        """Write the log as a directory of arrays; see `artifact.write_artifact`."""
        arrays = {name: getattr(self, name) for name in _DTYPES}
        return write_artifact(directory, KIND, arrays, {"interaction_types": list(self.interaction_types)})

    @classmethod
    def load(
        cls, directory: Path | str, *, mmap: bool = True, verify: bool = True, redo: str = _REDO
    ) -> Self:
        """Read a saved log; `mmap` and `verify` as in `artifact.read_artifact`.

        Raises:
            MissingUpstream: there is none.
            CorruptArtifact: it cannot be read, or its arrays contradict each other.
        """
        arrays, metadata = read_artifact(directory, KIND, redo=redo, mmap=mmap, verify=verify)
        take(arrays, directory, *_DTYPES, redo=redo)
        with consistent(directory, redo):
            types = tuple(str(name) for name in metadata["interaction_types"])
            return cls(**{name: arrays[name] for name in _DTYPES}, interaction_types=types)


_DTYPES: dict[str, Any] = {
    "user_ids": np.uint8,
    "post_ids": np.uint8,
    "author_ids": np.uint8,
    "user_index": np.int32,
    "post_index": np.int32,
    "interaction_type": np.int8,
    "created_at": np.int64,
    "post_created_at": np.int64,
    "post_author": np.int32,
    "post_eligible": np.bool_,
    "user_author": np.int32,
    "hidden_user": np.int32,
    "hidden_author": np.int32,
}
assert {*_DTYPES, "interaction_types"} == {field.name for field in fields(InteractionLog)}


def rows_of(ids: Array, wanted: Array) -> Array:
    """Row of each of the `wanted` (m, 16) ids in the sorted `ids` (n, 16): (m,) int64, -1 if absent."""
    keys, queries = _as_keys(ids), _as_keys(wanted)
    if not len(keys):
        return np.full(len(queries), -1, dtype=np.int64)
    rows = np.minimum(np.searchsorted(keys, queries), len(keys) - 1)
    return np.where(keys[rows] == queries, rows, -1)


def _as_keys(ids: Array) -> Array:
    """(n,) fixed-width byte strings that sort like the ids do.

    numpy ignores trailing zero bytes when it compares such strings, which is harmless where all have
    the same 16 bytes of room.
    """
    return np.ascontiguousarray(ids, dtype=np.uint8).reshape(-1, 16).view("S16").reshape(-1)


def _check_ids(name: str, ids: Array) -> None:
    if ids.ndim != 2 or ids.shape[1] != 16:
        raise BadInput(f"{name} has shape {ids.shape}; expected (n, 16), the bytes of UUIDs.")
    keys = _as_keys(ids)
    rising = keys[1:] > keys[:-1]
    if not rising.all():
        row = int(np.flatnonzero(~rising)[0]) + 1
        raise BadInput(f"{name} must be sorted and unique; row {row} does not follow row {row - 1}.")
