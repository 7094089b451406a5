"""Everything a user can name stands in the documentation."""

import re
import subprocess
import sys
from pathlib import Path

import reco_assets
from reco_assets.cli import _COMMANDS
from reco_assets.settings import ENV_PREFIX, Settings

CHECKOUT = Path(reco_assets.__file__).resolve().parent.parent
DOCS = CHECKOUT / "docs"


def _page(name: str) -> str:
    return (DOCS / name).read_text()


def test_every_setting_is_documented_with_its_default_and_range() -> None:
    script = "from settings_doc import PAGE, page; assert page() == PAGE.read_text(), 'run it'"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=CHECKOUT / "scripts", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [
        name for name in Settings.model_fields if f"`{ENV_PREFIX}{name.upper()}`" not in _page("settings.md")
    ] == []


def test_every_command_is_documented() -> None:
    assert [name for name in _COMMANDS if f"`reco {name}`" not in _page("commands.md")] == []


def test_every_asset_and_check_is_documented() -> None:
    from reco_assets.definitions import defs

    graph = defs.resolve_asset_graph()
    names = [key.to_user_string() for key in graph.get_all_asset_keys()]
    names += [key.name for key in graph.asset_check_keys]
    assert len(names) >= 16
    assert [name for name in names if f"`{name}`" not in _page("assets.md")] == []


def test_every_sensor_and_schedule_is_documented() -> None:
    from reco_assets.definitions import defs

    repository = defs.get_repository_def()
    names = [sensor.name for sensor in repository.sensor_defs]
    assert len(names) == 5
    assert [name for name in names if f"`{name}`" not in _page("alerts.md")] == []
    assert [s.name for s in repository.schedule_defs if f"`{s.name}`" not in _page("operations.md")] == []


def test_every_table_view_column_and_index_is_documented() -> None:
    from reco_assets.store.schema import METADATA, VIEWS

    page = _page("tables.md")
    names = [*VIEWS]
    for table in METADATA.tables.values():
        names += [table.name, *(column.name for column in table.columns)]
        names += [str(index.name) for index in table.indexes]
    assert [name for name in names if f"`{name}`" not in page] == []


def test_links_between_pages_lead_somewhere() -> None:
    broken = []
    for page in (*DOCS.rglob("*.md"), CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []


def test_the_changelog_has_an_entry_for_what_is_not_released() -> None:
    assert re.search(r"## Unreleased\n\n- ", (CHECKOUT / "CHANGELOG.md").read_text())
