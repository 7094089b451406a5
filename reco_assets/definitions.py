"""The code location: where the pipeline is put together. Nothing else imports this module.

Loading it needs no secret and none of the heavy libraries: they are imported by the steps.
"""

import dagster as dg

from reco_assets.alerting import check_alert_urls
from reco_assets.assets.expired_recommendations_cleanup import expired_recommendations_cleanup
from reco_assets.assets.interaction_matrix import interaction_matrix
from reco_assets.assets.raw_interactions import raw_interactions
from reco_assets.assets.user_knn_model import user_knn_model
from reco_assets.assets.user_recommendations import user_recommendations
from reco_assets.checks.on_interaction_matrix import weights_are_valid, window_is_not_empty
from reco_assets.checks.on_raw_interactions import (
    interaction_volume_is_usual,
    interactions_are_fresh,
    interactions_have_a_valid_schema,
)
from reco_assets.checks.on_user_knn_model import model_is_not_worse_than_popularity
from reco_assets.pipeline.noting_executor import noting_executor
from reco_assets.resources.mlflow_tracking import ModelRegistry, mlflow_run
from reco_assets.resources.postgres import PostgresResource
from reco_assets.resources.storage import FileStorage
from reco_assets.schedules import daily_recommendations, daily_recommendations_schedule
from reco_assets.sensors import alert_sensors
from reco_assets.sensors.lost_run_watch import lost_run_watch
from reco_assets.settings import Settings

_settings = Settings.load()
if _settings.alert_urls:
    check_alert_urls(_settings.alert_urls)

defs = dg.Definitions(
    assets=[
        raw_interactions,
        interaction_matrix,
        user_knn_model,
        user_recommendations,
        expired_recommendations_cleanup,
    ],
    asset_checks=[
        interactions_have_a_valid_schema,
        interactions_are_fresh,
        interaction_volume_is_usual,
        window_is_not_empty,
        weights_are_valid,
        model_is_not_worse_than_popularity,
    ],
    resources={
        "postgres": PostgresResource.from_settings(_settings),
        "storage": FileStorage(base_dir=str(_settings.storage.absolute())),
        "model_registry": ModelRegistry(model_name=_settings.model_name),
        "mlflow": mlflow_run,
    },
    jobs=[daily_recommendations],
    schedules=[daily_recommendations_schedule],
    sensors=[*alert_sensors, lost_run_watch],
    # The chain is linear and its steps use all cores themselves; a process per step would cost about
    # seven seconds each and gain nothing.
    executor=noting_executor,
)
