"""Which new recommendations may go live: the database is asked about users and posts, not about rows.

The different users and posts of a generation go into temporary tables once. What the database says about
each of them, a few small answers, is then applied to the rows with numpy. Reasons, in order of
precedence:

- `user_deleted`, `post_deleted`: gone since the model read them.
- `not_recommendable`: the view `recommendable_posts` does not list the post.
- `own_post`: the user wrote it.
- `hidden_author`: the view `hidden_authors` says so.
- `seen`: the user has interacted with it, at any time; see `seen_posts`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from reco_assets.store.binary_copy import framed_rows, temporary_table, uuid_text
from reco_assets.store.copy_buffer import CodedIds, RecommendationRows
from reco_assets.store.schema import IdType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

REASONS: Final = (
    *("", "user_deleted", "post_deleted", "not_recommendable", "own_post", "hidden_author", "seen"),
)
"""What a verdict's number means; 0: the row may go live."""
USER_DELETED, POST_DELETED, NOT_RECOMMENDABLE, OWN_POST, HIDDEN_AUTHOR, SEEN = range(1, 7)

# The temporary tables `reco_new_users` and `reco_new_posts` hold the different ids and their numbers.
# The view may be anybody's and slow: it is evaluated once. Authors are compared as text, because the
# views may spell them in another type, and numbered, so that only numbers travel.
_LISTED = """
CREATE TEMPORARY TABLE reco_listed ON COMMIT DROP AS
SELECT post, author, dense_rank() OVER (ORDER BY author)::int4 AS author_number
FROM (SELECT p.number AS post, r.author_id::text AS author
      FROM pg_temp.reco_new_posts p JOIN recommendable_posts r ON r.post_id = p.id) listed
"""
_QUESTIONS = {
    "absent_users": "SELECT n.number AS a, 0 AS b FROM pg_temp.reco_new_users n "
    "WHERE NOT EXISTS (SELECT FROM users u WHERE u.id = n.id)",
    "absent_posts": "SELECT n.number AS a, 0 AS b FROM pg_temp.reco_new_posts n "
    "WHERE NOT EXISTS (SELECT FROM posts p WHERE p.id = n.id)",
    "listed_posts": "SELECT DISTINCT post AS a, author_number AS b FROM pg_temp.reco_listed",
    "own_posts": "SELECT DISTINCT l.post AS a, u.number AS b "
    "FROM pg_temp.reco_listed l JOIN pg_temp.reco_new_users u ON u.id::text = l.author",
    "hidden": "SELECT DISTINCT u.number AS a, l.author_number AS b FROM hidden_authors h "
    "JOIN pg_temp.reco_new_users u ON u.id = h.user_id "
    "JOIN (SELECT DISTINCT author, author_number FROM pg_temp.reco_listed) l "
    "ON l.author = h.author_id::text",
}
# Their users have new rows, so no row of theirs was carried over.
_DROP = """
DELETE FROM user_recommendations_next n
USING pg_temp.reco_drops d
JOIN pg_temp.reco_new_users u ON u.number = d.user_number
JOIN pg_temp.reco_new_posts p ON p.number = d.post_number
WHERE n.user_id = u.id AND n.post_id = p.id
"""
# One value instead of a row each: no Python object per answer.
_PACKED = "SELECT string_agg(int4send(a) || int4send(b), '' ORDER BY a, b) FROM ({question}) answers"


@dataclass(frozen=True, eq=False)
class Standing:
    """What the database says about the users and posts of a generation, at one instant.

    Each is (m, 2) int32, sorted: numbers of `RecommendationRows.users` and `posts`, or of authors.

    Attributes:
        absent_users: (user, 0): not in `users`.
        absent_posts: (post, 0): not in `posts`.
        listed_posts: (post, author): in `recommendable_posts`, which may name several authors of a post;
            nobody is an author with a number too.
        own_posts: (post, user): who wrote it.
        hidden: (user, author): does not want to see them.
    """

    absent_users: "NDArray[np.int32]"
    absent_posts: "NDArray[np.int32]"
    listed_posts: "NDArray[np.int32]"
    own_posts: "NDArray[np.int32]"
    hidden: "NDArray[np.int32]"

    def says_the_same_as(self, other: "Standing") -> bool:
        """Whether both give the same verdict on any row."""
        import numpy as np

        return all(np.array_equal(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))

    def verdicts(self, rows: RecommendationRows) -> "NDArray[np.int8]":
        """(n,) int8, positions in `REASONS`; `seen` is not known here."""
        import numpy as np

        n_posts = len(rows.posts.ids)
        of_post = np.full(n_posts, NOT_RECOMMENDABLE, dtype=np.int8)
        of_post[self.listed_posts[:, 0]] = 0
        of_post[self.absent_posts[:, 0]] = POST_DELETED
        user, post = rows.users.index, rows.posts.index
        verdicts = of_post[post]
        for author in _layers(self.own_posts, n_posts):
            verdicts[(author[post] == user) & (verdicts == 0)] = OWN_POST
        if len(self.hidden):
            self._judge_hidden(rows, verdicts)
        if len(self.absent_users):
            absent = np.zeros(len(rows.users.ids), dtype=np.bool_)
            absent[self.absent_users[:, 0]] = True
            verdicts[absent[user]] = USER_DELETED
        return verdicts

    def _judge_hidden(self, rows: RecommendationRows, verdicts: "NDArray[np.int8]") -> None:
        import numpy as np

        hides = np.zeros(len(rows.users.ids), dtype=np.bool_)
        hides[self.hidden[:, 0]] = True
        asked = np.flatnonzero(hides[rows.users.index] & (verdicts == 0))
        user, post = rows.users.index[asked].astype(np.int64), rows.posts.index[asked]
        hidden = self.hidden[:, 0].astype(np.int64) << 32 | self.hidden[:, 1]
        for author in _layers(self.listed_posts, len(rows.posts.ids)):
            verdicts[asked[np.isin(user << 32 | author[post], hidden)]] = HIDDEN_AUTHOR


