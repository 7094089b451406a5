"""What several layers must call by the same name."""

from datetime import time
from typing import Final

RAW_INTERACTIONS: Final = "raw_interactions"
INTERACTION_MATRIX: Final = "interaction_matrix"
USER_KNN_MODEL: Final = "user_knn_model"
USER_RECOMMENDATIONS: Final = "user_recommendations"
EXPIRED_RECOMMENDATIONS_CLEANUP: Final = "expired_recommendations_cleanup"

PIPELINE_ASSETS: Final = (
    RAW_INTERACTIONS,
    INTERACTION_MATRIX,
    USER_KNN_MODEL,
    USER_RECOMMENDATIONS,
    EXPIRED_RECOMMENDATIONS_CLEANUP,
)
"""The assets in the order of the data."""

DAILY_RUN_TIME: Final = time(2, 0)
"""UTC. A day's interactions are complete at midnight; two hours leave room for replicas and clocks."""

MODEL_SEGMENT: Final = "user_knn"
"""The model beside the baselines in reports and in `quality_metrics`."""
