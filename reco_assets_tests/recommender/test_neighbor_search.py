import copy
import threading
import time
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from reco_assets.errors import BadInput, FitCancelled
from reco_assets.recommender import neighbor_search
from reco_assets.recommender.neighbor_search import NeighborIndex
from reco_assets.recommender.selection import room_for

dense_counts = st.tuples(st.integers(1, 40), st.integers(1, 9)).flatmap(
    lambda shape: arrays(np.int64, shape, elements=st.sampled_from([0, 0, 0, 1, 1, 2, 7]))
)
tile_sizes = st.sampled_from([1, 2, 5, 16, 64])


def exact_neighbors(dense: np.ndarray, user: int, k: int, min_overlap: int = 1) -> list[int]:
    """The order by cosine in rational numbers: dot² / ‖v‖², ties by the lower index."""
    dots, squared_norms = dense @ dense[user], (dense * dense).sum(axis=1)
    overlaps = ((dense > 0) & (dense[user] > 0)).sum(axis=1)
    ranked = [
        (-Fraction(int(dots[v]) ** 2, int(squared_norms[v])), v)
        for v in range(len(dense))
        if v != user and dots[v] > 0 and overlaps[v] >= min_overlap
    ]
    return [v for _, v in sorted(ranked)[:k]]


def plain_similarities(dense: np.ndarray, shrinkage: float) -> np.ndarray:
    """(n_users, n_users) float64 by the formula; 0 for users themselves."""
    norms = np.sqrt((dense * dense).sum(axis=1))
    scale = np.outer(norms, norms) + shrinkage
    result = np.divide(dense @ dense.T, scale, out=np.zeros_like(scale), where=scale > 0)
    np.fill_diagonal(result, 0.0)
    return result


@settings(deadline=None, max_examples=200)
@given(
    dense_counts,
    st.integers(1, 45),
    st.integers(1, 3),
    st.integers(1, 3),
    tile_sizes,
    st.sampled_from([1, 10**9]),
)
def test_neighbors_are_those_of_exact_arithmetic(
    dense: np.ndarray, k: int, min_overlap: int, n_threads: int, tile_users: int, list_bytes: int
) -> None:
    index = NeighborIndex.build(sp.csr_array(dense.astype(np.float64)), tile_users=tile_users)
    users, similarities = index.search(k, min_overlap=min_overlap, n_threads=n_threads, list_bytes=list_bytes)
    cosines = plain_similarities(dense.astype(np.float64), 0.0)
    for u in range(len(dense)):
        expected = exact_neighbors(dense, u, k, min_overlap)
        assert users[u].tolist() == expected + [-1] * (k - len(expected))
        np.testing.assert_allclose(similarities[u, : len(expected)], cosines[u, expected], rtol=1e-6)
        assert not similarities[u, len(expected) :].any()


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_similarities_of_any_weights_are_those_of_the_dense_product_in_float64(data: st.DataObject) -> None:
    """Ranks may differ only where the reference's own similarities differ by less than the tolerance."""
    n_users, n_posts = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 30))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    density, k = data.draw(st.sampled_from([0.05, 0.3, 1.0])), data.draw(st.integers(1, 70))
    shrinkage = data.draw(st.sampled_from([0.0, 0.3, 50.0]))
    dense = (rng.random((n_users, n_posts)) < density) * rng.lognormal(0, 2, (n_users, n_posts))
    dense[rng.random(n_users) < 0.2] = dense[0]  # equal rows
    index = NeighborIndex.build(sp.csr_array(dense), tile_users=data.draw(tile_sizes))
    users, similarities = index.search(k, shrinkage=shrinkage, n_threads=data.draw(st.integers(1, 3)))
    reference = plain_similarities(dense, shrinkage)
    for u in range(n_users):
        best = np.sort(reference[u][reference[u] > 0])[::-1][:k]
        found = users[u][users[u] >= 0]
        assert len(found) == len(set(found.tolist())) == len(best)
        np.testing.assert_allclose(reference[u, found], best, rtol=1e-12)
        np.testing.assert_allclose(similarities[u, : len(best)], best, rtol=1e-6)


