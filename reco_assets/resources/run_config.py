"""Settings that a single run may change: typed and bounded in Dagster's Launchpad.

Name, range and description are those of `ModelSettings`; the default shown is what the environment
sets, so that an empty Launchpad means the deployment's settings.
"""

import copy
from collections.abc import Mapping
from typing import Any

import dagster as dg
from pydantic import ValidationError

from reco_assets.errors import SettingsError
from reco_assets.names import INTERACTION_MATRIX, USER_KNN_MODEL, USER_RECOMMENDATIONS
from reco_assets.parameters import SimilarityWeighting, VoteWeighting
from reco_assets.service_settings import OptionalDays
from reco_assets.settings import InteractionWeights, Settings, describe_invalid

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
                " ".join(describe_invalid(error)),
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
    similarity_window_days: OptionalDays = _setting("similarity_window_days")
    shrinkage: float = _setting("shrinkage")
    min_overlap: int = _setting("min_overlap")
    vote_weighting: VoteWeighting = _setting("vote_weighting")
    vote_half_life_days: OptionalDays = _setting("vote_half_life_days")
    freshness_half_life_days: OptionalDays = _setting("freshness_half_life_days")
    popularity_blend: float = _setting("popularity_blend")
    popularity_half_life_days: OptionalDays = _setting("popularity_half_life_days")
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


_SECTIONS: dict[str, type[_BoundedConfig]] = {
    INTERACTION_MATRIX: InteractionMatrixConfig,
    USER_KNN_MODEL: UserKNNConfig,
    USER_RECOMMENDATIONS: PublicationConfig,
}


def check_run_config(run_config: Mapping[str, Any], settings: Settings) -> None:
    """Refuse a wrong value for any step of the run at its first step, before anything is written.

    Raises:
        SettingsError: A value is out of range, or a weight is set for a type that is not extracted.
    """
    ops = run_config.get("ops") or {}
    for name, config in _SECTIONS.items():
        given = (ops.get(name) or {}).get("config") or {}
        try:
            config(**given)
        except dg.Failure as failure:
            raise SettingsError(f"{name}: {failure.description}") from None
        unknown = set(given.get("interaction_weights") or ()) - set(settings.interaction_weights)
        if unknown:
            raise SettingsError(
                f"{name}: interaction_weights names {', '.join(sorted(unknown))}, which is not extracted. "
                "Give it a weight in RECO_INTERACTION_WEIGHTS and extract the window again."
            )
