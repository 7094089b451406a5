"""Verdicts on a model and its lists: what has to hold before a generation is published.

Pure functions, used by the pipeline's blocking checks and by the gate before publication. What the
lists may contain is checked here from the log alone, with plain set arithmetic, so that an error in
the compiled masks cannot vouch for itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reco_assets.recommender.evaluation import HoldoutReport
from reco_assets.recommender.interaction_log import UNKNOWN_TIME, InteractionLog
from reco_assets.recommender.interaction_matrix import InteractionMatrix
from reco_assets.recommender.recommendation_lists import RecommendationLists

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Verdict:
    """The outcome of one check.

    Attributes:
        name: the statement that was checked.
        passed: whether it holds.
        value: the number seen.
        limit: the number it was held against.
        message: both in words and, where it failed, what to do.
    """

    name: str
    passed: bool
    value: float
    limit: float
    message: str


def model_not_worse_than_baseline(report: HoldoutReport) -> Verdict:
    """The model is not significantly worse than the strongest baseline; passes with nothing to judge on."""
    name, strongest = "model_not_worse_than_baseline", report.strongest
    if strongest is None:
        return Verdict(name, True, 0.0, 0.0, "No new reads to judge on: the model was not compared.")
    message = (
        f"NDCG@{report.k} {report.metrics[report.model]['ndcg']:.4f} against "
        f"{report.metrics[strongest.baseline]['ndcg']:.4f} of {strongest.baseline}, the strongest baseline: "
        f"difference {strongest.difference:+.4f} [{strongest.ci_low:+.4f}, {strongest.ci_high:+.4f}] over "
        f"{report.n_user_days:,} user-days. It fails when the upper end of the interval lies below 0."
    )
    if strongest.significantly_worse:
        message += (
            " Look for a change in tracking, compare the days' rows in the report, or find the half-lives"
            " anew by backtest; the live lists stay until a model passes."
        )
    return Verdict(name, not strongest.significantly_worse, strongest.ci_high, 0.0, message)


def user_coverage(lists: RecommendationLists, n_active: int, minimum: float) -> Verdict:
    """At least `minimum` of the active users have a list."""
    share = lists.n_users / n_active if n_active else 0.0
    message = (
        f"{lists.n_users:,} of {n_active:,} active users have a list ({share:.1%}; minimum {minimum:.1%})."
    )
    if share < minimum:
        message += " Check that recommendable_posts is not nearly empty, or lower RECO_MIN_USER_COVERAGE."
    return Verdict("user_coverage", share >= minimum, share, minimum, message)


def post_coverage(lists: RecommendationLists, n_eligible: int, minimum: float) -> Verdict:
    """At least `minimum` of the eligible posts stand in some list."""
    listed = len(np.unique(lists.post_index))
    share = listed / n_eligible if n_eligible else 0.0
    message = (
        f"{listed:,} of {n_eligible:,} eligible posts are in some list ({share:.2%}; minimum {minimum:.2%})."
    )
    if share < minimum:
        message += (
            " Raise RECO_N_RECOMMENDATIONS or RECO_FRESHNESS_HALF_LIFE_DAYS, or lower RECO_MIN_POST_COVERAGE."
        )
    return Verdict("post_coverage", share >= minimum, share, minimum, message)


def list_size_within_bounds(
    lists: RecommendationLists, n: int, live_rows: int | None, max_change: float
) -> Verdict:
    """No list is longer than `n`, and the rows changed by at most `max_change` against the live ones.

    Without live rows (None or 0) any positive number of rows passes.
    """
    name = "list_size_within_bounds"
    longest = int(np.bincount(lists.user_index).max(initial=0)) if len(lists) else 0
    if longest > n:
        message = f"A list has {longest} posts; at most {n} were asked for. This is a defect: report it."
        return Verdict(name, False, longest, n, message)
    if not len(lists):
        message = (
            "There are no recommendations at all. Check that some user is active and some post eligible."
        )
        return Verdict(name, False, 0.0, 1.0, message)
    if not live_rows:
        return Verdict(name, True, 0.0, max_change, f"{len(lists):,} rows; nothing is live to compare with.")
    change = abs(len(lists) - live_rows) / live_rows
    message = (
        f"{len(lists):,} rows against {live_rows:,} live ones: {change:.1%} changed (limit {max_change:.1%})."
    )
    if change > max_change:
        message += (
            " If the audience or the catalogue did change so much, raise RECO_MAX_SIZE_CHANGE for one run."
        )
    return Verdict(name, change <= max_change, change, max_change, message)


def no_seen_or_ineligible_posts(lists: RecommendationLists, log: InteractionLog, as_of_us: int) -> Verdict:
    """No list holds a post its user has seen, wrote or hides the author of, or that is not eligible."""
    users, posts = lists.user_index.astype(np.int64), lists.post_index.astype(np.int64)
    n_posts, n_authors = max(1, log.n_posts), max(1, len(log.author_ids))
    past = log.created_at < as_of_us
    seen = np.isin(
        users * n_posts + posts, log.user_index[past].astype(np.int64) * n_posts + log.post_index[past]
    )
    authors = log.post_author[posts].astype(np.int64)
    own = (authors >= 0) & (authors == log.user_author[users])
    hides = log.hidden_user.astype(np.int64) * n_authors + log.hidden_author
    hidden = (authors >= 0) & np.isin(users * n_authors + authors, hides)
    created = log.post_created_at[posts]
    ineligible = ~log.post_eligible[posts] | ((created != UNKNOWN_TIME) & (created >= as_of_us))
    counts = {"seen": seen, "own": own, "hidden authors'": hidden, "ineligible": ineligible}
    wrong = int(np.count_nonzero(seen | own | hidden | ineligible))
    parts = ", ".join(f"{np.count_nonzero(rows):,} {kind}" for kind, rows in counts.items())
    message = f"{wrong:,} of {len(lists):,} recommended posts should not be there ({parts})."
    if wrong:
        message += " This is a defect: do not publish; fit again, and report it if it stays."
    return Verdict("no_seen_or_ineligible_posts", wrong == 0, wrong, 0, message)


def weights_valid(
    matrix: InteractionMatrix, interaction_weights: Mapping[str, float], max_repeats: int
) -> Verdict:
    """Every weight is finite, positive and at most what `max_repeats` of each type add up to."""
    data = matrix.weights.data
    limit = max_repeats * sum(interaction_weights.values())
    # A sum in another order may differ in the last digits.
    wrong = int(np.count_nonzero(~(np.isfinite(data) & (data > 0) & (data <= limit * (1 + 1e-9)))))
    highest = float(data.max(initial=0.0))
    message = f"{wrong:,} of {len(data):,} weights lie outside 0 … {limit:g} (highest {highest:g})."
    if wrong:
        message += " Build the matrix again; check RECO_INTERACTION_WEIGHTS and RECO_MAX_REPEATS."
    return Verdict("weights_valid", wrong == 0, wrong, 0, message)


def window_not_empty(log: InteractionLog, minimum: int) -> Verdict:
    """The window holds at least `minimum` interactions."""
    n = log.n_interactions
    message = f"{n:,} interactions in the window (minimum {minimum:,})."
    if n < minimum:
        message += " Check that tracking reaches the database, widen RECO_WINDOW_DAYS, or run `reco seed`."
    return Verdict("window_not_empty", n >= minimum, n, minimum, message)
