"""Backtest on the public CI&T Deskdrop set ("Articles sharing and reading", Kaggle).

    python benchmarks/deskdrop.py deskdrop.csv.gz [--months 10 11] [--quick] [--without-newcomers]

The file has the columns user, item, type and timestamp (UTC seconds). For every day of the months
all recommenders are fitted at 00:00 UTC on the 90 days before and asked for 10 unread posts that
existed by then; the day's readers judge. Prints a table, with the machine and the versions.
"""

import argparse
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.feeds import interaction_log, numbered_ids
from benchmarks.machine import in_one_line
from reco_assets.events import DEFAULT_INTERACTION_WEIGHTS
from reco_assets.recommender.baselines import NewestRecommender, PopularityRecommender, RandomRecommender
from reco_assets.recommender.evaluation import judge_day, summarise
from reco_assets.recommender.fit_inputs import Recommender
from reco_assets.recommender.interaction_log import MICROSECONDS_PER_DAY, UNKNOWN_TIME, InteractionLog
from reco_assets.recommender.user_knn import UserKNNRecommender
from reco_assets.store.demo_data import INTERACTION_TYPES

YEAR = 2016
WINDOW_DAYS = 90
TYPES = {"view": "view", "like": "like", "bookmark": "share", "comment": "share", "follow": "share"}


def read_log(path: Path) -> InteractionLog:
    """The whole file; a post counts as created when it is first seen."""
    frame = pd.read_csv(path, dtype={"user": str, "item": str}).drop_duplicates()
    users, user_ids = pd.factorize(frame["user"], sort=True)
    posts, post_ids = pd.factorize(frame["item"], sort=True)
    return interaction_log(
        numbered_ids(len(user_ids)),  # the set's own ids are not UUIDs
        numbered_ids(len(post_ids)),
        user_index=users,
        post_index=posts,
        interaction_type=frame["type"].map(TYPES).map(INTERACTION_TYPES.index).to_numpy(np.int8),
        created_at=frame["timestamp"].to_numpy(np.int64) * 1_000_000,
        post_created_at=np.full(len(post_ids), UNKNOWN_TIME),
    )


def window(log: InteractionLog, start_us: int) -> InteractionLog:
    """The log without the events before `start_us`; the times posts were first seen stay known."""
    return _only(replace(log, post_created_at=log.post_known_since()), log.created_at >= start_us)


def without_newcomers(log: InteractionLog, events: InteractionLog, day_us: int) -> InteractionLog:
    """`events` whose judges, from `day_us` on, are readers of the window, by posts they had never read.

    The pipeline serves everybody and forgets what was read before its window, so it judges both.
    """
    n_posts = max(1, log.n_posts)
    pairs, past = log.user_index.astype(np.int64) * n_posts + log.post_index, log.created_at < day_us
    judges = np.isin(events.user_index, events.user_index[events.created_at < day_us])
    read_before = np.isin(events.user_index.astype(np.int64) * n_posts + events.post_index, pairs[past])
    return _only(events, (events.created_at < day_us) | (judges & ~read_before))


def _only(log: InteractionLog, kept: npt.NDArray[np.bool_]) -> InteractionLog:
    return replace(
        log,
        user_index=log.user_index[kept],
        post_index=log.post_index[kept],
        interaction_type=log.interaction_type[kept],
        created_at=log.created_at[kept],
    )


def recommenders(quick: bool) -> dict[str, Recommender]:
    """The rows of the table; every `knn, …` row changes one setting of the default."""
    rows: dict[str, Recommender] = {
        "random": RandomRecommender(rng=np.random.default_rng(0)),
        "newest first": NewestRecommender(),
        "popularity, whole window": PopularityRecommender(),
        "popularity, half-life 12 h": PopularityRecommender(half_life_days=0.5),
        "popularity, half-life 6 h": PopularityRecommender(half_life_days=0.25),
        "popularity, 6 h × freshness 2 d": PopularityRecommender(
            half_life_days=0.25, freshness_half_life_days=2.0
        ),
        "knn, defaults": UserKNNRecommender(),
    }
    if quick:
        return rows
    changes: dict[str, tuple[Any, ...]] = {
        "n_neighbors": (20, 50, 100, 300),
        "similarity_weighting": ("none", "tfidf", "sqrt_tfidf", "bm25_users", "bm25_posts"),
        "similarity_window_days": (14,),
        "shrinkage": (10.0,),
        "min_overlap": (2,),
        "vote_weighting": ("raw", "sqrt"),
        "vote_half_life_days": (0.5, 2.0, 3.0, None),
        "freshness_half_life_days": (0.5, 2.0, None),
        "popularity_blend": (0.0, 0.1, 0.3, 0.5),
        "popularity_half_life_days": (0.125, 0.5, 1.0),
    }
    for name, values in changes.items():
        for value in values:
            rows[f"knn, {name} {value}"] = UserKNNRecommender(**{name: value})
    return rows


def main() -> None:
    """Judge every day and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--months", type=int, nargs="+", default=[10, 11], help="of 2016 (default: 10 11)")
    parser.add_argument("--quick", action="store_true", help="baselines and the defaults only")
    parser.add_argument(
        "--without-newcomers",
        action="store_true",
        help="judge by readers with a history in the window, on posts they never read before it either",
    )
    arguments = parser.parse_args()

    log = read_log(arguments.file)
    started = time.perf_counter()
    rows = recommenders(arguments.quick)
    days = []
    for month in arguments.months:
        day = datetime(YEAR, month, 1, tzinfo=UTC)
        while day.month == month:
            day_us = int(day.timestamp()) * 1_000_000
            events = window(log, day_us - WINDOW_DAYS * MICROSECONDS_PER_DAY)
            if arguments.without_newcomers:
                events = without_newcomers(log, events, day_us)
            days.append(judge_day(rows, events, day_us, interaction_weights=DEFAULT_INTERACTION_WEIGHTS))
            day = datetime.fromtimestamp(day_us / 1e6 + 86_400, tz=UTC)
    report = summarise(days, model="knn, defaults", k=10, rng=np.random.default_rng(0))

    print(in_one_line())
    print(
        f"CI&T Deskdrop, {log.n_interactions:,} events; months {arguments.months} of {YEAR}: "
        f"{report.n_days} days, {report.n_user_days:,} user-days; {time.perf_counter() - started:.0f} s\n"
    )
    print("| @10 | HR | NDCG | recall | MRR | coverage | NDCG of defaults − this [95 %] |")
    print("|---|---|---|---|---|---|---|")
    compared = {c.baseline: c for c in report.comparisons}
    for name, m in report.metrics.items():
        against = compared.get(name)
        delta = (
            f"{against.difference:+.3f} [{against.ci_low:+.3f}, {against.ci_high:+.3f}]" if against else ""
        )
        print(
            f"| {name} | {m['hr']:.3f} | {m['ndcg']:.3f} | {m['recall']:.3f} | {m['mrr']:.3f} "
            f"| {m['coverage']:.3f} | {delta} |"
        )


if __name__ == "__main__":
    main()
