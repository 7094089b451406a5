from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from reco_assets.recommender import list_scoring
from reco_assets.recommender.list_scoring import PostFactors, recommend_to
from reco_assets.recommender.masks import Masks


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_lists_match_the_plain_formula(data: st.DataObject) -> None:
    n_users = data.draw(st.integers(1, 8))
    n_posts = data.draw(st.integers(1, 90) | st.just(2300))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    n, k = data.draw(st.integers(1, 95)), data.draw(st.integers(0, 6))
    blend = data.draw(st.sampled_from([0.0, 0.25, 1.0]))
    # Few distinct values: many ties.
    votes = sp.csr_array(rng.choice([0.0, 0.0, 0.5, 1.0], (n_users, n_posts)))
    neighbors = rng.integers(-1, n_users, (n_users, k)).astype(np.int32)
    neighbors = np.take_along_axis(neighbors, np.argsort(neighbors < 0, axis=1, kind="stable"), axis=1)
    similarities = rng.choice([0.25, 0.5, 1.0], (n_users, k)).astype(np.float32)
    factors = PostFactors(rng.choice([0.0, 0.5, 1.0], n_posts), rng.choice([0.0, 0.5, 1.0], n_posts))
    masks = Masks.build(
        sp.csr_array((rng.random((n_users, n_posts)) < 0.2).astype(float)),
        eligible=rng.random(n_posts) < 0.9,
        post_author=rng.integers(-1, 3, n_posts),
        user_author=rng.integers(-1, 3, n_users),
        hidden_user=rng.integers(0, n_users, 3),
        hidden_author=rng.integers(0, 3, 3),
    )
    posts, scores = recommend_to(
        np.arange(n_users),
        n,
        neighbors=neighbors,
        similarities=similarities,
        votes=votes,
        factors=factors,
        blend=blend,
        masks=masks,
        n_threads=data.draw(st.integers(1, 3)),
    )
    dense = votes.toarray()
    for u in range(n_users):
        totals = np.zeros(n_posts)
        for v, similarity in zip(neighbors[u], similarities[u].astype(float), strict=True):
            totals += similarity * dense[v] if v >= 0 else 0.0
        totals = np.where(masks.allowed(u), totals * factors.freshness, 0.0)
        expected = (1.0 - blend) * (totals / totals.max()) if totals.max() > 0 else totals
        expected = np.where(masks.allowed(u), expected + blend * factors.popularity, 0.0)
        order = np.lexsort((np.arange(n_posts), -expected))[:n]
        order = order[expected[order] > 0]
        assert posts[u, : len(order)].tolist() == order.tolist()
        np.testing.assert_array_equal(scores[u, : len(order)], expected[order])
        assert (posts[u, len(order) :] == -1).all()


def test_rows_of_one_chunk_do_not_touch_each_other() -> None:
    rng = np.random.default_rng(3)
    n_users, n_posts = 8, 40
    inputs: dict[str, Any] = {
        "neighbors": np.argsort(rng.random((n_users, n_users)), axis=1)[:, :3].astype(np.int32),
        "similarities": rng.random((n_users, 3)).astype(np.float32),
        "votes": sp.csr_array((rng.random((n_users, n_posts)) < 0.3) * 1.0),
        "factors": PostFactors(np.ones(n_posts), rng.random(n_posts)),
        "blend": 0.2,
        "masks": Masks.build(sp.csr_array((rng.random((n_users, n_posts)) < 0.2) * 1.0)),
        "n_threads": 1,
    }
    users = rng.integers(0, n_users, 500)
    posts, scores = recommend_to(users, 10, **inputs)
    alone = [recommend_to(np.array([u]), 10, **inputs) for u in range(n_users)]
    for row, u in enumerate(users):
        assert posts[row].tolist() == alone[u][0][0].tolist()
        assert scores[row].tolist() == alone[u][1][0].tolist()


def test_votes_that_have_all_but_decayed_give_finite_scores_in_their_order() -> None:
    posts, scores = recommend_to(
        np.array([0]),
        3,
        neighbors=np.array([[1]], dtype=np.int32),
        similarities=np.ones((1, 1), dtype=np.float32),
        votes=sp.csr_array(np.array([[0, 0, 0], [1e-320, 4e-320, 2e-320]])),
        factors=PostFactors(np.ones(3), np.zeros(3)),
        blend=0.0,
        masks=Masks.build(sp.csr_array((1, 3))),
    )
    assert posts.tolist() == [[1, 2, 0]]
    np.testing.assert_allclose(scores, [[1.0, 0.5, 0.25]], rtol=1e-3)


def test_popularity_too_small_for_a_score_is_left_out() -> None:
    posts, _ = recommend_to(
        np.array([0]),
        2,
        neighbors=np.full((1, 1), -1, dtype=np.int32),
        similarities=np.zeros((1, 1), dtype=np.float32),
        votes=sp.csr_array((1, 2)),
        factors=PostFactors(np.ones(2), np.array([5e-324, 1.0])),
        blend=0.2,
        masks=Masks.build(sp.csr_array((1, 2))),
    )
    assert posts.tolist() == [[1, -1]]


def test_what_a_thread_keeps_never_reaches_the_next_list(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = Masks.build(sp.csr_array(np.array([[1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])))

    def lists(masks: Masks = masks, worst: float = 0.0) -> list[list[int]]:
        posts, _ = recommend_to(
            np.tile([0, 1], 100),  # several rows a chunk
            5,
            neighbors=np.array([[1], [0]], dtype=np.int32),
            similarities=np.ones((2, 1), dtype=np.float32),
            votes=sp.csr_array(np.array([[5.0, 0, 4, worst, 1], [5, 4, 3, 2, worst]])),
            factors=PostFactors(np.ones(5), np.zeros(5)),
            blend=0.0,
            masks=masks,
            n_threads=1,
        )
        first, second = ([int(post) for post in row if post >= 0] for row in posts[:2])
        assert posts.tolist() == posts[:2].tolist() * 100
        return [first, second]

    assert lists() == lists() == [[1, 2, 3], [0, 2, 4]]
    for worst in (np.nan, np.inf):  # a caller's mistake is not the next one's
        lists(worst=worst)
        assert lists() == [[1, 2, 3], [0, 2, 4]]
    masks.eligible[2] = False
    assert lists() == [[1, 3], [0, 4]]
    masks.eligible[2] = True
    for left in (5, 4, 3, 2, 1):  # rows are told apart by numbers of 31 bits, which come to their end
        monkeypatch.setattr(list_scoring._KEPT, "stamp", np.iinfo(np.int32).max - left)
        assert lists() == [[1, 2, 3], [0, 2, 4]]
    assert lists(Masks.build(sp.csr_array((2, 5)))) == [[0, 1, 2, 3], [0, 2, 4]]
