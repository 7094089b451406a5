"""Who is in which arm of an experiment: from the settings and the user's id alone, nothing is stored.

Weighted rendezvous hashing (highest random weight, Thaler and Ravishankar 1998): every arm draws a number
for the user from a hash of salt, arm and user, and the greatest of -share / ln(number) wins. An arm's draw
does not depend on the others. So a user moves only to an arm that grew in proportion to the one they leave.
With two arms, a new arm or one changed share as few users move as can be. Where several shares change at once
a few more do, less than twice as many: no rule that knows only the shares of now can avoid that (two arms of
three, half each, in all three combinations: the three least moves contradict each other).
"""

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Final
from uuid import UUID

from reco_assets.errors import SettingsError

ARMS: Final = ("ml", "precomputed", "realtime", "trending", "random")
"""What an arm can be: all tiers of RECO_FEED_TIERS, or one tier with the fallbacks behind it."""

_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,50}")
_FALLBACKS: Final = ("trending", "random")


@dataclass(frozen=True)
class Experiment:
    """An experiment and the share of users in each of its arms.

    Attributes:
        name: stands in every answer.
        shares: arm → share; they need not add up to anything.
        salt: drawn anew with every other value.
    """

    name: str
    shares: tuple[tuple[str, float], ...]
    salt: str = ""

    def arm(self, user_id: UUID) -> str:
        """The user's arm, always the same for the same name, salt and shares.

        >>> Experiment("demo", (("ml", 90.0), ("random", 10.0))).arm(UUID(int=7))
        'ml'
        """
        return max(self.shares, key=lambda each: (self._weight(each[0], each[1], user_id), each[0]))[0]

    def _weight(self, arm: str, share: float, user_id: UUID) -> float:
        if share <= 0:
            return 0.0
        key = f"{self.name}\0{self.salt}\0{arm}".encode()
        digest = blake2b(key + b"\0" + user_id.bytes, digest_size=8).digest()
        # In (0, 1): 52 bits and a half leave neither 0 nor 1, of which the logarithm would be of no use.
        number = ((int.from_bytes(digest) >> 12) + 0.5) / 2**52
        return -share / math.log(number)


@lru_cache(maxsize=16)
def parse_experiment(text: str, salt: str = "") -> Experiment | None:
    """Read RECO_EXPERIMENT, such as `ml_vs_random:ml=90,random=10`; None where it is empty.

    Raises:
        SettingsError: not of that form, an unknown arm, or shares that cannot be.
    """
    if not text.strip():
        return None
    name, colon, arms = text.strip().partition(":")
    if not colon or not _NAME.fullmatch(name):
        raise _wrong(text, "it begins with a name of up to 50 letters, digits, _ . - and a colon")
    shares: dict[str, float] = {}
    for part in arms.split(","):
        arm, equals, share = (piece.strip() for piece in part.partition("="))
        if not equals or arm not in ARMS:
            raise _wrong(text, f"{part.strip()!r} is no arm=share; arms are {', '.join(ARMS)}")
        if arm in shares:
            raise _wrong(text, f"the arm {arm!r} is there twice")
        try:
            shares[arm] = float(share)
        except ValueError:
            raise _wrong(text, f"the share of {arm!r} is {share!r}, which is no number") from None
        if not 0 <= shares[arm] <= 1e9:
            raise _wrong(text, f"the share of {arm!r} is {share}; it must be from 0 to 1e9")
    if not sum(shares.values()) > 0:
        raise _wrong(text, "no arm has a share above 0")
    return Experiment(name, tuple(shares.items()), salt)


def tiers_of(arm: str | None, tiers: tuple[str, ...]) -> tuple[str, ...]:
    """In which order an arm's feeds look for posts.

    >>> tiers_of("realtime", ("precomputed", "realtime", "trending", "random"))
    ('realtime', 'trending', 'random')
    """
    if arm is None or arm == "ml":
        return tiers
    return (arm, *(tier for tier in _FALLBACKS if tier != arm and _FALLBACKS.index(tier) > _rank(arm)))


def _rank(arm: str) -> int:
    return _FALLBACKS.index(arm) if arm in _FALLBACKS else -1


def _wrong(text: str, why: str) -> SettingsError:
    return SettingsError(
        f"RECO_EXPERIMENT = {text!r}: {why}. Such as `ml_vs_random:ml=90,random=10`; see docs/settings.md."
    )
