"""What several layers must call by the same name, and where a day's model is: pipeline and service agree."""

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
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


def end_of_day_us(day: date) -> int:
    """00:00 UTC after `day`, microseconds since the epoch: the instant a partition is complete."""
    end = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    return int(end.timestamp()) * 1_000_000


def log_directory(storage: Path, day: date) -> Path:
    """The window's interactions in integer codes, a directory of arrays."""
    return storage / INTERACTION_MATRIX / str(day) / "log"


def matrix_directory(storage: Path, day: date) -> Path:
    """The weighted interaction matrix, a directory of arrays."""
    return storage / INTERACTION_MATRIX / str(day) / "matrix"


def matrix_settings_file(storage: Path, day: date) -> Path:
    """The settings that the matrix was built with, and the digests of log and matrix, JSON."""
    return storage / INTERACTION_MATRIX / str(day) / "settings.json"


def model_directory(storage: Path, day: date) -> Path:
    """The fitted model, a directory of arrays."""
    return storage / USER_KNN_MODEL / str(day) / "model"


def evaluation_file(storage: Path, day: date) -> Path:
    """The hold-out report, its verdict, and the digests of the model and the log it is about, JSON."""
    return storage / USER_KNN_MODEL / str(day) / "evaluation.json"
