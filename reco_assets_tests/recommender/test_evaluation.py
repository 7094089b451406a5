import json
from math import log2

import numpy as np
import pytest

from reco_assets.errors import BadInput
from reco_assets.recommender.baselines import NewestRecommender, PopularityRecommender, default_baselines
from reco_assets.recommender.evaluation import JudgedDay, evaluate, list_metrics, new_reads, summarise
from reco_assets.recommender.fit_inputs import fit_matrix
from reco_assets.recommender.interaction_matrix import InteractionMatrix
from reco_assets.recommender.recommendation_lists import RecommendationLists
from reco_assets.recommender.user_knn import UserKNNRecommender
from reco_assets_tests.recommender.examples import DAY, WEIGHTS, make_log, random_log


def lists_of(*posts_of_users: list[int]) -> RecommendationLists:
    n = max(map(len, posts_of_users))
    posts = np.array([posts + [-1] * (n - len(posts)) for posts in posts_of_users])
    return RecommendationLists.from_table(np.arange(len(posts)), posts, np.ones(posts.shape))


def test_metrics_by_hand() -> None:
    # User 0 reads posts 5 and 7: one at rank 2, the other beyond the cut. User 1 hits at rank 1.
    # User 2 misses, user 3 has no list.
    lists = lists_of([1, 5, 2, 7], [4], [9])
    users, posts = np.array([0, 0, 1, 2, 3]), np.array([5, 7, 4, 1, 1])
    metrics = list_metrics(lists, users, posts, k=3, n_posts=10)
    assert metrics["hr"].tolist() == [1, 1, 0, 0]
    assert metrics["recall"].tolist() == [0.5, 1, 0, 0]
    assert metrics["mrr"].tolist() == [0.5, 1, 0, 0]
    np.testing.assert_allclose(metrics["ndcg"], [(1 / log2(3)) / (1 + 1 / log2(3)), 1, 0, 0])


def test_a_perfect_list_has_ndcg_one_even_with_more_relevant_posts_than_places() -> None:
    metrics = list_metrics(lists_of([0, 1]), np.zeros(5, int), np.arange(5), k=2, n_posts=5)
    assert metrics["ndcg"].tolist() == pytest.approx([1.0])
    assert metrics["recall"].tolist() == [0.4]


def test_only_reads_that_could_have_been_recommended_are_judged() -> None:
    earlier = [(0, 0), (1, 1), (1, 3), (1, 4), (1, 5)]
    # Seen before; new; did not exist; own; hidden; not eligible.
    that_day = [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (0, 5)]
    log = make_log(
        [
            *((user, post, "view", 0.5) for user, post in earlier),
            *((user, post, "view", 1.5) for user, post in that_day),
            (0, 1, "like", 1.6),
            (1, 0, "view", 2.0),
        ],
        n_users=2,
        n_posts=6,
        n_authors=2,
        post_author=np.array([-1, -1, -1, 0, 1, -1], dtype=np.int32),
        user_author=np.array([0, -1], dtype=np.int32),
        hidden_user=np.array([0], dtype=np.int32),
        hidden_author=np.array([1], dtype=np.int32),
        post_eligible=np.array([True] * 5 + [False]),
    )
    users, posts = new_reads(log, log.before(DAY), DAY, 2 * DAY)
    assert (users.tolist(), posts.tolist()) == ([0], [1])


def test_the_future_is_not_seen() -> None:
    """On the judged day everybody reads post 0; a recommender that looked would put it first."""
    events = [(user, 1, "view", 0.1) for user in range(4)] + [(9, 0, "view", 0.1)]
    events += [(9, post, "view", 0.2) for post in (2, 3)] + [(8, post, "view", 0.2) for post in (2, 3)]
    events += [(user, 0, "share", 1.5) for user in range(4)]
    log = make_log(events, n_users=10, n_posts=4)
    report = evaluate(
        PopularityRecommender(),
        log,
        as_of_us=2 * DAY,
        baselines={"newest": NewestRecommender()},
        rng=np.random.default_rng(0),
        interaction_weights=WEIGHTS,
        holdout_days=1,
        k=1,
    )
    assert report.n_user_days == 4
    assert report.metrics["model"]["hr"] == 0.0


