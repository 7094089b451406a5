"""The documentation shows the figures of the run that is kept."""

import pytest

from benchmarks.contenders.registry import CHECKOUT, ENTRANTS
from benchmarks.docs_tables import PAGES, filled, kept_runs, names
from benchmarks.report import Report, Table

PAGE = "Text.\n\n<!-- benchmark search:speed -->\nold\n<!-- /benchmark -->\n\nMore.\n"


def test_a_table_takes_its_place_and_nothing_else_changes() -> None:
    report = Report(say=lambda _: None)
    report.add(Table.of("speed", "How fast", [{"contender": "ours", "total s": 1.5}]))
    page = filled(PAGE, {"search": report})
    assert page.startswith("Text.\n\n<!-- benchmark search:speed -->\n\n| contender |")
    assert page.endswith("<!-- /benchmark -->\n\nMore.\n")
    assert "old" not in page
    assert filled(page, {"search": report}) == page


def test_a_place_for_a_table_that_was_not_measured_is_an_error() -> None:
    with pytest.raises(KeyError, match="No table speed"):
        filled(PAGE, {"search": Report()})
    with pytest.raises(KeyError, match="No run search"):
        filled(PAGE, {})


def test_the_pages_show_the_kept_figures() -> None:
    runs = kept_runs()
    for path in PAGES:
        page = path.read_text()
        assert names(page)
        assert filled(page, runs) == page, f"{path.name}: `make bench-docs`"


def test_the_readme_names_every_contender() -> None:
    text = (CHECKOUT / "benchmarks" / "README.md").read_text()
    for entrant in ENTRANTS:
        assert entrant.name.split(" (")[0].removesuffix(", blocked").removesuffix(", brute force") in text
