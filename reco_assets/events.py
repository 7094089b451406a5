"""The vocabulary of interactions: types, column names and default weights, named once."""

from typing import Final

USER_ID: Final = "user_id"
POST_ID: Final = "post_id"
INTERACTION_TYPE: Final = "interaction_type"
CREATED_AT: Final = "created_at"

DEFAULT_INTERACTION_WEIGHTS: Final[dict[str, float]] = {
    "view": 0.1,
    "click": 0.3,
    "like": 0.7,
    "share": 1.0,
}
"""How much each interaction says about a user's interest. A type without a weight is unknown."""
