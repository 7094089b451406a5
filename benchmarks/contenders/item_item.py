"""Item-based neighbours: another algorithm, cheaper where there are fewer posts than users."""

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from implicit.nearest_neighbours import CosineRecommender

from benchmarks.contenders.base import SearchContender, Seconds, Stopwatch
from benchmarks.workload import N_NEIGHBORS, N_POSTS

Array = npt.NDArray[Any]


class ImplicitItemItem(SearchContender):
    """implicit's `CosineRecommender` as it is meant: each post's 50 nearest posts."""

    posts: Array

    def prepare(self) -> None:
        """The matrix in the type implicit takes."""
        self._weights = sp.csr_matrix(self.workload.weights)

    def run(self) -> Seconds:
        """`fit`, then `recommend` for everybody."""
        watch = Stopwatch()
        model = CosineRecommender(K=N_NEIGHBORS, num_threads=self.threads)
        model.fit(self._weights, show_progress=False)
        neighbors_s = watch.seconds()
        self.posts, scores = model.recommend(
            self.users, self._weights, N=N_POSTS, filter_already_liked_items=True
        )
        self.posts = np.where(scores > 0, self.posts, -1)
        return {"neighbors": neighbors_s, "lists": watch.seconds()}

    def lists(self) -> Array:
        """Of all users."""
        return self.posts


class RecToolsItemItem(SearchContender):
    """The same through RecTools, which wraps implicit's class: from its `Dataset` to its table of lists."""

    def prepare(self) -> None:
        """The `Dataset`, made from a table of interactions."""
        import pandas as pd
        from rectools import Columns
        from rectools.dataset import Dataset
        from rectools.models import ImplicitItemKNNWrapperModel

        self._columns, self._wrapper = Columns, ImplicitItemKNNWrapperModel
        coo = self.workload.weights.tocoo()
        # The order of rows is the order of internal ids: sorted by user, and then all posts occur.
        interactions = pd.DataFrame(
            {
                Columns.User: coo.row,
                Columns.Item: coo.col,
                Columns.Weight: coo.data,
                Columns.Datetime: pd.to_datetime(self.workload.last_interaction_at, unit="us"),
            }
        )
        self._dataset = Dataset.construct(interactions)

    def run(self) -> Seconds:
        """`fit`, then `recommend` for everybody."""
        watch = Stopwatch()
        model = self._wrapper(CosineRecommender(K=N_NEIGHBORS, num_threads=self.threads))
        model.fit(self._dataset)
        neighbors_s = watch.seconds()
        self._table = model.recommend(self.users, self._dataset, k=N_POSTS, filter_viewed=True)
        return {"neighbors": neighbors_s, "lists": watch.seconds()}

    def lists(self) -> Array:
        """Of all users."""
        table = np.full((len(self.users), N_POSTS), -1, dtype=np.int32)
        users = self._table[self._columns.User].to_numpy()
        ranks = self._table[self._columns.Rank].to_numpy()
        table[users, ranks - 1] = self._table[self._columns.Item].to_numpy()
        return table
