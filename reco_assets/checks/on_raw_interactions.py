"""Checks on a day's extracted interactions."""

import dagster as dg

from reco_assets.assets.partitions import explained
from reco_assets.assets.raw_interactions import raw_interactions
from reco_assets.checks.days import checked_days
from reco_assets.names import RAW_INTERACTIONS
from reco_assets.resources.storage import FileStorage
from reco_assets.settings import Settings


@dg.asset_check(asset=raw_interactions, blocking=True)
def interactions_have_a_valid_schema(
    context: dg.AssetCheckExecutionContext, storage: FileStorage
) -> dg.AssetCheckResult:
    """Every file has the columns and types it should, no nulls, known types, and times within its day."""
    from reco_assets.pipeline.daily_files import schema_is_valid
    from reco_assets.pipeline.reports import check_result

    with explained():
        return check_result(
            schema_is_valid(storage, checked_days(context, RAW_INTERACTIONS), Settings.load().tracked_types),
            blocking=True,
        )


@dg.asset_check(asset=raw_interactions)
def interactions_are_fresh(
    context: dg.AssetCheckExecutionContext, storage: FileStorage
) -> dg.AssetCheckResult:
    """The last interaction is not long before the end of the newest day."""
    from reco_assets.pipeline.daily_files import freshness
    from reco_assets.pipeline.reports import check_result

    with explained():
        verdict = freshness(
            storage, max(checked_days(context, RAW_INTERACTIONS)), Settings.load().max_freshness_hours
        )
        return check_result(verdict, blocking=False)


@dg.asset_check(asset=raw_interactions)
def interaction_volume_is_usual(
    context: dg.AssetCheckExecutionContext, storage: FileStorage
) -> dg.AssetCheckResult:
    """The newest day's number of interactions is near the mean of the week before it."""
    from reco_assets.pipeline.daily_files import volume
    from reco_assets.pipeline.reports import check_result

    with explained():
        verdict = volume(
            storage, max(checked_days(context, RAW_INTERACTIONS)), Settings.load().max_volume_change
        )
        return check_result(verdict, blocking=False)
