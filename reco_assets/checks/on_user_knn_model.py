"""Checks on the fitted model."""

import dagster as dg

from reco_assets.assets.partitions import explained
from reco_assets.assets.user_knn_model import user_knn_model
from reco_assets.checks.days import checked_days
from reco_assets.names import USER_KNN_MODEL
from reco_assets.resources.storage import FileStorage


@dg.asset_check(asset=user_knn_model, blocking=True)
def model_is_not_worse_than_popularity(
    context: dg.AssetCheckExecutionContext, storage: FileStorage
) -> dg.AssetCheckResult:
    """On the hold-out the model is not significantly worse than the strongest popularity baseline."""
    from reco_assets.pipeline.fitting import model_verdict
    from reco_assets.pipeline.reports import check_result

    day = max(checked_days(context, USER_KNN_MODEL))
    with explained():
        return check_result(model_verdict(storage, day))
