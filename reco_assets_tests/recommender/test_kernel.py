from fractions import Fraction
from typing import Any

import numba
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from reco_assets.errors import FitCancelled
from reco_assets.recommender import kernel
from reco_assets.recommender.kernel import PostFactors, find_neighbors, recommend_to
from reco_assets.recommender.masks import Masks

dense_counts = st.tuples(st.integers(1, 12), st.integers(1, 9)).flatmap(
    lambda shape: arrays(np.int64, shape, elements=st.sampled_from([0, 0, 0, 1, 1, 2, 7]))
)


def exact_neighbors(dense: np.ndarray, user: int, k: int, min_overlap: int = 1) -> list[int]:
    """The order by cosine in rational numbers: dot² / ‖v‖², ties by the lower index."""
    ranked = []
    for other in range(len(dense)):
        dot = int(dense[user] @ dense[other])
        overlap = np.count_nonzero((dense[user] > 0) & (dense[other] > 0))
        if other != user and dot > 0 and overlap >= min_overlap:
            ranked.append((-Fraction(dot * dot, int(dense[other] @ dense[other])), other))
    return [other for _, other in sorted(ranked)[:k]]


@settings(deadline=None, max_examples=150)
@given(dense_counts, st.integers(1, 15), st.integers(1, 3), st.integers(1, 3))
def test_neighbors_are_those_of_exact_arithmetic(
    dense: np.ndarray, k: int, min_overlap: int, n_threads: int
) -> None:
    weights = sp.csr_array(dense.astype(np.float64))
    users, similarities = find_neighbors(
        weights, np.arange(len(dense)), k, min_overlap=min_overlap, n_threads=n_threads
    )
    norms = np.linalg.norm(dense.astype(np.float64), axis=1)
    for u in range(len(dense)):
        expected = exact_neighbors(dense, u, k, min_overlap)
        assert users[u].tolist() == expected + [-1] * (k - len(expected))
        cosines = [dense[u] @ dense[v] / (norms[u] * norms[v]) for v in expected]
        np.testing.assert_allclose(similarities[u, : len(expected)], cosines, rtol=1e-6)
        assert not similarities[u, len(expected) :].any()


@settings(deadline=None, max_examples=50)
@given(dense_counts, st.floats(0.5, 20))
def test_shrinkage_is_added_to_the_denominator(dense: np.ndarray, shrinkage: float) -> None:
    n = len(dense)
    users, similarities = find_neighbors(
        sp.csr_array(dense.astype(np.float64)), np.arange(n), n, shrinkage=shrinkage
    )
    norms = np.linalg.norm(dense.astype(np.float64), axis=1)
    expected = (dense @ dense.T) / (np.outer(norms, norms) + shrinkage)
    np.fill_diagonal(expected, 0)
    found = np.zeros((n, n))
    rows, columns = np.nonzero(users >= 0)
    found[rows, users[rows, columns]] = similarities[rows, columns]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert (np.diff(similarities, axis=1) <= 0).all()


@pytest.mark.parametrize(
    ("density", "k", "shrinkage"),
    [(0.02, 20, 0.0), (0.3, 20, 0.0), (0.3, 3, 0.0), (0.9, 2600, 0.0), (0.3, 20, 400.0)],
)
def test_neighbors_of_many_users_match_the_plain_product(density: float, k: int, shrinkage: float) -> None:
    """Enough users for several values in each lane, on the sparse and the dense path of selection."""
    n_users = 2601
    rng = np.random.default_rng(1)
    dense = (rng.random((n_users, 90)) < density) * rng.choice([1.0, 3.0, 7.0, 10.0], (n_users, 90))
    asked = np.arange(0, n_users, 13)
    users, _ = find_neighbors(sp.csr_array(dense), asked, k, shrinkage=shrinkage)
    dots, squared_norms = dense[asked] @ dense.T, (dense * dense).sum(axis=1)
    keys = dots * dots / np.maximum(squared_norms, 1)
    if shrinkage:
        norms = np.sqrt(squared_norms)
        keys = dots / (norms[asked, None] * norms + shrinkage)
    keys[np.arange(len(asked)), asked] = 0
    for row in range(len(asked)):
        order = np.lexsort((np.arange(n_users), -keys[row]))[:k]
        expected = order[keys[row, order] > 0]
        assert users[row, : len(expected)].tolist() == expected.tolist()
        assert (users[row, len(expected) :] == -1).all()


def test_users_with_equal_rows_are_neighbors_in_order_of_index() -> None:
    users, similarities = find_neighbors(sp.csr_array(np.ones((5, 3))), np.arange(5), 3)
    assert users.tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2]]
    assert (similarities == 1.0).all()


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_lists_match_the_plain_formula(data: st.DataObject) -> None:
    n_users = data.draw(st.integers(1, 8))
    n_posts = data.draw(st.integers(1, 90) | st.just(2300))  # the latter for several values in each lane
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
        expected = (1.0 - blend) / totals.max() * totals if totals.max() > 0 else totals
        expected = np.where(masks.allowed(u), expected + blend * factors.popularity, 0.0)
        order = np.lexsort((np.arange(n_posts), -expected))[:n]
        order = order[expected[order] > 0]
        assert posts[u, : len(order)].tolist() == order.tolist()
        np.testing.assert_array_equal(scores[u, : len(order)], expected[order])
        assert (posts[u, len(order) :] == -1).all()


def test_results_do_not_depend_on_threads_nor_on_which_users_are_asked_for() -> None:
    rng = np.random.default_rng(2)
    weights = sp.csr_array((rng.random((300, 80)) < 0.1) * rng.random((300, 80)))
    users, similarities = find_neighbors(weights, np.arange(300), 20, n_threads=1)
    for n_threads in (2, 5):
        again = find_neighbors(weights, np.arange(300), 20, n_threads=n_threads)
        assert users.tobytes() == again[0].tobytes()
        assert similarities.tobytes() == again[1].tobytes()
    some = np.array([250, 3, 77])
    assert find_neighbors(weights, some, 20)[0].tobytes() == users[some].tobytes()


def test_progress_ends_at_the_number_of_users() -> None:
    seen: list[tuple[int, int]] = []
    find_neighbors(sp.csr_array(np.eye(100)), np.arange(100), 3, progress=lambda *at: seen.append(at))
    assert seen[-1] == (100, 100)


def test_a_stopped_computation_raises_and_says_how_far_it_got() -> None:
    with pytest.raises(FitCancelled, match=r"of 100 users"):
        find_neighbors(sp.csr_array(np.eye(100)), np.arange(100), 3, should_stop=lambda: True)


def test_an_error_in_the_progress_callback_reaches_the_caller() -> None:
    def broken(done: int, total: int) -> None:
        raise RuntimeError("display is gone")

    with pytest.raises(RuntimeError, match="display is gone"):
        find_neighbors(sp.csr_array(np.eye(100)), np.arange(100), 3, progress=broken)


def test_no_users_give_an_empty_table() -> None:
    users, similarities = find_neighbors(sp.csr_array((0, 4), dtype=np.float64), np.empty(0), 3)
    assert users.shape == similarities.shape == (0, 3)


def test_kernels_compile_where_no_cache_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    njit = numba.njit

    def no_cache(**options: Any) -> Any:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available for file")
        return njit(**options)

    monkeypatch.setattr(numba, "njit", no_cache)

    @kernel._compiled
    def double(x: int) -> int:
        return 2 * x

    assert double(4) == 8
