"""What live votes cost: CPU time of a request and of a look at new events.

    python -m benchmarks.live_votes [--feed demo] [--size M]

The feed's last day counts as what happened since the fit. Times are of one thread; other work on the machine
makes them longer by shared caches only.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.feeds import FEEDS, LAST_DAY
from benchmarks.machine import in_one_line
from benchmarks.sizes import SIZES
from reco_assets.events import DEFAULT_INTERACTION_WEIGHTS
from reco_assets.names import end_of_day_us
from reco_assets.recommender.fit_inputs import fit_matrix
from reco_assets.recommender.interaction_log import MICROSECONDS_PER_DAY, InteractionLog
from reco_assets.recommender.interaction_matrix import InteractionMatrix
from reco_assets.recommender.live_lists import LiveState
from reco_assets.recommender.live_votes import DailyFit, EventBatch, LiveVotes
from reco_assets.recommender.user_knn import UserKNNRecommender

Array = npt.NDArray[Any]

_REQUESTS = 2000
_LOOKS = 20
_NEW_EVENTS = 200
_LIST_LENGTH = 100


def main() -> None:
    """Fit, open, catch up, ask; print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--feed", choices=sorted(FEEDS), default="demo")
    parser.add_argument("--size", choices=sorted(SIZES), default="M")
    arguments = parser.parse_args()
    log = FEEDS[arguments.feed](SIZES[arguments.size])
    end_us = end_of_day_us(LAST_DAY)
    cut_us = end_us - MICROSECONDS_PER_DAY
    today = np.flatnonzero(log.created_at >= cut_us)
    with tempfile.TemporaryDirectory(prefix="reco-live-") as name:
        _write(Path(name), log, cut_us)
        began = time.perf_counter()
        live = LiveVotes(_opened(Path(name)))
        opened = time.perf_counter() - began
        began = time.perf_counter()
        live.add(_batch(log, today, log.created_at[today]))
        state, active = live.tick(end_us)
        caught_up = time.perf_counter() - began
        rng = np.random.default_rng(1)
        looks = []
        for second in range(_LOOKS):
            events = rng.choice(today, _NEW_EVENTS)
            began = time.thread_time()
            live.add(_batch(log, events, np.full(_NEW_EVENTS, end_us + second)))
            state, _ = live.tick(end_us + second + 1)
            looks.append((time.thread_time() - began) * 1000)
        quiet = np.setdiff1d(np.arange(live.user_ids.n_fitted), active)
        quiet, active = rng.choice(quiet, _REQUESTS), rng.permutation(active)[:_REQUESTS]
        _ask(state, quiet[:1])  # compiles
        print(in_one_line())
        print(
            f"{arguments.feed} {arguments.size}: {log.n_users:,} users × {log.n_posts:,} posts, "
            f"{log.n_interactions:,} events, {len(today):,} of them since the fit\n"
        )
        print("| what | median ms | 99 % ms |\n|---|---|---|")
        _row("a request", _ask(state, quiet))
        _row("the first after one's own event", _ask(state, active))
        _row("another after that", _ask(state, active))
        _row(f"a look with {_NEW_EVENTS} new events", np.array(looks))
        print(f"\nopened in {opened:.2f} s, caught up in {caught_up:.2f} s")


def _write(directory: Path, log: InteractionLog, cut_us: int) -> None:
    kept = log.created_at < cut_us
    events = ("user_index", "post_index", "interaction_type", "created_at")
    window = replace(log, **{name: getattr(log, name)[kept] for name in events})
    matrix = InteractionMatrix.from_log(window, cut_us, interaction_weights=DEFAULT_INTERACTION_WEIGHTS)
    fit_matrix(UserKNNRecommender(), matrix, window).save(directory / "model")
    matrix.save(directory / "matrix")
    window.save(directory / "log")


def _opened(directory: Path) -> DailyFit:
    return DailyFit(
        UserKNNRecommender.load(directory / "model", verify=False),
        InteractionMatrix.load(directory / "matrix", verify=False),
        InteractionLog.load(directory / "log", verify=False),
        DEFAULT_INTERACTION_WEIGHTS,
        3,
    )


def _batch(log: InteractionLog, events: Array, times: Array) -> EventBatch:
    return EventBatch(
        log.user_ids[log.user_index[events]],
        log.post_ids[log.post_index[events]],
        log.interaction_type[events],
        times,
    )


def _ask(state: LiveState, users: Array) -> Array:
    """CPU milliseconds of each user's list."""
    took = []
    for user in users.tolist():
        user_id = state.user_ids.id_of(user)
        began = time.thread_time()
        state.recommend(user_id, _LIST_LENGTH)
        took.append((time.thread_time() - began) * 1000)
    return np.array(took)


def _row(what: str, milliseconds: Array) -> None:
    print(f"| {what} | {np.median(milliseconds):.2f} | {np.percentile(milliseconds, 99):.2f} |")


if __name__ == "__main__":
    main()
