"""A feed's list: where each post comes from, and how the tiers are put together. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final, NamedTuple

from reco_assets.serving.feeds.exploration import Propensities


class Kind(NamedTuple):
    """Where a post comes from and why it is there; docs/service.md explains the codes."""

    source: str
    reason: str


KINDS: Final = (
    Kind("ml_recommendations", "similar_readers"),
    Kind("realtime_recommendations", "similar_readers_now"),
    Kind("trending_fallback", "popular_now"),
    Kind("random_fallback", "random"),
    Kind("exploration", "exploration_new"),
    Kind("exploration", "exploration_random"),
)
"""A cursor names them by position: append, never reorder."""

PRECOMPUTED, REALTIME, TRENDING, RANDOM, EXPLORED_NEW, EXPLORED_RANDOM = range(len(KINDS))
KIND_OF_TIER: Final = {
    "precomputed": PRECOMPUTED,
    "realtime": REALTIME,
    "trending": TRENDING,
    "random": RANDOM,
}
SOURCES: Final = tuple(dict.fromkeys(kind.source for kind in KINDS))

Entry = tuple[str, int, float]
"""Post id, position in KINDS, score: a plain tuple, because a request makes a hundred of them."""

CERTAIN: Final = Propensities(ordinary=1.0, explored=0.0)

_TEN = 10


@dataclass(frozen=True, slots=True)
class Origin:
    """What all pages of a list say about it.

    Attributes:
        generation_id, model_version, generated_at: of the recommendations in it; None without any.
        fallback_reason: why it begins with a later tier, or with an outdated list; None where it does not.
        experiment, arm: that the user was in when it was made.
        propensities: of its posts.
    """

    generation_id: str | None = None
    model_version: str | None = None
    generated_at: datetime | None = None
    fallback_reason: str | None = None
    experiment: str | None = None
    arm: str | None = None
    propensities: Propensities = CERTAIN


def put_together(
    tiers: Mapping[int, Sequence[Entry]], slots: Mapping[int, int], n: int, *, without: Iterable[str] = ()
) -> list[Entry]:
    """One list from several: the best tier first, each post once.

    Of every ten positions, `slots` keeps some for a tier, evenly spread towards the end of the ten; where
    that tier has nothing left they go to the others.

    Args:
        tiers: kind → entries, best tier first.
        slots: kind → reserved positions of every ten.
        n: length at most.
        without: posts that must not be in it.
    """
    taken = set(without)
    if not slots or not any(kind in tiers for kind in slots):
        return list(islice(_chained(tiers.values(), taken), n))
    ordinary = _chained(tiers.values(), taken)
    reserved = _reserved(slots)
    # A reserved tier's own posts wait for its positions; the chain takes what is left when they are gone.
    queues = {kind: _chained((tiers[kind],), taken) for kind in slots if kind in tiers}
    entries: list[Entry] = []
    while len(entries) < n:
        kind = reserved.get(len(entries) % _TEN)
        entry = next(queues[kind], None) if kind in queues else None
        entry = next(ordinary, None) if entry is None else entry
        if entry is None:
            break
        entries.append(entry)
    return entries


def count_sources(entries: Sequence[Entry]) -> dict[str, int]:
    """Posts by source, only those that occur."""
    counts: dict[str, int] = {}
    for _, kind, _ in entries:
        source = KINDS[kind].source
        counts[source] = counts.get(source, 0) + 1
    return counts


def _reserved(slots: Mapping[int, int]) -> dict[int, int]:
    """Position of the ten → kind: one slot is the last position, two are the fifth and the last."""
    free = list(range(_TEN))
    reserved: dict[int, int] = {}
    for kind, count in slots.items():
        for i in range(1, count + 1):
            wanted = _TEN * i // count - 1
            position = min(free, key=lambda place: (abs(place - wanted), -place))
            free.remove(position)
            reserved[position] = kind
    return reserved


def _chained(lists: Iterable[Iterable[Entry]], taken: set[str]) -> Iterator[Entry]:
    for entries in lists:
        for entry in entries:
            if entry[0] not in taken:
                taken.add(entry[0])
                yield entry
