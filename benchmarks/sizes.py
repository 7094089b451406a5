"""How large the feeds are that the benchmarks run on."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Size:
    """Users and posts with an interaction, and events, each approximately; a run prints the exact counts."""

    name: str
    users: int
    posts: int
    events: int


SIZES: Final = {
    size.name: size
    for size in (
        Size("S", 10_000, 5_000, 400_000),
        Size("M", 50_000, 20_000, 2_500_000),
        Size("L", 200_000, 50_000, 10_000_000),
    )
}
