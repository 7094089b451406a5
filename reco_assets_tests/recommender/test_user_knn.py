import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import clone

from reco_assets.errors import BadInput, CorruptArtifact, FitCancelled, MissingUpstream
from reco_assets.recommender.artifact import read_artifact, write_artifact
from reco_assets.recommender.fit_inputs import fit_log
from reco_assets.recommender.interaction_matrix import InteractionMatrix
from reco_assets.recommender.stored_model import KIND
from reco_assets.recommender.user_knn import UserKNNRecommender
from reco_assets_tests.recommender.examples import DAY, WEIGHTS, checkerboard, ids, random_log, times_like

# Users 0 and 1 share posts 0 and 1, user 2 shares post 1 with both. User 1 alone read post 2, user 2 post 3.
READS = sp.csr_array(np.array([[1.0, 1, 0, 0], [1, 1, 1, 0], [0, 1, 0, 1]]))
PLAIN: dict[str, Any] = {
    "similarity_weighting": "none",
    "vote_half_life_days": None,
    "freshness_half_life_days": None,
    "popularity_blend": 0.0,
}


@pytest.fixture(scope="module")
def fitted() -> UserKNNRecommender:
    log = random_log(np.random.default_rng(8))
    return fit_log(UserKNNRecommender(n_neighbors=10), log, as_of_us=9 * DAY, interaction_weights=WEIGHTS)


def test_a_tiny_matrix_by_hand() -> None:
    model = UserKNNRecommender(**PLAIN).fit(READS)
    neighbors, similarities = model.kneighbors()
    assert neighbors.tolist() == [[1, 2], [0, 2], [0, 1]]
    np.testing.assert_allclose(
        similarities, np.sqrt([[4 / 6, 1 / 4], [4 / 6, 1 / 6], [1 / 4, 1 / 6]]), rtol=1e-6
    )
    lists = model.recommend()
    assert lists.of(0).tolist() == [2, 3]
    # Divided by the best allowed post's votes.
    np.testing.assert_allclose(lists.score[:2], [1, np.sqrt(1 / 4) / np.sqrt(4 / 6)], rtol=1e-6)
    assert lists.of(1).tolist() == [3]
    assert lists.of(2).tolist() == [0, 2]


def test_votes_age_and_posts_age() -> None:
    reads = sp.csr_array(np.array([[1.0, 0, 0], [1, 1, 0], [1, 0, 1]]))
    # User 1 read post 1 on day 9, user 2 read post 2 on day 8; both are as similar to user 0.
    times = times_like(reads, [5, 5, 9, 5, 8])
    settings = PLAIN | {"vote_half_life_days": 1.0}
    model = UserKNNRecommender(**settings).fit(reads, last_interaction_at=times, as_of=10 * DAY)
    lists = model.recommend(np.array([0]))
    assert lists.post_index.tolist() == [1, 2]
    assert lists.score.tolist() == [1.0, 0.5]
    settings |= {"freshness_half_life_days": 2.0}
    model = UserKNNRecommender(**settings).fit(
        reads, last_interaction_at=times, post_created_at=np.array([0, 2, 6]) * DAY, as_of=10 * DAY
    )
    # 0.5 · 2^-4 against 0.25 · 2^-2.
    lists = model.recommend(np.array([0]))
    assert lists.post_index.tolist() == [2, 1]
    assert lists.score.tolist() == [1.0, 0.5]


def test_popularity_serves_a_user_without_neighbors() -> None:
    reads = sp.csr_array(np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0]]))
    alone = UserKNNRecommender(**PLAIN).fit(reads).recommend()
    assert alone.of(0).tolist() == []
    blended = UserKNNRecommender(**PLAIN | {"popularity_blend": 0.2}).fit(reads).recommend()
    assert blended.of(0).tolist() == [1, 2]
    assert blended.score[:2].tolist() == [0.2, 0.1]


