import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from reco_assets.recommender.selection import keep_best, kth_largest, room_for, sort_best_first

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


def test_lists_have_room_for_more_than_they_keep() -> None:
    assert room_for(1) == 33
    assert room_for(200) == 300
