import time

import pytest

from reco_assets.errors import FitCancelled
from reco_assets.recommender.threads import run_tasks


def test_after_an_error_the_other_threads_take_no_further_task() -> None:
    begun: list[int] = []

    def work(task: int) -> None:
        begun.append(task)
        if task == 0:
            raise ValueError("first")
        time.sleep(0.01)

    with pytest.raises(ValueError, match="first"):
        run_tasks(work, range(500), [1.0] * 500, 500, n_threads=2, progress=None, should_stop=None)
    assert len(begun) < 250


def test_a_stop_ends_all_threads_and_says_how_far_they_got() -> None:
    begun: list[int] = []

    def work(task: int) -> None:
        begun.append(task)
        time.sleep(0.01)

    with pytest.raises(FitCancelled, match=r"of 500 users"):
        run_tasks(
            work, range(500), [1.0] * 500, 500, n_threads=3, progress=None, should_stop=lambda: len(begun) > 5
        )
    after = len(begun)
    time.sleep(0.05)
    assert len(begun) == after < 500


def test_progress_is_reckoned_from_costs() -> None:
    seen: list[tuple[int, int]] = []
    run_tasks(
        lambda _: None,
        ["dear", "cheap"],
        [3.0, 1.0],
        100,
        done_before=20,
        done_after=60,
        n_threads=1,
        progress=lambda *at: seen.append(at),
        should_stop=None,
    )
    assert seen == [(50, 100), (60, 100)]
