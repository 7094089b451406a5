"""Put the tables of benchmark runs into the documentation.

    python -m benchmarks.docs_tables [FILE …]

A page says `<!-- benchmark RUN:NAME -->` … `<!-- /benchmark -->` where a table belongs; what is between is
replaced. RUN is a file in `benchmarks/results/`, without `.json`: what `--json` wrote. A FILE that is given
is kept there first, under its own name. A test checks the pages against what is kept.
"""

import argparse
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from benchmarks.contenders.registry import CHECKOUT
from benchmarks.report import Report, load_report

RESULTS: Final = CHECKOUT / "benchmarks" / "results"
PAGES: Final = (CHECKOUT / "docs" / "results.md",)
_PLACE: Final = re.compile(r"<!-- benchmark ([\w-]+):(\S+) -->\n(.*?)<!-- /benchmark -->", re.DOTALL)


def filled(page: str, runs: Mapping[str, Report]) -> str:
    """The page with its tables from the runs, by their names.

    Raises:
        KeyError: A place names a run or a table that there is not.
    """

    def table(place: re.Match[str]) -> str:
        run, name = place[1], place[2]
        if run not in runs:
            raise KeyError(f"No run {run}; there are {', '.join(runs)}.")
        return f"<!-- benchmark {run}:{name} -->\n\n{runs[run].table(name).markdown()}\n\n<!-- /benchmark -->"

    return _PLACE.sub(table, page)


def names(page: str) -> list[str]:
    """The tables that the page has a place for, as RUN:NAME."""
    return [f"{place[1]}:{place[2]}" for place in _PLACE.finditer(page)]


def kept_runs() -> dict[str, Report]:
    """The runs that the documentation shows."""
    return {path.stem: load_report(path) for path in sorted(RESULTS.glob("*.json"))}


def main() -> None:
    """Keep the files and rewrite the pages."""
    parser = argparse.ArgumentParser(description="Put the tables of benchmark runs into the documentation.")
    parser.add_argument("files", type=Path, nargs="*", help="runs to keep; none: those that are kept already")
    given = {file.stem: file for file in parser.parse_args().files}
    runs = kept_runs() | {name: load_report(file) for name, file in given.items()}
    pages = {path: filled(path.read_text(), runs) for path in PAGES}
    for name, file in given.items():
        if file.resolve() != RESULTS / f"{name}.json":
            shutil.copyfile(file, RESULTS / f"{name}.json")
    for path, page in pages.items():
        path.write_text(page)
        sys.stdout.write(f"{path.relative_to(CHECKOUT)}: {', '.join(names(page))}\n")


if __name__ == "__main__":
    main()
