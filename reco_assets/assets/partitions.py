"""What all assets share: the daily partitions, how a step reports failure, and how it is retried."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

import dagster as dg

from reco_assets.errors import RecoError
from reco_assets.settings import Settings

GROUP = "recommendations"
OWNERS = ["team:recommendations"]

daily_partitions = dg.DailyPartitionsDefinition(
    start_date=Settings.load().start_date.isoformat(), timezone="UTC"
)
"""Partition D holds the interactions with `created_at` in [D, D + 1), UTC."""

retry_transient_errors = dg.RetryPolicy(max_retries=2, delay=3, backoff=dg.Backoff.EXPONENTIAL)
"""For a lost connection or a busy lock. `explained` keeps it from repeating what cannot get better."""


def daily_asset(
    *,
    backfill_policy: dg.BackfillPolicy = dg.BackfillPolicy.multi_run(max_partitions_per_run=1),  # noqa: B008
    **arguments: Any,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """`dg.asset` with what all assets of the pipeline have in common; a backfill takes a run per day."""
    decorate: Callable[[Callable[..., Any]], dg.AssetsDefinition] = dg.asset(
        partitions_def=daily_partitions,
        backfill_policy=backfill_policy,
        retry_policy=retry_transient_errors,
        group_name=GROUP,
        owners=OWNERS,
        **arguments,
    )
    return decorate


@contextmanager
def explained() -> Iterator[None]:
    """Turn errors into failures that show their message alone, retried only where that can help.

    A defect (any error that is not ours) fails at once: repeating a step does not mend it.
    """
    try:
        yield
    except dg.Failure:
        raise
    except RecoError as error:
        raise dg.Failure(
            description=str(error),
            metadata={"error": type(error).__name__, "retried": error.transient},
            allow_retries=error.transient,
        ) from error
    except Exception as error:
        raise dg.Failure(
            description=f"{type(error).__name__}: {error}",
            metadata={"error": type(error).__name__, "retried": False},
            allow_retries=False,
        ) from error


def partition_day(context: dg.AssetExecutionContext) -> date:
    """The day of a run over one partition."""
    return date.fromisoformat(context.partition_key)
