"""What all assets share: the daily partitions, how a step reports failure, and how it is retried."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any, Final

import dagster as dg

from reco_assets.errors import FitCancelled, RecoError
from reco_assets.settings import Settings

GROUP = "recommendations"
OWNERS = ["team:recommendations"]

daily_partitions = dg.DailyPartitionsDefinition(
    start_date=Settings.load().start_date.isoformat(), timezone="UTC"
)
"""Partition D holds the interactions with `created_at` in [D, D + 1), UTC."""

MAX_RETRIES: Final = 2
RETRY_DELAY_S: Final = 3.0
"""Before a step is tried again after a lost connection or a busy lock; the second time, three times that."""


def daily_asset(
    *,
    backfill_policy: dg.BackfillPolicy = dg.BackfillPolicy.multi_run(max_partitions_per_run=1),  # noqa: B008
    **arguments: Any,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """`dg.asset` with what all assets of the pipeline have in common; a backfill takes a run per day.

    Without a `RetryPolicy`: Dagster applies it to interrupts too, so that terminating a run would start its
    step again. `explained` asks for the retries.
    """
    decorate: Callable[[Callable[..., Any]], dg.AssetsDefinition] = dg.asset(
        partitions_def=daily_partitions,
        backfill_policy=backfill_policy,
        group_name=GROUP,
        owners=OWNERS,
        **arguments,
    )
    return decorate


@contextmanager
def explained(context: dg.AssetExecutionContext | None = None) -> Iterator[None]:
    """Turn errors into failures that show their message alone, retried only where that can help.

    A defect (any error that is not ours) fails at once: repeating a step does not mend it. A computation
    that stopped because its run is to end says so to Dagster, as if interrupted by a signal.

    Args:
        context: of the asset whose step is tried again after a transient error; None: it is not.
    """
    try:
        yield
    except dg.Failure:
        raise
    except (FitCancelled, dg.DagsterExecutionInterruptedError) as stopped:
        raise dg.DagsterExecutionInterruptedError(
            f"{str(stopped) or 'Interrupted.'} The step was left unfinished; run the same again."
        ) from None
    except RecoError as error:
        failure = dg.Failure(
            description=str(error),
            metadata={"error": type(error).__name__, "retried": error.transient},
            allow_retries=error.transient,
        )
        if error.transient and context is not None:
            raise dg.RetryRequested(MAX_RETRIES, RETRY_DELAY_S * 3**context.retry_number) from failure
        raise failure from error
    except Exception as error:
        raise dg.Failure(
            description=f"{type(error).__name__}: {error}",
            metadata={"error": type(error).__name__, "retried": False},
            allow_retries=False,
        ) from error


def partition_day(context: dg.AssetExecutionContext) -> date:
    """The day of a run over one partition."""
    return date.fromisoformat(context.partition_key)
