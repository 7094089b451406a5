"""The files of all lists, a Parquet file a day: written before anything is published, read by a rollback."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from reco_assets.errors import CorruptArtifact, MissingUpstream, PublicationRefused
from reco_assets.events import POST_ID, USER_ID
from reco_assets.recommender.recommendation_lists import RecommendationLists
from reco_assets.resources.storage import replacing
from reco_assets.store.copy_buffer import RecommendationRows
from reco_assets.store.day_files import sha256_of
from reco_assets.store.generations import Generation

Array = npt.NDArray[Any]

_SCORE = "score"
_WENT_LIVE_OR_COULD = ("live", "superseded", "archived")
"""What passed its checks. A failed publication did so too, but nobody saw that its lists can be served."""


def write_archive(path: Path, users: Array, posts: Array, lists: RecommendationLists) -> str:
    """Write every list, ordered by user and rank; equal lists give equal bytes.

    Args:
        path: of the file, which is replaced.
        users: (n_rows, 16) uint8, whom each row is for.
        posts: (n_rows, 16) uint8, what it recommends.
        lists: rank and score of each row.

    Returns:
        The SHA-256 of the file.
    """
    table = pa.table(
        {
            USER_ID: _fixed_size_binary(users),
            POST_ID: _fixed_size_binary(posts),
            "rank": lists.rank,
            _SCORE: lists.score,
        }
    )
    with replacing(path) as file:
        pq.write_table(table, file, compression="zstd")
    return sha256_of(path)


def generation_of_archive(path: Path, day: date, on_record: list[Generation]) -> Generation:
    """The generation that the file's lists were made for, the newest that has just these bytes.

    Reads the file piece by piece and decodes nothing.

    Args:
        path: of the file.
        day: whose lists it holds.
        on_record: what the database knows of that day, the newest first.

    Raises:
        MissingUpstream: there is no such file.
        CorruptArtifact: these bytes are on record for no generation: they are damaged, or of a run that was
            cut off, or of a version that did not note their digest.
        PublicationRefused: a check refused these lists, or their publication failed.
    """
    with _reading(path, day):
        digest = sha256_of(path)
    return _made_for(path, day, digest, on_record)


def read_archive(path: Path, day: date, on_record: list[Generation]) -> tuple[Generation, RecommendationRows]:
    """`generation_of_archive` and the rows, of the same bytes even if the file is replaced meanwhile."""
    with _reading(path, day):
        content = path.read_bytes()
    source = _made_for(path, day, hashlib.sha256(content).hexdigest(), on_record)
    return source, _rows(content)


@contextmanager
def _reading(path: Path, day: date) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise MissingUpstream(
            f"No archived lists of {day}: there is no {path}. `reco rollback` shows the days that there are; "
            f"{_again(day)}. Lists are kept for RECO_ARCHIVE_DAYS."
        ) from None
    except OSError as error:
        raise CorruptArtifact(f"{path} cannot be read ({error.strerror}). {_again(day)}.") from error


def _made_for(path: Path, day: date, digest: str, on_record: list[Generation]) -> Generation:
    made = [each for each in on_record if each.lists_digest == digest and each.restored_from is None]
    source = next((each for each in made if each.status in _WENT_LIVE_OR_COULD), None)
    if source is not None:
        return source
    if made:
        raise PublicationRefused(
            f"The archived lists of {day} were never fit to be live: {made[0].status} "
            f"({made[0].message or 'without a message'}). Choose another day; {_again(day)}."
        )
    known = sorted({each.lists_digest[:12] for each in on_record if each.lists_digest})
    recorded = f"on record are {', '.join(known)}" if known else "none is on record"
    raise CorruptArtifact(
        f"{path} is not what any publication of {day} was made from: its SHA-256 begins with "
        f"{digest[:12]}, {recorded}. It is damaged, or was written by a run that did not finish, or "
        f"before digests were kept. Choose another day; {_again(day)}."
    )


def _again(day: date) -> str:
    return f"`reco run --partition {day}` makes them again"


def _rows(content: bytes) -> RecommendationRows:
    table = pq.read_table(pa.BufferReader(content), columns=[USER_ID, POST_ID, _SCORE]).combine_chunks()
    ids = [_as_bytes(table.column(name).combine_chunks()) for name in (USER_ID, POST_ID)]
    return RecommendationRows(ids[0], ids[1], table.column(_SCORE).to_numpy())


def _as_bytes(column: Any) -> Array:
    array = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    data = np.frombuffer(array.buffers()[1] or b"", dtype=np.uint8).reshape(-1, 16)
    return data[array.offset : array.offset + len(array)]


def _fixed_size_binary(ids: Array) -> pa.FixedSizeBinaryArray:
    data = np.ascontiguousarray(ids)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(data), [None, pa.py_buffer(data)])
