import doctest
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "model.md"


def test_the_script_in_the_document_prints_what_it_says() -> None:
    results = doctest.testfile(str(DOCUMENT), module_relative=False)
    assert results.attempted > 5
    assert results.failed == 0
