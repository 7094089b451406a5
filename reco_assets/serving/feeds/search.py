"""A new list for a user: tier by tier within the budget, filtered live, with explored positions.

Whatever fails in here costs quality: the next tier answers, in the end what is in memory.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from reco_assets.serving.feeds import exploration
from reco_assets.serving.feeds.experiments import tiers_of
from reco_assets.serving.feeds.lists import (
    EXPLORED_NEW,
    EXPLORED_RANDOM,
    KIND_OF_TIER,
    RANDOM,
    TRENDING,
    Entry,
    Origin,
    put_together,
)
from reco_assets.serving.feeds.live_filter import LiveFilter, Wish
from reco_assets.serving.feeds.recommended import RECOMMENDING_TIERS, Recommended

if TYPE_CHECKING:
    from reco_assets.serving.service import Service

_LAST_RESORT: Final = 1000
"""Posts of the pools that are tried for a page which the list could not fill."""


async def new_list(
    service: "Service", wish: Wish, live_filter: LiveFilter, arm: str | None, rng: random.Random
) -> tuple[list[Entry], Origin]:
    """The whole list, best first; its first page is judged, unless the database is out of reach.

    Args:
        service: the parts.
        wish: for whom, and how many.
        live_filter: of this request.
        arm: of the experiment that the user is in.
        rng: for random posts and exploration.
    """
    settings, length = service.settings, service.settings.feed_length
    tiers = tiers_of(arm, settings.feed_tiers)
    if service.trending.pools.read_at is None:
        await service.trending.wait_read(live_filter.time_left())
    pools = service.trending.pools
    drawn = exploration.draw(length, pools.explorable, settings.exploration_share, rng)
    recommended = Recommended(service, wish, live_filter)
    found = await recommended.find(tiers, drawn.posts)
    slots = {KIND_OF_TIER[tier]: count for tier, count in settings.feed_slots.items() if count}
    lists: dict[int, Sequence[Entry]] = {}
    for tier in tiers:
        if tier in RECOMMENDING_TIERS:
            lists.update(found)  # in their own order: one may have stepped aside for the other
        elif tier == "trending":
            lists[TRENDING] = pools.trending
        elif RANDOM in slots or len(lists.get(TRENDING, ())) < length:
            lists[RANDOM] = _random_entries(pools.sample, length, rng)
    entries = put_together(lists, slots, length, without=wish.exclude)
    entries = await live_filter.settle(entries, drawn.posts)
    if found and live_filter.user_is_unknown:  # deleted, but live votes still have a list
        recommended.forget()
        entries = await live_filter.settle([entry for entry in entries if entry[1] not in found])
    if len(entries) < wish.limit:
        taken = (*wish.exclude, *(entry[0] for entry in entries))
        rest = {
            TRENDING: pools.trending if TRENDING in lists else (),  # not in the arm of random posts
            RANDOM: _random_entries(pools.sample, _LAST_RESORT, rng),
        }
        more = put_together(rest, {}, _LAST_RESORT, without=taken)
        await live_filter.ask(entry[0] for entry in more)
        entries += [entry for entry in more if live_filter.admits(entry[0])][: length - len(entries)]
    present = {entry[0] for entry in entries}
    allowed = [
        (post_id, EXPLORED_NEW if post_id in pools.newest else EXPLORED_RANDOM, 0.0)
        for post_id in drawn.posts
        if post_id in live_filter.known and post_id not in present and post_id not in wish.exclude
    ]
    entries, propensities = exploration.place(entries, drawn, allowed)
    reason = recommended.reason
    if not any(tier in RECOMMENDING_TIERS for tier in tiers):
        reason = "not_configured" if arm is None else "experiment_arm"
    if not entries and live_filter.degraded is None:
        reason = "nothing_to_recommend"
    return entries, replace(recommended.origin, fallback_reason=reason, propensities=propensities)


def _random_entries(sample: Sequence[str], n: int, rng: random.Random) -> list[Entry]:
    return [(post_id, RANDOM, 0.0) for post_id in rng.sample(sample, min(n, len(sample)))]