def test_the_popularity_that_is_blended_in_ages_with_its_readers_and_its_posts() -> None:
    # Nobody shares a post with user 0. Posts 1 and 2: read a half-life ago; two half-lives old; not eligible.
    reads = sp.csr_array(np.array([[1.0, 0, 0, 0], [0, 1, 0, 1], [0, 1, 1, 1], [0, 0, 0, 1]]))
    model = UserKNNRecommender(
        popularity_blend=0.5, popularity_half_life_days=1.0, freshness_half_life_days=2.0
    ).fit(
        reads,
        last_interaction_at=times_like(reads, [10, 9, 10, 9, 10, 10, 10]),
        post_created_at=np.array([10, 10, 6, 10]) * DAY,
        eligible=np.array([True, True, True, False]),
        as_of=10 * DAY,
    )
    # Post 1: two readers, one day ago: 1, the highest of the eligible. Post 2: one reader now, × 1/4.
    lists = model.recommend(np.array([0]))
    assert lists.post_index.tolist() == [1, 2]
    assert lists.score.tolist() == [0.5, 0.125]


def test_interactions_outside_the_similarity_window_make_no_neighbors_but_vote() -> None:
    reads = sp.csr_array(np.array([[1.0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1]]))
    times = times_like(reads, [1, 9, 1, 2, 9, 1])
    before = reads.copy()
    model = UserKNNRecommender(**PLAIN, similarity_window_days=3).fit(
        reads, last_interaction_at=times, as_of=10 * DAY
    )
    assert model.kneighbors([0])[0].tolist() == [[2, -1]]
    assert model.recommend(np.array([0])).post_index.tolist() == [3]
    assert (reads.indices == before.indices).all()
    assert reads.nnz == before.nnz


def test_min_overlap_and_number_of_neighbors_bound_the_neighborhood() -> None:
    two = UserKNNRecommender(**PLAIN, min_overlap=2).fit(READS)
    assert two.kneighbors()[0].tolist() == [[1, -1], [0, -1], [-1, -1]]
    one = UserKNNRecommender(**PLAIN, n_neighbors=1).fit(READS)
    assert one.kneighbors()[0].tolist() == [[1], [0], [0]]


def test_an_unknown_user_has_no_neighbors() -> None:
    neighbors, similarities = UserKNNRecommender(**PLAIN).fit(READS).kneighbors([-1, 0])
    assert neighbors.tolist() == [[-1, -1], [1, 2]]
    assert similarities[0].tolist() == [0, 0]
    nobody = UserKNNRecommender().fit(sp.csr_array((0, 2), dtype=np.float64))
    assert nobody.kneighbors([-1])[0].tolist() == [[-1]]


def test_threads_do_not_change_a_bit() -> None:
    log = random_log(np.random.default_rng(9), n_users=300, n_posts=200, n=6000)
    results = []
    for n_threads in (1, 2, 4):
        model = fit_log(
            UserKNNRecommender(n_threads=n_threads), log, as_of_us=9 * DAY, interaction_weights=WEIGHTS
        )
        lists = model.recommend()
        results.append((model.neighbors_.tobytes(), lists.post_index.tobytes(), lists.score.tobytes()))
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("mmap", [True, False])
def test_a_loaded_model_gives_identical_lists(fitted: UserKNNRecommender, tmp_path: Path, mmap: bool) -> None:
    loaded = UserKNNRecommender.load(fitted.save(tmp_path / "model"), mmap=mmap)
    assert loaded.get_params() == fitted.get_params()
    for users in (None, np.arange(40)):
        first, second = fitted.recommend(users), loaded.recommend(users)
        for name in ("user_index", "post_index", "rank", "score"):
            assert getattr(first, name).tobytes() == getattr(second, name).tobytes()
    assert loaded.explain(0, 1) == fitted.explain(0, 1)
    assert loaded.as_of_us_ == 9 * DAY
    np.testing.assert_array_equal(loaded.post_created_at_, fitted.post_created_at_)
    assert loaded.rows_of_users(ids(2, 1)).tolist() == [0, 1]


def test_a_model_of_plain_arrays_is_saved_without_what_it_lacks(tmp_path: Path) -> None:
    model = UserKNNRecommender(n_neighbors=np.int64(4)).fit(checkerboard(6))
    loaded = UserKNNRecommender.load(model.save(tmp_path / "model"))
    assert loaded.user_ids_ is None
    assert loaded.recommend().post_index.tolist() == model.recommend().post_index.tolist()
    with pytest.raises(BadInput, match="without user_ids"):
        loaded.rows_of_users(ids(1))


