"""The contract that the model and every baseline keep."""

from collections.abc import Callable

import numpy as np
import pytest
import scipy.sparse as sp

from reco_assets.errors import BadInput
from reco_assets.parameters import CHOICES
from reco_assets.recommender.baselines import (
    NewestRecommender,
    PopularityRecommender,
    RandomRecommender,
    default_baselines,
)
from reco_assets.recommender.fit_inputs import Recommender, fit_log
from reco_assets.recommender.quality import no_seen_or_ineligible_posts
from reco_assets.recommender.recommendation_lists import RecommendationLists
from reco_assets.recommender.user_knn import UserKNNRecommender
from reco_assets_tests.recommender.examples import DAY, WEIGHTS, checkerboard, random_log, times_like

Make = Callable[[], Recommender]

EVERY: list[Make] = [
    UserKNNRecommender,
    lambda: UserKNNRecommender(similarity_weighting="none", popularity_blend=0.0),
    lambda: UserKNNRecommender(similarity_weighting="bm25_users", vote_weighting="sqrt", shrinkage=1.0),
    lambda: UserKNNRecommender(similarity_weighting="bm25_posts", vote_weighting="raw", min_overlap=2),
    PopularityRecommender,
    lambda: PopularityRecommender(half_life_days=0.5, freshness_half_life_days=2.0),
    NewestRecommender,
    lambda: RandomRecommender(rng=np.random.default_rng(0)),  # last: its order breaks no ties
]
every_recommender = pytest.mark.parametrize("make", EVERY)


def as_tuples(lists: RecommendationLists) -> list[tuple[int, int, int, float]]:
    columns = (lists.user_index, lists.post_index, lists.rank, lists.score)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@every_recommender
def test_the_only_unread_post_is_the_answer(make: Make) -> None:
    board = sp.csr_array(1.0 - np.eye(8))
    lists = make().fit(board, last_interaction_at=times_like(board)).recommend(n=5)
    assert lists.user_index.tolist() == lists.post_index.tolist() == list(range(8))
    assert (lists.rank == 1).all()


@pytest.mark.parametrize("vote_weighting", CHOICES["vote_weighting"])
@pytest.mark.parametrize("similarity_weighting", CHOICES["similarity_weighting"])
def test_the_post_withheld_from_the_checkerboard_is_the_answer(
    similarity_weighting: str, vote_weighting: str
) -> None:
    model = UserKNNRecommender(similarity_weighting=similarity_weighting, vote_weighting=vote_weighting)
    lists = model.fit(checkerboard(20)).recommend(n=1)
    assert lists.post_index.tolist() == list(range(20))


@every_recommender
def test_lists_are_sorted_ranked_and_hold_nothing_forbidden(make: Make) -> None:
    log = random_log(np.random.default_rng(5))
    model = fit_log(make(), log, as_of_us=9 * DAY, interaction_weights=WEIGHTS)
    lists = model.recommend(np.arange(log.n_users), 12)
    assert no_seen_or_ineligible_posts(lists, log, 9 * DAY).passed
    assert lists.n_users == log.n_users
    assert (lists.score > 0).all()
    for user in range(log.n_users):
        rows = lists.user_index == user
        assert lists.rank[rows].tolist() == list(range(1, np.count_nonzero(rows) + 1))
        assert (np.diff(lists.score[rows]) <= 0).all()
        assert lists.of(user).tolist() == lists.post_index[rows].tolist()
        assert len(set(lists.of(user).tolist())) == len(lists.of(user)) <= 12
    order = np.lexsort((lists.rank, lists.user_index))
    assert (order == np.arange(len(lists))).all()


@every_recommender
def test_a_rerun_gives_the_same_lists_and_each_user_alone_too(make: Make) -> None:
    log = random_log(np.random.default_rng(6))
    first, second = (fit_log(make(), log, as_of_us=9 * DAY, interaction_weights=WEIGHTS) for _ in range(2))
    together = first.recommend(np.arange(log.n_users), 7)
    assert as_tuples(together) == as_tuples(second.recommend(np.arange(log.n_users), 7))
    alone = [row for user in range(log.n_users) for row in as_tuples(first.recommend(np.array([user]), 7))]
    assert as_tuples(together) == alone


@every_recommender
def test_shorter_lists_are_prefixes_of_longer_ones(make: Make) -> None:
    model = fit_log(
        make(), random_log(np.random.default_rng(7)), as_of_us=9 * DAY, interaction_weights=WEIGHTS
    )
    long = as_tuples(model.recommend(np.arange(40), 50))
    assert as_tuples(model.recommend(np.arange(40), 3)) == [row for row in long if row[2] <= 3]


@every_recommender
def test_more_posts_than_there_are_is_not_an_error(make: Make) -> None:
    board = checkerboard(6)
    lists = make().fit(board, last_interaction_at=times_like(board)).recommend(n=100)
    assert 0 < len(lists) <= 6 * 6


