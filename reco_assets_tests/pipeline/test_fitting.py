"""Fitting, judging and listing tell their run how far they are, and end when it is to end."""

import itertools
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from reco_assets.errors import FitCancelled
from reco_assets.pipeline.fitting import (
    RegisteredVersion,
    evaluate_model,
    fit_model,
    write_matrix,
)
from reco_assets.pipeline.publication import compute_lists
from reco_assets.pipeline.step_watch import PAUSE_S, StepWatch
from reco_assets.recommender.artifact import artifact_digest
from reco_assets.recommender.interaction_matrix import InteractionMatrix
from reco_assets.resources.storage import FileStorage
from reco_assets_tests.recommender.examples import DAY, WEIGHTS, random_log

A_DAY = date(1970, 1, 9)
AS_OF_US = 9 * DAY


@pytest.fixture
def storage(tmp_path: Path) -> FileStorage:
    """With the matrix of a day."""
    storage = FileStorage(base_dir=str(tmp_path))
    log = random_log(np.random.default_rng(1))
    matrix = InteractionMatrix.from_log(log, AS_OF_US, interaction_weights=WEIGHTS)
    write_matrix(storage, A_DAY, log, matrix, {"interaction_weights": WEIGHTS, "max_repeats": 3})
    return storage


def registered(storage: FileStorage) -> RegisteredVersion:
    return RegisteredVersion(1, "model_v1", "run", "experiment", artifact_digest(storage.model(A_DAY)))


def watch(said: list[str], stop: bool = False) -> StepWatch:
    """So much time passes between two looks at the clock that everything may be said and asked."""
    ticks = itertools.count(step=PAUSE_S)
    return StepWatch(said.append, lambda: stop, clock=lambda: next(ticks))


def test_every_long_computation_reports_its_progress(storage: FileStorage) -> None:
    said: list[str] = []
    fit_model(storage, A_DAY, {}, watch(said))
    evaluate_model(storage, A_DAY, {}, 2, watch(said))
    compute_lists(storage, A_DAY, registered(storage), watch(said))
    for line in (
        "Fitting 40 users × 60 posts",
        "Neighbours: 100% of 40 users",
        "Hold-out: 50% of 2 days",
        "Hold-out: 100% of 2 days",
        "Lists: 100% of 40 users",
    ):
        assert any(each.startswith(line) for each in said), (line, said)


@pytest.mark.parametrize(
    ("step", "left"),
    [
        (lambda s, w: fit_model(s, A_DAY, {"n_neighbors": 3}, w), FileStorage.model),
        (lambda s, w: evaluate_model(s, A_DAY, {}, 2, w), FileStorage.evaluation),
        (lambda s, w: compute_lists(s, A_DAY, registered(s), w), FileStorage.recommendations),
    ],
    ids=["fit", "hold-out", "lists"],
)
def test_a_run_that_is_to_end_ends_and_leaves_what_was_there(
    storage: FileStorage,
    step: Callable[[FileStorage, StepWatch], object],
    left: Callable[[FileStorage, date], Path],
) -> None:
    fit_model(storage, A_DAY, {})
    evaluate_model(storage, A_DAY, {}, 2)
    compute_lists(storage, A_DAY, registered(storage))
    path = left(storage, A_DAY)
    before = path.stat().st_mtime_ns, sorted(path.iterdir()) if path.is_dir() else path.read_bytes()
    with pytest.raises(FitCancelled, match="Stopped on request"):
        step(storage, watch([], stop=True))
    after = path.stat().st_mtime_ns, sorted(path.iterdir()) if path.is_dir() else path.read_bytes()
    assert after == before
