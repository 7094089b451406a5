"""What a newcomer wants to see after a run: times, counts, quality, and one list with its evidence."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from reco_assets.cli.explained_list import explain_list, print_list
from reco_assets.cli.runs import step_times
from reco_assets.names import MODEL_SEGMENT
from reco_assets.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

_SHOWN_POSTS = 5
_SHOWN_VOTERS = 2


def print_report(settings: Settings, engine: "Engine", instance: dg.DagsterInstance) -> None:
    """Print what is on record about the live generation; computes nothing anew."""
    from rich.console import Console
    from rich.table import Table

    from reco_assets.store.database import transaction
    from reco_assets.store.generations import live_generation
    from reco_assets.store.lookups import table_counts
    from reco_assets.store.quality_metrics import read_metrics

    console = Console(highlight=False, soft_wrap=True)
    with transaction(engine) as connection:
        live = live_generation(connection)
        if live is None:
            console.print("Nothing is published.")
            return
        counts = table_counts(connection, now=datetime.now(UTC))
        day = live.partition_date
        measured = read_metrics(connection, day, day + timedelta(days=1))
        metrics = {(row.metric, row.segment): row for row in measured}

    if live.dagster_run_id and instance.has_run(live.dagster_run_id):
        console.print(f"\n[bold]Time per step[/] (run {live.dagster_run_id[:8]})")
        for step in step_times(instance, live.dagster_run_id):
            console.print(f"  {step.name:<34}{step.seconds:6.1f} s")

    console.print("\n[bold]Counts[/]")
    for name, number in (
        ("users", counts.n_users),
        ("posts", counts.n_posts),
        ("interactions", counts.n_interactions),
        ("recommendations", counts.n_recommendations),
        ("users with recommendations", counts.n_users_with_recommendations),
    ):
        console.print(f"  {name:<34}{number:>10,}")
    console.print(
        f"  live generation: {live.n_recommendations:,} recommendations for {live.n_users:,} users, "
        f"{live.model_version}, for {live.partition_date}"
    )

    quality = Table(box=None, padding=(0, 2))
    quality.add_column("recommender")
    for title in ("NDCG@10", "hit rate@10", "coverage"):
        quality.add_column(title, justify="right")
    segments = [segment for metric, segment in metrics if metric == "holdout_ndcg"]
    for segment in sorted(segments, key=lambda name: -metrics["holdout_ndcg", name].value):
        style = "bold cyan" if segment == MODEL_SEGMENT else ""
        quality.add_row(
            segment.replace("_", " "),
            *(f"{metrics[f'holdout_{m}', segment].value:.4f}" for m in ("ndcg", "hr", "coverage")),
            style=style,
        )
    if segments:
        n = metrics["holdout_ndcg", segments[0]].n
        console.print(f"\n[bold]Quality[/] on a temporal hold-out of the last days ({n:,} user-days)")
        console.print(quality)
        strongest = max(
            (s for s in segments if s != MODEL_SEGMENT), key=lambda s: metrics["holdout_ndcg", s].value
        )
        row = metrics.get(("holdout_ndcg_difference", strongest))
        if row is not None and row.lower is not None and row.upper is not None:
            console.print(
                f"  over {strongest.replace('_', ' ')}: NDCG {row.value:+.4f} "
                f"(95 % interval {row.lower:+.4f} … {row.upper:+.4f})",
                markup=False,
            )
    console.print("\n[bold]One user's list[/]")
    print_list(explain_list(settings, None, _SHOWN_POSTS, _SHOWN_VOTERS))
