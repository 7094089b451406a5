"""Metrics are recorded once per day, metric and segment, and read back as they were."""

from datetime import date

import pytest
import sqlalchemy as sa

from reco_assets.errors import BadInput
from reco_assets.store.database import transaction
from reco_assets.store.quality_metrics import QualityMetric, read_metrics, record_metrics

DAY = date(2026, 11, 19)


def test_a_second_measurement_replaces_the_first(engine: sa.Engine) -> None:
    first = QualityMetric(DAY, "ndcg@10", 0.4, lower=0.3, upper=0.5, n=100, model_version="v1")
    light = QualityMetric(DAY, "ndcg@10", 0.2, segment="light users")
    second = QualityMetric(DAY, "ndcg@10", 0.45)
    with transaction(engine) as connection:
        assert record_metrics(connection, [first, light]) == 2
        assert read_metrics(connection, DAY, date(2026, 11, 20)) == [first, light]
        record_metrics(connection, [second])
        assert read_metrics(connection, DAY, date(2026, 11, 20)) == [second, light]


def test_reading_narrows_by_day_metric_and_segment(engine: sa.Engine) -> None:
    values = [QualityMetric(date(2026, 11, d), m, 1.0, s) for d in (1, 2) for m in "ab" for s in ("all", "x")]
    with transaction(engine) as connection:
        record_metrics(connection, values)
        found = read_metrics(connection, date(2026, 11, 2), date(2026, 11, 3), metrics=["b"], segment="x")
        assert found == [QualityMetric(date(2026, 11, 2), "b", 1.0, "x")]
        assert record_metrics(connection, []) == 0


def test_nan_and_duplicates_are_bad_input(engine: sa.Engine) -> None:
    with transaction(engine) as connection:
        with pytest.raises(BadInput, match=r"is NaN"):
            record_metrics(connection, [QualityMetric(DAY, "ndcg@10", float("nan"))])
        with pytest.raises(BadInput, match=r"2 metrics for 1 keys"):
            record_metrics(connection, [QualityMetric(DAY, "a", 1.0), QualityMetric(DAY, "a", 2.0)])
