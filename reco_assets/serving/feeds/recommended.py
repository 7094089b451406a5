"""The tiers that recommend: the published list, and the one from live votes, within their own budget."""

import asyncio
from collections.abc import Collection, Sequence
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Final
from uuid import UUID

from reco_assets.errors import DatabaseUnreachable
from reco_assets.serving.feeds.lists import PRECOMPUTED, REALTIME, Entry, Origin
from reco_assets.serving.feeds.live_filter import SLACK, LiveFilter, Wish, complain, degraded_by
from reco_assets.store.feed_queries import UserList, user_list

if TYPE_CHECKING:
    from reco_assets.serving.service import Service

RECOMMENDING_TIERS: Final = ("precomputed", "realtime")


class Recommended:
    """One request's recommendations.

    The published list steps aside for live votes when it is outdated: the user has interacted since it was
    made, or it is older than RECO_PRECOMPUTED_FRESH_MINUTES. It is served after all if those fail.

    Attributes:
        origin: of the list that was found.
        reason: why none was; or why it is not the one from live votes, for which a published list stepped
            aside.
    """

    def __init__(self, service: "Service", wish: Wish, live_filter: LiveFilter) -> None:
        self.origin = Origin()
        self.reason: str | None = None
        self._live_failure: str | None = None
        self._service = service
        self._settings = service.settings
        self._wish = wish
        self._filter = live_filter
        self._live_ready = service.realtime.state == "ready"

    async def find(self, tiers: Sequence[str], drawn: Collection[str]) -> dict[int, list[Entry]]:
        """Lists by kind, better one first: one, or both where RECO_FEED_SLOTS wants the other too, or none.

        Args:
            tiers: in which order to look; others than these two are passed over.
            drawn: posts for exploration, judged in the same round trip.
        """
        order = [tier for tier in tiers if tier in RECOMMENDING_TIERS]
        if order == ["precomputed", "realtime"] and self._live_ready and self._all_lists_are_old():
            order.reverse()  # nobody's published list needs to be read
        deadline = _now() + min(self._settings.feed_recommendations_ms / 1000, self._filter.time_left())
        found: dict[int, list[Entry]] = {}
        outdated: UserList | None = None
        for i, tier in enumerate(order):
            if found and not self._settings.feed_slots.get(tier):
                continue
            later = order[i + 1 :]
            if tier == "precomputed":
                published = await self._published(deadline - _now(), drawn)
                if published is not None and not published.known:
                    found.clear()  # memory may still have a list, of a user who was deleted
                    self.forget()
                    break
                if published is None or not published.posts:
                    continue
                if "realtime" in later and self._live_ready and self._is_outdated(published):
                    outdated = published
                else:
                    self._take(published, found)
            else:
                # Half of the time is kept for the published list where that has not been read yet.
                share = 0.5 if "precomputed" in later else 1.0
                await self._take_live((deadline - _now()) * share, found)
        if outdated is not None and (not found or self._settings.feed_slots.get("precomputed")):
            self._take(outdated, found)
        if found:
            self.reason = self._live_failure
        return found

    def forget(self) -> None:
        """The lists are not used: the user is not known (any more)."""
        self.origin, self.reason = Origin(), "unknown_user"

    async def _published(self, budget_s: float, drawn: Collection[str]) -> UserList | None:
        """The user's published list; the same round trip judges what may have to fill it up."""
        wish, pools = self._wish, self._filter.pools
        spare = [post_id for post_id, _, _ in islice(pools.trending, wish.limit + SLACK)]
        try:
            found = await self._filter.query(
                budget_s,
                lambda connection: user_list(
                    connection,
                    wish.user,
                    now=wish.now,
                    seen_since=self._filter.seen_since,
                    drawn=drawn,
                    spare=spare,
                    needed=wish.limit,
                ),
            )
        except TimeoutError:
            self._excuse("recommendations_late")
            return None
        except Exception as error:
            why = degraded_by(error)
            self._excuse("recommendations_late" if why == "database_slow" else why)
            if isinstance(error, DatabaseUnreachable):
                self._filter.degraded = why  # nobody else needs to try
            return None
        judged = [*drawn, *spare] if found.spare_judged else drawn
        self._filter.note(judged, found.eligible, found.hidden_authors)
        if not found.known:
            self._excuse("unknown_user")
        elif not found.posts:
            self._excuse("new_user" if found.last_interaction is None else "no_recommendations")
        return found

    async def _take_live(self, budget_s: float, found: dict[int, list[Entry]]) -> None:
        realtime = self._service.realtime
        # Late ones know nothing new, but without the database they are better than what everybody gets.
        if not (self._live_ready or (realtime.state == "late" and self._filter.degraded is not None)):
            self._excuse(f"realtime_{realtime.state}")
            return
        closed = [UUID(post_id) for post_id in self._wish.exclude]
        try:
            async with asyncio.timeout(budget_s):
                live = await realtime.recommend(self._wish.user_id, self._settings.feed_length, closed=closed)
        except TimeoutError:
            self._excuse_live("recommendations_late", found)
            return
        except Exception as error:
            complain("Real-time recommendations failed.", error)
            self._excuse_live("recommendations_failed", found)
            return
        if live is None or not live.posts:
            self._excuse("no_recommendations")
            return
        if not found:
            generation_id = None if live.generation_id is None else str(live.generation_id)
            self.origin = Origin(generation_id, live.model_version, live.as_of)
        found[REALTIME] = [(post_id, REALTIME, score) for post_id, score in live.posts]

    def _take(self, published: UserList, found: dict[int, list[Entry]]) -> None:
        if not found:
            self.origin = Origin(published.generation_id, published.model_version, published.generated_at)
        found[PRECOMPUTED] = [(post_id, PRECOMPUTED, score) for post_id, score in published.posts]

    def _excuse(self, reason: str) -> None:
        """The first reason counts: it is the best tier's."""
        self.reason = self.reason or reason

    def _excuse_live(self, reason: str, found: dict[int, list[Entry]]) -> None:
        self._excuse(reason)
        if not found:
            self._live_failure = reason

    def _all_lists_are_old(self) -> bool:
        published_at = self._filter.pools.published_at
        return published_at is not None and self._wish.now - published_at > self._fresh_for()

    def _is_outdated(self, published: UserList) -> bool:
        made = published.generated_at
        return published.read_since or (made is not None and self._wish.now - made > self._fresh_for())

    def _fresh_for(self) -> timedelta:
        return timedelta(minutes=self._settings.precomputed_fresh_minutes)


def _now() -> float:
    return asyncio.get_running_loop().time()
