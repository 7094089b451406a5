from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from reco_assets.errors import BadInput
from reco_assets.recommender.masks import Masks

SEEN = sp.csr_array(np.array([[1.0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]))


def test_seen_ineligible_own_and_hidden_posts_are_not_allowed() -> None:
    masks = Masks.build(
        SEEN,
        eligible=np.array([True, False, True, True, True]),
        post_author=np.array([-1, -1, 0, 1, 2]),
        user_author=np.array([0, -1]),
        hidden_user=np.array([0, 1]),
        hidden_author=np.array([1, 2]),
    )
    assert masks.allowed(0).tolist() == [False, False, False, False, True]
    assert masks.allowed(1).tolist() == [True, False, True, True, False]


def test_what_is_left_out_forbids_nothing() -> None:
    assert Masks.build(SEEN).allowed(1).all()


def test_posts_of_unknown_authors_are_not_own_posts_of_users_who_wrote_nothing() -> None:
    masks = Masks.build(SEEN, post_author=np.full(5, -1), user_author=np.full(2, -1))
    assert masks.allowed(1).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eligible": np.ones(4)}, r"eligible has shape \(4,\); expected \(5,\)"),
        ({"hidden_user": np.array([2]), "hidden_author": np.array([0])}, r"outside 0 … 1"),
        ({"hidden_user": np.array([0]), "hidden_author": np.array([-1])}, r"negative code"),
        ({"hidden_user": np.array([0])}, r"hidden_author has shape \(0,\); expected \(1,\)"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Masks.build(SEEN, **arguments)
