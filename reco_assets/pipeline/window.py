"""From daily Parquet files and the app's catalogue to an interaction log in integer codes."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from reco_assets.errors import NoInteractions
from reco_assets.events import CREATED_AT, INTERACTION_TYPE, POST_ID, USER_ID
from reco_assets.pipeline.daily_files import read_valid_day
from reco_assets.recommender.interaction_log import InteractionLog, rows_of
from reco_assets.recommender.threads import available_cores
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
    with ThreadPoolExecutor(available_cores()) as pool:
        days = [day for day in pool.map(partial(_read_events, types=types), paths) if len(day.created_at)]
        if not days:
            raise NoInteractions(
                f"No interactions between {paths[0].stem} and {paths[-1].stem}. Check that tracking reaches "
                "user_interactions (`reco doctor`), widen RECO_WINDOW_DAYS, or run `reco seed` for demo data."
            )
        (user_ids, user_index), (post_ids, post_index) = pool.map(
            _codes, ([day.users for day in days], [day.posts for day in days])
        )

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
        interaction_type=np.concatenate([day.types for day in days]),
        created_at=np.concatenate([day.created_at for day in days]),
        # An unknown time (NaT) is the least int64, which is also the log's UNKNOWN_TIME.
        post_created_at=posts.created_at.view(np.int64),
        post_author=post_author.astype(np.int32),
        post_eligible=posts.eligible,
        user_author=rows_of(author_ids, user_ids).astype(np.int32),
        hidden_user=hidden.user_positions,
        hidden_author=rows_of(author_ids, hidden.author_ids).astype(np.int32),
        interaction_types=types,
    )


@dataclass(frozen=True, eq=False)
class _Events:
    """A day's interactions of known types: ids as (n,) binaries of 16, types (n,) int8, times (n,) int64."""

    users: pa.Array
    posts: pa.Array
    types: Array
    created_at: Array


def _read_events(path: Path, types: Sequence[str]) -> _Events:
    table = read_valid_day(path)
    users, posts, named, times = (
        table[name].combine_chunks() for name in (USER_ID, POST_ID, INTERACTION_TYPE, CREATED_AT)
    )
    code_of = {name: code for code, name in enumerate(types)}
    known = np.array([code_of.get(name, -1) for name in named.dictionary.to_pylist()], dtype=np.int8)
    codes = known[named.indices.to_numpy()]
    created_at = times.cast(pa.int64()).to_numpy()
    if (known < 0).any():
        kept = codes >= 0
        return _Events(users.filter(kept), posts.filter(kept), codes[kept], created_at[kept])
    return _Events(users, posts, codes, created_at)


def _codes(days: Sequence[pa.Array]) -> tuple[Array, Array]:
    """Sorted unique (n, 16) ids, and the row of each value: hashing first, so only uniques are sorted."""
    encoded = pa.chunked_array(days).dictionary_encode().combine_chunks()
    encoded = encoded.chunk(0) if isinstance(encoded, pa.ChunkedArray) else encoded
    ids = _as_bytes(encoded.dictionary)
    order = _order(ids)
    rank = np.empty(len(ids), dtype=np.int32)
    rank[order] = np.arange(len(ids), dtype=np.int32)
    return ids[order], rank[encoded.indices.to_numpy()]


def _as_bytes(values: pa.FixedSizeBinaryArray) -> Array:
    buffer: Array = np.frombuffer(values.buffers()[1], dtype=np.uint8)
    return buffer[values.offset * 16 :][: len(values) * 16].reshape(-1, 16)


def _order(ids: Array) -> Array:
    """What sorts (n, 16) ids, as two big-endian numbers each."""
    words = np.ascontiguousarray(ids).view(">u8").astype(np.uint64)
    order: Array = np.lexsort((words[:, 1], words[:, 0]))
    return order


def _sorted_ids(ids: Array) -> Array:
    if not len(ids):
        return np.empty((0, 16), dtype=np.uint8)
    ids = ids[_order(ids)]
    first: Array = ids[np.concatenate([[True], (ids[1:] != ids[:-1]).any(axis=1)])]
    return first
