"""Checks on the weighted window."""

import dagster as dg

from reco_assets.assets.interaction_matrix import interaction_matrix
from reco_assets.assets.partitions import explained
from reco_assets.checks.days import checked_days
from reco_assets.names import INTERACTION_MATRIX
from reco_assets.resources.storage import FileStorage, read_json
from reco_assets.settings import Settings


@dg.asset_check(asset=interaction_matrix, blocking=True)
def window_is_not_empty(context: dg.AssetCheckExecutionContext, storage: FileStorage) -> dg.AssetCheckResult:
    """The window holds enough interactions to fit a model on."""
    from reco_assets.pipeline.reports import check_result
    from reco_assets.recommender.interaction_log import InteractionLog
    from reco_assets.recommender.quality import window_not_empty

    day = max(checked_days(context, INTERACTION_MATRIX))
    with explained():
        log = InteractionLog.load(storage.log(day))
        return check_result(window_not_empty(log, Settings.load().min_interactions))


@dg.asset_check(asset=interaction_matrix, blocking=True)
def weights_are_valid(context: dg.AssetCheckExecutionContext, storage: FileStorage) -> dg.AssetCheckResult:
    """Every weight is finite, positive and no larger than the settings allow."""
    from reco_assets.pipeline.reports import check_result
    from reco_assets.recommender.interaction_matrix import InteractionMatrix
    from reco_assets.recommender.quality import weights_valid

    day = max(checked_days(context, INTERACTION_MATRIX))
    with explained():
        settings = read_json(storage.matrix_settings(day), f"reco run --partition {day}")
        matrix = InteractionMatrix.load(storage.matrix(day))
        return check_result(weights_valid(matrix, settings["interaction_weights"], settings["max_repeats"]))
