"""Everybody's list, computed, checked, archived and, for the newest day, published."""

from collections.abc import Iterator

import dagster as dg

from reco_assets.assets.partitions import daily_asset, explained, partition_day
from reco_assets.assets.user_knn_model import user_knn_model
from reco_assets.errors import TrackingUnavailable
from reco_assets.resources.mlflow_tracking import ModelRegistry
from reco_assets.resources.postgres import PostgresResource
from reco_assets.resources.run_config import PublicationConfig
from reco_assets.resources.storage import FileStorage

LIST_CHECKS = {
    "users_are_covered": "Enough of the active users have a list.",
    "posts_are_covered": "Enough of the eligible posts stand in some list.",
    "size_is_within_bounds": "No list is too long, and the whole did not shrink or grow beyond the bound.",
    "no_seen_or_ineligible_posts": "No list holds a post that its user has seen or may not be shown.",
    "window_was_not_empty": "The window that the model was fitted on held enough interactions.",
    "weights_were_valid": "The weights that the model was fitted on were valid.",
    "model_passed_its_checks": "The model that made the lists is not worse than the strongest baseline.",
}


@daily_asset(
    deps=[user_knn_model],
    check_specs=[
        dg.AssetCheckSpec(name, asset="user_recommendations", description=text, blocking=True)
        for name, text in LIST_CHECKS.items()
    ],
    kinds={"postgres", "parquet"},
)
def user_recommendations(
    context: dg.AssetExecutionContext,
    config: PublicationConfig,
    postgres: PostgresResource,
    storage: FileStorage,
    model_registry: ModelRegistry,
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
    """The best posts for every active user, swapped into `user_recommendations` in one instant.

    All lists are archived as Parquet. They are checked here, before the swap and in the same step,
    so that no way of starting this asset gets past the checks. Only the newest partition is
    published; an older one leaves the live generation alone and says so.
    """
    from reco_assets.pipeline.provenance import registered_version
    from reco_assets.pipeline.publication import (
        ListLimits,
        align_champion,
        compute_lists,
        judge_lists,
        publish_lists,
        refuse,
    )
    from reco_assets.pipeline.reports import check_result, lists_metadata, utc_now
    from reco_assets.pipeline.step_watch import StepWatch
    from reco_assets.store.generations import live_generation

    day = partition_day(context)
    limits = ListLimits(
        postgres.settings.min_interactions,
        config.min_user_coverage,
        config.min_post_coverage,
        config.max_size_change,
    )
    watch = StepWatch.of(context)
    with explained(context):
        registered = registered_version(context.instance, day)
        with storage.writing("user_recommendations", context.log.info):
            computed = compute_lists(storage, day, registered, watch)
        with postgres.transaction() as connection:
            live = live_generation(connection)
        verdicts = judge_lists(computed, storage, live, limits)
        for name, verdict in verdicts.items():
            yield check_result(verdict, name=name)
        if failed := {name: verdict for name, verdict in verdicts.items() if not verdict.passed}:
            with postgres.transaction() as connection:
                refused = refuse(connection, computed, registered, failed, context.run.run_id)
            raise refused
        publication = publish_lists(
            postgres.engine,
            computed,
            registered,
            dagster_run_id=context.run.run_id,
            ttl_hours=config.ttl_hours,
            now=utc_now(),
            watch=watch,
        )
        if publication.status == "live":
            try:
                align_champion(model_registry, postgres)
            except TrackingUnavailable as error:
                # The lists are live: failing would publish them again. The cleanup aligns the alias.
                context.log.warning(f"The alias champion was not moved. {error}")
    yield dg.MaterializeResult(
        metadata=lists_metadata(computed, publication, registered, postgres.settings.mlflow_url)
    )
