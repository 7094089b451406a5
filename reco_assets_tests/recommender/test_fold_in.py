"""One user's list from a fresh history, against a fitted model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from reco_assets.errors import BadInput
from reco_assets.parameters import CHOICES
from reco_assets.recommender.fit_inputs import fit_log
from reco_assets.recommender.fold_in import FoldedIn
from reco_assets.recommender.interaction_matrix import InteractionMatrix
from reco_assets.recommender.user_knn import UserKNNRecommender
from reco_assets_tests.recommender.examples import DAY, WEIGHTS, random_log, times_like

# Users 0 and 1 share posts 0 and 1, user 2 shares post 1 with both. User 1 alone read post 2, user 2 post 3.
READS = sp.csr_array(np.array([[1.0, 1, 0, 0], [1, 1, 1, 0], [0, 1, 0, 1]]))
PLAIN: dict[str, Any] = {"similarity_weighting": "none", "popularity_blend": 0.0}
SHAPES = [(40, 60, 900), (7, 5, 30), (90, 12, 500), (3, 80, 60)]


def history_of(model: UserKNNRecommender, weights: sp.csr_array, user: int, **options: Any) -> FoldedIn:
    """Fold in what the fit saw of a user."""
    row = slice(weights.indptr[user], weights.indptr[user + 1])
    times = None if model.last_interaction_at_ is None else model.last_interaction_at_[row]
    return model.fold_in(weights.indices[row], weights.data[row], times, user_index=user, **options)


def assert_folding_in_changes_nothing(model: UserKNNRecommender, weights: sp.csr_array, n: int) -> None:
    neighbors, similarities = model.kneighbors()
    for user in range(weights.shape[0]):
        folded = history_of(model, weights, user, n=n)
        assert folded.neighbors.tobytes() == neighbors[user].tobytes()
        assert folded.similarities.tobytes() == similarities[user].tobytes()
        lists = model.recommend(np.array([user]), n)
        assert folded.post_index.tobytes() == lists.post_index.tobytes()
        assert folded.score.tobytes() == lists.score.tobytes()


@settings(deadline=None, max_examples=120)
@given(
    seed=st.integers(0, 2**32),
    shape=st.sampled_from(SHAPES),
    parameters=st.fixed_dictionaries(
        {
            "n_neighbors": st.sampled_from([1, 3, 10, 200]),
            "similarity_weighting": st.sampled_from(CHOICES["similarity_weighting"]),
            "similarity_window_days": st.sampled_from([None, 2.0]),
            "shrinkage": st.sampled_from([0.0, 5.0]),
            "min_overlap": st.integers(1, 3),
            "vote_weighting": st.sampled_from(CHOICES["vote_weighting"]),
            "popularity_blend": st.sampled_from([0.0, 0.2, 1.0]),
        }
    ),
    uneven=st.booleans(),
)
def test_the_history_of_the_fit_gives_the_lists_of_the_fit_to_the_bit(
    seed: int, shape: tuple[int, int, int], parameters: dict[str, Any], uneven: bool
) -> None:
    """With own posts, hidden authors, ineligible posts and times; weights in tenths and not."""
    n_users, n_posts, n = shape
    log = random_log(np.random.default_rng(seed), n_users=n_users, n_posts=n_posts, n=n)
    weights = WEIGHTS | ({"view": 0.123} if uneven else {})
    model = fit_log(UserKNNRecommender(**parameters), log, as_of_us=9 * DAY, interaction_weights=weights)
    matrix = InteractionMatrix.from_log(log.before(9 * DAY), 9 * DAY, interaction_weights=weights)
    assert_folding_in_changes_nothing(model, matrix.weights, n=12)


def test_a_loaded_model_folds_in_to_the_bit(tmp_path: Path) -> None:
    log = random_log(np.random.default_rng(3))
    matrix = InteractionMatrix.from_log(log.before(9 * DAY), 9 * DAY, interaction_weights=WEIGHTS)
    for name in CHOICES["similarity_weighting"]:
        model = UserKNNRecommender(similarity_weighting=name, similarity_window_days=8.0)
        fit_log(model, log, as_of_us=9 * DAY, interaction_weights=WEIGHTS).save(tmp_path / name)
        for verify in (True, False):
            loaded = UserKNNRecommender.load(tmp_path / name, verify=verify)
            assert_folding_in_changes_nothing(loaded, matrix.weights, n=9)


def test_equal_cosines_of_weights_in_tenths_are_ties_everywhere(tmp_path: Path) -> None:
    """Users 1 and 2 are equally like user 0, which 0.7 · 0.1 / 0.1 in floating point denies."""
    model = UserKNNRecommender(**PLAIN).fit(sp.csr_array(np.array([[0.7, 0.7], [0.1, 0], [1, 0]])))
    loaded = UserKNNRecommender.load(model.save(tmp_path / "model"))
    for each in (model, loaded):
        assert each.kneighbors([0])[0].tolist() == [[1, 2]]
        assert each.fold_in([0, 1], [0.7, 0.7], user_index=0).neighbors.tolist() == [1, 2]


def test_a_fresh_history_finds_other_neighbors_than_the_fit_did() -> None:
    model = UserKNNRecommender(**PLAIN).fit(READS)
    assert model.kneighbors([2])[0].tolist() == [[0, 1]]
    # User 2 has read post 2 since, as user 1 did.
    folded = model.fold_in([1, 2, 3], [1.0, 1, 1], user_index=2)
    assert folded.neighbors.tolist() == [1, 0]
    np.testing.assert_allclose(folded.similarities, [2 / 3, 1 / np.sqrt(6)], rtol=1e-6)
    assert folded.post_index.tolist() == [0]


def test_an_unknown_user_may_be_like_everybody() -> None:
    folded = UserKNNRecommender(**PLAIN).fit(READS).fold_in([3], [1.0])
    assert folded.neighbors.tolist() == [2, -1]
    assert folded.similarities.tolist() == pytest.approx([np.sqrt(0.5), 0])
    assert folded.post_index.tolist() == [1]


def test_an_empty_history_has_no_neighbors_and_the_list_of_popularity() -> None:
    for user in (-1, 0):
        model = UserKNNRecommender(**PLAIN | {"popularity_blend": 0.2}).fit(READS)
        folded = model.fold_in([], [], user_index=user)
        assert folded.neighbors.tolist() == [-1, -1]
        assert folded.similarities.tolist() == [0, 0]
        assert folded.post_index.tolist() == [1, 0, 2, 3]
        np.testing.assert_allclose(folded.score, [0.2, 0.4 / 3, 0.2 / 3, 0.2 / 3])
        assert model.fold_in([], [], n=2).post_index.tolist() == [1, 0]
    assert UserKNNRecommender(**PLAIN).fit(READS).fold_in([], []).post_index.tolist() == []


def test_the_order_of_a_history_does_not_matter() -> None:
    model = UserKNNRecommender(similarity_weighting="bm25_users", similarity_window_days=3)
    model.fit(READS, last_interaction_at=times_like(READS, 9.0), as_of=10 * DAY)
    posts, weights, times = np.array([3, 0, 2]), np.array([0.3, 1.0, 0.1]), np.array([9, 5, 8]) * DAY
    sorted_ = model.fold_in(posts[[1, 2, 0]], weights[[1, 2, 0]], times[[1, 2, 0]])
    folded = model.fold_in(posts, weights, times)
    assert folded.similarities.tobytes() == sorted_.similarities.tobytes()
    assert folded.post_index.tolist() == sorted_.post_index.tolist()
    assert posts.tolist() == [3, 0, 2]


def test_what_lies_before_the_similarity_window_is_seen_but_tells_nothing() -> None:
    model = UserKNNRecommender(**PLAIN, similarity_window_days=3)
    model.fit(READS, last_interaction_at=times_like(READS, 9.0), as_of=10 * DAY)
    folded = model.fold_in([0, 3], [1.0, 1.0], np.array([1, 9]) * DAY)
    assert folded.neighbors.tolist() == [2, -1]
    assert folded.post_index.tolist() == [1]
    # Without times everything is of now: users 0 and 2 share a post each, of two.
    assert model.fold_in([0, 3], [1.0, 1.0]).neighbors.tolist() == [0, 2]


def test_blocked_authors_are_those_of_the_fit_unless_others_are_given() -> None:
    """Author 0 wrote post 2, author 1 post 3; user 0 hid author 0."""
    model = UserKNNRecommender(**PLAIN).fit(
        READS,
        post_author=np.array([-1, -1, 0, 1]),
        hidden_user=np.array([0]),
        hidden_author=np.array([0]),
    )
    assert model.fold_in([0, 1], [1.0, 1], user_index=0).post_index.tolist() == [3]
    # Nobody is left out as being the user, so that users 0 and 1 are the nearest two.
    assert model.fold_in([0, 1], [1.0, 1]).post_index.tolist() == [2]
    assert model.fold_in([0, 1], [1.0, 1], user_index=0, blocked_authors=[]).post_index.tolist() == [2, 3]
    # An author who is not in the fit wrote none of its posts.
    assert model.fold_in([0, 1], [1.0, 1], user_index=0, blocked_authors=[1, 77]).post_index.tolist() == [2]


def test_statistics_are_those_of_the_fit_whatever_the_history_holds() -> None:
    """Post 0: idf ln 4/3, post 1: ln 4/2, read by users 1 and 2 and by user 3: the fit's, not a refit's."""
    reads = sp.csr_array(np.array([[0.0, 0, 1], [1, 0, 0], [1, 0, 0], [0, 1, 0]]))
    model = UserKNNRecommender(similarity_weighting="binary_tfidf").fit(reads)
    folded = model.fold_in([0, 1], [1.0, 1.0], user_index=0)
    both = np.hypot(np.log(4 / 3), np.log(4 / 2))
    assert folded.neighbors.tolist() == [3, 1, 2]
    expected = np.array([np.log(4 / 2), np.log(4 / 3), np.log(4 / 3)]) / both
    np.testing.assert_allclose(folded.similarities, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([4], [1.0]), r"Post 4 is not a column of the fitted matrix \(0 … 3\)"),
        (([-1], [1.0]), "Post -1 is not a column"),
        (([0.5], [1.0]), "expected integers"),
        (([[0]], [[1.0]]), "expected integers"),
        (([0, 1], [1.0]), r"weights has shape \(1,\); post_indices has \(2,\)"),
        (([0], [0.0]), "not positive and finite"),
        (([0], [np.nan]), "not positive and finite"),
        (([0, 1, 0], [1.0, 1, 1]), "Post 0 stands in the history twice"),
        (([0], [1.0], [1, 2]), r"last_interaction_at has shape \(2,\)"),
    ],
)
def test_histories_that_cannot_be_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        UserKNNRecommender().fit(READS).fold_in(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"user_index": 3}, "User 3 is not a row"),
        ({"user_index": -2}, "User -2 is not a row"),
        ({"n": 0}, "n is 0"),
        ({"blocked_authors": [-1]}, "negative code"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        UserKNNRecommender().fit(READS).fold_in([0], [1.0], **options)


def test_a_fitted_model_keeps_what_a_history_needs_and_the_rows_no_longer() -> None:
    index = UserKNNRecommender().fit(READS).index_
    assert index.row_posts is index.row_weights is index.row_indptr is None
    with pytest.raises(BadInput, match="no rows"):
        index.search(2)


def test_a_loaded_model_reads_its_files_where_they_are_and_copies_nothing_that_grows_with_them(
    tmp_path: Path,
) -> None:
    log = random_log(np.random.default_rng(2))
    model = fit_log(UserKNNRecommender(), log, as_of_us=9 * DAY, interaction_weights=WEIGHTS)
    loaded = UserKNNRecommender.load(model.save(tmp_path / "model"))
    loaded.fold_in([0], [1.0])
    mapped = [loaded.neighbors_, loaded.similarities_, loaded.votes_.indices, loaded.votes_.data]
    mapped += [getattr(loaded.index_, name) for name in ("reader_indptr", "readers", "reader_weights")]
    mapped += [loaded.index_._all_readers.users, loaded.index_._all_readers.weights]
    for array in mapped:
        while not isinstance(array, np.memmap):
            assert array.base is not None
            array = array.base