@every_recommender
def test_a_user_who_read_everything_gets_nothing(make: Make) -> None:
    board = sp.csr_array(np.array([[1.0, 1.0], [1.0, 0.0]]))
    lists = make().fit(board).recommend()
    assert lists.of(0).tolist() == []
    assert lists.of(1).tolist() == [1]


@every_recommender
def test_unknown_users_get_an_empty_list_and_impossible_ones_are_refused(make: Make) -> None:
    model = make().fit(checkerboard(6))
    assert len(model.recommend(np.array([-1]))) == 0
    assert model.recommend(np.array([-1, 2])).n_users == 1
    assert len(model.recommend(np.array([], dtype=np.int64))) == 0
    for user in (6, -2):
        with pytest.raises(BadInput, match="not a row of the fitted matrix"):
            model.recommend(np.array([user]))
    with pytest.raises(BadInput, match="n is 0"):
        model.recommend(n=0)


@every_recommender
@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (1, 1), (3, 4)])
def test_matrices_without_entries_give_no_lists(make: Make, shape: tuple[int, int]) -> None:
    empty = sp.csr_array(shape, dtype=np.float64)
    assert len(make().fit(empty, last_interaction_at=times_like(empty)).recommend()) == 0


@every_recommender
def test_a_single_user_is_served(make: Make) -> None:
    one = sp.csr_array(np.array([[1.0, 0.0, 0.0]]))
    lists = make().fit(one, last_interaction_at=times_like(one)).recommend()
    assert 0 not in lists.of(0)


@every_recommender
def test_only_users_active_lately_are_served_by_default(make: Make) -> None:
    board = checkerboard(6)
    days = np.where(np.repeat(np.arange(6), np.diff(board.indptr)) < 2, 50.0, 90.0)
    model = make().fit(board, last_interaction_at=times_like(board, days), as_of=100 * DAY)
    assert set(model.recommend().user_index.tolist()) <= {2, 3, 4, 5}
    assert set(model.recommend(np.array([0])).user_index.tolist()) == {0}


@pytest.mark.parametrize("make", EVERY[:-1])
def test_posts_tied_in_everything_rank_by_index(make: Make) -> None:
    reads = np.zeros((9, 8))
    reads[:, 0] = 1.0  # everybody's
    reads[0:3, 4:] = 1.0
    model = make().fit(sp.csr_array(reads))
    listed = model.recommend(np.array([5]), 8).of(5).tolist()
    tied = [post for post in listed if post >= 4]
    assert tied == sorted(tied)


def test_popularity_by_hand() -> None:
    reads = sp.csr_array(np.array([[1.0, 1, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0]]))
    times = times_like(reads, [8.0, 8.0, 8.0, 8.0, 10.0, 10.0])
    whole = PopularityRecommender().fit(reads, last_interaction_at=times, as_of=10 * DAY)
    assert whole.recommend(np.array([3])).post_index.tolist() == [1, 0]
    decayed = PopularityRecommender(half_life_days=1.0).fit(reads, last_interaction_at=times, as_of=10 * DAY)
    np.testing.assert_allclose(decayed.post_scores(), [0.25, 0.75, 2.0, 0.0])
    fresh = PopularityRecommender(freshness_half_life_days=5.0).fit(
        reads, post_created_at=np.array([5, 0, 10, 0]) * DAY, as_of=10 * DAY
    )
    np.testing.assert_allclose(fresh.post_scores(), [0.5, 0.75, 2.0, 0.0])


def test_newest_ranks_posts_by_creation_and_leaves_out_unknown_ages() -> None:
    reads = sp.csr_array(np.array([[1.0, 0, 0, 0]]))
    unknown = np.iinfo(np.int64).min
    model = NewestRecommender().fit(reads, post_created_at=np.array([9 * DAY, 1 * DAY, 5 * DAY, unknown]))
    assert model.recommend().post_index.tolist() == [2, 1]


def test_random_lists_differ_between_users_and_seeds() -> None:
    board = sp.csr_array((np.ones(2), ([0, 1], [0, 1])), shape=(2, 100))
    first, second = (RandomRecommender(rng=np.random.default_rng(s)).fit(board).recommend() for s in (0, 1))
    assert first.of(0).tolist() != first.of(1).tolist()
    assert first.of(0).tolist() != second.of(0).tolist()


def test_every_post_is_as_likely_to_come_first_in_a_random_list() -> None:
    board = sp.csr_array((np.ones(3000), (np.arange(3000), np.zeros(3000, int))), shape=(3000, 7))
    lists = RandomRecommender(rng=np.random.default_rng(0)).fit(board).recommend(n=7)
    first = np.bincount(lists.post_index[lists.rank == 1], minlength=7)
    assert first[0] == 0
    assert (np.abs(first[1:] - 500) < 100).all()
    assert len(lists) == 3000 * 6


def test_the_default_baselines_include_the_strong_and_the_random_one() -> None:
    names = list(default_baselines(np.random.default_rng(0)))
    assert names == ["popularity", "decayed_popularity", "popularity_x_freshness", "newest", "random"]
