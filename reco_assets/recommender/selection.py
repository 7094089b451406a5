"""The best k of many: collected without order, thinned out now and then, sorted at the end.

A list has room for some more than k. Candidates are appended, which touches one place in memory, and
when the list is full the best k stay and the k-th becomes the floor that later ones have to reach. A
heap does less arithmetic, but every comparison in it is a branch that the processor guesses wrong half
of the time; at k = 200 that costs six times as much.

Better is the higher key and, among equal keys, the lower item: a total order, so that the result does
not depend on the order of arrival.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from reco_assets.recommender.compiled import compiled

Array = npt.NDArray[Any]

_SPARE_ROOM = 32
_SHORT = 300  # up to here counting is faster
_FEWEST_LANES, _MOST_LANES = 64, 1024


@compiled
def room_for(k: int) -> int:
    """Length of a list that collects the best `k`: half as much again, so that thinning out is rare."""
    return k + max(k // 2, _SPARE_ROOM)


@compiled
def kth_largest(values: Array, k: int) -> float:
    """The k-th largest of `values`, which are reordered; k is 1 … len(values).

    Quickselect with partitions that exchange without branching.
    """
    low, high = 0, len(values)
    while high - low > 1:
        first, middle, last = values[low], values[(low + high) // 2], values[high - 1]
        pivot = max(min(first, middle), min(max(first, middle), last))
        larger = low
        for i in range(low, high):
            value = values[i]
            values[i] = values[larger]
            values[larger] = value
            larger += value > pivot
        if k <= larger:
            high = larger
            continue
        equal = larger
        for i in range(larger, high):
            value = values[i]
            values[i] = values[equal]
            values[equal] = value
            equal += value == pivot
        if k <= equal:
            return float(pivot)
        low = equal
    return float(values[low])


@compiled
def lanes_for(k: int) -> int:
    """In how many lanes to look for the k-th largest: four times k, so that few of the best share one."""
    n_lanes = _FEWEST_LANES
    while n_lanes < 4 * k and n_lanes < _MOST_LANES:
        n_lanes *= 2
    return n_lanes


@compiled
def reached_by(values: Array, k: int, lanes: Array) -> float:
    """A bound that at least `k` of the values reach, and not many more; 0 when there may be fewer.

    Lane g holds the values g, g + len(lanes), …, so that maxima are taken side by side. The k-th largest
    of the lanes' maxima is at most the k-th largest of all values.

    Args:
        values: (m,) float64, not negative.
        k: at least 1.
        lanes: (`lanes_for(k)`,) float64, overwritten.
    """
    if min(len(values), len(lanes)) <= k:
        return 0.0
    lanes[:] = 0.0
    for start in range(0, len(values), len(lanes)):
        block = values[start : start + len(lanes)]
        for lane in range(len(block)):
            # A choice, because `max` minds NaN, which keeps the compiler from doing several at once.
            lanes[lane] = block[lane] if block[lane] > lanes[lane] else lanes[lane]
    return kth_largest(lanes, k)


@compiled
def keep_best(keys: Array, items: Array, k: int, scratch: Array) -> float:
    """Move the best k to the front, in no order; returns the k-th best key.

    Args:
        keys: (m,) float64, m ≥ k.
        items: (m,) int32.
        k: how many to keep, at least 1.
        scratch: (≥ m,) float64, overwritten.
    """
    size = len(keys)
    scratch[:size] = keys
    limit = kth_largest(scratch[:size], k)
    kept = equal = 0
    for i in range(size):
        key, item = keys[i], items[i]
        keys[kept], items[kept] = key, item
        kept += key > limit
        scratch[equal] = item
        equal += key == limit
    if kept + equal > k:
        scratch[:equal].sort()
    for i in range(k - kept):
        keys[kept + i], items[kept + i] = limit, np.int32(scratch[i])
    return limit


@compiled
def sort_best_first(keys: Array, items: Array) -> None:
    """Sort both by falling keys, equal keys by rising items, which are all different."""
    if len(keys) > _SHORT:
        _shellsort(keys, items)
        return
    # By counting who comes before: quadratic, but without a branch, and so many at once as a register holds.
    old_keys, old_items = keys.copy(), items.copy()
    for i in range(len(keys)):
        key = old_keys[i]
        rank = equal = np.int64(0)
        for j in range(len(keys)):
            rank += old_keys[j] > key
            equal += old_keys[j] == key
        if equal > 1:
            for j in range(len(keys)):
                rank += (old_keys[j] == key) & (old_items[j] < old_items[i])
        keys[rank], items[rank] = key, old_items[i]


@compiled
def _shellsort(keys: Array, items: Array) -> None:
    """Gaps by Knuth: 1, 4, 13, 40, …"""
    gap = 1
    while 3 * gap < len(keys):
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(gap, len(keys)):
            key, item = keys[i], items[i]
            j = i
            while j >= gap and (keys[j - gap] < key or (keys[j - gap] == key and items[j - gap] > item)):
                keys[j], items[j] = keys[j - gap], items[j - gap]
                j -= gap
            keys[j], items[j] = key, item
        gap //= 3
