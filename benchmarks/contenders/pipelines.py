"""From rows of `user_interactions` to rows of recommendations, ours and the straightforward way."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp
import sqlalchemy as sa

from benchmarks.contenders.base import Contender, Seconds, Stopwatch, read_options
from benchmarks.contenders.plain import blocked_lists, brute_force_neighbors, in_proportion, served
from benchmarks.database import STRAIGHTFORWARD_TABLE, last_day_of, settings_of
from reco_assets.events import DEFAULT_INTERACTION_WEIGHTS
from reco_assets.names import end_of_day_us
from reco_assets.pipeline.fitting import (
    RegisteredVersion,
    evaluate_model,
    fit_model,
    write_matrix,
)
from reco_assets.pipeline.publication import (
    ComputedLists,
    ListLimits,
    compute_lists,
    judge_lists,
    publish_lists,
)
from reco_assets.pipeline.window import read_window
from reco_assets.recommender.artifact import artifact_digest
from reco_assets.recommender.interaction_matrix import InteractionMatrix
from reco_assets.resources.run_config import InteractionMatrixConfig, UserKNNConfig
from reco_assets.resources.storage import FileStorage
from reco_assets.store.database import create_engine_for, transaction
from reco_assets.store.extract import extract_interactions
from reco_assets.store.generations import live_generation

Array = npt.NDArray[Any]


class OursPipeline(Contender):
    """What the assets call, in their order, with their settings as shipped; without Dagster and MLflow."""

    _registered: RegisteredVersion
    _computed: ComputedLists

    def load(self, directory: Path, threads: int) -> None:
        """Settings, paths, engine."""
        options = read_options(directory)
        self._settings = settings_of(options)
        self._last_day = last_day_of(options)
        self._storage = FileStorage(base_dir=str(self._settings.storage))
        self._engine = create_engine_for(self._settings, application_name="benchmark")
        self._threads = threads
        self._counts: dict[str, int] = {}

    def run(self) -> Seconds:
        """A day's run, all days of the window extracted anew."""
        self.__dict__.pop("_computed", None)  # the memory of the last round
        steps: dict[str, Callable[[], dict[str, int]]] = {
            "extract": self._extract,
            "matrix": self._build_matrix,
            "fit": self._fit,
            "hold-out": self._judge_model,
            "lists": self._recommend,
            "checks": self._check,
            "publish": self._publish,
        }
        seconds: Seconds = {}
        for name, step in steps.items():
            watch = Stopwatch()
            self._counts |= step()
            seconds[name] = watch.seconds()
        return seconds

    def details(self) -> dict[str, Any]:
        """Rows read, users served and rows published."""
        return self._counts

    def extract(self) -> dict[str, Any]:
        """The extraction alone: seconds and rows."""
        watch = Stopwatch()
        rows = self._extract()["interactions"]
        return {"seconds": watch.seconds(), "rows": rows}

    def publish(self) -> dict[str, Any]:
        """The publication alone, of the lists of the last run: seconds and rows."""
        watch = Stopwatch()
        rows = self._publish()["rows"]
        return {"seconds": watch.seconds(), "rows": rows}

    def _extract(self) -> dict[str, int]:
        extracts = extract_interactions(
            self._settings,
            self._days()[0],
            self._last_day + timedelta(days=1),
            self._storage.raw_interactions,
            sorted(self._settings.interaction_weights),
        )
        return {"interactions": sum(extract.n_rows for extract in extracts)}

    def _build_matrix(self) -> dict[str, int]:
        config = InteractionMatrixConfig(window_days=self._settings.window_days)
        paths = [self._storage.raw_day(day) for day in self._days()]
        with transaction(self._engine) as connection:
            log = read_window(paths, connection, config.interaction_weights)
        matrix = InteractionMatrix.from_log(
            log,
            end_of_day_us(self._last_day),
            interaction_weights=config.interaction_weights,
            max_repeats=config.max_repeats,
        )
        write_matrix(self._storage, self._last_day, log, matrix, config.model_dump())
        return {}

    def _fit(self) -> dict[str, int]:
        fit_model(self._storage, self._last_day, self._parameters())
        return {}

    def _judge_model(self) -> dict[str, int]:
        evaluate_model(self._storage, self._last_day, self._parameters(), self._settings.holdout_days)
        return {}

    def _recommend(self) -> dict[str, int]:
        digest = artifact_digest(self._storage.model(self._last_day))
        self._registered = RegisteredVersion(1, "benchmark_v1", "none", "none", digest)
        self._computed = compute_lists(self._storage, self._last_day, self._registered)
        return {}

    def _check(self) -> dict[str, int]:
        settings = self._settings
        limits = ListLimits(
            settings.min_interactions,
            settings.min_user_coverage,
            settings.min_post_coverage,
            settings.max_size_change,
        )
        with transaction(self._engine) as connection:
            live = live_generation(connection)
        verdicts = judge_lists(self._computed, self._storage, live, limits)
        if failed := [verdict.message for verdict in verdicts.values() if not verdict.passed]:
            raise RuntimeError(f"The lists would not be published: {' '.join(failed)}")
        return {}

    def _publish(self) -> dict[str, int]:
        publication = publish_lists(
            self._engine,
            self._computed,
            self._registered,
            dagster_run_id="none",
            ttl_hours=self._settings.ttl_hours,
            now=datetime.now(UTC),
        )
        if publication.status != "live":
            raise RuntimeError(f"The lists are {publication.status}: {publication.message}")
        return {"users": publication.n_users, "rows": publication.n_recommendations}

    def _parameters(self) -> dict[str, Any]:
        return UserKNNConfig().parameters() | {"n_threads": self._threads}

    def _days(self) -> list[date]:
        return [self._last_day - timedelta(days=back) for back in reversed(range(self._settings.window_days))]