def test_saving_twice_gives_the_same_bytes(fitted: UserKNNRecommender, tmp_path: Path) -> None:
    first, second = fitted.save(tmp_path / "a"), fitted.save(tmp_path / "b")
    assert {p.name: p.read_bytes() for p in first.iterdir()} == {
        p.name: p.read_bytes() for p in second.iterdir()
    }


def test_a_damaged_model_names_the_file(fitted: UserKNNRecommender, tmp_path: Path) -> None:
    directory = fitted.save(tmp_path / "model")
    (directory / "votes.npy").write_bytes(b"")
    with pytest.raises(CorruptArtifact, match=r"votes\.npy has 0 bytes.*reco run"):
        UserKNNRecommender.load(directory)
    with pytest.raises(MissingUpstream, match="none"):
        UserKNNRecommender.load(tmp_path / "none")


def test_arrays_of_two_models_are_refused(fitted: UserKNNRecommender, tmp_path: Path) -> None:
    directory = fitted.save(tmp_path / "model")
    arrays, metadata = read_artifact(directory, KIND, redo="")
    for name in ("squared_norms", "reader_indptr", "freshness", "similarities"):
        changed = arrays | {name: arrays[name][:-1]}
        write_artifact(directory, KIND, changed, metadata)
        with pytest.raises(CorruptArtifact, match=f"contradicts itself: {name} has shape"):
            UserKNNRecommender.load(directory)
    write_artifact(directory, KIND, arrays, metadata | {"params": {"n_neighbours": 3}})
    with pytest.raises(CorruptArtifact, match="Unknown parameter n_neighbours"):
        UserKNNRecommender.load(directory)


def test_an_explanation_adds_up_to_the_listed_score(fitted: UserKNNRecommender) -> None:
    lists = fitted.recommend()
    for row in range(0, len(lists), 7):
        why = fitted.explain(lists.user_index[row], lists.post_index[row])
        assert why.allowed
        assert why.score == pytest.approx(lists.score[row], rel=1e-12)
        assert sum(voter.share for voter in why.voters) + why.popularity_share == pytest.approx(1)
        assert all(voter.last_interaction_at is not None for voter in why.voters)


def test_an_explanation_by_hand() -> None:
    times = times_like(READS, [1, 1, 1, 1, 9, 1, 8])
    model = UserKNNRecommender(**PLAIN).fit(READS, last_interaction_at=times)
    (voter,) = model.explain(0, 3).voters
    assert (voter.user_index, voter.vote, voter.share) == (2, 1.0, 1.0)
    assert voter.similarity == pytest.approx(0.5)
    assert voter.last_interaction_at == 8 * DAY
    seen = model.explain(0, 1)
    assert (seen.allowed, seen.score, seen.voters) == (False, 0.0, ())
    with pytest.raises(BadInput, match="post 4: no such"):
        model.explain(0, 4)