@pytest.mark.parametrize(
    ("density", "k", "shrinkage"),
    [(0.02, 20, 0.0), (0.3, 20, 0.0), (0.3, 3, 0.0), (0.9, 2600, 0.0), (0.3, 20, 400.0)],
)
def test_neighbors_of_many_users_match_the_plain_product(density: float, k: int, shrinkage: float) -> None:
    """Enough users for several tiles of the usual size and several values in each lane of the bound."""
    n_users = 9001
    rng = np.random.default_rng(1)
    dense = (rng.random((n_users, 90)) < density) * rng.choice([1.0, 3.0, 7.0, 10.0], (n_users, 90))
    users, _ = NeighborIndex.build(sp.csr_array(dense)).search(k, shrinkage=shrinkage)
    asked = np.arange(0, n_users, 53)
    dots, squared_norms = dense[asked] @ dense.T, (dense * dense).sum(axis=1)
    keys = dots * dots / np.maximum(squared_norms, 1)
    if shrinkage:
        norms = np.sqrt(squared_norms)
        keys = dots / (norms[asked, None] * norms + shrinkage)
    keys[np.arange(len(asked)), asked] = 0
    for row, user in enumerate(asked):
        order = np.lexsort((np.arange(n_users), -keys[row]))[:k]
        expected = order[keys[row, order] > 0]
        assert users[user, : len(expected)].tolist() == expected.tolist()
        assert (users[user, len(expected) :] == -1).all()


def test_users_with_equal_rows_are_neighbors_in_order_of_index() -> None:
    users, similarities = NeighborIndex.build(sp.csr_array(np.ones((5, 3)))).search(3)
    assert users.tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2]]
    assert (similarities == 1.0).all()


def test_a_post_that_everybody_saw_makes_everybody_neighbors() -> None:
    """The user with that post alone is most like those who saw little else."""
    dense = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 1]], dtype=float)
    users, _ = NeighborIndex.build(sp.csr_array(dense)).search(3)
    assert users[0].tolist() == [1, 3, 2]
    assert (users >= 0).all()


