from dataclasses import replace

import numpy as np
import pytest

from reco_assets.recommender.evaluation import Comparison, HoldoutReport
from reco_assets.recommender.interaction_matrix import InteractionMatrix
from reco_assets.recommender.quality import (
    list_size_within_bounds,
    model_not_worse_than_baseline,
    no_seen_or_ineligible_posts,
    post_coverage,
    user_coverage,
    weights_valid,
    window_not_empty,
)
from reco_assets.recommender.recommendation_lists import RecommendationLists
from reco_assets_tests.recommender.examples import DAY, WEIGHTS, make_log


def one_row(user: int, post: int) -> RecommendationLists:
    return RecommendationLists.from_table(np.array([user]), np.array([[post]]), np.ones((1, 1)))


def report(low: float, high: float) -> HoldoutReport:
    comparisons = (Comparison("weak", 0.3, 0.2, 0.4, 0.0), Comparison("strong", 0.0, low, high, 0.5))
    metrics = {"model": {"ndcg": 0.4}, "weak": {"ndcg": 0.1}, "strong": {"ndcg": 0.4}}
    return HoldoutReport("model", 10, 3, 120, metrics, comparisons, ())


def test_a_model_fails_only_when_significantly_worse_than_the_strongest_baseline() -> None:
    assert model_not_worse_than_baseline(report(-0.02, 0.01)).passed
    verdict = model_not_worse_than_baseline(report(-0.03, -0.01))
    assert not verdict.passed
    assert (verdict.value, verdict.limit) == (-0.01, 0.0)
    for part in ("0.4000", "strong,", "[-0.0300, -0.0100]", "120 user-days", "the live lists stay"):
        assert part in verdict.message


def test_a_model_without_a_judgement_passes_and_says_so() -> None:
    verdict = model_not_worse_than_baseline(HoldoutReport("model", 10, 0, 0, {}, (), ()))
    assert verdict.passed
    assert "was not compared" in verdict.message


def test_user_coverage_counts_users_with_a_list() -> None:
    assert user_coverage(one_row(0, 0), 2, 0.5).passed
    verdict = user_coverage(one_row(0, 0), 4, 0.5)
    assert (verdict.passed, verdict.value, verdict.limit) == (False, 0.25, 0.5)
    assert "1 of 4 active users" in verdict.message
    assert "RECO_MIN_USER_COVERAGE" in verdict.message
    assert not user_coverage(RecommendationLists.empty(), 0, 0.5).passed


def test_post_coverage_counts_distinct_posts() -> None:
    lists = RecommendationLists.from_table(np.arange(2), np.array([[1, 2], [2, 1]]), np.ones((2, 2)))
    assert post_coverage(lists, 4, 0.5).value == 0.5
    assert "RECO_MIN_POST_COVERAGE" in post_coverage(lists, 4, 0.6).message
    assert not post_coverage(lists, 0, 0.1).passed


@pytest.mark.parametrize(
    ("live_rows", "max_change", "passed"),
    [(None, 0.5, True), (0, 0.5, True), (4, 0.5, True), (4, 0.4, False), (1, 1.0, True), (1, 0.9, False)],
)
def test_list_size_is_held_against_the_live_rows(
    live_rows: int | None, max_change: float, passed: bool
) -> None:
    lists = RecommendationLists.from_table(np.array([3]), np.array([[1, 2]]), np.ones((1, 2)))
    assert list_size_within_bounds(lists, 2, live_rows, max_change).passed == passed


def test_lists_that_are_too_long_or_missing_fail() -> None:
    lists = RecommendationLists.from_table(np.array([3]), np.array([[1, 2]]), np.ones((1, 2)))
    assert not list_size_within_bounds(lists, 1, None, 0.5).passed
    assert not list_size_within_bounds(RecommendationLists.empty(), 1, None, 0.5).passed


LOG = make_log(
    [(0, 0, "view", 0.5), (1, 0, "view", 5.0)],
    n_users=2,
    n_posts=6,
    n_authors=2,
    post_author=np.array([-1, -1, 0, 1, -1, -1], dtype=np.int32),
    user_author=np.array([0, -1], dtype=np.int32),
    hidden_user=np.array([0], dtype=np.int32),
    hidden_author=np.array([1], dtype=np.int32),
    post_eligible=np.array([True, True, True, True, False, True]),
    post_created_at=np.array([0, 0, 0, 0, 0, 2 * DAY]),
)


@pytest.mark.parametrize(
    ("user", "post", "complaint"),
    [(0, 0, "1 seen"), (0, 2, "1 own"), (0, 3, "1 hidden"), (0, 4, "1 ineligible"), (1, 5, "1 ineligible")],
)
def test_a_forbidden_post_is_found(user: int, post: int, complaint: str) -> None:
    verdict = no_seen_or_ineligible_posts(one_row(user, post), LOG, DAY)
    assert (verdict.passed, verdict.value) == (False, 1)
    assert complaint in verdict.message
    assert "do not publish" in verdict.message


@pytest.mark.parametrize(("user", "post"), [(0, 1), (1, 0), (1, 2), (1, 3)])
def test_an_allowed_post_is_not_complained_of(user: int, post: int) -> None:
    assert no_seen_or_ineligible_posts(one_row(user, post), LOG, DAY).passed


def test_weights_above_what_repeats_allow_or_not_finite_are_found() -> None:
    matrix = InteractionMatrix.from_log(LOG, 9 * DAY, interaction_weights=WEIGHTS)
    assert weights_valid(matrix, WEIGHTS, 3).passed
    for value in (np.nan, -0.1, 6.4):
        broken = matrix.weights.copy()
        broken.data[0] = value
        assert not weights_valid(replace(matrix, weights=broken), WEIGHTS, 3).passed


def test_a_window_with_too_few_interactions_says_what_to_do() -> None:
    assert window_not_empty(LOG, 2).passed
    verdict = window_not_empty(LOG, 10)
    assert not verdict.passed
    for part in ("2 interactions", "minimum 10", "RECO_WINDOW_DAYS"):
        assert part in verdict.message
