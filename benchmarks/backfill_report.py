"""What a backfill left behind: generations, times, and each day's quality beside the baselines.

    reco exec -- python benchmarks/backfill_report.py 2016-11-17 2016-11-30

Run the backfill with RECO_HOLDOUT_DAYS=1, so that a day's hold-out is that day. Prints Markdown.
"""

import argparse
from collections import defaultdict
from datetime import date, timedelta

import dagster as dg
import numpy as np

from reco_assets.cli.runs import step_times
from reco_assets.settings import Settings
from reco_assets.store.database import create_engine_for, transaction
from reco_assets.store.generations import list_generations
from reco_assets.store.quality_metrics import read_metrics

RECOMMENDERS = ("user_knn", "popularity_x_freshness", "decayed_popularity", "popularity", "newest", "random")


def main() -> None:
    """Print the days, the means and the steps' times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=date.fromisoformat)
    parser.add_argument("last", type=date.fromisoformat)
    arguments = parser.parse_args()
    engine = create_engine_for(Settings.load(), application_name="backfill_report")
    with transaction(engine) as connection:
        generations = {g.partition_date: g for g in reversed(list_generations(connection, limit=1000))}
        measured = read_metrics(connection, arguments.first, arguments.last + timedelta(days=1))
    values = {(m.metric_date, m.metric, m.segment): m for m in measured}
    days = [d for d in sorted(generations) if arguments.first <= d <= arguments.last]

    print("| day | status | lists | rows | user-days | " + " | ".join(RECOMMENDERS) + " |")
    print("| --- | --- | --- | --- | --- |" + " --- |" * len(RECOMMENDERS))
    weights, totals = [], defaultdict(list)
    for day in days:
        generation = generations[day]
        ndcg = [values.get((day, "holdout_ndcg", name)) for name in RECOMMENDERS]
        n = ndcg[0].n if ndcg[0] else 0
        cells = [f"{m.value:.3f}" if m else "–" for m in ndcg]
        size = f"{generation.n_users:,} | {generation.n_recommendations:,}"
        print(f"| {day} | {generation.status} | {size} | {n} | " + " | ".join(cells) + " |")
        if n:
            weights.append(n)
            for name in RECOMMENDERS:
                for metric in ("ndcg", "hr"):
                    totals[name, metric].append(values[day, f"holdout_{metric}", name].value)
    for metric, title in (("ndcg", "NDCG@10"), ("hr", "HR@10")):
        means = [np.average(totals[name, metric], weights=weights) for name in RECOMMENDERS]
        print(f"| **{title}** | | | | {sum(weights)} | " + " | ".join(f"**{m:.3f}**" for m in means) + " |")

    seconds: dict[str, list[float]] = defaultdict(list)
    with dg.DagsterInstance.get() as instance:
        for day in days:
            run_id = generations[day].dagster_run_id
            if run_id and instance.has_run(run_id):
                for step in step_times(instance, run_id):
                    seconds[step.name].append(step.seconds)
    print("\n| step | median s | longest s |\n| --- | --- | --- |")
    for name, each in seconds.items():
        print(f"| {name} | {np.median(each):.2f} | {max(each):.2f} |")


if __name__ == "__main__":
    main()
