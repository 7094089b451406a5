"""What a feed asks the database: one user's list, and which of some posts this user may see. Async.

The live filters are in every query: the post still exists, the view `recommendable_posts` lists it, the user
has not interacted with it lately, did not write it, and does not hide its author (`hidden_authors`).

Ids are parameters without a type, so that the server reads them as `uuid` or `text`, whichever the app's
are, and come back as text, which is what an answer is made of.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from psycopg import AsyncConnection
    from psycopg.rows import TupleRow

# Evaluated once for the statement; hashed, so that each post is one look into it.
_SEEN = """seen AS MATERIALIZED (
    SELECT post_id FROM user_interactions
    WHERE user_id = %(user)s AND created_at > %(seen_since)s AND post_id IS NOT NULL
)"""
# The views may spell authors in another type than the tables, hence as text.
_HIDDEN = """hidden AS MATERIALIZED (
    SELECT author_id::text AS author_id FROM hidden_authors WHERE user_id = %(user)s
)"""
_ALLOWED = "l.post_id NOT IN (SELECT post_id FROM seen)"
# Not a filter: the view may name several authors of a post, and one of them is enough to bar it.
_BARRED = (
    "coalesce(l.author_id::text = %(author)s::text OR l.author_id::text IN (SELECT author_id FROM hidden), "
    "false)"
)
# `title` is the app's own column. Without one in `posts` the name means the outer one, which is null. (As
# JSON, `to_jsonb(p) ->> 'title'`, the row would be read whole: its body too.)
ABSENT = "(SELECT NULL::text AS title) AS absent"
POST = "JOIN LATERAL (SELECT title::text AS title FROM posts WHERE posts.id = l.post_id) AS post ON true"
LISTED = "(SELECT post_id, author_id, created_at FROM recommendable_posts) AS l"


def _eligible(kind: str, condition: str) -> str:
    return f"""SELECT '{kind}', l.post_id::text, NULL::float8, l.author_id::text, l.created_at, post.title,
       {_BARRED}
FROM {ABSENT} CROSS JOIN {LISTED} {POST}
WHERE {condition} AND {_ALLOWED}"""  # noqa: S608 (no value is formatted into it)


# For the outages to come; the bound keeps an answer small, whomever a user hides.
_HIDES = """SELECT 'h', NULL, NULL, author_id, NULL, NULL, NULL
FROM (SELECT author_id FROM hidden LIMIT 200) AS h"""

_ELIGIBLE = f"""WITH {_SEEN}, {_HIDDEN}
{_eligible("c", "l.post_id = ANY(%(ids)s)")}
UNION ALL
SELECT 'u', NULL, NULL, NULL, NULL, NULL, EXISTS (SELECT FROM users WHERE id = %(user)s)
UNION ALL
{_HIDES}"""  # noqa: S608

_LIST = f"""WITH {_SEEN}, {_HIDDEN},
mine AS MATERIALIZED (
    SELECT r.post_id, r.score, l.author_id, l.created_at, post.title, {_BARRED} AS barred,
           r.generation_id, r.model_version, r.generated_at
    FROM {ABSENT} CROSS JOIN user_recommendations r
    JOIN {LISTED} ON l.post_id = r.post_id {POST}
    WHERE r.user_id = %(user)s AND r.expires_at > %(now)s AND {_ALLOWED}
    ORDER BY r.score DESC, r.post_id
)
SELECT 'g', generation_id::text, NULL::float8, model_version, generated_at, NULL::text, true
FROM (SELECT * FROM mine LIMIT 1) AS best
UNION ALL
SELECT 'u', NULL, NULL, NULL,
       (SELECT max(created_at)::timestamptz FROM user_interactions WHERE user_id = %(user)s), NULL,
       EXISTS (SELECT FROM users WHERE id = %(user)s)