class StraightforwardPipeline(Contender):
    """What one writes in an afternoon: pandas, scikit-learn, pandas. Plain user-KNN with 50 neighbours."""

    def load(self, directory: Path, threads: int) -> None:
        """An engine of SQLAlchemy."""
        self._engine = create_engine_for(settings_of(read_options(directory)), application_name="benchmark")
        self._threads = threads
        self._counts: dict[str, int] = {}

    def run(self) -> Seconds:
        """Read, sum up, compare, score, write; in large feeds all but the first two for a sample."""
        seconds: Seconds = {}
        watch = Stopwatch()
        with self._engine.connect() as connection:
            frame = pd.read_sql(
                sa.text("SELECT user_id, post_id, interaction_type FROM user_interactions"), connection
            )
        seconds["extract"] = watch.seconds()
        user_index, user_ids = pd.factorize(frame["user_id"])
        post_index, post_ids = pd.factorize(frame["post_id"])
        values = frame["interaction_type"].map(DEFAULT_INTERACTION_WEIGHTS).to_numpy()
        weights = sp.csr_array(sp.coo_array((values, (user_index, post_index))))
        seconds["matrix"] = watch.seconds()
        n_users = weights.shape[0]
        users = served(n_users)
        similar = brute_force_neighbors(weights, users, self._threads)
        seconds["fit"] = in_proportion(watch.seconds(), users, n_users)
        posts, scores = blocked_lists(similar, weights, weights[users], self._threads)
        rows, ranks = np.nonzero(posts >= 0)
        now = datetime.now(UTC)
        lists = pd.DataFrame(
            {
                "user_id": np.asarray(user_ids)[users[rows]],
                "post_id": np.asarray(post_ids)[posts[rows, ranks]],
                "score": scores[rows, ranks],
                "generated_at": now,
                "expires_at": now + timedelta(hours=72),
                "model_version": "straightforward_v1",
                "generation_id": uuid4(),
            }
        )
        seconds["lists"] = in_proportion(watch.seconds(), users, n_users)
        with self._engine.begin() as connection:
            connection.execute(sa.text(f"DELETE FROM {STRAIGHTFORWARD_TABLE}"))  # noqa: S608  # a constant
            lists.to_sql(
                STRAIGHTFORWARD_TABLE,
                connection,
                if_exists="append",
                index=False,
                chunksize=10_000,
                dtype=dict.fromkeys(("user_id", "post_id", "generation_id"), sa.Uuid()),
            )
        seconds["publish"] = in_proportion(watch.seconds(), users, n_users)
        self._counts = {"interactions": len(frame), "users": len(users), "rows": len(lists)}
        return seconds

    def details(self) -> dict[str, Any]:
        """Rows read, users served and rows written."""
        return self._counts
