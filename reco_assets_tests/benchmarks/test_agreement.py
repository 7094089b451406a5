"""Agreement tells an equal tie from a wrong answer."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse as sp

from benchmarks.agreement import compare
from benchmarks.contenders.base import sparse_table
from benchmarks.contenders.scatter_bound import _scatter_add
from benchmarks.workload import N_POSTS, Workload

Array = npt.NDArray[np.int32]

# Everybody has read post 0; users 1 and 2 are alike, and user 3 has read post 1 besides.
WEIGHTS = sp.csr_array(np.array([[1.0, 0, 0.3], [1.0, 0, 0], [1.0, 0, 0], [1.0, 0.5, 0]]))
OURS = np.array([[1, 2, 3], [2, 0, 3], [1, 0, 3], [1, 2, 0]])


@pytest.fixture
def work() -> Workload:
    times = np.zeros(WEIGHTS.nnz, dtype=np.int64)
    return Workload("hand", "4", 7, WEIGHTS, times, np.zeros(3, dtype=np.int64), 1)


def save(directory: Path, neighbors: npt.ArrayLike, lists: npt.ArrayLike) -> Path:
    directory.mkdir()
    np.save(directory / "users.npy", np.arange(4))
    np.save(directory / "neighbors.npy", padded(neighbors))
    np.save(directory / "lists.npy", padded(lists))
    return directory


def padded(rows: npt.ArrayLike) -> Array:
    table = np.asarray(rows, dtype=np.int32)
    return np.pad(table, ((0, 0), (0, N_POSTS - table.shape[1])), constant_values=-1)


# User 0 hears of post 1 from user 3; the others hear of what they have not read.
LISTS = [[1, -1], [2, 1], [2, 1], [2, -1]]


def test_the_exact_answer_agrees_with_itself(work: Workload, tmp_path: Path) -> None:
    ours = save(tmp_path / "ours", OURS, LISTS)
    found = compare(work, ours, {"ours": ours})["ours"]
    assert (found.same_neighbors, found.good_neighbors) == (100, 100)
    assert (found.same_lists, found.good_lists) == (100, 100)


def test_missing_neighbors_and_seen_posts_count_against(work: Workload, tmp_path: Path) -> None:
    ours = save(tmp_path / "ours", OURS, LISTS)
    # One neighbour of twelve is lacking; user 0 is shown a post that they have seen.
    fewer = OURS.copy()
    fewer[0, 2] = -1
    theirs = save(tmp_path / "theirs", fewer, [[0, -1], *LISTS[1:]])
    found = compare(work, ours, {"theirs": theirs})["theirs"]
    assert found.same_neighbors == found.good_neighbors == pytest.approx(100 * 11 / 12)
    assert found.same_lists == found.good_lists == pytest.approx(100 * 5 / 6)


def test_another_tie_is_as_good(work: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.agreement.N_NEIGHBORS", 1)
    ours = save(tmp_path / "ours", OURS[:, :1], LISTS)
    # Users 1 and 2 are equally near to users 0 and 3; user 3 is the farthest from user 2.
    theirs = save(tmp_path / "theirs", [[2], [2], [3], [2]], LISTS)
    found = compare(work, ours, {"theirs": theirs})["theirs"]
    assert found.same_neighbors == pytest.approx(100 * 1 / 4)
    assert found.good_neighbors == pytest.approx(100 * 3 / 4)


def test_rows_of_a_product_become_a_table_by_value_without_the_diagonal() -> None:
    product = sp.csr_array(np.array([[9.0, 1, 2, 2], [3, 9, 0, 0]]))
    assert sparse_table(product, np.array([0, 1]), 2).tolist() == [[2, 3], [0, -1]]


def test_the_bound_makes_every_addition_of_the_product() -> None:
    inverted = WEIGHTS.tocsc()
    sums = np.zeros(4)
    _scatter_add(
        0,
        4,
        WEIGHTS.indptr,
        WEIGHTS.indices,
        np.ones(WEIGHTS.nnz),
        inverted.indptr,
        inverted.indices,
        sums,
    )
    assert sums.sum() == 4**2 + 1 + 1  # readers² over the three posts
