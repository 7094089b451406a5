from pathlib import Path

import numpy as np
import pytest

from reco_assets.errors import BadInput
from reco_assets.recommender.interaction_matrix import InteractionMatrix, _sorted
from reco_assets_tests.recommender.examples import DAY, WEIGHTS, make_log, random_log


def test_weights_of_a_pair_add_up_and_the_newest_event_gives_the_time() -> None:
    log = make_log(
        [(0, 1, "view", 1), (0, 1, "like", 3), (0, 1, "view", 2), (1, 0, "share", 1)], n_users=2, n_posts=2
    )
    matrix = InteractionMatrix.from_log(log, 9 * DAY, interaction_weights=WEIGHTS)
    np.testing.assert_allclose(matrix.weights.toarray(), [[0, 0.9], [1.0, 0]])
    assert matrix.last_interaction_at.toarray().tolist() == [[0, 3 * DAY], [DAY, 0]]


def test_repeats_of_a_type_are_capped() -> None:
    log = make_log([(0, 0, "view", day) for day in range(5)] + [(0, 0, "click", 0)], n_users=1, n_posts=1)
    matrix = InteractionMatrix.from_log(log, 9 * DAY, interaction_weights=WEIGHTS, max_repeats=2)
    np.testing.assert_allclose(matrix.weights.toarray(), [[0.5]])
    assert matrix.last_interaction_at.toarray().tolist() == [[4 * DAY]]


def test_events_from_as_of_on_do_not_count() -> None:
    log = make_log([(0, 0, "view", 1), (0, 0, "like", 2)], n_users=1, n_posts=1)
    matrix = InteractionMatrix.from_log(log, 2 * DAY, interaction_weights=WEIGHTS)
    np.testing.assert_allclose(matrix.weights.toarray(), [[0.1]])


@pytest.mark.parametrize("size", [0, 3])
def test_no_events_give_a_matrix_without_entries(size: int) -> None:
    log = make_log([], n_users=size, n_posts=size)
    matrix = InteractionMatrix.from_log(log, DAY, interaction_weights=WEIGHTS)
    assert matrix.weights.shape == (size, size)
    assert matrix.weights.nnz == 0


def test_a_type_without_a_weight_is_refused_by_name() -> None:
    log = make_log([(0, 0, "share", 0)], n_users=1, n_posts=1)
    with pytest.raises(BadInput, match=r"'share'.*RECO_INTERACTION_WEIGHTS"):
        InteractionMatrix.from_log(log, DAY, interaction_weights={"view": 0.1})
    with pytest.raises(BadInput, match="'share' is -1"):
        InteractionMatrix.from_log(log, DAY, interaction_weights={"share": -1.0})


def test_events_in_another_order_give_the_same_bytes() -> None:
    log = random_log(np.random.default_rng(3))
    order = np.random.default_rng(4).permutation(log.n_interactions)
    shuffled = make_log(
        [],
        n_users=log.n_users,
        n_posts=log.n_posts,
        user_index=log.user_index[order],
        post_index=log.post_index[order],
        interaction_type=log.interaction_type[order],
        created_at=log.created_at[order],
    )
    first, second = (
        InteractionMatrix.from_log(x, 9 * DAY, interaction_weights=WEIGHTS) for x in (log, shuffled)
    )
    assert first.weights.data.tobytes() == second.weights.data.tobytes()
    assert first.last_interaction_at.data.tobytes() == second.last_interaction_at.data.tobytes()


def test_a_saved_matrix_is_read_back(tmp_path: Path) -> None:
    matrix = InteractionMatrix.from_log(
        random_log(np.random.default_rng(0)), 9 * DAY, interaction_weights=WEIGHTS
    )
    loaded = InteractionMatrix.load(matrix.save(tmp_path / "matrix"))
    assert loaded.as_of_us == matrix.as_of_us
    for name in ("weights", "last_interaction_at"):
        assert (getattr(loaded, name) != getattr(matrix, name)).nnz == 0
        assert getattr(loaded, name).dtype == getattr(matrix, name).dtype


def test_keys_too_large_to_carry_their_position_are_sorted_like_those_that_are_not() -> None:
    keys = np.random.default_rng(5).integers(0, 40, 500)
    order = np.argsort(keys, kind="stable")
    for n_keys in (40, 2**62):
        found_keys, found_order = _sorted(keys, n_keys)
        assert found_keys.tolist() == keys[order].tolist()
        assert found_order.tolist() == order.tolist()
