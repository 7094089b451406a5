"""Asking a real service for feeds, in numbers instead of ids."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx

from reco_assets.serving.realtime.recommendations import LiveList
from reco_assets_tests.serving.conftest import RunningService
from reco_assets_tests.store.published import NOW, post, user

PLAIN: dict[str, Any] = {
    "exploration_share": 0,
    "trending_refresh_s": 3600,
    "realtime": False,
    # Far more than it takes: what a busy machine makes late would be another feed.
    "feed_recommendations_ms": 8000,
    "feed_timeout_s": 20,
}
"""Settings of a service whose feeds hold no surprise."""


def now() -> datetime:
    """The clock of these tests: ten minutes after the lists were made."""
    return NOW + timedelta(minutes=10)


def ask(running: RunningService, user_number: int | None = 1, **parameters: Any) -> httpx.Response:
    """One request."""
    if user_number is not None:
        parameters["user_id"] = str(user(user_number))
    return running.client.get("/api/feeds", params=parameters)


def feed(running: RunningService, user_number: int = 1, **parameters: Any) -> dict[str, Any]:
    """An answer that must be one."""
    answer = ask(running, user_number, **parameters)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def numbers(body: dict[str, Any]) -> list[int]:
    """The posts of an answer."""
    return [number(each["post_id"]) for each in body["posts"]]


def number(post_id: str) -> int:
    """Of a post."""
    return UUID(post_id).int & 0xFFFF


def sources(body: dict[str, Any]) -> list[str]:
    """Where each post of an answer comes from."""
    return [each["source"] for each in body["posts"]]


def all_pages(running: RunningService, user_number: int = 1, **parameters: Any) -> list[dict[str, Any]]:
    """From the first page to the one without a cursor."""
    pages = [feed(running, user_number, **parameters)]
    while cursor := pages[-1]["metadata"]["next_cursor"]:
        pages.append(feed(running, user_number, **{**parameters, "cursor": cursor}))
        assert len(pages) < 100
    return pages


def refresh(running: RunningService) -> None:
    """Have the pools read now."""
    trending = running.service.trending
    assert trending._refresh_loop is not None
    loop = trending._refresh_loop.get_loop()
    asyncio.run_coroutine_threadsafe(trending.refresh(), loop).result(10)


class ScriptedRealtime:
    """Stands where the real-time tier does and says what the test wants: its own tests are elsewhere."""

    def __init__(
        self,
        posts: Sequence[int] | None = (),
        *,
        state: str = "ready",
        takes_s: float = 0.0,
        fails: bool = False,
        seen_posts: Sequence[int] = (),
    ) -> None:
        self.seen_posts = seen_posts
        self.posts = posts
        self.state = state
        self.takes_s = takes_s
        self.fails = fails
        self.asked = 0
        self.as_of = None

    async def stop(self) -> None:
        """Nothing to stop."""

    def seen(self, _user_id: UUID) -> frozenset[UUID]:
        """What the script says."""
        return frozenset(map(post, self.seen_posts))

    async def recommend(self, _user_id: UUID, n: int, **_: Any) -> LiveList | None:
        """The posts of the script."""
        self.asked += 1
        await asyncio.sleep(self.takes_s)
        if self.fails:
            raise ZeroDivisionError
        if self.posts is None:
            return None
        posts = [(str(post(each)), 1.0 / rank) for rank, each in enumerate(self.posts, 1)]
        return LiveList(posts[:n], now(), "live_v1", UUID(int=9), False)


def script(running: RunningService, **script: Any) -> ScriptedRealtime:
    """Put a `ScriptedRealtime` in."""
    service: Any = running.service
    stop = service.realtime.stop
    service.realtime = ScriptedRealtime(**script)
    service.realtime.stop = stop  # the real one still has to end
    scripted: ScriptedRealtime = service.realtime
    return scripted


Clock = Callable[[], datetime]