@pytest.mark.parametrize(
    ("name", "value", "limit"),
    [
        ("n_neighbors", 0, "a whole number from 1 to 10000"),
        ("n_neighbors", 2.5, "a whole number"),
        ("n_neighbors", True, "a whole number"),
        ("shrinkage", -1.0, "from 0 to 1000"),
        ("shrinkage", float("nan"), "from 0 to 1000"),
        ("vote_half_life_days", 0, "above 0 and at most 3650 or None"),
        ("popularity_blend", 1.5, "from 0 to 1"),
        ("popularity_blend", None, "from 0 to 1"),
        ("similarity_weighting", "euclid", "binary_tfidf"),
        ("vote_weighting", "cube", "raw, sqrt, binary"),
        ("min_overlap", "2", "a whole number from 1"),
    ],
)
def test_a_parameter_out_of_range_is_refused_with_name_value_and_range(
    name: str, value: Any, limit: str
) -> None:
    with pytest.raises(BadInput) as caught:
        UserKNNRecommender(**{name: value}).fit(READS)
    assert f"{name} is {value!r}" in str(caught.value)
    assert limit in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"last_interaction_at": times_like(checkerboard(4))}, "exactly the entries"),
        ({"post_created_at": np.zeros(3)}, r"expected \(4,\)"),
        ({"as_of": datetime(2026, 1, 1)}, "without a time zone"),  # noqa: DTZ001
        ({"user_ids": ids(2)}, r"user_ids has shape \(2, 16\); expected \(3, 16\)"),
        ({"eligible": np.ones(9, dtype=bool)}, "eligible has shape"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        UserKNNRecommender().fit(READS, **arguments)


@pytest.mark.parametrize("value", [-1.0, 0.0, np.nan, np.inf])
def test_weights_that_are_not_positive_and_finite_are_refused(value: float) -> None:
    matrix = READS.copy()
    matrix.data[2] = value
    with pytest.raises(BadInput, match="not positive and finite"):
        UserKNNRecommender().fit(matrix)


def test_without_times_nothing_ages_and_everybody_is_served() -> None:
    """Whatever the half-lives and windows: as with times that all are now."""
    log = random_log(np.random.default_rng(4))
    matrix = InteractionMatrix.from_log(log, 9 * DAY, interaction_weights=WEIGHTS)
    timeless = UserKNNRecommender(
        vote_half_life_days=None, freshness_half_life_days=None, popularity_half_life_days=None
    ).fit(matrix.weights)
    for inputs in (
        {},
        {
            "last_interaction_at": times_like(matrix.weights, 9.0),
            "post_created_at": np.full(log.n_posts, 9 * DAY),
            "as_of": 9 * DAY,
        },
    ):
        model = UserKNNRecommender(similarity_window_days=1.0, active_within_days=1).fit(
            matrix.weights, **inputs
        )
        assert model.kneighbors()[0].tobytes() == timeless.kneighbors()[0].tobytes()
        assert model.recommend().post_index.tobytes() == timeless.recommend().post_index.tobytes()
        assert model.recommend().score.tobytes() == timeless.recommend().score.tobytes()
        assert model.active_users_.tolist() == np.flatnonzero(np.diff(matrix.weights.indptr)).tolist()


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.bool_])
def test_weights_of_any_number_type_and_indices_of_any_size_give_the_same_model(dtype: Any) -> None:
    wide = READS.astype(dtype)
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    model, usual = UserKNNRecommender().fit(wide), UserKNNRecommender().fit(READS)
    assert model.similarities_.tobytes() == usual.similarities_.tobytes()
    assert model.recommend().score.tobytes() == usual.recommend().score.tobytes()
    # Other types would be copied for every list.
    assert (model.votes_.indices.dtype, model.votes_.data.dtype) == (np.int32, np.float64)


def test_as_of_may_be_a_time_with_zone() -> None:
    model = UserKNNRecommender().fit(READS, as_of=datetime(1970, 1, 3, tzinfo=UTC))
    assert model.as_of_us_ == 2 * DAY


def test_entries_in_any_order_and_format_give_the_same_model() -> None:
    shuffled = sp.coo_array(READS)
    order = np.random.default_rng(0).permutation(READS.nnz)
    shuffled = sp.coo_array((shuffled.data[order], (shuffled.row[order], shuffled.col[order])), READS.shape)
    model = UserKNNRecommender(**PLAIN).fit(shuffled)
    assert model.kneighbors()[0].tolist() == [[1, 2], [0, 2], [0, 1]]


def test_a_stopped_fit_leaves_the_previous_one_in_place() -> None:
    model = UserKNNRecommender(**PLAIN).fit(READS)
    with pytest.raises(FitCancelled):
        model.fit(checkerboard(50), should_stop=lambda: True)
    assert model.n_users_ == 3
    assert model.recommend().of(0).tolist() == [2, 3]


def test_parameters_follow_scikit_learn() -> None:
    model = UserKNNRecommender(n_neighbors=7)
    assert clone(model).get_params() == model.get_params()
    assert model.set_params(shrinkage=2.0).shrinkage == 2.0
    assert repr(model) == "UserKNNRecommender(n_neighbors=7, shrinkage=2.0)"
    with pytest.raises(BadInput, match="Unknown parameter k"):
        model.set_params(k=3)


def test_the_model_imports_neither_scikit_learn_nor_pandas_and_the_package_nothing() -> None:
    code = """
import sys
import reco_assets.recommender
assert not {"numpy", "numba", "scipy"} & set(sys.modules), "the package alone"
import reco_assets.recommender.user_knn, reco_assets.recommender.quality
heavy = {"sklearn", "pandas", "pyarrow", "dagster", "mlflow", "sqlalchemy", "fastapi"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
