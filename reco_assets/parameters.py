"""What the model's parameters may be: one table for the estimator, the settings and a run's config."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Final, Literal, get_args

SimilarityWeighting = Literal["none", "tfidf", "sqrt_tfidf", "binary_tfidf", "bm25_users", "bm25_posts"]
VoteWeighting = Literal["raw", "sqrt", "binary"]


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`.

    Attributes:
        low, high: the ends; both are allowed …
        above_low: … unless this excludes `low`.
        whole: whole numbers only.
        optional: None is allowed and switches something off.
    """

    low: float
    high: float
    above_low: bool = False
    whole: bool = False
    optional: bool = False

    def __contains__(self, value: object) -> bool:
        if value is None:
            return self.optional
        if isinstance(value, bool) or not isinstance(value, Integral if self.whole else Real):
            return False
        return bool(self.low <= value <= self.high and not (self.above_low and value == self.low))  # type: ignore[operator]  # Real lacks comparisons with float

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        low = f"above {self.low:g} and at most" if self.above_low else f"from {self.low:g} to"
        return f"{kind} {low} {self.high:g}{' or None' if self.optional else ''}"

    def bounds(self) -> dict[str, Any]:
        """As keyword arguments of `pydantic.Field`."""
        return {"gt" if self.above_low else "ge": self.low, "le": self.high}


_HALF_LIFE_DAYS: Final = Range(0, 3650, above_low=True, optional=True)

CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "similarity_weighting": get_args(SimilarityWeighting),
    "vote_weighting": get_args(VoteWeighting),
}

RANGES: Final[Mapping[str, Range]] = {
    "n_neighbors": Range(1, 10_000, whole=True),
    "similarity_window_days": Range(1, 3650, optional=True),
    "shrinkage": Range(0, 1000),
    "min_overlap": Range(1, 1000, whole=True),
    "vote_half_life_days": _HALF_LIFE_DAYS,
    "freshness_half_life_days": _HALF_LIFE_DAYS,
    "popularity_blend": Range(0, 1),
    "popularity_half_life_days": _HALF_LIFE_DAYS,
    "n_recommendations": Range(1, 1000, whole=True),
    "active_within_days": Range(1, 3650),
    "n_threads": Range(1, 4096, whole=True, optional=True),
}


def problem_with(name: str, value: Any) -> str | None:
    """What is wrong with a parameter's value: the name, the value and what it must be; None if nothing is."""
    if name in CHOICES and value not in CHOICES[name]:
        return f"{name} is {value!r}; use one of {', '.join(CHOICES[name])}."
    if name in RANGES and value not in RANGES[name]:
        return f"{name} is {value!r}; it must be {RANGES[name]}."
    return None
