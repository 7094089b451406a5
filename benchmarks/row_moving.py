"""Publication and extraction beside bare COPY of the same rows, in turns."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.processes import ContenderProcess
from benchmarks.report import Row, Table
from benchmarks.rounds import Say
from benchmarks.sizes import Size


def measure(size: Size, ours: ContenderProcess, bare: ContenderProcess, rounds: int, say: Say) -> list[Row]:
    """Rows a second, each way by both; the first round is not counted.

    Args:
        size: of the feed.
        ours: the pipeline after a run, whose lists are published again.
        bare: COPY alone.
        rounds: that count.
        say: told what is going on.
    """
    rows: list[Row] = []
    for operation, what in (("publish", "publication"), ("extract", "extraction")):
        answers: dict[str, list[dict[str, Any]]] = {"ours": [], "bare": []}
        for _ in range(rounds + 1):
            answers["ours"].append(ours.ask(operation))
            answers["bare"].append(bare.ask(operation))
        own, their = ([each["seconds"] for each in answers[name][1:]] for name in ("ours", "bare"))
        n_rows, n_bare = (answers[name][-1]["rows"] for name in ("ours", "bare"))
        if n_rows != n_bare:
            raise AssertionError(f"{what}: ours moved {n_rows:,} rows, bare COPY {n_bare:,}.")
        say(f"  {what}: {n_rows:,} rows, {n_rows / median(own):,.0f} a second")
        rows.append(
            {
                "what": what,
                "size": size.name,
                "rows": n_rows,
                "ours s": median(own),
                "fastest s": min(own),
                "slowest s": max(own),
                "bare COPY s": median(their),
                "ours rows/s": round(n_rows / median(own)),
                "bare COPY rows/s": round(n_rows / median(their)),
                "share of bare COPY": median(b / a for a, b in zip(own, their, strict=True)),
            }
        )
    return rows


def table(rows: Sequence[Row]) -> Table:
    """The table of all sizes."""
    return Table.of(
        "rows",
        "Moving rows beside bare COPY",
        rows,
        notes=[
            "In turns; medians of the rounds after a warm-up. The embedded server with its default "
            "durability. Publication: our lists into `user_recommendations`, with indexes, foreign keys, "
            "filters and the swap; bare: the same rows, already encoded, into a new table without an index. "
            "Extraction: to daily Parquet files, sorted, every row checked; bare: COPY … TO STDOUT (FORMAT "
            "binary), read and thrown away."
        ],
    )
