"""What nobody will read any more, deleted in batches."""

import dagster as dg

from reco_assets.assets.partitions import daily_asset, explained
from reco_assets.assets.user_recommendations import user_recommendations
from reco_assets.resources.mlflow_tracking import ModelRegistry
from reco_assets.resources.postgres import PostgresResource
from reco_assets.resources.storage import FileStorage


@daily_asset(
    deps=[user_recommendations],
    kinds={"postgres"},
)
def expired_recommendations_cleanup(
    context: dg.AssetExecutionContext,
    postgres: PostgresResource,
    storage: FileStorage,
    model_registry: ModelRegistry,
) -> dg.MaterializeResult:
    """Deletes expired rows in bounded batches, and files written more than `archive_days` ago.

    Also points the alias `champion` at the live model, should a publication have been cut off before
    that. Daily Parquet files of raw interactions stay: they are what a past day is replayed from.
    """
    from reco_assets.pipeline.publication import align_champion
    from reco_assets.pipeline.reports import utc_now
    from reco_assets.store.retention import delete_expired

    settings = postgres.settings
    with explained(context):
        deleted = delete_expired(postgres.engine, now=utc_now(), batch_size=settings.cleanup_batch_size)
        removed = storage.remove_archives(utc_now(), settings.archive_days, context.log.info)
        align_champion(model_registry, postgres)
    return dg.MaterializeResult(
        metadata={"deleted_rows": deleted, "removed_files": dg.MetadataValue.json(removed)}
    )
