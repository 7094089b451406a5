"""Tiny assets, named like the real ones, that fail as told."""

from collections.abc import Iterator

import dagster as dg

from reco_assets.errors import DatabaseUnreachable, NoInteractions

DAY = "2026-11-20"
_partitions = dg.DailyPartitionsDefinition(start_date="2026-10-01")


class Trouble:
    """What goes wrong in the next run."""

    model: Exception | None = None
    covered: bool = True


trouble = Trouble()


@dg.asset(partitions_def=_partitions)
def raw_interactions() -> None: ...


@dg.asset(partitions_def=_partitions, deps=[raw_interactions])
def user_knn_model() -> None:
    if trouble.model is not None:
        raise dg.Failure(description=str(trouble.model), allow_retries=False) from trouble.model


@dg.asset(
    partitions_def=_partitions,
    deps=[user_knn_model],
    check_specs=[dg.AssetCheckSpec("users_are_covered", asset="user_recommendations", blocking=True)],
)
def user_recommendations() -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
    yield dg.AssetCheckResult(
        passed=trouble.covered,
        check_name="users_are_covered",
        metadata={"value": 0.31 if not trouble.covered else 0.9, "limit": 0.5, "message": "too few users"},
    )
    yield dg.MaterializeResult()


@dg.asset(partitions_def=_partitions, deps=[user_recommendations])
def expired_recommendations_cleanup() -> None: ...


ASSETS = [raw_interactions, user_knn_model, user_recommendations, expired_recommendations_cleanup]
NO_INTERACTIONS = NoInteractions("No interactions between 2026-10-22 and 2026-11-20; run `reco seed`.")
DATABASE_GONE = DatabaseUnreachable("PostgreSQL at db:5432 cannot be reached: connection refused.")


def run_pipeline(
    instance: dg.DagsterInstance,
    day: str = DAY,
    *,
    failing: Exception | None = None,
    covered: bool = True,
    tags: dict[str, str] | None = None,
    only: str = "*",
) -> dg.ExecuteInProcessResult:
    """Materialise the day; its model step fails, or its coverage check."""
    trouble.model, trouble.covered = failing, covered
    return dg.materialize(
        ASSETS, partition_key=day, instance=instance, raise_on_error=False, tags=tags, selection=only
    )
