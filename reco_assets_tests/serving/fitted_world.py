"""A small world whose days are fitted and published by the pipeline's own functions."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import sqlalchemy as sa

from reco_assets.names import end_of_day_us
from reco_assets.pipeline.fitting import RegisteredVersion, fit_model, write_matrix
from reco_assets.pipeline.publication import compute_lists, publish_lists
from reco_assets.pipeline.window import read_window
from reco_assets.recommender.artifact import artifact_digest
from reco_assets.recommender.interaction_matrix import InteractionMatrix
from reco_assets.resources.run_config import UserKNNConfig
from reco_assets.resources.storage import FileStorage
from reco_assets.settings import Settings
from reco_assets.store.database import create_engine_for, transaction
from reco_assets.store.extract import extract_interactions
from reco_assets.store.publish import Publication
from reco_assets_tests.store.published import AUTHOR, post, user

DAY = date(2026, 11, 19)
MORNING = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
"""Of the day after the fit."""

_INSERT = sa.text(
    "INSERT INTO user_interactions (user_id, post_id, interaction_type, created_at) "
    "VALUES (:user, :post, :kind, :at)"
)

_INSERT_POST = sa.text(
    "INSERT INTO posts (id, author_id, title, created_at) VALUES (:id, :author, :title, :at)"
)


def add_events(engine: sa.Engine, events: Iterable[tuple[int, int, datetime]], kind: str = "view") -> None:
    """Numbers of user and post, and when."""
    with transaction(engine) as connection:
        for who, what, at in events:
            connection.execute(
                _INSERT, {"user": str(user(who)), "post": str(post(what)), "kind": kind, "at": at}
            )


def add_post(engine: sa.Engine, number: int, at: datetime, author: UUID = AUTHOR) -> None:
    with transaction(engine) as connection:
        connection.execute(
            sa.text(
                "INSERT INTO posts (id, author_id, title, created_at) VALUES (:id, :author, :title, :at)"
            ),
            {"id": str(post(number)), "author": str(author), "title": f"post {number}", "at": at},
        )


def make_readers(engine: sa.Engine) -> None:
    """Users 1 and 2 read posts 1 and 2 on the day, users 3 and 4 posts 3 and 4; posts 5 and 6 nobody."""
    with transaction(engine) as connection:
        for each in [AUTHOR, *(user(i) for i in range(1, 7))]:
            connection.execute(sa.text("INSERT INTO users (id) VALUES (:id)"), {"id": str(each)})
    at = datetime(DAY.year, DAY.month, DAY.day, 8, tzinfo=UTC)
    for number in range(1, 7):
        add_post(engine, number, at)
    pairs = [(1, 1), (1, 2), (2, 1), (2, 2), (3, 3), (3, 4), (4, 3), (4, 4), (5, 6)]
    add_events(engine, [(u, p, at + timedelta(minutes=n)) for n, (u, p) in enumerate(pairs)])


def run_pipeline(
    settings: Settings, day: date = DAY, *, version: int = 1, window_days: int = 1, ttl_hours: float = 1e5
) -> Publication:
    """Extract, fit and publish a day."""
    engine = create_engine_for(settings)
    storage = FileStorage(base_dir=str(settings.storage))
    try:
        extract_interactions(
            settings,
            day,
            day + timedelta(days=1),
            storage.raw_interactions,
            sorted(settings.interaction_weights),
        )
        fit_day(settings, day, window_days)
        digest = artifact_digest(storage.model(day))
        registered = RegisteredVersion(version, f"collaborative_filtering_v{version}", "none", "none", digest)
        return publish_lists(
            engine,
            compute_lists(storage, day, registered),
            registered,
            dagster_run_id="none",
            ttl_hours=ttl_hours,
            now=datetime.fromtimestamp(end_of_day_us(day) / 1e6, UTC) + timedelta(hours=2),
        )
    finally:
        engine.dispose()


def fit_day(settings: Settings, day: date = DAY, window_days: int = 1) -> None:
    """Write matrix and model from the daily files that are there."""
    engine = create_engine_for(settings)
    storage = FileStorage(base_dir=str(settings.storage))
    paths = [storage.raw_day(day - timedelta(days=back)) for back in reversed(range(window_days))]
    try:
        with transaction(engine) as connection:
            log = read_window(
                [path for path in paths if path.exists()], connection, settings.interaction_weights
            )
    finally:
        engine.dispose()
    matrix = InteractionMatrix.from_log(
        log,
        end_of_day_us(day),
        interaction_weights=settings.interaction_weights,
        max_repeats=settings.max_repeats,
    )
    write_matrix(
        storage,
        day,
        log,
        matrix,
        {"interaction_weights": dict(settings.interaction_weights), "max_repeats": settings.max_repeats},
    )
    # With the handful of readers of a test, a post that all have read would tell nothing.
    fit_model(storage, day, UserKNNConfig().parameters() | {"similarity_weighting": "none"})
