"""A fitted `UserKNNRecommender` as a directory of arrays, and back."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reco_assets.recommender.artifact import consistent, read_artifact, take, write_artifact
from reco_assets.recommender.interaction_matrix import csr_over
from reco_assets.recommender.list_scoring import PostFactors
from reco_assets.recommender.masks import Masks
from reco_assets.recommender.neighbor_search import NeighborIndex
from reco_assets.recommender.weighting import SimilarityWeighting

if TYPE_CHECKING:
    from reco_assets.recommender.user_knn import UserKNNRecommender

Array = npt.NDArray[Any]

KIND = "user-knn model"

_PLAIN = ("neighbors", "similarities", "active_users")
_OPTIONAL = ("last_interaction_at", "post_created_at", "user_ids", "post_ids")
_INDEX = ("reader_indptr", "readers", "reader_weights", "squared_norms")
# What was seen are the entries of the votes.
_MASKS = tuple(name for name in Masks.__dataclass_fields__ if not name.startswith("seen_"))
_REQUIRED = (
    *_PLAIN,
    *("vote_indptr", "vote_posts", "votes"),
    *("freshness", "popularity", "similarity_of_posts", "similarity_of_counts"),
    *_INDEX,
    *_MASKS,
)


def save_model(model: "UserKNNRecommender", directory: Path | str) -> Path:
    """Write it; see `artifact.write_artifact`."""
    weighting, index = model.weighting_, model.index_
    optional = {name: getattr(model, f"{name}_") for name in _OPTIONAL}
    arrays = {
        **{name: getattr(model, f"{name}_") for name in _PLAIN},
        "vote_indptr": model.votes_.indptr.astype(np.int64),
        "vote_posts": model.votes_.indices.astype(np.int32),
        "votes": model.votes_.data,
        "freshness": model.factors_.freshness,
        "popularity": model.factors_.popularity,
        "similarity_of_posts": weighting.of_posts,
        "similarity_of_counts": weighting.of_counts,
        **{name: getattr(index, name) for name in _INDEX},
        **{name: getattr(model.masks_, name) for name in _MASKS},
        **{name: array for name, array in optional.items() if array is not None},
    }
    # A sweep over np.arange sets numpy scalars, which JSON does not know.
    params = {n: v.item() if isinstance(v, np.generic) else v for n, v in model.get_params().items()}
    metadata = {
        "params": params,
        "as_of_us": model.as_of_us_,
        "n_posts": model.n_posts_,
        "tile_users": index.tile_users,
        "mean_length": weighting.mean_length,
        "in_tenths": weighting.in_tenths,
    }
    return write_artifact(directory, KIND, arrays, metadata)


def load_model(
    model: "UserKNNRecommender", directory: Path | str, *, mmap: bool, verify: bool, redo: str
) -> None:
    """Make `model` the one that was written; see `UserKNNRecommender.load`."""
    arrays, metadata = read_artifact(directory, KIND, redo=redo, mmap=mmap, verify=verify)
    take(arrays, directory, *_REQUIRED, redo=redo)
    with consistent(directory, redo):
        model.set_params(**metadata["params"])
        n_users, n_posts = len(arrays["neighbors"]), int(metadata["n_posts"])
        _check_shapes(arrays, n_users, n_posts, int(metadata["tile_users"]))
        model.votes_ = csr_over(
            arrays["votes"], arrays["vote_posts"], arrays["vote_indptr"], (n_users, n_posts)
        )
        model.as_of_us_ = int(metadata["as_of_us"])
        model.index_ = NeighborIndex(
            **{name: arrays[name] for name in _INDEX}, tile_users=int(metadata["tile_users"])
        )
        model.weighting_ = SimilarityWeighting(
            model.similarity_weighting,
            arrays["similarity_of_posts"],
            arrays["similarity_of_counts"],
            mean_length=float(metadata["mean_length"]),
            in_tenths=bool(metadata["in_tenths"]),
        )
    model.factors_ = PostFactors(arrays["freshness"], arrays["popularity"])
    model.masks_ = Masks(
        seen_indptr=arrays["vote_indptr"],
        seen_posts=arrays["vote_posts"],
        **{name: arrays[name] for name in _MASKS},
    )
    for name in _PLAIN:
        setattr(model, f"{name}_", arrays[name])
    for name in _OPTIONAL:
        setattr(model, f"{name}_", arrays.get(name))


def _check_shapes(arrays: dict[str, Array], n_users: int, n_posts: int, tile_users: int) -> None:
    """Compiled loops would read beyond arrays that are too short."""
    n_tiles = max(1, -(-n_users // tile_users))
    for name, shape in (
        ("similarities", arrays["neighbors"].shape),
        ("reader_indptr", (n_tiles, n_posts + 1)),
        ("reader_weights", arrays["readers"].shape),
        ("squared_norms", (n_users,)),
        ("freshness", (n_posts,)),
        ("popularity", (n_posts,)),
        ("eligible", (n_posts,)),
        ("blocked_indptr", (n_users + 1,)),
    ):
        if arrays[name].shape != shape:
            raise ValueError(f"{name} has shape {arrays[name].shape} where {shape} fits the others.")
