"""What a long computation tells its run, and what the run tells it."""

import time
from collections.abc import Callable
from typing import Final, Self

import dagster as dg

from reco_assets.recommender.threads import Progress

PAUSE_S: Final = 5.0
"""Between two lines of progress, which is a line per tenth at most: a short computation needs none."""

ASK_EVERY_S: Final = 2.0
"""Between two looks at the run's status, each of which is a query."""

_STOPPING = {dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED}


class StepWatch:
    """Reports progress in a run's log, and knows when the run is to stop.

    A run is terminated in one of two ways. Where Dagster can reach its process, it sends SIGINT, which
    raises `DagsterExecutionInterruptedError` in the main thread, wherever that is. Where it cannot (a `reco
    run`, or *Force termination*), the run's status is all that changes, and a computation has to look.

    Args:
        say: writes a line to the log.
        asked_to_stop: whether the run is to stop; asked every `ASK_EVERY_S` at most.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        asked_to_stop: Callable[[], bool],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.say = say
        self._asked_to_stop = asked_to_stop
        self._clock = clock
        self._asked_at = clock()
        self._stopping = False

    @classmethod
    def of(cls, context: dg.AssetExecutionContext) -> Self:
        """The watch of a Dagster step."""

        def asked_to_stop() -> bool:
            run = context.instance.get_run_by_id(context.run_id)
            return run is not None and run.status in _STOPPING

        return cls(context.log.info, asked_to_stop)

    def progress(self, what: str, unit: str = "users") -> Progress:
        """A callback that says "`what`: 30% of 50,000 `unit`" now and then."""
        said_at, said_tenth = self._clock(), 0

        def report(done: int, total: int) -> None:
            nonlocal said_at, said_tenth
            tenth, now = done * 10 // max(1, total), self._clock()
            if tenth > said_tenth and now >= said_at + PAUSE_S:
                said_at, said_tenth = now, tenth
                self.say(f"{what}: {tenth}0% of {total:,} {unit}")

        return report

    def should_stop(self) -> bool:
        """Whether the run was asked to stop; cheap to call often."""
        now = self._clock()
        if not self._stopping and now >= self._asked_at + ASK_EVERY_S:
            self._asked_at, self._stopping = now, self._asked_to_stop()
        return self._stopping


UNWATCHED: Final = StepWatch(lambda _: None, lambda: False)
"""For callers without a run: says nothing and never stops."""
