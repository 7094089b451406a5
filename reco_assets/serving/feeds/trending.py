"""What is popular and what is new, kept in memory for fallbacks, exploration and outages.

Read again every RECO_TRENDING_REFRESH_S, in the background. What was read last stays while the database is
gone.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from reco_assets.errors import RecoError
from reco_assets.serving.feeds.lists import TRENDING, Entry
from reco_assets.settings import Settings
from reco_assets.store import pool_queries
from reco_assets.store.feed_queries import PostFacts
from reco_assets.store.pool_queries import PoolPost

if TYPE_CHECKING:
    from psycopg import AsyncConnection
    from psycopg.rows import TupleRow

    from reco_assets.serving.database import Database

log = logging.getLogger(__name__)

_NEWEST_POSTS: Final = 100
_SAMPLE_POINTS: Final = 80
_POSTS_PER_SIDE: Final = 3
_JITTER: Final = 0.2
"""Of the pause, so that processes started together do not ask together."""
_AFTER_FAILURE_S: Final = 1.0
_LONGEST_REFRESH_S: Final = 60.0
"""Far more than a feed may take: hence on a connection of its own, not one of the pool's."""


@dataclass(frozen=True, eq=False)
class Pools:
    """What one refresh found.

    Attributes:
        trending: best first.
        newest: ids of the newest.
        sample: ids of a random sample of all recommendable posts, of all if they are few; in random order.
        explorable: both of them.
        facts: of every post in them.
        published_at: of the live generation; None before the first.
        read_at: when they were read; None: never.
    """

    trending: tuple[Entry, ...] = ()
    newest: frozenset[str] = frozenset()
    sample: tuple[str, ...] = ()
    explorable: tuple[str, ...] = ()
    facts: Mapping[str, PostFacts] = field(default_factory=dict)
    published_at: datetime | None = None
    read_at: datetime | None = None

    @classmethod
    def of(
        cls,
        trending: Sequence[PoolPost],
        newest: Sequence[PoolPost],
        sample: Sequence[PoolPost],
        *,
        published_at: datetime | None,
        read_at: datetime,
    ) -> "Pools":
        """Pools of what was read."""
        return cls(
            tuple((post.post_id, TRENDING, post.score) for post in trending),
            frozenset(post.post_id for post in newest),
            tuple(post.post_id for post in sample),
            tuple({post.post_id: None for pool in (newest, sample) for post in pool}),
            {post.post_id: post.facts for pool in (sample, newest, trending) for post in pool},
            published_at,
            read_at,
        )


class Trending:
    """The pools of one process and their refresh.

    Args:
        reads: where they are read from.
        settings: RECO_TRENDING_… and the half-lives of popularity and freshness.
        clock: ages are counted to it.
        rng: for jitter and samples.

    Attributes:
        pools: as last read.
    """

    def __init__(
        self,
        reads: "Database",
        settings: Settings,
        clock: Callable[[], datetime],
        rng: random.Random | None = None,
    ) -> None:
        self.pools = Pools()
        self._reads = reads
        self._settings = settings
        self._clock = clock
        self._rng = rng or random.Random()
        self._once_read = asyncio.Event()
        self._refresh_loop: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to refresh; returns at once."""
        self._refresh_loop = asyncio.create_task(self._keep_fresh(), name="trending")

    async def stop(self) -> None:
        """End it; what was read stays."""
        if self._refresh_loop is not None:
            self._refresh_loop.cancel()
            with suppress(asyncio.CancelledError):
                await self._refresh_loop

    async def wait_read(self, timeout_s: float) -> None:
        """Right after the start: wait for the first refresh, or so long."""
        if not self._once_read.is_set() and self._reads.available:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._once_read.wait(), timeout_s)

    async def refresh(self) -> None:
        """Read the pools now.

        Raises:
            RecoError: the database is gone, busy, or lacks a table; the pools stay as they were.
            TimeoutError: it takes too long.
        """
        self.pools = await self._read()
        self._once_read.set()

    async def _keep_fresh(self) -> None:
        complained = False
        while True:
            pause = self._settings.trending_refresh_s
            try:
                await self.refresh()
                complained = False
            except (RecoError, TimeoutError) as error:
                pause = min(pause, _AFTER_FAILURE_S)
                if not complained:
                    log.warning("Trending posts stay as they were read at %s: %s", self.pools.read_at, error)
                complained = True
            except Exception:  # whatever an app's own view does, later refreshes must be tried
                if not complained:
                    log.exception("Trending posts stay as they were read at %s.", self.pools.read_at)
                complained = True
            await asyncio.sleep(pause * (1 + self._rng.uniform(-_JITTER, _JITTER)))

    async def _read(self) -> Pools:
        settings, now = self._settings, self._clock()
        async with asyncio.timeout(_LONGEST_REFRESH_S), self._reads.own_connection() as connection:
            await pool_queries.allow_seconds(connection, _LONGEST_REFRESH_S)
            trending = await pool_queries.trending_posts(
                connection,
                now=now,
                since=now - timedelta(hours=settings.trending_window_hours),
                types=list(settings.interaction_weights),
                half_life_days=settings.popularity_half_life_days,
                freshness_half_life_days=settings.freshness_half_life_days,
                max_events=settings.trending_max_events,
                n=settings.trending_posts,
            )
            newest = await pool_queries.newest_posts(connection, now=now, n=_NEWEST_POSTS)
            sample = await _sample(connection, self._rng)
            published_at = await pool_queries.published_at(connection)
        self._rng.shuffle(sample)
        return Pools.of(trending, newest, sample, published_at=published_at, read_at=now)


async def _sample(connection: "AsyncConnection[TupleRow]", rng: random.Random) -> list[PoolPost]:
    """Random recommendable posts: all of them where there are few."""
    ends = await pool_queries.id_range(connection)
    if ends is None:
        return []
    low, high = ends
    first = await pool_queries.posts_from(connection, [low], each=2 * _POSTS_PER_SIDE * _SAMPLE_POINTS)
    points = _points_between(low, high, _SAMPLE_POINTS, rng)
    if not points or any(post.post_id == high for post in first):
        return first
    return await pool_queries.posts_from(connection, points, each=_POSTS_PER_SIDE)


def _points_between(low: str, high: str, n: int, rng: random.Random) -> list[str]:
    """`n` random ids from `low` to `high`; none where a column of type text holds something else."""
    try:
        first, last = UUID(low).int, UUID(high).int
    except ValueError:
        return []
    return [str(UUID(int=rng.randint(first, last))) for _ in range(n)]
