"""All benchmarks in one run; see README.md.

python -m benchmarks --sizes S M --json figures.json
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import neighbor_search
from benchmarks.contenders.registry import ENTRANTS, OUR_ENTRANTS
from benchmarks.feeds import FEEDS
from benchmarks.machine import machine_table
from benchmarks.processes import (
    ContenderFailed,
    unwound_when_stopped,
    without_own_settings,
    working_directory,
)
from benchmarks.report import Report
from benchmarks.sizes import SIZES
from reco_assets.recommender.threads import available_cores

PARTS = ("search", "pipeline", "rows")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts and print their tables; progress goes to stderr."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["S", "M"], help="default: S M")
    parser.add_argument("--feeds", nargs="+", choices=FEEDS, default=list(FEEDS), help="default: both")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    parser.add_argument("--alone", action="store_true", help="leave the other libraries out")
    parser.add_argument("--rounds", type=int, default=3, help="that count, after a warm-up (default: 3)")
    parser.add_argument("--threads", type=int, default=available_cores(), help="default: all cores")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args(arguments)
    if given.rounds < 1 or given.threads < 1:
        parser.error("--rounds and --threads are at least 1.")
    sizes = sorted((SIZES[name] for name in set(given.sizes)), key=lambda size: size.users)
    entrants = OUR_ENTRANTS if given.alone else ENTRANTS
    report = Report(given.json)
    began = time.monotonic()

    def say(line: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - began:5.0f} s] {line}\n")

    for name in set(os.environ) - set(without_own_settings(dict(os.environ))):
        del os.environ[name]
    try:
        with unwound_when_stopped(), working_directory() as directory:
            report.add(machine_table(entrants, given.threads))
            if "search" in given.parts:
                neighbor_search.run(
                    report,
                    sizes,
                    given.feeds,
                    entrants,
                    rounds=given.rounds,
                    threads=given.threads,
                    directory=directory,
                    say=say,
                )
            if {"pipeline", "rows"} & set(given.parts):
                from benchmarks import pipeline  # reads the settings, which must not be the caller's

                pipeline.run(
                    report,
                    sizes,
                    parts=given.parts,
                    rounds=given.rounds,
                    threads=given.threads,
                    directory=directory,
                    say=say,
                )
    except KeyboardInterrupt:
        say("Interrupted; contenders and temporary files are gone.")
        return 130
    except ContenderFailed as error:
        say(str(error))
        return 1
    say("Done.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
