"""The fitted model, judged beside the baselines, in MLflow."""

from typing import Any

import dagster as dg

from reco_assets.assets.interaction_matrix import interaction_matrix
from reco_assets.assets.partitions import daily_asset, explained, partition_day
from reco_assets.resources.mlflow_tracking import ModelRegistry
from reco_assets.resources.postgres import PostgresResource
from reco_assets.resources.run_config import UserKNNConfig
from reco_assets.resources.storage import FileStorage


@daily_asset(
    deps=[interaction_matrix],
    kinds={"numba", "mlflow"},
)
def user_knn_model(
    context: dg.AssetExecutionContext,
    config: UserKNNConfig,
    postgres: PostgresResource,
    storage: FileStorage,
    model_registry: ModelRegistry,
    mlflow: dg.ResourceParam[Any],
) -> dg.MaterializeResult:
    """User-based k-nearest neighbours: who is like whom, and what they read lately.

    Judged on the last `holdout_days` days by refits that could not see them, beside popularity,
    decayed popularity, popularity × freshness, the newest posts and chance. Parameters, metrics, a
    plot and the artifact are logged to MLflow, and the model is registered as a new version. The
    alias `champion` moves only when its lists are published.
    """
    from reco_assets.pipeline.fitting import evaluate_model, fit_model, record_quality, register_model
    from reco_assets.pipeline.provenance import provenance_metadata
    from reco_assets.pipeline.reports import model_metadata
    from reco_assets.pipeline.step_watch import StepWatch

    day = partition_day(context)
    with explained(context), storage.writing("user_knn_model", context.log.info):
        watch = StepWatch.of(context)
        model = fit_model(storage, day, config.parameters(), watch)
        evaluation = evaluate_model(storage, day, config.parameters(), config.holdout_days, watch)
        registered = register_model(mlflow, model_registry, storage, day, model, evaluation)
        with postgres.transaction() as connection:
            record_quality(connection, day, evaluation, registered.version_name)
    return dg.MaterializeResult(
        metadata=model_metadata(
            model, evaluation, registered, provenance_metadata(registered), postgres.settings.mlflow_url
        )
    )
