"""A day of the app's interactions, taken out of PostgreSQL once."""

from datetime import date, timedelta

import dagster as dg

from reco_assets.assets.partitions import daily_asset, explained
from reco_assets.resources.postgres import PostgresResource
from reco_assets.resources.run_config import check_run_config
from reco_assets.resources.storage import FileStorage


@daily_asset(
    backfill_policy=dg.BackfillPolicy.single_run(),
    kinds={"postgres", "parquet"},
)
def raw_interactions(
    context: dg.AssetExecutionContext, postgres: PostgresResource, storage: FileStorage
) -> dg.MaterializeResult:
    """A day's rows of `user_interactions`, as Parquet in the order of time.

    Any range of days is one run and one scan. Rows with a null id, a user or post that does not
    exist, an unknown type or a time in the future are left out and counted. A day without
    interactions gives an empty file: a missing file means that the day was never extracted.
    """
    from reco_assets.pipeline.reports import extraction_metadata
    from reco_assets.store.extract import extract_interactions

    days = [date.fromisoformat(key) for key in context.partition_keys]
    settings = postgres.settings
    with explained(context), storage.writing("raw_interactions", context.log.info):
        check_run_config(context.run.run_config, settings)
        storage.check_database(postgres.identity())
        extracts = extract_interactions(
            settings,
            min(days),
            max(days) + timedelta(days=1),
            storage.raw_interactions,
            settings.tracked_types,
        )
    metadata = extraction_metadata(extracts)
    if rejected := metadata["rejected_rows"]:
        context.log.warning(f"{rejected:,} rows were left out; see the metadata, or run `reco doctor`.")
    return dg.MaterializeResult(
        metadata=metadata | {"directory": dg.MetadataValue.path(str(storage.raw_interactions))}
    )
