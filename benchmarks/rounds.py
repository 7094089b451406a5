"""Contenders taking turns, so that whatever else the machine does meets all of them alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.processes import ContenderFailed, ContenderProcess

SLOW_ROUNDS = 2

Say = Callable[[str], None]


@dataclass
class Runs:
    """What a contender's measured rounds gave.

    Attributes:
        seconds: by round, then step.
        peak_mb: the highest of any round.
        details: of the last round.
    """

    name: str
    resident_mb: float
    seconds: dict[int, dict[str, float]] = field(default_factory=dict)
    peak_mb: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> list[str]:
        """The names of the steps, in order."""
        return list(next(iter(self.seconds.values())))

    def totals(self, *steps: str) -> dict[int, float]:
        """Seconds by round: of those steps, or of all."""
        return {
            number: sum(seconds[step] for step in steps or seconds)
            for number, seconds in self.seconds.items()
        }

    def median(self, *steps: str) -> float:
        """Over the rounds, of the sum of those steps, or of all."""
        return median(self.totals(*steps).values())


def take_turns(processes: Sequence[ContenderProcess], rounds: int, say: Say) -> list[Runs]:
    """Run each contender once per round, after a warm-up round that is not counted.

    Each round begins with another contender. Slow ones sit out the warm-up and all but the first two
    rounds. Who fails is stopped, reported and left out.

    Args:
        processes: loaded.
        rounds: that count.
        say: told who is at work.

    Raises:
        ContenderFailed: The first contender, with whom all others are compared, failed.
    """
    runs = {process: Runs(process.entrant.name, process.resident_mb) for process in processes}
    for number in range(rounds + 1):
        first = number % len(processes)
        for process in (*processes[first:], *processes[:first]):
            if process not in runs or (process.entrant.slow and not 1 <= number <= SLOW_ROUNDS):
                continue
            try:
                answer = process.ask("run")
            except ContenderFailed as error:
                if process is processes[0]:
                    raise
                say(f"left out: {error}")
                del runs[process]
                continue
            seconds: dict[str, float] = answer.pop("seconds")
            kind = "warm-up" if number == 0 else f"round {number} of {rounds}"
            say(f"  {kind}: {process.entrant.name} {sum(seconds.values()):.2f} s")
            if number:
                run = runs[process]
                run.seconds[number] = seconds
                run.peak_mb = max(run.peak_mb, float(answer.pop("peak_mb")))
                run.details = answer
    return [runs[process] for process in processes if process in runs]


def ratio(theirs: Runs, ours: Runs, *steps: str) -> float:
    """The median over common rounds of their seconds by ours: above 1, we are faster."""
    own = ours.totals(*steps)
    return median(seconds / own[number] for number, seconds in theirs.totals(*steps).items())
