"""Rows of recommendations as bytes for PostgreSQL's binary COPY, built with numpy; see `binary_copy`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Final, Self
from uuid import UUID

from reco_assets.errors import BadInput
from reco_assets.store.binary_copy import (
    HEADER,
    POSTGRES_EPOCH_US,
    TRAILER,
    Field,
    framed_rows,
    rising_uuids,
    uuid_text,
)
from reco_assets.store.schema import IdType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COLUMNS: Final = (
    *("id", "user_id", "post_id", "score", "generated_at", "expires_at", "model_version", "generation_id"),
)
"""The columns of `user_recommendations` in the order of the buffer."""
CONSTANTS: Final = COLUMNS[4:]
"""Those that have one value for the whole generation."""
_ROWS_PER_CHUNK = 8_192
"""About 1 MB: the next chunk is laid out while the server still reads this one from the socket."""


@dataclass(frozen=True)
class CodedIds:
    """Ids that repeat: the different ones once, and for each row which of them.

    Attributes:
        ids: (k, 16) uint8, in order of appearance.
        index: (n,) int32, row of `ids`.
    """

    ids: "NDArray[np.uint8]"
    index: "NDArray[np.int32]"

    @classmethod
    def of(cls, ids: "NDArray[np.uint8]") -> Self:
        """Of (n, 16) uint8, by hashing."""
        import numpy as np
        import pyarrow as pa

        data = pa.py_buffer(np.ascontiguousarray(ids))
        values = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(ids), [None, data])
        encoded = values.dictionary_encode()
        different = np.frombuffer(encoded.dictionary.buffers()[1] or b"", dtype=np.uint8).reshape(-1, 16)
        return cls(different[: len(encoded.dictionary)], encoded.indices.to_numpy())


@dataclass(frozen=True)
class RecommendationRows:
    """Recommendations as arrays: row i says that post i is recommended to user i.

    Attributes:
        user_ids: (n, 16) uint8, the bytes of the UUIDs.
        post_ids: (n, 16) uint8.
        scores: (n,) float64, finite.

    Raises:
        BadInput: Shapes, types or values are not those.
    """

    user_ids: "NDArray[np.uint8]"
    post_ids: "NDArray[np.uint8]"
    scores: "NDArray[np.float64]"

    def __post_init__(self) -> None:
        import numpy as np

        n = len(self.scores)
        for name in ("user_ids", "post_ids"):
            ids = getattr(self, name)
            if ids.shape != (n, 16) or ids.dtype != np.uint8:
                raise BadInput(
                    f"{name} is {ids.dtype} of shape {ids.shape}; expected uint8 of shape ({n}, 16), "
                    f"one row per score."
                )
        if self.scores.dtype != np.float64 or self.scores.ndim != 1:
            raise BadInput(
                f"scores is {self.scores.dtype} of shape {self.scores.shape}; expected float64 (n,)."
            )
        wrong = np.flatnonzero(~np.isfinite(self.scores))
        if len(wrong):
            raise BadInput(
                f"{len(wrong)} of {n} scores are not finite, the first in row {wrong[0]}: "
                f"{self.scores[wrong[0]]}. Nothing was published."
            )

    def __len__(self) -> int:
        return len(self.scores)

    @cached_property
    def users(self) -> CodedIds:
        """The different users, and whom each row is for."""
        return CodedIds.of(self.user_ids)

    @cached_property
    def posts(self) -> CodedIds:
        """The different posts, and what each row recommends."""
        return CodedIds.of(self.post_ids)

    def count_users(self) -> int:
        """How many different users."""
        return len(self.users.ids)


@dataclass(frozen=True)
class SharedValues:
    """What all rows of a generation have in common."""

    generated_at: datetime
    expires_at: datetime
    model_version: str
    generation_id: UUID


def copy_chunks(
    rows: RecommendationRows,
    shared: SharedValues,
    id_type: IdType,
    columns: Sequence[str] = COLUMNS,
    kept: "NDArray[np.bool_] | None" = None,
) -> Iterator[bytes]:
    """The bytes to send, header and trailer included, in chunks of about 1 MB.

    Args:
        rows: What differs from row to row.
        shared: What does not.
        id_type: How `user_id` and `post_id` are stored.
        columns: Some of `COLUMNS`; the server fills the others by their defaults. Ids rise from row to
            row, which spares the server the sorting when it builds the primary key.
        kept: (n,) which rows to send; all by default.
    """
    import numpy as np

    encode = uuid_text if id_type == "text" else np.ascontiguousarray
    users, posts = encode(rows.users.ids), encode(rows.posts.ids)
    version = shared.model_version.encode()
    constants = {
        "generated_at": _microseconds(shared.generated_at),
        "expires_at": _microseconds(shared.expires_at),
        "model_version": np.frombuffer(version, dtype=np.uint8),
        "generation_id": np.frombuffer(shared.generation_id.bytes, dtype=np.uint8),
    }
    id_width = 36 if id_type == "text" else 16
    fields: dict[str, Field] = {
        "id": ("id", "u1", (16,)),
        "user_id": ("user_id", "u1", (id_width,)),
        "post_id": ("post_id", "u1", (id_width,)),
        "score": ("score", ">f8", ()),
        "generated_at": ("generated_at", ">i8", ()),
        "expires_at": ("expires_at", ">i8", ()),
        "model_version": ("model_version", "u1", (len(version),)),
        "generation_id": ("generation_id", "u1", (16,)),
    }
    chunk = framed_rows(min(len(rows), _ROWS_PER_CHUNK), [fields[name] for name in columns])
    for name in CONSTANTS:
        if name in columns:
            chunk[name] = constants[name]
    which = None if kept is None or kept.all() else np.flatnonzero(kept)
    n_rows = len(rows) if which is None else len(which)
    yield HEADER
    for start in range(0, n_rows, _ROWS_PER_CHUNK):
        stop = min(start + _ROWS_PER_CHUNK, n_rows)
        these = slice(start, stop) if which is None else which[start:stop]
        part = chunk[: stop - start]
        if "id" in columns:
            part["id"] = rising_uuids(start, stop, n_rows)
        part["user_id"] = np.take(users, rows.users.index[these], axis=0)
        part["post_id"] = np.take(posts, rows.posts.index[these], axis=0)
        part["score"] = rows.scores[these]
        yield part.tobytes()
    yield TRAILER


def _microseconds(moment: datetime) -> int:
    """A timestamp as PostgreSQL stores it: microseconds since 2000-01-01 UTC."""
    since_1970 = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return since_1970 - POSTGRES_EPOCH_US
