"""From daily Parquet files and the app's catalogue to an interaction log in integer codes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from reco_assets.errors import NoInteractions
from reco_assets.events import CREATED_AT, INTERACTION_TYPE, POST_ID, USER_ID
from reco_assets.pipeline.daily_files import read_valid_day
from reco_assets.recommender.interaction_log import InteractionLog, rows_of
from reco_assets.store.catalogue import catalogue, hidden_pairs

if TYPE_CHECKING:
    from sqlalchemy import Connection

Array = npt.NDArray[Any]


def read_window(
    paths: Sequence[Path], connection: "Connection", interaction_weights: Mapping[str, float]
) -> InteractionLog:
    """The interactions of the days in `paths` and what the app now says about their posts.

    Args:
        paths: Daily files, oldest first.
        connection: For the catalogue: authors, creation times, who may be recommended to whom.
        interaction_weights: Interactions of types without a weight do not count.

    Raises:
        MissingUpstream, CorruptArtifact: About a file.
        NoInteractions: There is none of a type that has a weight.
    """
    types = tuple(sorted(interaction_weights))
    table = pa.concat_tables([read_valid_day(path) for path in paths])
    table = table.filter(pc.is_in(table[INTERACTION_TYPE].cast(pa.string()), pa.array(types)))
    if table.num_rows == 0:
        raise NoInteractions(
            f"No interactions between {paths[0].stem} and {paths[-1].stem}. Check that tracking reaches "
            "user_interactions (`reco doctor`), widen RECO_WINDOW_DAYS, or run `reco seed` for demo data."
        )
    user_ids, user_index = _codes(table[USER_ID])
    post_ids, post_index = _codes(table[POST_ID])

    posts = catalogue(connection, post_ids)
    hidden = hidden_pairs(connection, user_ids)
    has_author = posts.author_ids.any(axis=1)
    author_ids = _sorted_ids(np.concatenate([posts.author_ids[has_author], hidden.author_ids]))
    post_author = np.where(has_author, rows_of(author_ids, posts.author_ids), -1)
    return InteractionLog(
        user_ids=user_ids,
        post_ids=post_ids,
        author_ids=author_ids,
        user_index=user_index,
        post_index=post_index,
        interaction_type=pc.index_in(table[INTERACTION_TYPE].cast(pa.string()), pa.array(types))
        .to_numpy()
        .astype(np.int8),
        created_at=table[CREATED_AT].cast(pa.int64()).to_numpy(),
        # An unknown time (NaT) is the least int64, which is also the log's UNKNOWN_TIME.
        post_created_at=posts.created_at.view(np.int64),
        post_author=post_author.astype(np.int32),
        post_eligible=posts.eligible,
        user_author=rows_of(author_ids, user_ids).astype(np.int32),
        hidden_user=hidden.user_positions,
        hidden_author=rows_of(author_ids, hidden.author_ids).astype(np.int32),
        interaction_types=types,
    )


def _codes(column: pa.ChunkedArray) -> tuple[Array, Array]:
    """Sorted unique (n, 16) ids, and the row of each value: hashing first, so only uniques are sorted."""
    encoded = column.combine_chunks().dictionary_encode()
    ids = _as_bytes(encoded.dictionary)
    order = np.lexsort(ids.T[::-1])
    rank = np.empty(len(ids), dtype=np.int32)
    rank[order] = np.arange(len(ids), dtype=np.int32)
    return ids[order], rank[encoded.indices.to_numpy()]


def _as_bytes(values: pa.FixedSizeBinaryArray) -> Array:
    buffer = np.frombuffer(values.buffers()[1], dtype=np.uint8)
    return buffer[values.offset * 16 :][: len(values) * 16].reshape(-1, 16)


def _sorted_ids(ids: Array) -> Array:
    return np.unique(ids, axis=0) if len(ids) else np.empty((0, 16), dtype=np.uint8)
