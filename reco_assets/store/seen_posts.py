"""Which new recommendations are of posts that the user has interacted with, at any time.

All interactions stream past a bitmap of the new pairs; the few that may be among them are looked up
exactly. A join in the database would have to wait until the rows are loaded, needs both cores for as long
again, and is planned badly when the table's statistics are young.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from reco_assets.store.arrow_scan import have_length, id_bytes, ids_as_arrow, plain_ids
from reco_assets.store.binary_copy import uuid_text
from reco_assets.store.copy_buffer import RecommendationRows
from reco_assets.store.schema import IdType
from reco_assets.store.screening import is_in_sorted, row_keys

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

_SLOTS_PER_PAIR = 16
_PIECE = 32_768
"""Rows that are hashed at a time: what is computed on the way stays in the cache."""
_USER_MULTIPLIERS = (
    *(0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F),
    *(0xE7037ED1A0B428DB, 0x8EBC6AF09C88C6E3, 0x589965CC75374CC3, 0x1D8E4E27C47D124F),
)
_POST_MULTIPLIERS = (
    *(0xEB44ACCAB455D165, 0x9C6E6877736C46E3, 0xF1357AEA2E62A9C5, 0xD1342543DE82EF95, 0xAF251AF3B0F025B5),
    *(0xB564EF22EC7AECE5, 0xF7C2EBC08F67F2B5, 0x94D049BB133111EB, 0xBF58476D1CE4E5B9),
)
"""Odd 64-bit numbers, one for each word of an id. Any would do: what they mix up is looked up exactly."""


class PairFinder:
    """Finds which of many (user, post) ids are pairs of `rows`.

    Holds 24 to 40 bytes a row.

    Attributes:
        keys: (n,) int64, sorted: `screening.row_keys` of all rows.
    """

    def __init__(self, rows: RecommendationRows, id_type: IdType) -> None:
        import numpy as np

        users, posts = rows.users.ids, rows.posts.ids
        if id_type == "text":
            users, posts = uuid_text(users), uuid_text(posts)
        self._id_type = id_type
        self._users, self._posts = ids_as_arrow(users, id_type), ids_as_arrow(posts, id_type)
        user, post = rows.users.index, rows.posts.index
        bits = (max(len(rows), 1) * _SLOTS_PER_PAIR).bit_length()
        self._shift = np.uint64(64 - bits)
        self._taken = np.zeros(1 << bits, dtype=np.bool_)
        of_user, of_post = _hash(users, _USER_MULTIPLIERS), _hash(posts, _POST_MULTIPLIERS)
        for start in range(0, len(rows), _PIECE):
            piece = slice(start, start + _PIECE)
            self._taken[of_user[user[piece]] + of_post[post[piece]] >> self._shift] = True
        self.keys = np.sort(row_keys(user, post))

    def find(self, user_ids: "pa.Array", post_ids: "pa.Array") -> "NDArray[np.int64]":
        """The keys of those that are, by `screening.row_keys`; ids as the database has them."""
        import numpy as np
        import pyarrow.compute as pc

        user_ids, post_ids = plain_ids(user_ids), plain_ids(post_ids)
        if self._id_type == "text" and not (have_length(user_ids, 36) and have_length(post_ids, 36)):
            # What is not a UUID's text is in no pair of ours.
            fits = pc.and_(*(pc.equal(pc.binary_length(ids), 36) for ids in (user_ids, post_ids)))
            user_ids, post_ids = user_ids.filter(fits), post_ids.filter(fits)
        maybe = np.flatnonzero(self._may_be_pairs(id_bytes(user_ids), id_bytes(post_ids)))
        user, post = (
            pc.index_in(ids.take(maybe), ours).fill_null(-1).to_numpy()
            for ids, ours in ((user_ids, self._users), (post_ids, self._posts))
        )
        ours = (user >= 0) & (post >= 0)
        keys = row_keys(user[ours], post[ours])
        return keys[is_in_sorted(keys, self.keys)]

    def _may_be_pairs(self, users: "NDArray[np.uint8]", posts: "NDArray[np.uint8]") -> "NDArray[np.bool_]":
        import numpy as np

        may_be = np.empty(len(users), dtype=np.bool_)
        for start in range(0, len(users), _PIECE):
            piece = slice(start, start + _PIECE)
            slots = _hash(users[piece], _USER_MULTIPLIERS) + _hash(posts[piece], _POST_MULTIPLIERS)
            may_be[piece] = self._taken[slots >> self._shift]
        return may_be


def _hash(ids: "NDArray[np.uint8]", multipliers: Sequence[int]) -> "NDArray[np.uint64]":
    """(n,) from (n, 16) or (n, 36): its words, each times a number of its own; the high bits are mixed."""
    import numpy as np

    words: NDArray[Any] = np.ascontiguousarray(ids).view(np.uint64 if ids.shape[1] % 8 == 0 else np.uint32)
    mixed: NDArray[np.uint64] = words[:, 0] * np.uint64(multipliers[0])
    for column in range(1, words.shape[1]):
        mixed += words[:, column] * np.uint64(multipliers[column])
    return mixed
