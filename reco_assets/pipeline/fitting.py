"""Fit a day's model, judge it, and put both on record."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np

from reco_assets.errors import CorruptArtifact
from reco_assets.names import MODEL_SEGMENT, end_of_day_us
from reco_assets.pipeline.plots import holdout_plot
from reco_assets.pipeline.step_watch import UNWATCHED, StepWatch
from reco_assets.recommender.artifact import artifact_digest
from reco_assets.recommender.baselines import default_baselines
from reco_assets.recommender.evaluation import HoldoutReport, evaluate
from reco_assets.recommender.fit_inputs import fit_matrix
from reco_assets.recommender.interaction_log import InteractionLog
from reco_assets.recommender.interaction_matrix import InteractionMatrix
from reco_assets.recommender.quality import Verdict, model_not_worse_than_baseline
from reco_assets.recommender.user_knn import UserKNNRecommender
from reco_assets.resources.mlflow_tracking import ModelRegistry, tracking_errors
from reco_assets.resources.storage import FileStorage, read_json, write_json
from reco_assets.store.quality_metrics import QualityMetric, record_metrics

if TYPE_CHECKING:
    from sqlalchemy import Connection


@dataclass(frozen=True)
class Evaluation:
    """How good the model is, whether that is good enough, and which files that was said about.

    Attributes:
        report: The hold-out.
        verdict: On it.
        model_digest: Of the model that was fitted with the same parameters on the same log.
        log_digest: Of the interaction log.
    """

    report: HoldoutReport
    verdict: Verdict
    model_digest: str
    log_digest: str


@dataclass(frozen=True)
class RegisteredVersion:
    """Where a fitted model is on record.

    Attributes:
        version: number in the registry.
        version_name: what rows and answers carry, for example `collaborative_filtering_v7`.
        mlflow_run_id, experiment_id: of the MLflow run.
        digest: SHA-256 of the model's manifest, which holds the digests of all its files.
    """

    version: int
    version_name: str
    mlflow_run_id: str
    experiment_id: str
    digest: str


def fit_model(
    storage: FileStorage, day: date, parameters: Mapping[str, Any], watch: StepWatch = UNWATCHED
) -> UserKNNRecommender:
    """Fit on the day's matrix and write the model's files.

    Raises:
        CorruptArtifact: The files of the matrix do not belong together.
        FitCancelled: The run was asked to stop; the day's previous model stays.
    """
    redo = f"reco run --partition {day}"
    built = read_json(storage.matrix_settings(day), redo)
    for name, directory in (("log_digest", storage.log(day)), ("matrix_digest", storage.matrix(day))):
        if directory.exists() and built.get(name) != artifact_digest(directory):
            raise CorruptArtifact(
                f"{directory} was not written together with {storage.matrix_settings(day)}: a run was "
                f"cut off between them. Build them again: `{redo} --assets interaction_matrix`."
            )
    log = InteractionLog.load(storage.log(day), redo=redo)
    matrix = InteractionMatrix.load(storage.matrix(day), redo=redo)
    watch.say(f"Fitting {log.n_users:,} users × {log.n_posts:,} posts, {matrix.weights.nnz:,} pairs")
    model = fit_matrix(
        UserKNNRecommender(**parameters),
        matrix,
        log,
        progress=watch.progress("Neighbours"),
        should_stop=watch.should_stop,
    )
    model.save(storage.model(day))
    return model


def evaluate_model(
    storage: FileStorage,
    day: date,
    parameters: Mapping[str, Any],
    holdout_days: int,
    watch: StepWatch = UNWATCHED,
) -> Evaluation:
    """Judge the same parameters on the last days by refits on what was known before each of them.

    Raises:
        FitCancelled: The run was asked to stop.
    """
    redo = f"reco run --partition {day}"
    settings = read_json(storage.matrix_settings(day), redo)
    report = evaluate(
        UserKNNRecommender(**parameters),
        InteractionLog.load(storage.log(day), redo=redo),
        as_of_us=end_of_day_us(day),
        # Seeded by the day: a replay draws the same resamples and the same random lists.
        baselines=default_baselines(np.random.default_rng([1, day.toordinal()])),
        rng=np.random.default_rng([2, day.toordinal()]),
        interaction_weights=settings["interaction_weights"],
        max_repeats=settings["max_repeats"],
        holdout_days=holdout_days,
        model_name=MODEL_SEGMENT,
        progress=watch.progress("Hold-out", "days"),
        should_stop=watch.should_stop,
    )
    evaluation = Evaluation(
        report,
        model_not_worse_than_baseline(report),
        artifact_digest(storage.model(day)),
        artifact_digest(storage.log(day)),
    )
    write_json(
        storage.evaluation(day),
        {
            "report": report.to_dict(),
            "verdict": asdict(evaluation.verdict),
            "model_digest": evaluation.model_digest,
            "log_digest": evaluation.log_digest,
        },
    )
    return evaluation


def model_verdict(storage: FileStorage, day: date) -> Verdict:
    """What `evaluate_model` found about the model and the log that are there now.

    Raises:
        CorruptArtifact: It was said about other ones.
    """
    redo = f"reco run --partition {day} --assets user_knn_model,user_recommendations"
    evaluation = read_json(storage.evaluation(day), redo)
    for name, directory in (("model_digest", storage.model(day)), ("log_digest", storage.log(day))):
        if evaluation.get(name) != artifact_digest(directory):
            raise CorruptArtifact(
                f"{storage.evaluation(day)} was written about another {directory.name} than the one at "
                f"{directory}, which was rebuilt since. Fit and judge again: `{redo}`."
            )
    return Verdict(**evaluation["verdict"])


def write_matrix(
    storage: FileStorage,
    day: date,
    log: InteractionLog,
    matrix: InteractionMatrix,
    settings: Mapping[str, Any],
) -> None:
    """Write log and matrix, and last what ties them together: a run cut off between them is noticed."""
    log.save(storage.log(day))
    matrix.save(storage.matrix(day))
    digests = {
        "log_digest": artifact_digest(storage.log(day)),
        "matrix_digest": artifact_digest(storage.matrix(day)),
    }
    write_json(storage.matrix_settings(day), dict(settings) | digests)


def register_model(
    mlflow: Any,
    registry: ModelRegistry,
    storage: FileStorage,
    day: date,
    model: UserKNNRecommender,
    evaluation: Evaluation,
) -> RegisteredVersion:
    """Log parameters, metrics, the plot and the artifact to the active MLflow run; register the model."""
    digest = evaluation.model_digest
    with tracking_errors(registry.tracking_uri):
        run = mlflow.active_run().info
        mlflow.set_tag("mlflow.runName", str(day))
        mlflow.log_params(
            model.get_params() | {"partition": str(day)} | read_json(storage.matrix_settings(day), "")
        )
        mlflow.log_metrics(
            {
                f"{name}.{metric}": value
                for name, metrics in evaluation.report.metrics.items()
                for metric, value in metrics.items()
            }
            | {
                "n_user_days": evaluation.report.n_user_days,
                "n_users": model.n_users_,
                "n_posts": model.n_posts_,
            }
        )
        mlflow.log_figure(holdout_plot(evaluation.report), "holdout.png")
        mlflow.log_artifact(str(storage.evaluation(day)))
        version = registry.register(
            storage.model(day),
            n_recommendations=model.n_recommendations,
            tags={"partition": str(day), "digest": digest},
        )
    return RegisteredVersion(version, registry.version_name(version), run.run_id, run.experiment_id, digest)


def record_quality(connection: "Connection", day: date, evaluation: Evaluation, version_name: str) -> None:
    """One row per metric and recommender in `quality_metrics`."""
    report = evaluation.report
    metrics = [
        QualityMetric(day, f"holdout_{metric}", value, name, n=report.n_user_days, model_version=version_name)
        for name, values in report.metrics.items()
        for metric, value in values.items()
    ]
    metrics += [
        QualityMetric(
            day,
            "holdout_ndcg_difference",
            comparison.difference,
            comparison.baseline,
            lower=comparison.ci_low,
            upper=comparison.ci_high,
            n=report.n_user_days,
            model_version=version_name,
        )
        for comparison in report.comparisons
    ]
    record_metrics(connection, metrics)
