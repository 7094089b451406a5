from math import log, sqrt

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from reco_assets.errors import BadInput
from reco_assets.parameters import CHOICES
from reco_assets.recommender.interaction_log import UNKNOWN_TIME
from reco_assets.recommender.weighting import (
    SimilarityWeighting,
    age_in_days,
    all_in_tenths,
    decay,
    tenths,
    vote_values,
)
from reco_assets_tests.recommender.examples import DAY

# Post 0 was read by three of four users (idf ln(4/4) = 0), post 1 by one (ln 2), post 2 by two (ln 4/3).
MATRIX = sp.csr_array(np.array([[1.0, 0.25, 0.0], [1.0, 0.0, 4.0], [1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]))
FOUR = sp.csr_array(np.vstack([MATRIX.toarray()[:3], [0.0, 9.0, 0.0]]))


def weighted(matrix: sp.csr_array, name: str) -> np.ndarray:
    return SimilarityWeighting.fit(matrix, name).of_matrix(matrix).toarray()


@pytest.mark.parametrize(
    ("weighting", "expected"),
    [
        ("none", FOUR.toarray()),
        (
            "tfidf",
            [[0, 0.25 * log(4 / 3), 0], [0, 0, 4 * log(4 / 3)], [0, 0, log(4 / 3)], [0, 9 * log(4 / 3), 0]],
        ),
        (
            "sqrt_tfidf",
            [[0, 0.5 * log(4 / 3), 0], [0, 0, 2 * log(4 / 3)], [0, 0, log(4 / 3)], [0, 3 * log(4 / 3), 0]],
        ),
        ("binary_tfidf", [[0, log(4 / 3), 0], [0, 0, log(4 / 3)], [0, 0, log(4 / 3)], [0, log(4 / 3), 0]]),
    ],
)
def test_similarity_weighting_by_hand(weighting: str, expected: object) -> None:
    np.testing.assert_allclose(weighted(FOUR, weighting), expected, rtol=1e-12)


def test_bm25_with_users_as_documents_by_hand() -> None:
    # Sums of the users: 1.25, 5, 2, 9; mean 4.3125. User 2 and post 2: w = 1, idf = ln 4/3.
    length = 1.2 * (0.25 + 0.75 * 2 / 4.3125)
    expected = log(4 / 3) * 2.2 / (1 + length)
    assert weighted(FOUR, "bm25_users")[2, 2] == pytest.approx(expected)


def test_bm25_with_posts_as_documents_by_hand() -> None:
    # Sums of the posts: 3, 5; mean 4. User 1 read one of the two posts: idf ln(2/2) = 0. So three posts:
    matrix = sp.csr_array(np.array([[1.0, 0, 0, 0], [2, 4, 0, 0], [0, 1, 3, 0]]))
    # sums 3, 5, 3; mean 11/3; the fourth was read by nobody. User 0 read one: idf ln 3/2; 1 and 2: ln 3/3.
    expected = log(3 / 2) * 2.2 / (1 + 1.2 * (0.25 + 0.75 * 3 / (11 / 3)))
    found = weighted(matrix, "bm25_posts")
    assert found[0, 0] == pytest.approx(expected)
    assert np.count_nonzero(found) == 1


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 12))
def test_bm25_of_posts_is_bm25_of_users_on_the_transposed_matrix(seed: int, users: int, posts: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = (rng.random((users, posts)) < 0.4) * rng.choice([0.1, 0.3, 1.0, 7.0], (users, posts))
    transposed = weighted(sp.csr_array(matrix.T), "bm25_users").T
    np.testing.assert_allclose(weighted(sp.csr_array(matrix), "bm25_posts"), transposed, rtol=1e-12)


def test_bm25_of_posts_damps_the_popular_one_where_the_cosine_of_raw_weights_does_not() -> None:
    """Of two posts that a user has read with the same weight, the one with more readers counts less."""
    reads = np.zeros((6, 8))
    reads[:5, 0] = reads[0, 1] = reads[5, 2:] = 1.0
    row = weighted(sp.csr_array(reads), "bm25_posts")[0]
    assert 0 < row[0] < row[1]


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(CHOICES["similarity_weighting"]), st.integers(0, 2**32), st.booleans())
def test_a_row_alone_is_weighted_to_the_bit_as_within_the_matrix(name: str, seed: int, exact: bool) -> None:
    rng = np.random.default_rng(seed)
    shape = int(rng.integers(1, 60)), int(rng.integers(1, 60))
    values = rng.choice([0.1, 0.3, 1.0], shape) if exact else rng.random(shape)
    matrix = sp.csr_array((rng.random(shape) < 0.3) * values)
    weighting = SimilarityWeighting.fit(matrix, name, exact=exact)
    together = weighting.of_rows(matrix.indices, matrix.data, matrix.indptr)
    for u in range(shape[0]):
        row = slice(matrix.indptr[u], matrix.indptr[u + 1])
        posts, alone = matrix.indices[row], matrix.data[row]
        found = weighting.of_rows(posts, alone, np.array([0, len(posts)]))
        assert found.tobytes() == together[row].tobytes()


def test_users_without_interactions_do_not_count_in_the_idf() -> None:
    # Three users with interactions: post 1 has df 1, idf ln(3/2); post 2 has df 2, idf ln(3/3) = 0.
    expected = [[0, log(3 / 2), 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(weighted(MATRIX, "binary_tfidf"), expected)


def test_a_post_that_everybody_saw_says_nothing_and_never_counts_negative() -> None:
    for name in ("tfidf", "sqrt_tfidf", "binary_tfidf", "bm25_users", "bm25_posts"):
        assert not weighted(sp.csr_array(np.ones((5, 2))), name).any()


def test_weights_in_tenths_become_whole_numbers_and_others_stay_apart() -> None:
    assert tenths(np.array([0.1, 0.1 + 0.2, 0.7, 2.0])).tolist() == [1.0, 3.0, 7.0, 20.0]
    assert tenths(np.array([0.1, 0.25])).tolist() == [1.0, 2.5]
    assert all_in_tenths(np.array([0.1 + 0.2]))
    assert not all_in_tenths(np.array([0.1, 0.25]))
    assert not all_in_tenths(np.empty(0))


def test_votes_halve_with_each_half_life() -> None:
    weights, ages = np.array([4.0, 4.0, 4.0]), np.array([0.0, 2.0, 4.0])
    assert vote_values(weights, ages, "raw", 2.0).tolist() == [4, 2, 1]
    assert vote_values(weights, ages, "sqrt", 2.0).tolist() == [2, 1, 0.5]
    assert vote_values(weights, ages, "binary", None).tolist() == [1, 1, 1]
    assert vote_values(np.array([0.5]), np.array([-1.0]), "sqrt", 1.0).tolist() == [sqrt(0.5)]


def test_nothing_is_left_of_what_is_too_old_for_a_normal_number() -> None:
    assert decay(np.array([1.0, 1022.0, 1022.5, 4000.0, np.inf]), 1.0).tolist() == [0.5, 2.0**-1022, 0, 0, 0]


def test_ages_are_days_and_infinite_where_unknown() -> None:
    assert age_in_days(np.array([0, 2 * DAY, UNKNOWN_TIME]), 3 * DAY).tolist() == [3, 1, np.inf]


def test_unknown_weightings_are_refused_with_the_choices() -> None:
    with pytest.raises(BadInput, match="'idf'; use one of none, tfidf"):
        SimilarityWeighting.fit(FOUR, "idf")
    with pytest.raises(BadInput, match="'log'; use one of raw, sqrt, binary"):
        vote_values(np.ones(1), np.ones(1), "log", None)
