"""What a contender is. Needs numpy and scipy only."""

import json
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from benchmarks.workload import Workload

Array = npt.NDArray[Any]
Seconds = dict[str, float]
"""Seconds by step, in the order of the steps."""


class Contender(ABC):
    """Does the whole of its work once per `run`, so that contenders can take turns."""

    @abstractmethod
    def load(self, directory: Path, threads: int) -> None:
        """Import what is needed and read the data; not timed."""

    @abstractmethod
    def run(self) -> Seconds:
        """Do the work once."""

    def details(self) -> dict[str, Any]:
        """What else is to be said about the last run."""
        return {}


class SearchContender(Contender):
    """Finds everybody's neighbours, then everybody's list.

    Attributes:
        users: rows of the matrix that get neighbours and lists, ascending.
        neighbors: (len(users), N_NEIGHBORS) after a run, most similar first, -1 after the last; or None.
        lists: (len(users), N_POSTS) posts after a run, best first, -1 after the last; or None.
    """

    workload: Workload
    users: Array
    threads: int

    def load(self, directory: Path, threads: int) -> None:
        """Read the matrix and prepare what the library wants to be given."""
        self.workload = Workload.load(directory)
        self.users = np.arange(self.workload.n_users)
        self.threads = threads
        self.prepare()

    def prepare(self) -> None:
        """Imports, and the matrix in the type the library takes."""

    def neighbors(self) -> Array | None:
        """The last run's neighbours."""
        return None

    @abstractmethod
    def lists(self) -> Array:
        """The last run's lists."""

    def details(self) -> dict[str, Any]:
        """How many users were served; the times are for all, in proportion."""
        return {"users": len(self.users)}

    def save(self, directory: str) -> dict[str, Any]:
        """Write users, neighbours and lists for the comparison of results."""
        neighbors = self.neighbors()
        np.save(Path(directory) / "users.npy", self.users)
        np.save(Path(directory) / "lists.npy", self.lists())
        if neighbors is not None:
            np.save(Path(directory) / "neighbors.npy", neighbors)
        return {}


class Stopwatch:
    """Seconds since the last look."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def seconds(self) -> float:
        """Since the last call, or since the start."""
        before, self._last = self._last, time.perf_counter()
        return self._last - before


def sparse_table(matrix: Any, users: Array, width: int) -> Array:
    """(m, width) int32: the columns of each row by falling value, then index; not the user's own.

    Values that are not positive are left out; -1 fills up.
    """
    csr = sp.csr_array(matrix)
    rows = np.repeat(np.arange(csr.shape[0]), np.diff(csr.indptr))
    kept = (csr.data > 0) & (csr.indices != users[rows])
    rows, columns, values = rows[kept], csr.indices[kept], csr.data[kept]
    order = np.lexsort((columns, -values, rows))
    rows, columns = rows[order], columns[order]
    starts = np.searchsorted(rows, np.arange(csr.shape[0]))
    rank = np.arange(len(rows)) - starts[rows]
    table = np.full((csr.shape[0], width), -1, dtype=np.int32)
    inside = rank < width
    table[rows[inside], rank[inside]] = columns[inside]
    return table


def read_results(directory: Path) -> tuple[Array, Array | None, Array]:
    """What `SearchContender.save` wrote: users, neighbours, lists."""
    neighbors = directory / "neighbors.npy"
    return (
        np.load(directory / "users.npy"),
        np.load(neighbors) if neighbors.exists() else None,
        np.load(directory / "lists.npy"),
    )


def read_options(directory: Path) -> dict[str, Any]:
    """What the benchmark left for a contender beside or instead of a matrix."""
    options: dict[str, Any] = json.loads((directory / "options.json").read_text())
    return options