def note_ids(connection: sa.Connection, rows: RecommendationRows, id_type: IdType) -> None:
    """Put the different users and posts of `rows` into session-wide temporary tables."""
    _copy_numbered(connection, "reco_new_users", rows.users, id_type)
    _copy_numbered(connection, "reco_new_posts", rows.posts, id_type)


def forget_users(connection: sa.Connection, numbers: "NDArray[np.integer[Any]]") -> None:
    """Users who are left without a row count as absent from the generation from here on."""
    if len(numbers):
        connection.execute(
            sa.text("DELETE FROM pg_temp.reco_new_users WHERE number = ANY(:numbers)"),
            {"numbers": numbers.tolist()},
        )


def forget_ids(connection: sa.Connection) -> None:
    """Drop the temporary tables, for sessions that go back into a pool."""
    connection.execute(sa.text("DROP TABLE IF EXISTS pg_temp.reco_new_users, pg_temp.reco_new_posts"))


def standing(connection: sa.Connection) -> Standing:
    """Ask about the ids that `note_ids` put down."""
    connection.execute(sa.text("DROP TABLE IF EXISTS pg_temp.reco_listed"))
    connection.execute(sa.text("SET LOCAL work_mem = '64MB'"))
    connection.execute(sa.text(_LISTED))
    connection.execute(sa.text("ANALYZE pg_temp.reco_listed"))
    return Standing(**{name: numbers(connection, question) for name, question in _QUESTIONS.items()})


def drop(connection: sa.Connection, keys: "NDArray[np.int64]") -> None:
    """Delete new rows from the next table, by `screening.row_keys`."""
    import numpy as np

    if not len(keys):
        return
    rows = framed_rows(len(keys), [("user_number", ">i4", ()), ("post_number", ">i4", ())])
    rows["user_number"], rows["post_number"] = keys >> 32, keys & np.int64(0xFFFFFFFF)
    temporary_table(connection, "reco_drops", "user_number int4, post_number int4", rows)
    connection.execute(sa.text(_DROP))
    connection.execute(sa.text("DROP TABLE pg_temp.reco_drops"))


def numbers(connection: sa.Connection, question: str, **parameters: Any) -> "NDArray[np.int32]":
    """(m, 2) int32: the columns `a` and `b` of `question`, sorted."""
    import numpy as np

    packed = connection.scalar(sa.text(_PACKED.format(question=question)), parameters) or b""
    return np.frombuffer(packed, dtype=">i4").astype(np.int32).reshape(-1, 2)


def _copy_numbered(connection: sa.Connection, table: str, coded: CodedIds, id_type: IdType) -> None:
    import numpy as np

    ids = uuid_text(coded.ids) if id_type == "text" else coded.ids
    rows = framed_rows(len(ids), [("number", ">i4", ()), ("id", "u1", (ids.shape[1],))])
    rows["number"] = np.arange(len(ids))
    rows["id"] = ids
    temporary_table(connection, table, f"number int4 NOT NULL, id {id_type} NOT NULL", rows)


def _layers(pairs: "NDArray[np.int32]", n: int) -> "Iterator[NDArray[np.int32]]":
    """The pairs (key, value), sorted by key, as arrays (n,) from key to value, -1 without.

    One array where each key has one value, which is nearly always; k where some key has k.
    """
    import numpy as np

    while len(pairs):
        first = np.diff(pairs[:, 0], prepend=-1) != 0
        layer = np.full(n, -1, dtype=np.int32)
        layer[pairs[first, 0]] = pairs[first, 1]
        yield layer
        pairs = pairs[~first]
