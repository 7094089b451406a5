"""What a step shows in the Dagster UI: counts, previews, plots, links, verdicts."""

import uuid
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from reco_assets.recommender.quality import Verdict

if TYPE_CHECKING:
    from reco_assets.pipeline.fitting import Evaluation, RegisteredVersion
    from reco_assets.pipeline.publication import ComputedLists
    from reco_assets.recommender.evaluation import HoldoutReport
    from reco_assets.recommender.interaction_log import InteractionLog
    from reco_assets.recommender.interaction_matrix import InteractionMatrix
    from reco_assets.recommender.user_knn import UserKNNRecommender
    from reco_assets.store.extract import DayExtract
    from reco_assets.store.publish import Publication

_PREVIEW_ROWS = 10
Metadata = dict[str, Any]


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> dg.MarkdownMetadataValue:
    """A table in the Markdown that Dagster renders."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return dg.MetadataValue.md("\n".join(lines))


def check_result(verdict: Verdict, *, name: str | None = None, blocking: bool = True) -> dg.AssetCheckResult:
    """A verdict as Dagster shows it; alerts read `value`, `limit` and `message`."""
    return dg.AssetCheckResult(
        check_name=name,
        passed=verdict.passed,
        severity=dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN,
        description=verdict.message,
        metadata={"value": float(verdict.value), "limit": float(verdict.limit), "message": verdict.message},
    )


def extraction_metadata(extracts: "Sequence[DayExtract]") -> Metadata:
    """Rows per day, and what was left out and why."""
    reasons = sorted({reason for extract in extracts for reason in extract.rejected})
    return {
        "dagster/row_count": sum(extract.n_rows for extract in extracts),
        "rejected_rows": sum(sum(extract.rejected.values()) for extract in extracts),
        "days": table(
            ["day", "rows", *reasons],
            [
                [extract.day, f"{extract.n_rows:,}", *(extract.rejected.get(reason, 0) for reason in reasons)]
                for extract in extracts[-31:]
            ],
        ),
    }


def matrix_metadata(log: "InteractionLog", matrix: "InteractionMatrix", days: Sequence[date]) -> Metadata:
    """Size, density, and the busiest users and posts."""
    import numpy as np

    n_cells = max(1, log.n_users * log.n_posts)
    readers = np.bincount(matrix.weights.indices, minlength=log.n_posts)
    busiest = np.argsort(-readers, kind="stable")[:_PREVIEW_ROWS]
    return {
        "dagster/row_count": log.n_interactions,
        "n_users": log.n_users,
        "n_posts": log.n_posts,
        "n_eligible_posts": int(np.count_nonzero(log.post_eligible)),
        "n_pairs": int(matrix.weights.nnz),
        "density": round(matrix.weights.nnz / n_cells, 6),
        "window": f"{days[0]} … {days[-1]}",
        "most_read_posts": table(
            ["post_id", "readers"],
            [[_uuid(log.post_ids[post]), int(readers[post])] for post in busiest if readers[post]],
        ),
    }


def model_metadata(
    model: "UserKNNRecommender",
    evaluation: "Evaluation",
    registered: "RegisteredVersion",
    provenance: Metadata,
    mlflow_url: str,
) -> Metadata:
    """Size, quality beside the baselines, the plot, and the way to MLflow."""
    from reco_assets.pipeline.plots import as_markdown_image, holdout_plot

    report = evaluation.report
    metadata: Metadata = {"verdict": evaluation.verdict.message}
    if report.metrics:
        names = sorted(report.metrics, key=lambda name: -report.metrics[name]["ndcg"])
        metadata["holdout"] = table(
            ["recommender", f"NDCG@{report.k}", f"hit rate@{report.k}", "recall", "coverage"],
            [
                [name, *(f"{report.metrics[name][m]:.4f}" for m in ("ndcg", "hr", "recall", "coverage"))]
                for name in names
            ],
        )
        metadata |= _quality_over_time(report)
        metadata["holdout_plot"] = dg.MetadataValue.md(
            as_markdown_image(holdout_plot(report), "hold-out quality beside the baselines")
        )
    metadata |= {
        "mlflow_run": dg.MetadataValue.url(_run_url(registered, mlflow_url)),
        "n_user_days": report.n_user_days,
        "n_users": model.n_users_,
        "n_posts": model.n_posts_,
        "n_active_users": len(model.active_users_),
        "n_neighbors": int(model.neighbors_.shape[1]),
        **provenance,
    }
    return metadata


def _quality_over_time(report: "HoldoutReport") -> Metadata:
    """Numbers that Dagster plots over the partitions."""
    strongest = report.strongest
    assert strongest is not None
    return {
        "ndcg": report.metrics[report.model]["ndcg"],
        "ndcg_of_strongest_baseline": report.metrics[strongest.baseline]["ndcg"],
        "ndcg_difference": strongest.difference,
        "hit_rate": report.metrics[report.model]["hr"],
        "coverage": report.metrics[report.model]["coverage"],
    }


def lists_metadata(
    computed: "ComputedLists", publication: "Publication", registered: "RegisteredVersion", mlflow_url: str
) -> Metadata:
    """What was computed and what became of it."""
    lists = computed.lists
    preview = slice(0, _PREVIEW_ROWS)
    return {
        "dagster/row_count": len(lists),
        "n_users": lists.n_users,
        "status": publication.status,
        "outcome": publication.message or "Published: these lists are live.",
        "generation_id": str(publication.generation_id),
        "model_version": registered.version_name,
        "mlflow_run": dg.MetadataValue.url(_run_url(registered, mlflow_url)),
        "published_rows": publication.n_recommendations,
        "dropped_rows": dg.MetadataValue.json(dict(publication.dropped_reasons)),
        "archive": dg.MetadataValue.path(str(computed.path)),
        "preview": table(
            ["user_id", "rank", "post_id", "score"],
            [
                [_uuid(user), rank, _uuid(post), f"{score:.4f}"]
                for user, rank, post, score in zip(
                    computed.user_ids()[preview],
                    lists.rank[preview],
                    computed.post_ids()[preview],
                    lists.score[preview],
                    strict=True,
                )
            ],
        ),
    }


def utc_now() -> datetime:
    """The clock of the edge; everything below takes `now` as an argument."""
    return datetime.now(UTC)


def _run_url(registered: "RegisteredVersion", mlflow_url: str) -> str:
    return f"{mlflow_url}/#/experiments/{registered.experiment_id}/runs/{registered.mlflow_run_id}"


def _uuid(raw: Any) -> uuid.UUID:
    return uuid.UUID(bytes=raw.tobytes())
