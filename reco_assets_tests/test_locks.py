"""The lock of the image is the lock of the checkout without what only the tests need."""

import re
import tomllib
from pathlib import Path

import reco_assets

CHECKOUT = Path(reco_assets.__file__).resolve().parent.parent
PINNED = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)((?: ; .*?)?) \\$", re.MULTILINE)
BUILDS_THE_PACKAGE = "hatchling"


def lock(name: str) -> str:
    return (CHECKOUT / name).read_text()


def pins(name: str) -> set[tuple[str, str]]:
    """Package and version; a package may have another version on another platform."""
    return {(package, version) for package, version, _ in PINNED.findall(lock(name))}


def named(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9._-]", each)[0].lower() for each in requirements}


def test_the_image_gets_the_very_versions_that_were_tested() -> None:
    everything, image = pins("requirements.lock"), pins("requirements-runtime.lock")
    assert len(image) > 100
    assert image < everything


def test_the_image_gets_what_the_package_needs_and_nothing_that_only_tests_need() -> None:
    project = tomllib.loads(lock("pyproject.toml"))["project"]
    needed, tests = named(project["dependencies"]), named(project["optional-dependencies"]["test"])
    packages = {package for package, _ in pins("requirements-runtime.lock")}
    assert needed - packages == set()
    assert tests & packages == {BUILDS_THE_PACKAGE}


def test_every_locked_package_has_hashes_and_no_lock_names_a_registry() -> None:
    for path in sorted(CHECKOUT.glob("requirements*.lock")):
        text = path.read_text()
        starts = [line for line in text.splitlines() if line[:1].isalnum()]
        assert starts, path.name
        assert [line for line in starts if not re.search(r"==\S+( ; .*)? \\$", line)] == [], path.name
        for package in re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]:
            assert "--hash=sha256:" in package, package.splitlines()[0]
        assert "://" not in text, path.name