def test_results_do_not_depend_on_threads_tiles_or_memory() -> None:
    rng = np.random.default_rng(2)
    weights = sp.csr_array((rng.random((700, 80)) < 0.1) * rng.random((700, 80)))
    users, similarities = NeighborIndex.build(weights).search(20, n_threads=1)
    for n_threads, tile_users, list_bytes in [(2, 64, 10**9), (5, 30, 10**9), (3, 64, 1), (2, 100, 300_000)]:
        index = NeighborIndex.build(weights, tile_users=tile_users)
        again = index.search(20, n_threads=n_threads, list_bytes=list_bytes)
        assert users.tobytes() == again[0].tobytes()
        assert similarities.tobytes() == again[1].tobytes()


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_one_row_finds_what_the_batch_finds_for_its_user_to_the_bit(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    n_users = data.draw(st.integers(1, 80))
    weights = sp.csr_array((rng.random((n_users, 20)) < 0.3) * rng.random((n_users, 20)))
    options = {
        "shrinkage": data.draw(st.sampled_from([0.0, 2.0])),
        "min_overlap": data.draw(st.integers(1, 3)),
    }
    k = data.draw(st.integers(1, 90))
    index = NeighborIndex.build(weights, tile_users=data.draw(tile_sizes | st.just(n_users)))
    users, similarities = index.search(k, **options)
    for u in range(n_users):
        row = slice(weights.indptr[u], weights.indptr[u + 1])
        found = index.search_one(weights.indices[row], weights.data[row], k, exclude=u, **options)
        assert found[0].tobytes() == users[u].tobytes()
        assert found[1].tobytes() == similarities[u].tobytes()


def test_one_row_of_nobody_in_the_index_may_find_everybody() -> None:
    index = NeighborIndex.build(sp.csr_array(np.eye(3)))
    users, similarities = index.search_one(np.array([0, 2]), np.array([3.0, 4.0]), 4)
    assert users.tolist() == [2, 0, -1, -1]
    np.testing.assert_allclose(similarities, [0.8, 0.6, 0, 0], rtol=1e-6)


def test_one_thread_may_ask_for_few_neighbors_and_then_for_many() -> None:
    index = NeighborIndex.build(sp.csr_array(np.ones((700, 1))), tile_users=700)
    for k in (1, 600, 2):
        users, _ = index.search_one(np.array([0]), np.array([1.0]), k)
        assert users.tolist() == list(range(k))
        assert len(neighbor_search._THREAD.space.scratch) == room_for(k)


def test_only_one_thread_at_a_time_changes_the_lists_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    inside: set[int] = set()
    entered, put = threading.Lock(), neighbor_search.put_on_lists

    def watched(found: Any, n_found: int, lists: Any, query: Any, scratch: Any) -> None:
        block = lists.sizes.ctypes.data
        with entered:
            assert block not in inside
            inside.add(block)
        time.sleep(0.002)
        put(found, n_found, lists, query, scratch)
        with entered:
            inside.remove(block)

    monkeypatch.setattr(neighbor_search, "put_on_lists", watched)
    NeighborIndex.build(sp.csr_array(np.ones((60, 2))), tile_users=10).search(3, n_threads=6)


@pytest.mark.parametrize("weight", [1e-170, 1e-71, 1e71, np.inf, np.nan, 0.0, -1.0])
def test_weights_whose_fourth_power_cannot_be_held_are_refused(weight: float) -> None:
    dense = np.full((4, 1), 0.5)
    weights = sp.csr_array(dense)
    weights.data[2] = weight
    with pytest.raises(BadInput, match="outside 1e-70 … 1e\\+70"):
        NeighborIndex.build(weights)
    with pytest.raises(BadInput, match="outside 1e-70"):
        NeighborIndex.build(sp.csr_array(dense)).search_one(np.array([0]), np.array([weight]), 1)


@pytest.mark.parametrize("posts", [[-1], [3], [2**32], [0, 1]])
def test_one_row_of_posts_that_are_not_there_is_refused(posts: list[int]) -> None:
    index = NeighborIndex.build(sp.csr_array(np.eye(3)))
    with pytest.raises(BadInput, match="posts from 0 to 2, ascending"):
        index.search_one(np.array(posts), np.array([1.0]), 1)


def test_no_neighbors_are_not_a_question() -> None:
    index = NeighborIndex.build(sp.csr_array(np.eye(3)))
    with pytest.raises(BadInput, match="n_neighbors is 0; it must be at least 1"):
        index.search(0)


def test_an_index_that_has_answered_can_be_copied() -> None:
    index = NeighborIndex.build(sp.csr_array(np.eye(3)))
    index.search_one(np.array([0]), np.array([1.0]), 1)
    assert copy.deepcopy(index).search(1)[0].tolist() == [[-1], [-1], [-1]]


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_other_types_of_weights_give_the_same_neighbors(dtype: type) -> None:
    dense = np.random.default_rng(4).choice([0, 0, 1, 2, 5], (50, 12))
    expected = NeighborIndex.build(sp.csr_array(dense.astype(np.float64))).search(5)
    found = NeighborIndex.build(sp.csr_array(dense.astype(dtype))).search(5)
    np.testing.assert_array_equal(found[0], expected[0])


def test_progress_rises_to_the_number_of_users() -> None:
    seen: list[tuple[int, int]] = []
    index = NeighborIndex.build(sp.csr_array(np.ones((100, 4))), tile_users=10)
    index.search(3, n_threads=1, list_bytes=5000, progress=lambda *at: seen.append(at))
    assert seen == sorted(seen)
    assert len({done for done, _ in seen}) > 20
    assert seen[-1] == (100, 100)


def test_a_stopped_search_raises_and_says_how_far_it_got() -> None:
    with pytest.raises(FitCancelled, match=r"of 100 users"):
        NeighborIndex.build(sp.csr_array(np.ones((100, 2))), tile_users=5).search(3, should_stop=lambda: True)


def test_an_error_in_the_progress_callback_reaches_the_caller() -> None:
    def broken(done: int, total: int) -> None:
        raise RuntimeError("display is gone")

    with pytest.raises(RuntimeError, match="display is gone"):
        NeighborIndex.build(sp.csr_array(np.eye(100))).search(3, progress=broken)


def test_no_users_give_an_empty_table() -> None:
    users, similarities = NeighborIndex.build(sp.csr_array((0, 4), dtype=np.float64)).search(3)
    assert users.shape == similarities.shape == (0, 3)


def test_readers_beyond_16_bits_are_found_too() -> None:
    n_users = 70_000
    weights = sp.csr_array((np.ones(n_users), (np.arange(n_users), np.arange(n_users) % 35_000)))
    for tile_users in (None, n_users):
        index = NeighborIndex.build(weights, tile_users=tile_users)
        users, _ = index.search_one(np.array([34_999]), np.array([2.0]), 3, exclude=34_999)
        assert users.tolist() == [69_999, -1, -1]
    assert index.readers.dtype == np.uint32
    assert index.search(1)[0][:, 0].tolist() == [*range(35_000, 70_000), *range(35_000)]


def test_tiles_of_nobody_are_refused() -> None:
    with pytest.raises(BadInput, match="tile_users is 0; it must be at least 1"):
        NeighborIndex.build(sp.csr_array(np.eye(3)), tile_users=0)


def test_tiles_grow_until_their_pointers_take_less_room_than_the_entries() -> None:
    sparse = NeighborIndex.build(sp.csr_array(([1.0], ([0], [0])), shape=(40_000, 90_000)))
    dense = NeighborIndex.build(sp.csr_array(np.ones((40_000, 2))))
    assert sparse.tile_users == 32_768
    assert dense.tile_users == 4096
