"""Plots for the Dagster UI and MLflow."""

import base64
import io
from typing import TYPE_CHECKING

from reco_assets.recommender.evaluation import HoldoutReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def holdout_plot(report: HoldoutReport) -> "Figure":
    """NDCG and hit rate of the model beside the baselines."""
    from matplotlib.figure import Figure

    # Figure, not pyplot: no global state and no window system in a worker.
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    names = sorted(report.metrics, key=lambda name: report.metrics[name]["ndcg"])
    for axis, (metric, title) in zip(axes, (("ndcg", "NDCG"), ("hr", "Hit rate")), strict=True):
        values = [report.metrics[name][metric] for name in names]
        colors = ["#3b6fd4" if name == report.model else "#b9c0cc" for name in names]
        bars = axis.barh([name.replace("_", " ") for name in names], values, color=colors)
        axis.bar_label(bars, fmt="%.3f", padding=3, fontsize=8)
        axis.set_title(f"{title}@{report.k}", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.15)
    figure.suptitle(f"Hold-out: {report.n_user_days:,} user-days over {report.n_days} days", fontsize=10)
    return figure


def as_markdown_image(figure: "Figure", alt: str) -> str:
    """The figure as an inline PNG that Dagster's markdown metadata shows."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return f"![{alt}](data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()})"
