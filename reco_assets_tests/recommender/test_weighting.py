from math import log, sqrt

import numpy as np
import pytest
import scipy.sparse as sp

from reco_assets.errors import BadInput
from reco_assets.recommender.interaction_log import UNKNOWN_TIME
from reco_assets.recommender.weighting import (
    age_in_days,
    exact_weights,
    similarity_weights,
    vote_values,
)
from reco_assets_tests.recommender.examples import DAY

# Post 0 was read by three of four users (idf ln(4/4) = 0), post 1 by one (ln 2), post 2 by two (ln 4/3).
MATRIX = sp.csr_array(np.array([[1.0, 0.25, 0.0], [1.0, 0.0, 4.0], [1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]))
FOUR = sp.csr_array(np.vstack([MATRIX.toarray()[:3], [0.0, 9.0, 0.0]]))


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
    np.testing.assert_allclose(similarity_weights(FOUR, weighting).toarray(), expected, rtol=1e-12)


def test_bm25_by_hand() -> None:
    # Sums of the users: 1.25, 5, 2, 9; mean 4.3125. User 2 and post 2: w = 1, idf = ln 4/3.
    length = 1.2 * (0.25 + 0.75 * 2 / 4.3125)
    expected = log(4 / 3) * 2.2 / (1 + length)
    assert similarity_weights(FOUR, "bm25").toarray()[2, 2] == pytest.approx(expected)


def test_users_without_interactions_do_not_count_in_the_idf() -> None:
    # Three users with interactions: post 1 has df 1, idf ln(3/2); post 2 has df 2, idf ln(3/3) = 0.
    weighted = similarity_weights(MATRIX, "binary_tfidf").toarray()
    np.testing.assert_allclose(weighted, [[0, log(3 / 2), 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]])


def test_a_post_that_everybody_saw_says_nothing_and_never_counts_negative() -> None:
    for weighting in ("tfidf", "sqrt_tfidf", "binary_tfidf", "bm25"):
        assert similarity_weights(sp.csr_array(np.ones((5, 2))), weighting).nnz == 0


def test_weights_in_tenths_become_whole_numbers_and_others_stay() -> None:
    tenths = exact_weights(np.array([0.1, 0.1 + 0.2, 0.7, 2.0]))
    assert tenths.tolist() == [1.0, 3.0, 7.0, 20.0]
    assert exact_weights(np.array([0.1, 0.25])).tolist() == [0.1, 0.25]


def test_votes_halve_with_each_half_life() -> None:
    weights, ages = np.array([4.0, 4.0, 4.0]), np.array([0.0, 2.0, 4.0])
    assert vote_values(weights, ages, "raw", 2.0).tolist() == [4, 2, 1]
    assert vote_values(weights, ages, "sqrt", 2.0).tolist() == [2, 1, 0.5]
    assert vote_values(weights, ages, "binary", None).tolist() == [1, 1, 1]
    assert vote_values(np.array([0.5]), np.array([-1.0]), "sqrt", 1.0).tolist() == [sqrt(0.5)]


def test_ages_are_days_and_infinite_where_unknown() -> None:
    assert age_in_days(np.array([0, 2 * DAY, UNKNOWN_TIME]), 3 * DAY).tolist() == [3, 1, np.inf]


def test_unknown_weightings_are_refused_with_the_choices() -> None:
    with pytest.raises(BadInput, match="'idf'; use one of none, tfidf"):
        similarity_weights(FOUR, "idf")
    with pytest.raises(BadInput, match="'log'; use one of raw, sqrt, binary"):
        vote_values(np.ones(1), np.ones(1), "log", None)
