"""Positions of a list that go to fresh or random posts, to learn about what is never shown otherwise.

Each position is given away with the same probability, independently, and the post for it is drawn uniformly
from a pool. So the probability that a post stood where it stood is known: that is its propensity, which
whoever judges the feed from its own logs divides by.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

T = TypeVar("T")

_SPARE = 4
"""Posts drawn beyond need, in case the user may not see some."""


@dataclass(frozen=True, slots=True)
class Draw:
    """Which positions are given away, and who may stand there.

    Attributes:
        positions: ascending, from 0.
        posts: different ones of the pool in random order, more than positions if the pool has so many.
        pool_size: of how many posts those were drawn.
        share: the probability of a position to be given away; 0 without a pool.
    """

    positions: tuple[int, ...]
    posts: tuple[str, ...]
    pool_size: int
    share: float


class Propensities(NamedTuple):
    """With which probability a post stands at its position, given the list and the pool."""

    ordinary: float
    explored: float


NO_DRAW = Draw((), (), 0, 0.0)


def draw(n: int, pool: Sequence[str], share: float, rng: random.Random) -> Draw:
    """Choose positions among the first `n`, and posts for them.

    Args:
        n: length of the list.
        pool: different posts that could be explored.
        share: of positions.
        rng: the only source of chance.
    """
    if not pool or share <= 0:
        return NO_DRAW
    positions = _positions(n, share, rng)
    # Twice as many, because seen or hidden ones fall out before they are placed.
    n_posts = min(len(pool), 2 * len(positions) + _SPARE) if positions else 0
    return Draw(positions, tuple(rng.sample(pool, n_posts)), len(pool), share)


def _positions(n: int, share: float, rng: random.Random) -> tuple[int, ...]:
    """Each of 0 … n - 1 with probability `share`, independently: drawn as the gaps between them."""
    positions, position = [], -1
    slope = 1 / math.log1p(-share)
    while (position := position + 1 + int(math.log(1.0 - rng.random()) * slope)) < n:
        positions.append(position)
    return tuple(positions)


def place(ordinary: Sequence[T], drawn: Draw, allowed: Sequence[T]) -> tuple[list[T], Propensities]:
    """The list with the drawn posts in their positions.

    What stood there is left out of this list, not moved down: then no other post's position depends on the
    draw, and the propensities are exact. It comes back with the next list.

    Args:
        ordinary: the list, best first.
        drawn: for a list of this length.
        allowed: whichever of `drawn.posts` the user may see and `ordinary` does not hold, in their order.

    Returns:
        The list, and 1 - share for its own posts; for explored ones share / size of the pool, in which only
        those posts count that the user may see. How many those are is estimated from the drawn ones,
        so that the inverse of a shown post's propensity is right in expectation.
    """
    explored = list(ordinary)
    positions = [position for position in drawn.positions if position < len(explored)]
    for position, post in zip(positions, allowed, strict=False):
        explored[position] = post
    if drawn.posts and not allowed:
        return explored, Propensities(1.0, 0.0)
    # The shown post is one of the allowed; the others are a sample of the rest of the pool.
    others = (len(allowed) - 1) / max(1, len(drawn.posts) - 1) * (drawn.pool_size - 1)
    return explored, Propensities(1.0 - drawn.share, drawn.share / (1 + others) if allowed else 0.0)
