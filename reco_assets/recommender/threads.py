"""Independent pieces of work on a pool of threads that take them from a shared queue."""

import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from reco_assets.errors import FitCancelled

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]
ShouldStop = Callable[[], bool]
T = TypeVar("T")

CHUNKS = 64
"""Enough to balance the threads and to notice a cancellation soon, few enough to cost nothing."""

_POLL_SECONDS = 0.2


def run_tasks(
    work: Callable[[T], object],
    tasks: Sequence[T],
    costs: Sequence[float],
    n_users: int,
    *,
    done_before: int = 0,
    done_after: int | None = None,
    n_threads: int | None,
    progress: Progress | None,
    should_stop: ShouldStop | None,
) -> None:
    """Call `work(task)` for all tasks, which are begun in their order, on a pool of threads.

    `progress(users done, n_users)` is reckoned from the costs of the tasks that are done. It and
    `should_stop` run on the calling thread, so they need no locks; whatever they or the work raise
    ends the other threads after their current task.

    Args:
        work: what to do with a task; any exception ends all.
        tasks: in the order of their beginning.
        costs: of each task, in any unit.
        n_users: all users, for the progress.
        done_before: users that are done before these tasks …
        done_after: … and after them; None: all.
        n_threads: None: the cores this process may use.
        progress: told now and then, and at the end.
        should_stop: asked now and then; true ends the work.

    Raises:
        FitCancelled: `should_stop` said so.
    """
    queue = deque(zip(tasks, costs, strict=True))
    whole = sum(costs)
    by_these = (n_users if done_after is None else done_after) - done_before
    stopping = threading.Event()
    done: list[float] = []
    summed, cost_done = 0, 0.0

    def take_tasks() -> None:
        while not stopping.is_set():
            try:
                task, cost = queue.popleft()
            except IndexError:
                return
            work(task)
            done.append(cost)

    def report() -> None:
        nonlocal summed, cost_done
        finished = len(done)
        cost_done, summed = cost_done + sum(done[summed:finished]), finished
        share = 1.0 if finished == len(tasks) else cost_done / whole
        users = done_before + int(by_these * share)
        if progress is not None:
            progress(users, n_users)
        if should_stop is not None and should_stop():
            raise FitCancelled(f"Stopped on request after {users:,} of {n_users:,} users.")

    workers = min(n_threads or available_cores(), len(tasks))
    if workers <= 1:  # starting a thread takes longer than computing one user
        while queue:
            task, cost = queue.popleft()
            work(task)
            done.append(cost)
            report()
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="reco-kernel") as pool:
        pending: set[Future[None]] = {pool.submit(take_tasks) for _ in range(workers)}
        try:
            while pending:
                finished, pending = wait(pending, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                report()
        finally:
            stopping.set()


def run_chunks(
    work: Callable[[int, int], None],
    cost: Array,
    n_threads: int | None,
    progress: Progress | None,
    should_stop: ShouldStop | None,
) -> None:
    """Call `work(start, stop)` over all users, in chunks of about equal cost; see `run_tasks`.

    Args:
        work: is given a range of users.
        cost: (n_users,) of each user, positive.
        n_threads: None: all cores.
        progress: see `run_tasks`.
        should_stop: see `run_tasks`.
    """
    if not len(cost):
        return
    chunks = _chunks(cost) if len(cost) > 1 else [(0, 1)]
    run_tasks(
        lambda chunk: work(*chunk),
        chunks,
        [stop - start for start, stop in chunks],
        len(cost),
        n_threads=n_threads,
        progress=progress,
        should_stop=should_stop,
    )


def _chunks(cost: Array) -> list[tuple[int, int]]:
    cumulated = np.cumsum(cost)
    bounds = np.searchsorted(cumulated, np.linspace(0, cumulated[-1], CHUNKS + 1)[1:-1])
    edges = np.unique(np.concatenate([[0], bounds, [len(cost)]])).tolist()
    return list(itertools.pairwise(edges))


def available_cores() -> int:
    """Cores this process may run on, which in a container is less than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
