"""What nobody will read any more, deleted in batches."""

import dagster as dg

from reco_assets.assets.partitions import (
    GROUP,
    OWNERS,
    daily_partitions,
    explained,
    partition_day,
    retry_transient_errors,
)
from reco_assets.assets.user_recommendations import user_recommendations
from reco_assets.resources.postgres import PostgresResource
from reco_assets.resources.storage import FileStorage


@dg.asset(
    deps=[user_recommendations],
    partitions_def=daily_partitions,
    backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=1),
    retry_policy=retry_transient_errors,
    group_name=GROUP,
    owners=OWNERS,
    kinds={"postgres"},
)
def expired_recommendations_cleanup(
    context: dg.AssetExecutionContext, postgres: PostgresResource, storage: FileStorage
) -> dg.MaterializeResult:
    """Deletes expired rows in bounded batches, and files older than `archive_days`.

    Daily Parquet files of raw interactions stay: they are what a past day is replayed from.
    """
    from reco_assets.pipeline.reports import utc_now
    from reco_assets.store.retention import delete_expired

    settings = postgres.settings
    with explained():
        deleted = delete_expired(postgres.engine, now=utc_now(), batch_size=settings.cleanup_batch_size)
        removed = storage.remove_archives_before(partition_day(context), settings.archive_days)
    return dg.MaterializeResult(
        metadata={"deleted_rows": deleted, "removed_files": dg.MetadataValue.json(removed)}
    )
