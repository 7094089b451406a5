"""How good the lists are: refit as of each of the last days and judged by what users then read.

A temporal hold-out, because a random split lets the model see the future of a news feed and hides
everything that matters there.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from reco_assets.errors import BadInput, FitCancelled
from reco_assets.recommender.fit_inputs import Recommender, fit_matrix
from reco_assets.recommender.interaction_log import MICROSECONDS_PER_DAY, InteractionLog
from reco_assets.recommender.interaction_matrix import InteractionMatrix
from reco_assets.recommender.recommendation_lists import RecommendationLists
from reco_assets.recommender.threads import Progress, ShouldStop

Array = npt.NDArray[Any]

USER_METRICS = ("hr", "ndcg", "recall", "mrr")
CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class JudgedDay:
    """One day's outcome for every recommender.

    Attributes:
        day_us: 00:00 UTC, µs since the epoch.
        users: (m,) int64, the users who read something that could have been recommended.
        metrics: by recommender, then metric: (m,) float64.
        coverage: by recommender: share of the eligible posts that stand in some judged list.
    """

    day_us: int
    users: Array
    metrics: Mapping[str, Mapping[str, Array]]
    coverage: Mapping[str, float]


@dataclass(frozen=True)
class Comparison:
    """Model minus baseline in mean NDCG@k, with a paired bootstrap over users.

    Attributes:
        baseline: its name.
        difference: positive when the model is better.
        ci_low, ci_high: 95 % percentile interval.
        p_value: two-sided share of resamples on the other side of zero.
    """

    baseline: str
    difference: float
    ci_low: float
    ci_high: float
    p_value: float

    @property
    def significantly_worse(self) -> bool:
        """The whole interval lies below zero."""
        return self.ci_high < 0


@dataclass(frozen=True)
class HoldoutReport:
    """The verdict of a temporal hold-out.

    Attributes:
        model: name of the recommender that is judged.
        k: cut-off of the lists.
        n_days: days with something to judge on.
        n_user_days: users summed over the days; 0 when there was nothing to judge on, and then there
            are no metrics and no comparisons.
        metrics: by recommender: `hr`, `ndcg`, `recall`, `mrr` as means over user-days, `coverage` as
            mean over days.
        comparisons: one per baseline.
        days: one row per day and recommender: `day`, `name`, `n_users` and the metrics.
    """

    model: str
    k: int
    n_days: int
    n_user_days: int
    metrics: dict[str, dict[str, float]]
    comparisons: tuple[Comparison, ...]
    days: tuple[dict[str, Any], ...]

    @property
    def strongest(self) -> Comparison | None:
        """Against the baseline of the highest NDCG; None without a judgement."""
        return max(self.comparisons, key=lambda c: self.metrics[c.baseline]["ndcg"], default=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        strongest = self.strongest
        return asdict(self) | {
            "comparisons": [asdict(comparison) for comparison in self.comparisons],
            "days": list(self.days),
            "strongest_baseline": strongest and strongest.baseline,
            "ndcg_difference": strongest and strongest.difference,
            "ndcg_ci_low": strongest and strongest.ci_low,
            "ndcg_ci_high": strongest and strongest.ci_high,
            "significantly_worse": bool(strongest and strongest.significantly_worse),
        }


def evaluate(
    model: Recommender,
    log: InteractionLog,
    *,
    as_of_us: int,
    baselines: Mapping[str, Recommender],
    rng: np.random.Generator,
    interaction_weights: Mapping[str, float],
    max_repeats: int = 3,
    holdout_days: int = 3,
    k: int = 10,
    n_resamples: int = 1000,
    model_name: str = "model",
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> HoldoutReport:
    """Judge the model beside baselines on the last `holdout_days` days before `as_of_us`.

    For each day, all are fitted on what lies before its 00:00 UTC and asked for `k` posts for each
    user of the day. Neither `model` nor the baselines are changed.

    Args:
        model: any recommender; its parameters count, not what it was fitted on.
        log: the window; a day is judged by a fit on the part of the window before it.
        as_of_us: end of the window, usually a midnight; later events are not looked at.
        baselines: by name; see `baselines.default_baselines`.
        rng: for the bootstrap.
        interaction_weights: by type.
        max_repeats: see `InteractionMatrix.from_log`.
        holdout_days: days to judge, at least 1.
        k: cut-off.
        n_resamples: of the bootstrap.
        model_name: the model's name in the report.
        progress: called with (days done, all days).
        should_stop: asked before every fit; true ends the evaluation.

    Raises:
        FitCancelled: `should_stop` said so.
    """
    if holdout_days < 1 or k < 1:
        raise BadInput(f"holdout_days is {holdout_days} and k is {k}; both must be at least 1.")
    if model_name in baselines:
        raise BadInput(f"{model_name!r} names both the model and a baseline.")
    recommenders = {model_name: model, **baselines}
    last_day = (as_of_us - 1) // MICROSECONDS_PER_DAY * MICROSECONDS_PER_DAY
    days = []
    for back in reversed(range(holdout_days)):
        days.append(
            judge_day(
                recommenders,
                log.before(as_of_us),
                last_day - back * MICROSECONDS_PER_DAY,
                interaction_weights=interaction_weights,
                max_repeats=max_repeats,
                k=k,
                should_stop=should_stop,
            )
        )
        if progress is not None:
            progress(len(days), holdout_days)
    return summarise(days, model=model_name, k=k, rng=rng, n_resamples=n_resamples)


def judge_day(
    recommenders: Mapping[str, Recommender],
    log: InteractionLog,
    day_us: int,
    *,
    interaction_weights: Mapping[str, float],
    max_repeats: int = 3,
    k: int = 10,
    should_stop: ShouldStop | None = None,
) -> JudgedDay:
    """Fit copies as of `day_us` and judge their lists by the reads of the 24 hours that follow.

    Judged are reads of posts that existed and could have been recommended at `day_us`: eligible, not
    seen by the user before, not their own, not of an author they hide. Nothing is judged on a day
    without such reads or without any earlier event.
    """
    past = log.before(day_us)
    users, posts = new_reads(log, past, day_us, day_us + MICROSECONDS_PER_DAY)
    if not past.n_interactions or not len(users):
        return JudgedDay(day_us, np.empty(0, dtype=np.int64), {}, {})
    matrix = InteractionMatrix.from_log(
        past, day_us, interaction_weights=interaction_weights, max_repeats=max_repeats
    )
    judged = np.unique(users)
    n_eligible = max(1, int(np.count_nonzero(past.post_eligible)))
    metrics, coverage = {}, {}
    for name, recommender in recommenders.items():
        if should_stop is not None and should_stop():
            raise FitCancelled(f"Stopped on request while judging {_date(day_us)}, before {name}.")
        lists = fit_matrix(copy.copy(recommender), matrix, past).recommend(judged, k)
        metrics[name] = list_metrics(lists, users, posts, k=k, n_posts=log.n_posts)
        coverage[name] = len(np.unique(lists.post_index)) / n_eligible
    return JudgedDay(day_us, judged, metrics, coverage)


def new_reads(log: InteractionLog, past: InteractionLog, start_us: int, stop_us: int) -> tuple[Array, Array]:
    """The (user, post) pairs of [start, stop) that `past` = `log.before(start)` allowed to recommend.

    Returns:
        Two (m,) int64 arrays, each pair once, sorted by user, then post.
    """
    n_posts = max(1, log.n_posts)
    within = (log.created_at >= start_us) & (log.created_at < stop_us)
    pairs = np.unique(log.user_index[within].astype(np.int64) * n_posts + log.post_index[within])
    # Sorted and searched: np.isin would make both unique by hashing, which takes twenty times as long.
    seen = np.sort(past.user_index.astype(np.int64) * n_posts + past.post_index)
    at = np.searchsorted(seen, pairs)
    pairs = pairs[at == np.searchsorted(seen, pairs, side="right")]
    users, posts = np.divmod(pairs, n_posts)
    author, own = log.post_author[posts].astype(np.int64), log.user_author[users]
    n_authors = max(1, len(log.author_ids))
    hidden = log.hidden_user.astype(np.int64) * n_authors + log.hidden_author
    allowed = past.post_eligible[posts] & ((author < 0) | (author != own))
    allowed &= (author < 0) | ~np.isin(users * n_authors + author, hidden)
    return users[allowed], posts[allowed]


def list_metrics(
    lists: RecommendationLists, users: Array, posts: Array, *, k: int, n_posts: int
) -> dict[str, Array]:
    """Each user's metrics of the first `k` posts of their list.

    Args:
        lists: of any users; who has none scores 0.
        users, posts: (m,) the relevant pairs, each once.
        k: cut-off.
        n_posts: number of posts there are.

    Returns:
        (n judged users,) float64 each, in ascending order of user: `hr`, 1 if a relevant post is
        listed; `recall`, listed / relevant; `ndcg`, Σ 1 / log2(1 + rank) over listed relevant posts,
        divided by the same for the best possible list; `mrr`, 1 / the first one's rank, else 0.
    """
    judged, n_relevant = np.unique(users, return_counts=True)
    top = lists.rank <= k
    listed = lists.user_index[top].astype(np.int64) * n_posts + lists.post_index[top]
    hit = np.isin(listed, users.astype(np.int64) * n_posts + posts)
    rank = lists.rank[top][hit]
    row = np.searchsorted(judged, lists.user_index[top][hit])
    gains = 1.0 / np.log2(1.0 + np.arange(1, k + 1))
    hits = np.bincount(row, minlength=len(judged))
    dcg = np.bincount(row, gains[rank - 1], minlength=len(judged))
    ideal = np.cumsum(gains)[np.minimum(n_relevant, k) - 1]
    first = np.zeros(len(judged))
    np.maximum.at(first, row, 1.0 / rank)
    return {
        "hr": (hits > 0).astype(np.float64),
        "ndcg": dcg / ideal,
        "recall": hits / n_relevant,
        "mrr": first,
    }


def summarise(
    days: Sequence[JudgedDay], *, model: str, k: int, rng: np.random.Generator, n_resamples: int = 1000
) -> HoldoutReport:
    """Means over user-days, and the model against every other recommender."""
    days = [day for day in days if len(day.users)]
    if not days:
        return HoldoutReport(model, k, 0, 0, {}, (), ())
    users = np.concatenate([day.users for day in days])
    names = list(days[0].metrics)
    values = {
        name: {metric: np.concatenate([day.metrics[name][metric] for day in days]) for metric in USER_METRICS}
        for name in names
    }
    metrics = {
        name: {metric: float(values[name][metric].mean()) for metric in USER_METRICS}
        | {"coverage": float(np.mean([day.coverage[name] for day in days]))}
        for name in names
    }
    baselines = [name for name in names if name != model]
    differences = [values[model]["ndcg"] - values[name]["ndcg"] for name in baselines]
    resampled = _resampled_means(np.array(differences), users, rng, n_resamples)
    comparisons = tuple(map(_comparison, baselines, differences, resampled))
    rows = tuple(
        {"day": _date(day.day_us), "name": name, "n_users": len(day.users)}
        | {metric: float(day.metrics[name][metric].mean()) for metric in USER_METRICS}
        | {"coverage": float(day.coverage[name])}
        for day in days
        for name in names
    )
    return HoldoutReport(model, k, len(days), len(users), metrics, comparisons, rows)


def _resampled_means(differences: Array, users: Array, rng: np.random.Generator, n_resamples: int) -> Array:
    """Bootstrap means of each row of differences, (n_rows, n_resamples).

    Users are resampled, not user-days: one user's days are not independent. The same resamples judge
    every row.
    """
    _, row = np.unique(users, return_inverse=True)
    counts = np.bincount(row)
    totals = np.array([np.bincount(row, values) for values in differences]).reshape(-1, len(counts))
    means = np.empty((len(differences), n_resamples))
    for sample in range(n_resamples):
        drawn = np.bincount(rng.integers(len(counts), size=len(counts)), minlength=len(counts))
        means[:, sample] = totals @ drawn / (counts @ drawn)
    return means


def _comparison(baseline: str, differences: Array, means: Array) -> Comparison:
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    p_value = min(1.0, 2.0 * min(float(np.mean(means <= 0)), float(np.mean(means >= 0))))
    return Comparison(baseline, float(differences.mean()), float(low), float(high), p_value)


def _date(day_us: int) -> str:
    return datetime.fromtimestamp(day_us / 1e6, tz=UTC).date().isoformat()
