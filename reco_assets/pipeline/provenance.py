"""From a fitted partition back to its MLflow run and registry version, through Dagster's event log."""

from datetime import date

import dagster as dg

from reco_assets.errors import MissingUpstream
from reco_assets.names import USER_KNN_MODEL
from reco_assets.pipeline.fitting import RegisteredVersion

_FIELDS = ("version", "version_name", "mlflow_run_id", "experiment_id", "digest")


def provenance_metadata(registered: RegisteredVersion) -> dict[str, str | int]:
    """What `registered_version` finds again."""
    return {name: getattr(registered, name) for name in _FIELDS}


def registered_version(instance: dg.DagsterInstance, day: date) -> RegisteredVersion:
    """The version that the partition's newest materialisation of `user_knn_model` registered.

    Raises:
        MissingUpstream: The partition was never fitted in this Dagster instance.
    """
    key = dg.AssetKey(USER_KNN_MODEL)
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=key, asset_partitions=[str(day)]), limit=1
    ).records
    found = records[0].asset_materialization if records else None
    if found is None or any(name not in found.metadata for name in _FIELDS):
        raise MissingUpstream(
            f"user_knn_model was not materialised for {day} in this Dagster instance. "
            f"Run `reco run --partition {day}`."
        )
    values = {name: found.metadata[name].value for name in _FIELDS}
    return RegisteredVersion(
        version=int(str(values["version"])),
        version_name=str(values["version_name"]),
        mlflow_run_id=str(values["mlflow_run_id"]),
        experiment_id=str(values["experiment_id"]),
        digest=str(values["digest"]),
    )
