"""Put the tables of a benchmark run into the documentation.

    python -m benchmarks.docs_tables [FILE]

A page says `<!-- benchmark NAME -->` … `<!-- /benchmark -->` where a table belongs; what is between is
replaced. FILE is what `--json` wrote; it is kept as `benchmarks/results.json`, from which a test checks
the pages.
"""

import argparse
import re
import shutil
import sys
from pathlib import Path
from typing import Final

from benchmarks.contenders.registry import CHECKOUT
from benchmarks.report import Report, load_report

RESULTS: Final = CHECKOUT / "benchmarks" / "results.json"
PAGES: Final = (CHECKOUT / "docs" / "results.md",)
_PLACE: Final = re.compile(r"<!-- benchmark (\S+) -->\n(.*?)<!-- /benchmark -->", re.DOTALL)


def filled(page: str, report: Report) -> str:
    """The page with its tables from the report.

    Raises:
        KeyError: A place names a table that the report has not.
    """

    def table(place: re.Match[str]) -> str:
        name = place[1]
        return f"<!-- benchmark {name} -->\n\n{report.table(name).markdown()}\n\n<!-- /benchmark -->"

    return _PLACE.sub(table, page)


def names(page: str) -> list[str]:
    """The tables that the page has a place for."""
    return [place[1] for place in _PLACE.finditer(page)]


def main() -> None:
    """Keep the file and rewrite the pages."""
    parser = argparse.ArgumentParser(description="Put the tables of a benchmark run into the documentation.")
    parser.add_argument(
        "file", type=Path, nargs="?", default=RESULTS, help="default: benchmarks/results.json"
    )
    file = parser.parse_args().file
    report = load_report(file)
    pages = {path: filled(path.read_text(), report) for path in PAGES}
    if file.resolve() != RESULTS:
        shutil.copyfile(file, RESULTS)
    for path, page in pages.items():
        path.write_text(page)
        sys.stdout.write(f"{path.relative_to(CHECKOUT)}: {', '.join(names(page))}\n")


if __name__ == "__main__":
    main()
