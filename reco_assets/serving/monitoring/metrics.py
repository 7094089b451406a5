"""What /metrics counts, with prometheus_client; several processes add up through its shared files."""

import os
from collections.abc import Mapping
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

SHARED_DIRECTORY: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Where processes keep their counts when there are several; prometheus_client reads it when imported."""


class Metrics:
    """The service's metrics. With several processes, /metrics of any of them speaks for all."""

    def __init__(self) -> None:
        self._shared = bool(os.environ.get(SHARED_DIRECTORY))
        registry = self._registry = CollectorRegistry()
        self.requests = Histogram(
            "reco_request_seconds",
            "Time to answer, by route and status; feeds also by the source of their first post.",
            ["route", "status", "source"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.events = Counter(
            "reco_events_total",
            "Tracked events by outcome: stored, duplicate, or the code of the error.",
            ["outcome"],
            registry=registry,
        )
        self.commits = Histogram(
            "reco_commit_events",
            "Events that shared a commit.",
            buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000),
            registry=registry,
        )
        self.fallbacks = Counter(
            "reco_feed_fallbacks_total",
            "Feeds that a later tier had to begin, by reason.",
            ["reason"],
            registry=registry,
        )
        self.served = Counter(
            "reco_feed_posts_total", "Posts served, by source.", ["source"], registry=registry
        )
        self.turned_away = Counter(
            "reco_turned_away_total",
            "Requests answered with 503 at once, because RECO_SERVICE_MAX_REQUESTS were open.",
            registry=registry,
        )
        self.pool = Gauge(
            "reco_pool_connections",
            "Database connections by pool and state.",
            ["pool", "state"],
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.database_up = Gauge(
            "reco_database_up",
            "1 while the database answers, by pool.",
            ["pool"],
            multiprocess_mode="livemin",
            registry=registry,
        )
        self.recommendations_age = Gauge(
            "reco_recommendations_age_seconds",
            "Since the live generation was published; NaN without one.",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.realtime_lag = Gauge(
            "reco_realtime_lag_seconds",
            "Since the instant that real-time recommendations know about; NaN while they are off.",
            multiprocess_mode="livemax",
            registry=registry,
        )
        # The version is a label: Prometheus' way to tell what is not a number.
        self.model = Gauge(
            "reco_model_info",
            "1 for the model that the live recommendations come from.",
            ["model_version"],
            multiprocess_mode="livemax",
            registry=registry,
        )
        self._model_version: str | None = None

    def set_model(self, model_version: str | None) -> None:
        """Note which model is live; the previous one goes to 0, because a shared gauge cannot be removed."""
        if model_version == self._model_version:
            return
        if self._model_version is not None:
            self.model.labels(self._model_version).set(0)
        if model_version is not None:
            self.model.labels(model_version).set(1)
        self._model_version = model_version

    def set_pool(self, name: str, up: bool, stats: Mapping[str, int]) -> None:
        """Note the state of a connection pool."""
        self.database_up.labels(name).set(up)
        for state, count in stats.items():
            self.pool.labels(name, state).set(count)

    def close(self) -> None:
        """What only a living process says (its connections) is no longer counted."""
        if self._shared:
            multiprocess.mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]

    def exposition(self) -> tuple[bytes, str]:
        """The text that Prometheus reads, and its content type."""
        registry = self._registry
        if self._shared:
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry), CONTENT_TYPE_LATEST
