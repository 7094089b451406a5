import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from reco_assets.recommender.selection import (
    keep_best,
    kth_largest,
    lanes_for,
    reached_by,
    room_for,
    sort_best_first,
)

few_values = st.lists(
    st.sampled_from([0.0, 0.5, 1.0, 2.0, 1e300]) | st.floats(0, 1e9), min_size=1, max_size=120
)


@settings(deadline=None, max_examples=200)
@given(few_values, st.data())
def test_the_kth_largest_is_that_of_the_sorted_values(values: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(values)))
    assert kth_largest(np.array(values), k) == sorted(values, reverse=True)[k - 1]


@settings(deadline=None, max_examples=200)
@given(few_values, st.data())
def test_the_best_are_kept_and_equal_keys_by_the_lower_item(values: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(values)))
    items = np.array(data.draw(st.permutations(range(len(values)))), dtype=np.int32)
    best = sorted(zip(values, items.tolist(), strict=True), key=lambda pair: (-pair[0], pair[1]))[:k]
    keys = np.array(values)
    limit = keep_best(keys, items, k, np.empty(len(keys) + 3))
    assert limit == best[-1][0]
    sort_best_first(keys[:k], items[:k])
    assert list(zip(keys[:k].tolist(), items[:k].tolist(), strict=True)) == best


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 700), st.sampled_from([1, 3, 1000]), st.integers(0, 2**32))
def test_lists_of_any_length_are_sorted_equal_keys_by_the_lower_item(n: int, scale: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    keys, items = rng.integers(0, scale, n) / scale, rng.permutation(n).astype(np.int32)
    expected = sorted(zip(keys.tolist(), items.tolist(), strict=True), key=lambda pair: (-pair[0], pair[1]))
    sort_best_first(keys, items)
    assert list(zip(keys.tolist(), items.tolist(), strict=True)) == expected


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 5000), st.integers(1, 1200), st.integers(0, 2**32))
def test_the_bound_is_reached_by_k_values_and_not_by_many_more(m: int, k: int, seed: int) -> None:
    values = np.random.default_rng(seed).random(m)
    lanes = np.empty(lanes_for(k))
    bound = reached_by(values, k, lanes)
    if min(m, len(lanes)) <= k:
        assert bound == 0.0
    else:
        reached = np.count_nonzero(values >= bound)
        assert reached >= k
        if k <= len(lanes) // 4:
            assert reached <= 2 * k + 32


def test_lists_have_room_for_more_than_they_keep() -> None:
    assert room_for(1) == 33
    assert room_for(200) == 300
