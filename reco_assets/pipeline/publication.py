"""A day's lists: computed, archived, judged, published."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reco_assets.errors import CorruptArtifact, PublicationRefused
from reco_assets.names import end_of_day_us
from reco_assets.pipeline.archived_lists import write_archive
from reco_assets.pipeline.fitting import RegisteredVersion, model_verdict
from reco_assets.pipeline.step_watch import UNWATCHED, StepWatch
from reco_assets.recommender.artifact import artifact_digest
from reco_assets.recommender.interaction_log import InteractionLog
from reco_assets.recommender.interaction_matrix import InteractionMatrix
from reco_assets.recommender.quality import (
    Verdict,
    list_size_within_bounds,
    no_seen_or_ineligible_posts,
    post_coverage,
    user_coverage,
    weights_valid,
    window_not_empty,
)
from reco_assets.recommender.recommendation_lists import RecommendationLists
from reco_assets.recommender.user_knn import UserKNNRecommender
from reco_assets.resources.mlflow_tracking import ModelRegistry
from reco_assets.resources.postgres import PostgresResource
from reco_assets.resources.storage import FileStorage, read_json
from reco_assets.store.copy_buffer import RecommendationRows
from reco_assets.store.generations import Generation, Origin, live_generation, record_refused
from reco_assets.store.publish import Publication, publish

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class ComputedLists:
    """The lists of a day, the model they come from, and the file that holds them with its SHA-256."""

    day: date
    model: UserKNNRecommender
    lists: RecommendationLists
    path: Path
    digest: str

    def user_ids(self) -> Array:
        """(n_rows, 16) uint8: whom each row is for."""
        return _rows(self.model.user_ids_, self.lists.user_index)

    def post_ids(self) -> Array:
        """(n_rows, 16) uint8: what each row recommends."""
        return _rows(self.model.post_ids_, self.lists.post_index)


@dataclass(frozen=True)
class ListLimits:
    """What the lists of a day are held against."""

    min_interactions: int
    min_user_coverage: float
    min_post_coverage: float
    max_size_change: float


def compute_lists(
    storage: FileStorage, day: date, registered: RegisteredVersion, watch: StepWatch = UNWATCHED
) -> ComputedLists:
    """Recommend with the day's model and archive every list as Parquet, ordered by user and rank.

    Raises:
        CorruptArtifact: The model's files are not those that were registered.
        FitCancelled: The run was asked to stop.
    """
    redo = f"reco run --partition {day}"
    if artifact_digest(storage.model(day)) != registered.digest:
        raise CorruptArtifact(
            f"{storage.model(day)} is not the model registered as {registered.version_name}: a run was "
            f"cut off between fitting and registering. Fit again: `{redo} --assets user_knn_model`."
        )
    model = UserKNNRecommender.load(storage.model(day), redo=redo)
    lists = model.recommend(progress=watch.progress("Lists"), should_stop=watch.should_stop)
    path = storage.recommendations(day)
    users, posts = _rows(model.user_ids_, lists.user_index), _rows(model.post_ids_, lists.post_index)
    return ComputedLists(day, model, lists, path, write_archive(path, users, posts, lists))


def judge_lists(
    computed: ComputedLists, storage: FileStorage, live: Generation | None, limits: ListLimits
) -> dict[str, Verdict]:
    """The verdicts that publication depends on, by the name of their asset check.

    The model's verdict comes first: it refuses a log that is not the one the model was fitted on, whose
    rows would mean other users and posts.
    """
    day, model, lists = computed.day, computed.model, computed.lists
    redo = f"reco run --partition {day}"
    model_passed = model_verdict(storage, day)
    log = InteractionLog.load(storage.log(day), redo=redo)
    matrix = InteractionMatrix.load(storage.matrix(day), redo=redo)
    built = read_json(storage.matrix_settings(day), redo)
    # A replayed day is judged against its own kind of day, not against today's audience.
    comparable = live is not None and day >= live.partition_date
    n_eligible = int(np.count_nonzero(log.before(end_of_day_us(day)).post_eligible))
    return {
        "users_are_covered": user_coverage(lists, len(model.active_users_), limits.min_user_coverage),
        "posts_are_covered": post_coverage(lists, n_eligible, limits.min_post_coverage),
        "size_is_within_bounds": list_size_within_bounds(
            lists,
            model.n_recommendations,
            live.n_recommendations if live is not None and comparable else None,
            limits.max_size_change,
        ),
        "no_seen_or_ineligible_posts": no_seen_or_ineligible_posts(lists, log, end_of_day_us(day)),
        "window_was_not_empty": window_not_empty(log, limits.min_interactions),
        "weights_were_valid": weights_valid(matrix, built["interaction_weights"], built["max_repeats"]),
        "model_passed_its_checks": model_passed,
    }


def align_champion(registry: ModelRegistry, postgres: PostgresResource) -> None:
    """Point `champion` at the model whose lists are live now, whoever published them."""
    with postgres.transaction() as connection:
        live = live_generation(connection)
    if live is not None and live.model_version is not None:
        registry.set_champion(registry.version_of(live.model_version))


def refuse(
    connection: "Connection",
    computed: ComputedLists,
    registered: RegisteredVersion,
    failed: dict[str, Verdict],
    dagster_run_id: str,
) -> PublicationRefused:
    """Put the refusal on record; the error to raise once that is committed."""
    reasons = " ".join(f"{name}: {verdict.message}" for name, verdict in failed.items())
    record_refused(
        connection,
        Origin(
            computed.day,
            registered.version_name,
            registered.mlflow_run_id,
            dagster_run_id,
            registered.digest,
            computed.digest,
        ),
        message=reasons,
        n_users=computed.lists.n_users,
        n_recommendations=len(computed.lists),
    )
    return PublicationRefused(
        f"The lists of {computed.day} were not published, the live generation stays. {reasons} "
        f"When it is mended: `reco run --partition {computed.day}`."
    )


def publish_lists(
    engine: "Engine",
    computed: ComputedLists,
    registered: RegisteredVersion,
    *,
    dagster_run_id: str,
    ttl_hours: float,
    now: datetime,
    watch: StepWatch = UNWATCHED,
) -> Publication:
    """Swap the lists in if no newer day is live; otherwise record them as archived."""
    return publish(
        engine,
        RecommendationRows(computed.user_ids(), computed.post_ids(), computed.lists.score),
        partition_date=computed.day,
        generated_at=now,
        expires_at=now + timedelta(hours=ttl_hours),
        model_version=registered.version_name,
        mlflow_run_id=registered.mlflow_run_id,
        dagster_run_id=dagster_run_id,
        model_digest=registered.digest,
        lists_digest=computed.digest,
        say=watch.say,
    )


def _rows(ids: Array | None, index: Array) -> Array:
    assert ids is not None  # the pipeline fits with ids
    rows: Array = ids[index]
    return rows
