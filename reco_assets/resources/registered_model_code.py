"""Run by MLflow when it loads a registered version; see registered_model.py."""

from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel


class RegisteredUserKNN(PythonModel):  # type: ignore[misc]  # mlflow is not typed
    """The user-KNN model behind MLflow's pyfunc interface."""

    def load_context(self, context: Any) -> None:
        """Map the arrays into memory."""
        from reco_assets.recommender.user_knn import UserKNNRecommender

        self.model = UserKNNRecommender.load(context.artifacts["model"])

    def predict(
        self,
        context: Any,  # noqa: ARG002  # MLflow passes it
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Lists for the users in `model_input["user_id"]`."""
        from reco_assets.resources.registered_model import predict

        n = int((params or {}).get("n", self.model.n_recommendations))
        lists: pd.DataFrame = predict(self.model, [str(user_id) for user_id in model_input["user_id"]], n)
        return lists


mlflow.models.set_model(RegisteredUserKNN())
