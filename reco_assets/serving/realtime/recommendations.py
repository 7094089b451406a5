"""Recommendations from live votes: the daily neighbours, with what they read since.

A thread keeps up with the database (`live_votes_thread`). Requests read its newest state: in the event loop
where the user's neighbours are known, which takes a fraction of a millisecond, and otherwise on a small pool
of threads.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID

from reco_assets.serving.realtime.live_votes_thread import Current, LiveVotesThread
from reco_assets.settings import Settings

if TYPE_CHECKING:
    from reco_assets.recommender.live_lists import ExplainedPost

T = TypeVar("T")

_MOST_TEXTS: Final = 32_768


@dataclass(frozen=True, slots=True)
class LiveList:
    """A user's list as of an instant.

    Attributes:
        posts: post id and score, best first; scores are comparable within the list only.
        as_of: the instant that votes and ages are counted to.
        model_version: whose neighbours vote.
        generation_id: the publication that the model belongs to.
        folded_in: whether the neighbours were found anew, from what the user did since the fit.
    """

    posts: list[tuple[str, float]]
    as_of: datetime
    model_version: str
    generation_id: UUID | None
    folded_in: bool


@dataclass(frozen=True, slots=True)
class LiveExplanations:
    """Why posts are in a user's list, in the order of the question."""

    posts: list["ExplainedPost"]
    as_of: datetime


class Realtime(LiveVotesThread):
    """The real-time tier of one process: answers from what its thread keeps."""

    def __init__(self, settings: Settings, clock: Callable[[], datetime]) -> None:
        super().__init__(settings, clock)
        self._pool = ThreadPoolExecutor(settings.realtime_threads, thread_name_prefix="reco-realtime")

    async def stop(self) -> None:
        """End the background work."""
        await super().stop()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def recommend(self, user_id: UUID, n: int, *, closed: Collection[UUID] = ()) -> LiveList | None:
        """The user's list; None while nothing is loaded, or where nothing is known of the user.

        Args:
            user_id: whose.
            n: posts at most.
            closed: posts that are not wanted.

        Raises: whatever goes wrong, for the caller to say so.
        """
        current = self.current
        if current is None:
            return None
        if current.state.is_quick(user_id.bytes):  # handing it to a thread would take longer
            return self._list(current, user_id, n, closed)
        return await self._in_pool(self._list, current, user_id, n, closed)

    async def explain(self, user_id: UUID, post_ids: Sequence[UUID]) -> LiveExplanations | None:
        """What the posts' scores for the user are made of; None while nothing is loaded.

        Raises: as `recommend`.
        """
        current = self.current
        return await self._in_pool(self._why, current, user_id, post_ids) if current else None

    def seen(self, user_id: UUID) -> frozenset[UUID]:
        """The posts that the user interacted with, as far as is known in memory."""
        current = self.current
        if current is None:
            return frozenset()
        return frozenset(UUID(bytes=post) for post in current.state.seen(user_id.bytes))

    async def _in_pool(self, work: "Callable[..., T]", *arguments: Any) -> "T | None":
        try:
            done = asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)
        except RuntimeError:  # the pool has been shut down
            return None
        return await done

    @staticmethod
    def _why(current: Current, user_id: UUID, post_ids: Sequence[UUID]) -> LiveExplanations:
        explained = current.state.explain(user_id.bytes, [post.bytes for post in post_ids])
        return LiveExplanations(explained, current.as_of)

    @staticmethod
    def _list(current: Current, user_id: UUID, n: int, closed: Collection[UUID]) -> LiveList | None:
        answer = current.state.recommend(user_id.bytes, n, closed=(post.bytes for post in closed))
        if answer is None:
            return None
        live = current.live
        return LiveList(
            list(zip(map(_TEXTS.__getitem__, answer.post_ids), answer.scores, strict=True)),
            current.as_of,
            live.model_version or "unknown",
            live.generation_id,
            answer.folded_in,
        )


class _Texts(dict[bytes, str]):
    """Ids as text, made once: most lists hold the same few thousand posts. 250 bytes each."""

    def __missing__(self, id_bytes: bytes) -> str:
        if len(self) >= _MOST_TEXTS:
            self.clear()
        text = self[id_bytes] = str(UUID(bytes=id_bytes))
        return text


_TEXTS: Final = _Texts()