def test_a_report_names_the_strongest_baseline_and_is_json() -> None:
    log = random_log(np.random.default_rng(1))
    model = UserKNNRecommender()
    report = evaluate(
        model,
        log,
        as_of_us=10 * DAY,
        baselines=default_baselines(np.random.default_rng(0)),
        rng=np.random.default_rng(0),
        interaction_weights=WEIGHTS,
        n_resamples=200,
    )
    assert not hasattr(model, "votes_"), "the model that was passed must stay as it was"
    assert report.n_days == 3
    assert len(report.days) == 3 * 6
    assert sum(row["n_users"] for row in report.days if row["name"] == "model") == report.n_user_days > 0
    strongest = report.strongest
    assert strongest is not None
    assert report.metrics[strongest.baseline]["ndcg"] == max(
        m["ndcg"] for name, m in report.metrics.items() if name != "model"
    )
    difference = report.metrics["model"]["ndcg"] - report.metrics[strongest.baseline]["ndcg"]
    assert strongest.difference == pytest.approx(difference)
    assert strongest.ci_low <= strongest.difference <= strongest.ci_high
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert plain["strongest_baseline"] == strongest.baseline
    assert plain["days"][0]["day"] == "1970-01-08"


def test_the_same_seed_gives_the_same_report() -> None:
    log = random_log(np.random.default_rng(2))
    first, second = (
        evaluate(
            UserKNNRecommender(),
            log,
            as_of_us=10 * DAY,
            baselines=default_baselines(np.random.default_rng(5)),
            rng=np.random.default_rng(6),
            interaction_weights=WEIGHTS,
            n_resamples=50,
        ).to_dict()
        for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize("events", [[], [(0, 0, "view", 9.5)], [(0, 0, "view", 8.5), (0, 0, "view", 9.5)]])
def test_nothing_to_judge_on_is_an_outcome_not_an_error(events: list[tuple[int, int, str, float]]) -> None:
    report = evaluate(
        UserKNNRecommender(),
        make_log(events, n_users=1, n_posts=1),
        as_of_us=10 * DAY,
        baselines=default_baselines(np.random.default_rng(0)),
        rng=np.random.default_rng(0),
        interaction_weights=WEIGHTS,
    )
    assert report.n_user_days == 0
    assert report.strongest is None
    assert report.to_dict()["significantly_worse"] is False


def day_of(model: np.ndarray, baseline: np.ndarray, users: np.ndarray) -> JudgedDay:
    metrics = {
        name: dict.fromkeys(("hr", "ndcg", "recall", "mrr"), values)
        for name, values in (("model", model), ("simple", baseline))
    }
    return JudgedDay(0, users, metrics, {"model": 0.5, "simple": 0.5})


@pytest.mark.parametrize(("shift", "worse"), [(-0.05, True), (0.0, False), (0.05, False)])
def test_the_interval_tells_a_real_difference_from_noise(shift: float, worse: bool) -> None:
    rng = np.random.default_rng(3)
    baseline = rng.random(2000)
    model = baseline + shift + rng.normal(0, 0.2, 2000)
    report = summarise([day_of(model, baseline, np.arange(2000))], model="model", k=10, rng=rng)
    (comparison,) = report.comparisons
    assert comparison.significantly_worse == worse
    assert (comparison.p_value < 0.05) == (shift != 0)
    # 1.96 standard errors of the mean: 0.2 / √2000.
    assert (comparison.ci_high - comparison.ci_low) / 2 == pytest.approx(1.96 * 0.2 / np.sqrt(2000), rel=0.15)


def test_days_of_one_user_are_resampled_together() -> None:
    """A hundred copies of each user say no more than one: the interval must not shrink."""
    rng = np.random.default_rng(4)
    model, baseline, users = rng.random(50), rng.random(50), np.arange(50)
    widths = []
    for copies in (1, 100):
        days = [day_of(model, baseline, users)] * copies
        (c,) = summarise(days, model="model", k=10, rng=np.random.default_rng(0)).comparisons
        widths.append(c.ci_high - c.ci_low)
    assert widths[0] == pytest.approx(widths[1])


def test_arguments_out_of_range_are_refused() -> None:
    log = make_log([(0, 0, "view", 0)], n_users=1, n_posts=1)
    for change in ({"holdout_days": 0}, {"k": 0}, {"baselines": {"model": NewestRecommender()}}):
        arguments = {"baselines": {}, "as_of_us": DAY, "rng": np.random.default_rng(0)} | change
        with pytest.raises(BadInput):
            evaluate(UserKNNRecommender(), log, interaction_weights=WEIGHTS, **arguments)


def test_a_user_without_a_list_scores_zero() -> None:
    metrics = list_metrics(RecommendationLists.empty(), np.array([3]), np.array([0]), k=5, n_posts=1)
    assert metrics["ndcg"].tolist() == [0.0]


def test_a_fit_on_a_matrix_knows_no_posts_created_after_it() -> None:
    log = make_log(
        [(0, 0, "view", 0.5)],
        n_users=1,
        n_posts=3,
        post_created_at=np.array([0, DAY // 2, DAY], dtype=np.int64),
    )
    matrix = InteractionMatrix.from_log(log, DAY, interaction_weights=WEIGHTS)
    assert fit_matrix(NewestRecommender(), matrix, log).recommend().post_index.tolist() == [1]
