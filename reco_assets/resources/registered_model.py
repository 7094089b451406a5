"""The registered model as MLflow loads it: model code by path, arrays as artifacts, no pickle.

mlflow.pyfunc.load_model("models:/collaborative_filtering@champion").predict(
    pandas.DataFrame({"user_id": ["…"]}), params={"n": 10}
)
"""

import uuid
from pathlib import Path
from typing import Any


def code_path() -> Path:
    """The file that MLflow stores and runs to rebuild the model."""
    return Path(__file__).with_name("registered_model_code.py")


def signature(n_recommendations: int) -> Any:
    """In: `user_id` strings and `n`. Out: rows of `user_id`, `post_id`, `rank` from 1 and `score`."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string, "user_id")]),
        outputs=Schema(
            [
                ColSpec(DataType.string, "user_id"),
                ColSpec(DataType.string, "post_id"),
                ColSpec(DataType.long, "rank"),
                ColSpec(DataType.double, "score"),
            ]
        ),
        params=ParamSchema([ParamSpec("n", DataType.long, n_recommendations)]),
    )


def predict(model: Any, user_ids: list[str], n: int) -> Any:
    """Lists as a DataFrame; an unknown user or a malformed id has no row."""
    import numpy as np
    import pandas as pd

    wanted = np.zeros((len(user_ids), 16), dtype=np.uint8)
    for row, user_id in enumerate(user_ids):
        try:
            wanted[row] = np.frombuffer(uuid.UUID(user_id).bytes, dtype=np.uint8)
        except ValueError:
            continue  # stays the nil UUID, which no user has
    lists = model.recommend(model.rows_of_users(wanted), n)
    return pd.DataFrame(
        {
            "user_id": as_text(model.user_ids_[lists.user_index]),
            "post_id": as_text(model.post_ids_[lists.post_index]),
            "rank": lists.rank.astype("int64"),
            "score": lists.score,
        }
    )


def as_text(ids: Any) -> list[str]:
    """(n, 16) bytes as UUID strings."""
    return [str(uuid.UUID(bytes=row.tobytes())) for row in ids]
