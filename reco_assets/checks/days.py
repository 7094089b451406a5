"""Which partitions a check is about."""

from datetime import date

import dagster as dg

from reco_assets.errors import MissingUpstream


def checked_days(context: dg.AssetCheckExecutionContext, asset: str) -> list[date]:
    """The run's partitions; executed alone, without any, the newest day that was materialised."""
    op = context.op_execution_context
    if op.has_partition_key or op.has_partition_key_range:
        return [date.fromisoformat(key) for key in op.partition_keys]
    materialized = context.instance.get_materialized_partitions(dg.AssetKey(asset))
    if not materialized:
        raise MissingUpstream(f"{asset} was never materialised: there is nothing to check. Run `reco run`.")
    return [date.fromisoformat(max(materialized))]
