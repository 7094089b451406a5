"""What a request has learnt from the database: which posts this user may see, and their facts."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeVar
from uuid import UUID

from reco_assets.errors import DatabaseUnreachable, RecoError
from reco_assets.serving.feeds.lists import Entry
from reco_assets.serving.feeds.trending import Pools
from reco_assets.store.feed_queries import PostFacts, eligible_posts

if TYPE_CHECKING:
    from psycopg import AsyncConnection
    from psycopg.rows import TupleRow

    from reco_assets.serving.service import Service

log = logging.getLogger(__name__)

T = TypeVar("T")

_COMPLAIN_EVERY_S: Final = 10.0
_complained_at: float | None = None

SLACK: Final = 10
"""Posts asked about beyond the page, so that filtered ones are made up for in the same round trip."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request asks for, checked.

    Attributes:
        user_id: whose feed.
        user: the same as text.
        limit: posts of the page.
        exclude: posts that must not be in it.
        now: what time it is.
        deadline: of the whole answer, on the loop's clock.
    """

    user_id: UUID
    user: str
    limit: int
    exclude: frozenset[str]
    now: datetime
    deadline: float


class LiveFilter:
    """The filters for one request.

    Attributes:
        known: facts of the posts that the user may see, as far as they have been asked about.
        degraded: why the database can no longer be asked; None while it can.
        user_is_unknown: the database said so when it judged posts.
    """

    def __init__(self, service: "Service", wish: Wish) -> None:
        self.known: dict[str, PostFacts] = {}
        self.degraded: str | None = None
        self.user_is_unknown = False
        self.seen_since = wish.now - timedelta(days=service.settings.seen_days)
        self._service = service
        self._wish = wish
        self._asked: set[str] = set()
        self._refused = set(wish.exclude)
        self._seen: set[str] | None = None

    @property
    def pools(self) -> Pools:
        """What is in memory."""
        return self._service.trending.pools

    def note(self, asked: Iterable[str], eligible: Mapping[str, PostFacts], hidden: Set[str]) -> None:
        """Take in what the database said.

        Args:
            asked: whichever of them is not `eligible` is refused.
            eligible: with facts.
            hidden: whom the user hides.
        """
        self._asked.update(asked)
        self.known.update(eligible)
        self._refused |= self._asked
        self._refused.difference_update(self.known)
        self._service.hidden_authors.note(self._wish.user, hidden)

    def admits(self, post_id: str) -> bool:
        """Whether the post may be shown: the database said so; or it cannot, and memory knows no reason."""
        if post_id in self._wish.exclude:
            return False
        if post_id in self._asked or self.degraded is None:
            return post_id in self.known
        author_id = self.facts(post_id).author_id
        if author_id == self._wish.user or author_id in self._service.hidden_authors.of(self._wish.user):
            return False
        if self._seen is None:
            self._seen = set(map(str, self._service.realtime.seen(self._wish.user_id)))
        return post_id not in self._seen

    def facts(self, post_id: str) -> PostFacts:
        """What is known of the post; nothing may be."""
        return self.known.get(post_id) or self.pools.facts.get(post_id) or PostFacts()

    async def settle(self, entries: Sequence[Entry], also: Iterable[str] = ()) -> list[Entry]:
        """Have the first page of `entries` judged.

        Args:
            entries: best first.
            also: further posts to be judged on this occasion.

        Returns:
            `entries` without those that are refused. Its first `limit` are judged, unless the database
            is out of reach.
        """
        limit = self._wish.limit
        reach = limit + SLACK
        also = [post_id for post_id in also if post_id not in self._asked]
        while True:
            left = [entry for entry in entries if entry[0] not in self._refused]
            if self.degraded is not None:
                return left
            if not also and all(entry[0] in self.known for entry in left[:limit]):
                return left
            await self.ask([*(entry[0] for entry in left[:reach]), *also])
            also = []
            reach *= 2  # for one who has seen nearly all of it: few round trips

    async def ask(self, post_ids: Iterable[str]) -> None:
        """Have these posts judged; sets `degraded` if the database cannot."""
        posts = [post_id for post_id in dict.fromkeys(post_ids) if post_id not in self._asked]
        if not posts or self.degraded is not None:
            return
        user, since = self._wish.user, self.seen_since
        try:
            eligible, hidden, known = await self.query(
                self.time_left(), lambda c: eligible_posts(c, user, seen_since=since, post_ids=posts)
            )
        except Exception as error:
            self.degraded = degraded_by(error)
            return
        self.note(posts, eligible, hidden)
        self.user_is_unknown = not known

    def time_left(self) -> float:
        """Seconds until the answer is due."""
        return self._wish.deadline - asyncio.get_running_loop().time()

    async def query(
        self, budget_s: float, question: "Callable[[AsyncConnection[TupleRow]], Awaitable[T]]"
    ) -> T:
        """Ask the database something, within the budget.

        Raises:
            RecoError: it is gone, or busy.
            TimeoutError: no answer in time.
        """
        if budget_s <= 0:
            raise TimeoutError
        async with (
            asyncio.timeout(budget_s),
            self._service.reads.connection(timeout_s=budget_s) as connection,
        ):
            return await question(connection)


def degraded_by(error: Exception) -> str:
    """What an answer says about it."""
    if isinstance(error, DatabaseUnreachable):
        return "database_unreachable"
    if isinstance(error, TimeoutError) or (isinstance(error, RecoError) and error.transient):
        return "database_slow"
    complain("A feed could not be read from the database.", error)
    return "database_error"


def complain(message: str, error: Exception) -> None:
    """Log what fails in every request, but not every time."""
    global _complained_at
    if _complained_at is None or time.monotonic() - _complained_at > _COMPLAIN_EVERY_S:
        _complained_at = time.monotonic()
        log.error("%s Said at most every %g s.", message, _COMPLAIN_EVERY_S, exc_info=error)
