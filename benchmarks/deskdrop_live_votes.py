"""Settings of live votes on the public CI&T Deskdrop set, replayed in memory, without a service.

    python -m benchmarks.deskdrop_live_votes deskdrop.csv.gz [--months 8 9]

A fit at each midnight on the 90 days before, then every event in its order: before each new read the user's
ten posts are judged as in `deskdrop_replay`, which does the same through the real service for the defaults.
Who is unknown gets the most popular posts. Each row changes the settings it names; the others are the
defaults of the published lists.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.deskdrop import WINDOW_DAYS, YEAR, read_log
from benchmarks.deskdrop_replay import Judged, K, new_reads
from benchmarks.machine import in_one_line
from reco_assets.events import DEFAULT_INTERACTION_WEIGHTS
from reco_assets.recommender.fit_inputs import fit_matrix
from reco_assets.recommender.interaction_log import MICROSECONDS_PER_DAY, InteractionLog
from reco_assets.recommender.interaction_matrix import InteractionMatrix
from reco_assets.recommender.live_lists import LiveState
from reco_assets.recommender.live_votes import DailyFit, EventBatch, LiveVotes, PostFacts
from reco_assets.recommender.user_knn import UserKNNRecommender
from reco_assets.service_settings import ServiceSettings

_MAX_REPEATS = 3


def rows() -> dict[str, dict[str, Any]]:
    """Parameters by the name of their row."""
    found: dict[str, dict[str, Any]] = {"as the published lists": {}}
    for name, values in {
        "vote_half_life_days": (0.5, 0.25, 0.125),
        "popularity_half_life_days": (0.125, 0.0625),
        "freshness_half_life_days": (0.5, 2.0),
        "popularity_blend": (0.3, 0.4),
        "n_neighbors": (100, 400),
    }.items():
        for value in values:
            found[f"{name} {value}"] = {name: value}
    for vote, popularity, blend in (
        (0.125, 0.0625, 0.2),
        (0.125, 0.04, 0.3),
        (0.25, 0.02, 0.4),
        (0.25, 0.01, 0.4),
        (0.5, 0.02, 0.5),
    ):
        found[f"votes {vote}, popularity {popularity}, blend {blend}"] = {
            "vote_half_life_days": vote,
            "popularity_half_life_days": popularity,
            "popularity_blend": blend,
        }
    shipped = ServiceSettings()
    found["as shipped, popularity alone"] = {
        "popularity_half_life_days": shipped.realtime_popularity_half_life_days,
        "popularity_blend": 1.0,
    }
    return found


def replay(log: InteractionLog, months: list[int], parameters: dict[str, Any]) -> Judged:
    """Judge the new reads of the months; `log` in the order of time, post times known."""
    reads = new_reads(log.user_index, log.post_index, log.created_at)
    judged = Judged()
    for day_us in _days(months):
        live = LiveVotes(_fit(log, day_us, parameters))
        start, stop = np.searchsorted(log.created_at, [day_us, day_us + MICROSECONDS_PER_DAY])
        done = start
        for read in (np.flatnonzero(reads[start:stop]) + start).tolist():
            now_us = int(log.created_at[read])
            now = int(np.searchsorted(log.created_at, now_us))
            _add(live, log, slice(done, now))
            done = max(done, now)
            state, _ = live.tick(now_us)
            answer = state.recommend(log.user_ids[log.user_index[read]].tobytes(), K)
            posts = _popular(state) if answer is None else answer.post_ids
            judged.add([post.hex() for post in posts], log.post_ids[log.post_index[read]].tobytes().hex())
    return judged


def _fit(log: InteractionLog, day_us: int, parameters: dict[str, Any]) -> DailyFit:
    """What a run at midnight leaves: users and posts of the window only."""
    kept = (log.created_at >= day_us - WINDOW_DAYS * MICROSECONDS_PER_DAY) & (log.created_at < day_us)
    users, user_index = np.unique(log.user_index[kept], return_inverse=True)
    posts, post_index = np.unique(log.post_index[kept], return_inverse=True)
    window = replace(
        log,
        user_ids=log.user_ids[users],
        post_ids=log.post_ids[posts],
        user_index=user_index.astype(np.int32),
        post_index=post_index.astype(np.int32),
        interaction_type=log.interaction_type[kept],
        created_at=log.created_at[kept],
        post_created_at=log.post_created_at[posts],
        post_author=log.post_author[posts],
        post_eligible=log.post_eligible[posts],
        user_author=log.user_author[users],
    )
    weights = DEFAULT_INTERACTION_WEIGHTS
    matrix = InteractionMatrix.from_log(window, day_us, interaction_weights=weights, max_repeats=_MAX_REPEATS)
    model = fit_matrix(UserKNNRecommender(**parameters), matrix, window)
    return DailyFit(model, matrix, window, weights, _MAX_REPEATS)


def _add(live: LiveVotes, log: InteractionLog, events: slice) -> None:
    if events.stop <= events.start:
        return
    live.add(
        EventBatch(
            log.user_ids[log.user_index[events]],
            log.post_ids[log.post_index[events]],
            log.interaction_type[events],
            log.created_at[events],
        )
    )
    posts = np.unique(log.post_index[events])
    nobody = np.zeros((len(posts), 16), dtype=np.uint8)
    live.note_posts(
        PostFacts(log.post_ids[posts], nobody, log.post_created_at[posts], log.post_eligible[posts])
    )


def _popular(state: LiveState) -> list[bytes]:
    by_popularity = state.factors.by_popularity
    return [
        state.post_ids.id_of(int(post)) for post in by_popularity[state.masks.eligible[by_popularity]][:K]
    ]


def _days(months: list[int]) -> Iterator[int]:
    for month in months:
        day = datetime(YEAR, month, 1, tzinfo=UTC)
        while day.month == month:
            yield int(day.timestamp()) * 1_000_000
            day = datetime.fromtimestamp(day.timestamp() + 86_400, tz=UTC)


def main() -> None:
    """Replay each row and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--months", type=int, nargs="+", default=[8, 9], help="of 2016 (default: 8 9)")
    arguments = parser.parse_args()
    log = read_log(arguments.file)
    order = np.argsort(log.created_at, kind="stable")
    log = replace(
        log,
        post_created_at=log.post_known_since(),
        user_index=log.user_index[order],
        post_index=log.post_index[order],
        interaction_type=log.interaction_type[order],
        created_at=log.created_at[order],
    )
    began = time.perf_counter()
    print(in_one_line())
    print("\n| live votes, @10 | HR | NDCG |\n|---|---|---|", flush=True)
    for name, parameters in rows().items():
        judged = replay(log, arguments.months, parameters)
        f = judged.figures()
        print(f"| {name} | {f['hr']:.3f} | {f['ndcg']:.3f} |", flush=True)
    print(f"\n{len(judged.ranks):,} new reads; {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
