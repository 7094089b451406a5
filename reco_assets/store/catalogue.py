"""What the recommender asks about many ids at once: posts' authors, ages, eligibility; hidden authors.

Ids go in and answers come out through binary COPY as arrays; a million posts take seconds, not a
minute of Python objects.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from reco_assets.store.adoption import id_type_of
from reco_assets.store.binary_copy import (
    HEADER,
    POSTGRES_EPOCH_US,
    TRAILER,
    Field,
    framed_rows,
    parsed_rows,
    uuid_text,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ROWS_PER_CHUNK = 65_536

# Fixed widths, hence no nulls: an unknown author is the zero UUID, an unknown time -infinity.
_CATALOGUE = """
COPY (
    SELECT DISTINCT ON (w.position) w.position,
           coalesce(r.author_id::text::uuid, '00000000-0000-0000-0000-000000000000') AS author_id,
           coalesce(r.created_at::timestamptz, '-infinity') AS created_at
    FROM pg_temp.reco_wanted w JOIN recommendable_posts r ON r.post_id = w.id
    ORDER BY w.position
) TO STDOUT (FORMAT binary)
"""
_HIDDEN = """
COPY (
    SELECT DISTINCT w.position, h.author_id::text::uuid AS author_id
    FROM pg_temp.reco_wanted w JOIN hidden_authors h ON h.user_id = w.id
    WHERE h.author_id IS NOT NULL
    ORDER BY 1, 2
) TO STDOUT (FORMAT binary)
"""


@dataclass(frozen=True)
class Catalogue:
    """What is known of the posts that were asked for, in the same order.

    Attributes:
        post_ids: (n, 16) uint8.
        author_ids: (n, 16) uint8; zeros where `eligible` is False or the post has no author.
        created_at: (n,) datetime64[us], UTC; NaT where `eligible` is False or the view has no time.
        eligible: (n,) bool, whether `recommendable_posts` lists the post; False for deleted ones.
    """

    post_ids: "NDArray[np.uint8]"
    author_ids: "NDArray[np.uint8]"
    created_at: "NDArray[np.datetime64]"
    eligible: "NDArray[np.bool_]"


@dataclass(frozen=True)
class HiddenPairs:
    """Pair j: the user in row `user_positions[j]` of the question does not want `author_ids[j]`.

    Sorted by both; `user_positions` is (m,) int32, `author_ids` is (m, 16) uint8.
    """

    user_positions: "NDArray[np.int32]"
    author_ids: "NDArray[np.uint8]"


def catalogue(connection: sa.Connection, post_ids: "NDArray[np.uint8]") -> Catalogue:
    """Look up posts by id, (n, 16) uint8, through the view `recommendable_posts`."""
    import numpy as np

    found = _ask(connection, post_ids, _CATALOGUE, [("author_id", "u1", (16,)), ("created_at", ">i8", ())])
    n, positions = len(post_ids), found["position"]
    authors = np.zeros((n, 16), dtype=np.uint8)
    authors[positions] = found["author_id"]
    created_at = np.full(n, np.datetime64("NaT", "us"))
    times = found["created_at"].astype(np.int64)
    known = np.abs(times) < 2**62  # the infinities are the ends of int64
    created_at[positions[known]] = (times[known] + POSTGRES_EPOCH_US).view("datetime64[us]")
    eligible = np.zeros(n, dtype=np.bool_)
    eligible[positions] = True
    return Catalogue(post_ids, authors, created_at, eligible)


def hidden_pairs(connection: sa.Connection, user_ids: "NDArray[np.uint8]") -> HiddenPairs:
    """The authors that these users, (n, 16) uint8, have hidden, by the view `hidden_authors`."""
    import numpy as np

    found = _ask(connection, user_ids, _HIDDEN, [("author_id", "u1", (16,))])
    return HiddenPairs(found["position"].astype(np.int32), np.ascontiguousarray(found["author_id"]))


def _ask(
    connection: sa.Connection,
    ids: "NDArray[np.uint8]",
    question: str,
    answer: Sequence[Field],
) -> Any:
    """Put `ids` into a temporary table with their positions, run the COPY, parse its rows."""
    id_type = id_type_of(connection)
    column = "uuid" if id_type == "uuid" else "text"
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS pg_temp.reco_wanted")
        cursor.execute(f"CREATE TEMPORARY TABLE reco_wanted (position int4, id {column}) ON COMMIT DROP")
        with cursor.copy("COPY pg_temp.reco_wanted FROM STDIN (FORMAT binary)") as copy:
            copy.write(HEADER)
            for start in range(0, len(ids), _ROWS_PER_CHUNK):
                chunk = ids[start : start + _ROWS_PER_CHUNK]
                copy.write(_positions_and_ids(start, uuid_text(chunk) if column == "text" else chunk))
            copy.write(TRAILER)
        cursor.execute("ANALYZE pg_temp.reco_wanted")
        with cursor.copy(question) as copy:
            data = b"".join(bytes(block) for block in copy)
    return parsed_rows(data, [("position", ">i4", ()), *answer])


def _positions_and_ids(start: int, ids: "NDArray[np.uint8]") -> bytes:
    import numpy as np

    n, width = ids.shape
    rows = framed_rows(n, [("position", ">i4", ()), ("id", "u1", (width,))])
    rows["position"] = np.arange(start, start + n)
    rows["id"] = ids
    return rows.tobytes()