UNION ALL
SELECT 'm', post_id::text, score, author_id::text, created_at, title, barred FROM mine
UNION ALL
{_eligible("c", "l.post_id = ANY(%(drawn)s)")}
UNION ALL
{_eligible("c", "l.post_id = ANY(%(spare)s) AND (SELECT count(*) FROM mine) < %(needed)s")}
UNION ALL
{_HIDES}"""  # noqa: S608


class PostFacts(NamedTuple):
    """What an answer shows of a post beside its place; each may be unknown."""

    author_id: str | None = None
    created_at: datetime | None = None
    title: str | None = None


@dataclass(slots=True)
class UserList:
    """A user's published list, and which of some other posts they may see.

    Attributes:
        posts: post id and score, best first, equal scores by id; unexpired, and past the live filters.
        eligible: facts by post id, of `posts` and of whichever of the other posts passed the filters.
        known: whether the app has such a user.
        last_interaction: of the user, with any post; None without one.
        generation_id, model_version, generated_at: of the list; None where it is empty.
        spare_judged: whether the spare posts were asked about too.
        hidden_authors: whom the user hides: all of them, or 200.
    """

    posts: list[tuple[str, float]]
    eligible: dict[str, PostFacts]
    known: bool = False
    last_interaction: datetime | None = None
    generation_id: str | None = None
    model_version: str | None = None
    generated_at: datetime | None = None
    spare_judged: bool = False
    hidden_authors: set[str] = field(default_factory=set)

    @property
    def read_since(self) -> bool:
        """Whether the user has interacted with anything since the list was made."""
        return (
            self.last_interaction is not None
            and self.generated_at is not None
            and self.last_interaction > self.generated_at
        )


async def user_list(
    connection: "AsyncConnection[TupleRow]",
    user_id: str,
    *,
    now: datetime,
    seen_since: datetime,
    drawn: Iterable[str] = (),
    spare: Iterable[str] = (),
    needed: int = 0,
) -> UserList:
    """The user's published list, in one round trip with what may have to fill it up.

    Args:
        connection: autocommit.
        user_id: canonical text of a UUID, as all ids here.
        now: rows that expire later count.
        seen_since: interactions after this instant hide their post.
        drawn: other posts to ask about in any case.
        spare: posts to ask about if the list has fewer than `needed`.
        needed: see `spare`.
    """
    parameters = {
        **_of_user(user_id, seen_since),
        "now": now,
        "drawn": _array(drawn),
        "spare": _array(spare),
        "needed": needed,
    }
    found = UserList([], {})
    barred: set[str] = set()
    cursor = connection.cursor(binary=True)
    await cursor.execute(_LIST, parameters)
    n_rows = 0
    for kind, post_id, score, text, at, title, flag in await cursor.fetchall():
        if kind == "m":
            n_rows += 1
            if flag:
                barred.add(post_id)
            elif post_id not in found.eligible:
                found.posts.append((post_id, score if isfinite(score) else 0.0))
                found.eligible[post_id] = PostFacts(text, at, title)
        elif kind == "c":
            if flag:
                barred.add(post_id)
            else:
                found.eligible[post_id] = PostFacts(text, at, title)
        elif kind == "h":
            found.hidden_authors.add(text)
        elif kind == "g":
            found.generation_id, found.model_version, found.generated_at = post_id, text, at
        else:
            found.known, found.last_interaction = flag, at
    found.spare_judged = n_rows < needed
    # UNION ALL promises no order, though it keeps one today; what is sorted already costs little.
    found.posts.sort(key=_by_score)
    if barred:
        found.posts = [pair for pair in found.posts if pair[0] not in barred]
        found.eligible = {post: facts for post, facts in found.eligible.items() if post not in barred}
    return found


async def eligible_posts(
    connection: "AsyncConnection[TupleRow]", user_id: str, *, seen_since: datetime, post_ids: Iterable[str]
) -> tuple[dict[str, PostFacts], set[str], bool]:
    """Those of `post_ids` that the user may see, in no order, and two facts about the user.

    Returns:
        Facts by post id; whom the user hides: all of them, or 200; whether the app has such a user.
    """
    cursor = connection.cursor(binary=True)
    await cursor.execute(_ELIGIBLE, {**_of_user(user_id, seen_since), "ids": _array(post_ids)})
    eligible: dict[str, PostFacts] = {}
    barred: set[str] = set()
    hidden: set[str] = set()
    known = False
    for kind, post_id, _, text, at, title, flag in await cursor.fetchall():
        if kind == "h":
            hidden.add(text)
        elif kind == "u":
            known = flag
        elif flag:
            barred.add(post_id)
        else:
            eligible[post_id] = PostFacts(text, at, title)
    for post_id in barred:
        eligible.pop(post_id, None)
    return eligible, hidden, known


def _of_user(user_id: str, seen_since: datetime) -> dict[str, Any]:
    return {"user": user_id, "author": user_id, "seen_since": seen_since}


def _array(ids: Iterable[str]) -> str:
    """An array as text, which the server reads as the type of the column it is compared with."""
    return "{" + ",".join(ids) + "}"


def _by_score(pair: tuple[str, float]) -> tuple[float, str]:
    return -pair[1], pair[0]
