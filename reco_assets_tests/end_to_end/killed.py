"""Run in a process of its own by the tests that kill it during publication."""

from datetime import date

from reco_assets.pipeline import publication
from reco_assets.pipeline.fitting import RegisteredVersion
from reco_assets.pipeline.reports import utc_now
from reco_assets.recommender.artifact import artifact_digest
from reco_assets.resources.storage import FileStorage
from reco_assets.settings import Settings
from reco_assets.store.database import create_engine_for


def publish_again(day: date) -> None:
    """What `user_recommendations` does for a day that was fitted before."""
    settings = Settings.load()
    storage = FileStorage(base_dir=str(settings.storage))
    digest = artifact_digest(storage.model(day))
    registered = RegisteredVersion(2, "collaborative_filtering_v2", "run", "experiment", digest)
    computed = publication.compute_lists(storage, day, registered)
    publication.publish_lists(
        create_engine_for(settings),
        computed,
        registered,
        dagster_run_id="killed",
        ttl_hours=72,
        now=utc_now(),
    )
