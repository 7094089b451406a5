"""Opening the files of the published model, or saying why they cannot be used."""

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reco_assets.errors import CorruptArtifact, MissingUpstream
from reco_assets.names import log_directory, matrix_directory, matrix_settings_file, model_directory

if TYPE_CHECKING:
    from reco_assets.recommender.live_votes import DailyFit


def open_fitted_day(storage: Path, day: date, model_digest: str | None) -> "DailyFit":
    """Map the day's files, after making sure that they are those that were published.

    A day may have been fitted again since, and refused; its files would give other neighbours than the ones
    that passed the checks. The digest of the model's manifest, which the publication recorded, tells. The
    files' own checksums are not compared again: that would read all of them.

    Raises:
        MissingUpstream: a file is not on this machine.
        CorruptArtifact: the files are of another run, or cannot be read.
    """
    from reco_assets.recommender.interaction_log import InteractionLog
    from reco_assets.recommender.interaction_matrix import InteractionMatrix
    from reco_assets.recommender.live_votes import DailyFit
    from reco_assets.recommender.user_knn import UserKNNRecommender

    redo = f"reco run --partition {day}"
    model, matrix, log = (find(storage, day) for find in (model_directory, matrix_directory, log_directory))
    for directory in (model, matrix, log):
        if not directory.is_dir():
            raise MissingUpstream(
                f"{directory} is not on this machine. The service needs the pipeline's files: share "
                f"RECO_STORAGE_DIR with it, or run `{redo}` here."
            )
    if model_digest is None:
        raise CorruptArtifact(
            f"The publication of {day} does not say which model it was made from: it is older than this "
            f"package. Publish again with `{redo}`."
        )
    built = _read_settings(matrix_settings_file(storage, day), redo)
    published = {model: model_digest, matrix: built["matrix_digest"], log: built["log_digest"]}
    _check_digests(published, day)
    fit = DailyFit(
        UserKNNRecommender.load(model, verify=False, redo=redo),
        InteractionMatrix.load(matrix, verify=False, redo=redo),
        InteractionLog.load(log, verify=False, redo=redo),
        built["interaction_weights"],
        built["max_repeats"],
    )
    # A run may have exchanged a directory after the first look at its digest; what is mapped stays.
    _check_digests(published, day)
    return fit


def _check_digests(published: Mapping[Path, str], day: date) -> None:
    from reco_assets.recommender.artifact import artifact_digest

    for directory, digest in published.items():
        if artifact_digest(directory) != digest:
            raise CorruptArtifact(
                f"{directory} is not what was published for {day}: it was made again since. Publish what "
                f"is there now with `reco run --partition {day}`."
            )


def _read_settings(path: Path, redo: str) -> dict[str, Any]:
    needed = {"interaction_weights", "max_repeats", "matrix_digest", "log_digest"}
    try:
        built = json.loads(path.read_bytes())
        if not needed <= set(built):
            raise ValueError(f"it lacks {', '.join(sorted(needed - set(built)))}")
    except FileNotFoundError:
        raise MissingUpstream(f"No {path}. Make it with `{redo}`.") from None
    except (ValueError, TypeError) as error:
        raise CorruptArtifact(f"{path} is not readable ({error}). Make it again with `{redo}`.") from error
    found: dict[str, Any] = built
    return found
