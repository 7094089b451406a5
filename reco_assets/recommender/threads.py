"""Rows in chunks, on a pool of threads that take them from a shared queue."""

import itertools
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import numpy.typing as npt

from reco_assets.errors import FitCancelled

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]
ShouldStop = Callable[[], bool]

CHUNKS = 64
"""Enough to balance the threads and to notice a cancellation soon, few enough to cost nothing."""

_POLL_SECONDS = 0.2


def run_chunks(
    work: Callable[[int, int], None],
    cost: Array,
    n_threads: int | None,
    progress: Progress | None,
    should_stop: ShouldStop | None,
) -> None:
    """Call `work(start, stop)` over all rows, in chunks of about equal cost, on a pool of threads.

    `progress` and `should_stop` run on the calling thread, so they need no locks; whatever they or
    the work raise ends the other threads after their current chunk.
    """
    total = len(cost)
    if total == 0:
        return
    cumulated = np.cumsum(cost)
    bounds = np.searchsorted(cumulated, np.linspace(0, cumulated[-1], CHUNKS + 1)[1:-1])
    edges = np.unique(np.concatenate([[0], bounds, [total]])).tolist()
    chunks = deque(itertools.pairwise(edges))
    stopping = threading.Event()
    done = [0]

    def take_chunks() -> None:
        while not stopping.is_set():
            try:
                start, stop = chunks.popleft()
            except IndexError:
                return
            work(start, stop)
            done.append(stop - start)

    def report() -> None:
        if progress is not None:
            progress(sum(done), total)
        if should_stop is not None and should_stop():
            raise FitCancelled(f"Stopped on request after {sum(done):,} of {total:,} users.")

    workers = min(n_threads or available_cores(), len(chunks))
    if workers == 1:  # starting a thread takes longer than computing one user
        while chunks:
            start, stop = chunks.popleft()
            work(start, stop)
            done.append(stop - start)
            report()
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="reco-kernel") as pool:
        pending: set[Future[None]] = {pool.submit(take_chunks) for _ in range(workers)}
        try:
            while pending:
                finished, pending = wait(pending, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                report()
        finally:
            stopping.set()


def available_cores() -> int:
    """Cores this process may run on, which in a container is less than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
