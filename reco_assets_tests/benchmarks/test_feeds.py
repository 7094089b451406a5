"""The invented feeds are what their description says, and the same each time."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.feeds import FEEDS, workload
from benchmarks.sizes import Size
from benchmarks.workload import SAMPLE, Workload, normalised_rows, sample_of

SIZE = Size("tiny", 400, 200, 8_000)


@pytest.mark.parametrize("feed", FEEDS)
def test_a_feed_has_about_the_size_that_was_asked_for(feed: str) -> None:
    work = workload(feed, SIZE)
    assert work.n_users == pytest.approx(SIZE.users, rel=0.1)
    assert work.weights.shape[1] == pytest.approx(SIZE.posts, rel=0.1)
    assert work.n_events == pytest.approx(SIZE.events, rel=0.1)


@pytest.mark.parametrize("feed", FEEDS)
def test_a_feed_is_the_same_again(feed: str) -> None:
    first, second = workload(feed, SIZE), workload(feed, SIZE)
    assert (first.weights != second.weights).nnz == 0
    np.testing.assert_array_equal(first.last_interaction_at, second.last_interaction_at)


@pytest.mark.parametrize("feed", FEEDS)
def test_weights_are_tenths_and_nobody_is_without(feed: str) -> None:
    work = workload(feed, SIZE)
    tenths = work.weights.data * 10
    assert np.abs(tenths - np.rint(tenths)).max() < 1e-9
    assert tenths.min() >= 1
    assert np.diff(work.weights.indptr).min() >= 1
    assert np.bincount(work.weights.indices).min() >= 1
    assert (work.last_interaction_at < work.as_of_us).all()
    assert (work.post_created_at[work.weights.indices] <= work.last_interaction_at).all()


def test_the_power_law_is_the_more_skewed() -> None:
    demo, power_law = workload("demo", SIZE).description(), workload("power-law", SIZE).description()
    column = "top post, % of users"
    assert float(power_law[column] or 0) > 2 * float(demo[column] or 0)


def test_multiply_adds_are_those_of_the_product() -> None:
    work = workload("power-law", SIZE)
    ones = work.weights.copy()
    ones.data[:] = 1
    assert work.multiply_adds() == (ones @ ones.T).sum()


def test_a_workload_is_read_as_it_was_written(tmp_path: Path) -> None:
    work = workload("demo", SIZE)
    work.save(tmp_path / "demo")
    again = Workload.load(tmp_path / "demo")
    assert again.description() == work.description()
    np.testing.assert_array_equal(again.weights.data, work.weights.data)


def test_normalised_rows_have_length_one() -> None:
    unit = normalised_rows(workload("demo", SIZE).weights, np.float64)
    np.testing.assert_allclose((unit**2).sum(axis=1), 1.0)


def test_everybody_is_the_sample_of_a_small_feed() -> None:
    assert list(sample_of(3)) == [0, 1, 2]
    assert len(set(sample_of(10 * SAMPLE))) == SAMPLE
