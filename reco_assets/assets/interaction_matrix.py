"""The trailing window of interactions, weighted, as a users × posts matrix."""

import dagster as dg

from reco_assets.assets.partitions import daily_asset, explained, partition_day
from reco_assets.assets.raw_interactions import raw_interactions
from reco_assets.names import end_of_day_us
from reco_assets.resources.postgres import PostgresResource
from reco_assets.resources.run_config import InteractionMatrixConfig, check_run_config
from reco_assets.resources.storage import FileStorage


@daily_asset(
    deps=[raw_interactions],
    kinds={"numpy", "scipy"},
)
def interaction_matrix(
    context: dg.AssetExecutionContext,
    config: InteractionMatrixConfig,
    postgres: PostgresResource,
    storage: FileStorage,
) -> dg.MaterializeResult:
    """Who did what with which post in the `window_days` that end with the partition.

    Holds the interactions in integer codes, a snapshot of what the app said about their posts
    (author, creation, eligibility, who hides whom), and the weighted matrix. Everything after this
    step is computed from it alone, so that a past day is replayed as it was.
    """
    from reco_assets.pipeline.fitting import write_matrix
    from reco_assets.pipeline.reports import matrix_metadata
    from reco_assets.pipeline.window import read_window
    from reco_assets.recommender.interaction_matrix import InteractionMatrix

    day = partition_day(context)
    with explained(context), storage.writing("interaction_matrix", context.log.info):
        check_run_config(context.run.run_config, postgres.settings)
        storage.check_database(postgres.identity())
        days = storage.window(day, config.window_days, postgres.settings.start_date)
        paths = [storage.raw_day(each) for each in days]
        with postgres.transaction() as connection:
            log = read_window(paths, connection, config.interaction_weights)
        matrix = InteractionMatrix.from_log(
            log,
            end_of_day_us(day),
            interaction_weights=config.interaction_weights,
            max_repeats=config.max_repeats,
        )
        write_matrix(storage, day, log, matrix, config.model_dump())
    return dg.MaterializeResult(metadata=matrix_metadata(log, matrix, days))
