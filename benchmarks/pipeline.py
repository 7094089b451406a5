"""From interactions in PostgreSQL to published rows, and how fast rows move at each end."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks import row_moving
from benchmarks.contenders.registry import Entrant
from benchmarks.database import HOLDOUT_DAYS, seeded_database
from benchmarks.processes import ContenderProcess, started
from benchmarks.report import Report, Row, Table
from benchmarks.rounds import SLOW_ROUNDS, Runs, Say, ratio, take_turns
from benchmarks.sizes import SIZES, Size
from benchmarks.workload import SAMPLE

_OURS = Entrant("ours", "benchmarks.contenders.pipelines:OursPipeline", compiles=True)
_STRAIGHTFORWARD = Entrant(
    "straightforward", "benchmarks.contenders.pipelines:StraightforwardPipeline", slow=True
)
_BARE = Entrant("bare COPY", "benchmarks.contenders.bare_copy:BareCopy")
_LARGEST = SIZES["M"].events
_STEPS = {
    "extract": "interactions out of PostgreSQL",
    "matrix": "matrix",
    "fit": "neighbours",
    "lists": "lists",
    "checks": "checks",
    "publish": "publication",
}
_HOLDOUT = "hold-out"


def run(
    report: Report,
    sizes: Sequence[Size],
    *,
    parts: Sequence[str],
    rounds: int,
    threads: int,
    directory: Path,
    say: Say,
) -> None:
    """Measure the demo's feed at each size up to M and add the tables.

    Args:
        report: for the tables.
        sizes: from small to large.
        parts: "pipeline" compares with the straightforward way, "rows" with bare COPY.
        rounds: that count.
        threads: for every contender.
        directory: for the server and the files.
        say: told what is going on.
    """
    rows: list[Row] = []
    for size in sizes:
        if size.events > _LARGEST:
            say(f"Pipeline, size {size.name}: left out, the straightforward way would take hours.")
            continue
        say(f"Pipeline, size {size.name}")
        place = directory / f"pipeline-{size.name}"
        place.mkdir()
        with seeded_database(size, place, say), ExitStack() as stack:
            processes = []
            entrants = (_OURS, _STRAIGHTFORWARD) if "pipeline" in parts else (_OURS,)
            for entrant in entrants:
                processes.append(started(entrant, place, threads))
                stack.callback(processes[-1].stop)
            # Ours runs in any case: it leaves the lists whose rows are moved next.
            runs = take_turns(processes, rounds if "pipeline" in parts else 1, say)
            for process in processes[1:]:
                process.stop()
            if len(runs) > 1:
                _add_comparison(report, size, *runs, threads=threads)
            if "rows" in parts:
                bare = ContenderProcess(_BARE, place, threads)
                stack.callback(bare.stop)
                rows += row_moving.measure(size, processes[0], bare, rounds, say)
    if rows:
        report.add(row_moving.table(rows))


def _add_comparison(report: Report, size: Size, ours: Runs, theirs: Runs, *, threads: int) -> None:
    compared = [step for step in _STEPS if step in ours.steps]
    common = [step for step in compared if step in theirs.steps]
    rows: list[Row] = [
        {
            "step": _STEPS[step],
            "ours s": ours.median(step),
            "straightforward s": theirs.median(step) if step in common else None,
            "× ours": ratio(theirs, ours, step) if step in common else None,
        }
        for step in compared
    ]
    rows.append(
        {
            "step": "all of these",
            "ours s": ours.median(*compared),
            "straightforward s": theirs.median(*common),
            "× ours": ratio(theirs, ours, *common),
        }
    )
    rows.append(
        {
            "step": f"besides: hold-out of {HOLDOUT_DAYS} day",
            "ours s": ours.median(_HOLDOUT),
            "straightforward s": None,
            "× ours": None,
        }
    )
    notes = [
        f"In turns, {threads} threads; medians of the rounds. Ours: the functions that the assets call, in "
        "their order, with the settings as shipped (200 neighbours, weighted, decayed), files, checks and "
        "filters included; without Dagster and MLflow. Straightforward: pandas.read_sql, scikit-learn's "
        "NearestNeighbors with 50 neighbours, products in blocks, pandas.to_sql into a table with the same "
        f"indexes; {SLOW_ROUNDS} rounds at most, without a warm-up. The hold-out judges the model before "
        "publication and has no counterpart."
    ]
    if theirs.details["users"] < ours.details["users"]:
        notes.append(
            f"The straightforward way compared, scored and wrote {SAMPLE:,} users; these times are for all, "
            "in proportion."
        )
    report.add(
        Table.of(
            f"pipeline/{size.name}",
            f"From interactions to published rows, feed demo, size {size.name}",
            rows,
            ratios=("× ours",),
            notes=notes,
        )
    )
    report.add(
        Table.of(
            f"pipeline-amounts/{size.name}",
            f"What they read and wrote, feed demo, size {size.name}",
            [
                {
                    "way": run.name,
                    "interactions read": run.details["interactions"],
                    "users served": run.details["users"],
                    "rows written": run.details["rows"],
                    "peak MB": run.peak_mb,
                    "above imports MB": run.peak_mb - run.resident_mb,
                    "fastest s": min(run.totals(*steps).values()),
                    "slowest s": max(run.totals(*steps).values()),
                    "rounds": len(run.seconds),
                }
                for run, steps in ((ours, compared), (theirs, common))
            ],
        )
    )
