from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reco_assets.errors import BadInput, CorruptArtifact, MissingUpstream
from reco_assets.recommender.interaction_log import UNKNOWN_TIME, InteractionLog, rows_of
from reco_assets_tests.recommender.examples import DAY, ids, make_log, random_log


def test_before_keeps_events_strictly_before_the_cutoff_and_the_code_space() -> None:
    log = make_log([(0, 0, "view", 1.0), (1, 1, "like", 2.0)], n_users=2, n_posts=2)
    past = log.before(2 * DAY)
    assert past.user_index.tolist() == [0]
    assert past.n_users == 2
    assert past.n_posts == 2


def test_before_makes_posts_ineligible_that_did_not_exist_yet() -> None:
    log = make_log(
        [(0, 1, "view", 1.0), (0, 2, "view", 3.0)],
        n_users=1,
        n_posts=5,
        post_created_at=np.array([DAY, UNKNOWN_TIME, UNKNOWN_TIME, 2 * DAY, UNKNOWN_TIME]),
    )
    # Created on day 1; first seen on day 1; first seen on day 3; created at the cutoff; never seen.
    assert log.before(2 * DAY).post_eligible.tolist() == [True, True, False, False, False]


def test_ids_are_found_even_when_they_end_in_zero_bytes() -> None:
    known = ids(400)
    assert rows_of(known, known[[399, 256, 0]]).tolist() == [399, 256, 0]
    assert rows_of(known, ids(2, first_byte=9)).tolist() == [-1, -1]
    assert rows_of(known[:0], known[:2]).tolist() == [-1, -1]


@pytest.mark.parametrize("mmap", [True, False])
def test_a_saved_log_is_read_back(tmp_path: Path, mmap: bool) -> None:
    log = random_log(np.random.default_rng(0))
    loaded = InteractionLog.load(log.save(tmp_path / "log"), mmap=mmap)
    assert loaded.interaction_types == log.interaction_types
    for name in ("user_ids", "created_at", "post_eligible", "hidden_author"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(log, name))


def test_an_empty_log_is_a_log(tmp_path: Path) -> None:
    log = make_log([], n_users=0, n_posts=0)
    assert InteractionLog.load(log.save(tmp_path / "log")).n_interactions == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user_index": np.array([0, 2], np.int32)}, r"user_index\[1\] is 2; it must lie in 0 … 1"),
        ({"post_author": np.array([0, -1], np.int32)}, r"post_author\[0\] is 0; it must lie in -1 … -1"),
        ({"user_index": np.array([0, 1], np.int64)}, r"user_index is int64; .* needs int32"),
        ({"created_at": np.array([0], np.int64)}, r"user_index has shape \(2,\); expected \(1,\)"),
        ({"user_ids": ids(2)[::-1]}, r"user_ids must be sorted and unique; row 1"),
        ({"post_ids": np.zeros((2, 16), np.uint8)}, r"post_ids must be sorted and unique; row 1"),
        ({"user_ids": np.zeros((2, 8), np.uint8)}, r"expected \(n, 16\)"),
        ({"hidden_user": np.array([0], np.int32)}, r"hidden_author has shape \(0,\); expected \(1,\)"),
    ],
)
def test_contradictory_fields_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        make_log([(0, 0, "view", 0), (1, 1, "view", 0)], n_users=2, n_posts=2, **change)


def test_a_missing_log_and_one_of_another_kind_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MissingUpstream, match="reco run --partition 2026-10-01"):
        InteractionLog.load(tmp_path / "log", redo="reco run --partition 2026-10-01")
    log = make_log([(0, 0, "view", 0)], n_users=1, n_posts=1)
    directory = log.save(tmp_path / "log")
    text = (directory / "manifest.json").read_text()
    (directory / "manifest.json").write_text(
        text.replace('"share"', '7, "share"').replace('"interaction_types"', '"x"')
    )
    with pytest.raises(CorruptArtifact, match=r"contradicts itself.*reco run"):
        InteractionLog.load(directory)
