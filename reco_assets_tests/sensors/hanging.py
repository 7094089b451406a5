"""A code location whose asset never ends; loaded by a code server of its own."""

import time

import dagster as dg

from reco_assets.pipeline.noting_executor import noting_executor
from reco_assets.sensors import alert_sensors
from reco_assets.sensors.lost_run_watch import lost_run_watch


@dg.asset(partitions_def=dg.DailyPartitionsDefinition(start_date="2026-10-01"))
def user_knn_model() -> None:
    time.sleep(3600)


defs = dg.Definitions(
    assets=[user_knn_model],
    jobs=[dg.define_asset_job("daily_recommendations", selection="*")],
    sensors=[*alert_sensors, lost_run_watch],
    executor=noting_executor,
)
