"""Settings that a single run may change: typed and bounded in Dagster's Launchpad.

Name, range and description are those of `ModelSettings`; the default shown is what the environment
sets, so that an empty Launchpad means the deployment's settings.
"""

import copy
from typing import Any

import dagster as dg
from pydantic import ValidationError

from reco_assets.settings import (
    InteractionWeights,
    OptionalDays,
    Settings,
    SimilarityWeighting,
    VoteWeighting,
    describe_invalid,
)

_DEPLOYED = Settings.load()


def _setting(name: str) -> Any:
    field = copy.copy(Settings.model_fields[name])
    field.default, field.default_factory = getattr(_DEPLOYED, name), None
    return field


class _BoundedConfig(dg.Config):
    """Refuses a value out of range with its name and range, and is not tried again."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise dg.Failure(
                "Refused before anything was written: " + " ".join(describe_invalid(error)),
                allow_retries=False,
            ) from None


class InteractionMatrixConfig(_BoundedConfig):
    """What the interaction matrix is built from."""

    window_days: int = _setting("window_days")
    interaction_weights: InteractionWeights = _setting("interaction_weights")
    max_repeats: int = _setting("max_repeats")


class UserKNNConfig(_BoundedConfig):
    """The estimator's parameters and how it is judged."""

    n_neighbors: int = _setting("n_neighbors")
    similarity_weighting: SimilarityWeighting = _setting("similarity_weighting")
    similarity_window_days: int | None = _setting("similarity_window_days")
    shrinkage: float = _setting("shrinkage")
    min_overlap: int = _setting("min_overlap")
    vote_weighting: VoteWeighting = _setting("vote_weighting")
    vote_half_life_days: OptionalDays = _setting("vote_half_life_days")
    freshness_half_life_days: OptionalDays = _setting("freshness_half_life_days")
    popularity_blend: float = _setting("popularity_blend")
    popularity_half_life_days: float = _setting("popularity_half_life_days")
    n_recommendations: int = _setting("n_recommendations")
    active_within_days: int = _setting("active_within_days")
    holdout_days: int = _setting("holdout_days")

    def parameters(self) -> dict[str, Any]:
        """Keyword arguments of `UserKNNRecommender`."""
        return {name: value for name, value in self.model_dump().items() if name != "holdout_days"}


class PublicationConfig(_BoundedConfig):
    """How long lists live, and the bounds they have to keep."""

    ttl_hours: float = _setting("ttl_hours")
    min_user_coverage: float = _setting("min_user_coverage")
    min_post_coverage: float = _setting("min_post_coverage")
    max_size_change: float = _setting("max_size_change")
