"""MLflow: the run that dagster-mlflow ties to a Dagster run, and the model registry.

MLflow takes seconds to import, so it is imported when a step first needs it.
"""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from reco_assets import __version__
from reco_assets.errors import ModelNotFound, TrackingUnavailable
from reco_assets.settings import Settings, redact

CHAMPION = "champion"
"""Alias of the model version whose lists are live."""


@dg.resource(
    config_schema={
        "experiment_name": dg.Field(dg.Noneable(str), default_value=None, is_required=False),
        "mlflow_tracking_uri": dg.Field(dg.Noneable(str), default_value=None, is_required=False),
        "parent_run_id": dg.Field(dg.Noneable(str), default_value=None, is_required=False),
        "mlflow_run_id": dg.Field(dg.Noneable(str), default_value=None, is_required=False),
        "env": dg.Field(dict, is_required=False),
        "extra_tags": dg.Field(dict, is_required=False),
    },
    description="dagster-mlflow's tracking resource: one MLflow run per Dagster run.",
)
def mlflow_run(context: dg.InitResourceContext) -> Iterator[Any]:
    """Open the MLflow run, and close it with the status the Dagster run really had.

    Only an asset that logs should require this: initialising it opens an MLflow run. Without the
    `finally` the run would stay RUNNING, because the hook that ends it belongs to jobs, not assets.
    """
    # What they say at every run and nobody here can change.
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    for name, value in (
        ("MLFLOW_LOGGING_LEVEL", "WARNING"),
        ("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false"),
        ("GIT_PYTHON_REFRESH", "quiet"),  # where there is no git
    ):
        os.environ.setdefault(name, value)
    logging.getLogger("mlflow.utils.git_utils").setLevel(logging.ERROR)
    import mlflow
    from dagster_mlflow import mlflow_tracking

    settings = Settings.load()
    defaults = {"experiment_name": settings.mlflow_experiment, "mlflow_tracking_uri": settings.tracking_uri}
    given = {name: value for name, value in context.resource_config.items() if value}
    mlflow.set_tracking_uri(given.get("mlflow_tracking_uri", settings.tracking_uri))
    name = given.get("experiment_name", settings.mlflow_experiment)
    if settings.mlflow_tracking_uri is None and mlflow.get_experiment_by_name(name) is None:
        # Left to itself, a store without a server puts artifacts below the current directory. Another
        # run may create the experiment in the same instant; then it is there, which is all we want.
        try:
            mlflow.create_experiment(name, artifact_location=settings.artifact_root)
        except mlflow.exceptions.MlflowException:
            if mlflow.get_experiment_by_name(name) is None:
                raise
    configured = context.replace_config({"env": {}, "extra_tags": {}} | defaults | given)
    try:
        yield from mlflow_tracking.resource_fn(configured)
    finally:
        mlflow.end_run("FAILED" if _a_step_failed(context) else "FINISHED")


@contextmanager
def tracking_errors(tracking_uri: str) -> Iterator[None]:
    """MLflow's own failures and those of the way to it, as `TrackingUnavailable`."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError) as error:
        raise TrackingUnavailable(
            f"MLflow at {redact(tracking_uri)} did not take what was logged: {error}. Check that it is up "
            "and RECO_MLFLOW_TRACKING_URI, then run the same command again."
        ) from error


def _a_step_failed(context: dg.InitResourceContext) -> bool:
    if context.instance is None or context.run is None:
        return False
    return bool(context.instance.all_logs(context.run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE))


class ModelRegistry(dg.ConfigurableResource):
    """Registered versions of the model and the alias that marks the live one.

    The tracking URI is read from the environment when it is needed: it may hold a password, and what
    is configured on a resource shows in the UI.
    """

    model_name: str

    @property
    def tracking_uri(self) -> str:
        """Where MLflow's registry is."""
        return Settings.load().tracking_uri

    def version_name(self, version: int | str) -> str:
        """`collaborative_filtering_v7` for version 7 of `collaborative_filtering`."""
        return f"{self.model_name}_v{version}"

    def version_of(self, version_name: str) -> int:
        """7 for `collaborative_filtering_v7`."""
        return int(version_name.rpartition("_v")[2])

    def register(self, model_directory: Path, *, n_recommendations: int, tags: dict[str, str]) -> int:
        """Log the model to the active MLflow run, with its signature, and register it.

        Returns:
            The new registry version.
        """
        import mlflow

        from reco_assets.resources.registered_model import code_path, signature

        with warnings.catch_warnings():
            # Asks for type hints or an input example to infer a signature from; it has a signature.
            warnings.simplefilter("ignore", UserWarning)
            logged = mlflow.pyfunc.log_model(
                name="model",
                # Code by path, arrays as artifacts: nothing is pickled, nothing depends on a class's layout.
                python_model=str(code_path()),
                artifacts={"model": str(model_directory)},
                signature=signature(n_recommendations),
                pip_requirements=[f"reco-assets=={__version__}"],
                registered_model_name=self.model_name,
                await_registration_for=60,
            )
        version = int(logged.registered_model_version)
        client = self._client()
        for name, value in tags.items():
            client.set_model_version_tag(self.model_name, str(version), name, value)
        return version

    def set_champion(self, version: int) -> None:
        """Point the alias `champion` at the version whose lists are live; nothing to do is fine.

        Raises:
            TrackingUnavailable: MLflow did not answer.
        """
        with tracking_errors(self.tracking_uri):
            client = self._client()
            aliases = client.get_registered_model(self.model_name).aliases
            if str(aliases.get(CHAMPION)) != str(version):
                client.set_registered_model_alias(self.model_name, CHAMPION, str(version))

    def download(self, version: int | str) -> Path:
        """Local directory of a version's model artifact (`UserKNNRecommender.load` reads it).

        Args:
            version: A number, or `champion`.

        Raises:
            ModelNotFound: No such version.
        """
        import mlflow
        from mlflow.exceptions import MlflowException

        separator = "@" if version == CHAMPION else "/"
        mlflow.set_tracking_uri(self.tracking_uri)
        try:
            local = mlflow.artifacts.download_artifacts(f"models:/{self.model_name}{separator}{version}")
        except MlflowException as error:
            raise ModelNotFound(
                f"No version {version} of {self.model_name} at {redact(self.tracking_uri)}: {error.message}"
            ) from error
        return Path(local) / "artifacts" / "model"

    def _client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.tracking_uri)
