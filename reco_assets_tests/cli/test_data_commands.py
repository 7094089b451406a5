"""The commands that put data into a database and look at it, from the outside."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from reco_assets.cli.doctor_command import command as doctor_command
from reco_assets.cli.import_command import command as import_command
from reco_assets.cli.migrate_command import command as migrate_command
from reco_assets.cli.seed_command import command as seed_command
from reco_assets.errors import BadInput

SMALL = ("--users", "60", "--posts", "40", "--days", "6", "--events", "900")


@pytest.fixture
def database(empty_database_url: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECO_DATABASE_URL", empty_database_url)


def _run(command: object, *arguments: str) -> Result:
    return CliRunner().invoke(command, arguments, catch_exceptions=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("command", [seed_command, migrate_command, import_command, doctor_command])
def test_help_teaches_with_examples(command: object) -> None:
    result = _run(command, "--help")
    assert result.exit_code == 0
    assert "Examples:\n" in result.output


def test_migrating_is_told_once_and_can_be_taken_back(database: None) -> None:
    first = _run(migrate_command)
    assert "created table user_recommendations" in first.output
    assert "Nothing to do" in _run(migrate_command).output
    assert _run(migrate_command, "--check").exit_code == 0
    assert "Aborted" in _run(migrate_command, "--down", "base").output
    assert "dropped table users" in _run(migrate_command, "--down", "base", "--yes").output
    assert _run(migrate_command, "--check").exit_code == 1
    assert _run(migrate_command, "--down", "base", "--check").exit_code == 2


def test_seeding_creates_tables_and_rows_then_has_nothing_to_add(database: None) -> None:
    first = _run(seed_command, *SMALL)
    assert first.exit_code == 0, first.output
    assert "60 users, 40 posts" in first.output
    assert "Nothing to add" in _run(seed_command, *SMALL).output
    assert isinstance(_run(seed_command, "--users", "0").exception, BadInput)


def test_commands_on_an_apps_database_start_no_server(database: None, home: Path) -> None:
    assert _run(migrate_command).exit_code == 0
    assert _run(seed_command, *SMALL).exit_code == 0
    assert not (home / "postgres").exists()


def test_a_dry_run_needs_no_database(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("user,item,type,timestamp\n1,2,view,1760000000\n1,2,save,1760000000\n")
    result = _run(import_command, str(path), "--dry-run")
    assert isinstance(result.exception, BadInput)  # a load would be refused
    result = _run(import_command, str(path), "--dry-run", "--max-bad", "60%")
    assert result.exit_code == 0, result.output
    assert "2 rows: 1 good (view 1), 1 bad." in result.output
    assert "row 3: unknown interaction type: 'save'" in result.output
    assert not (home / "postgres").exists()


def test_an_import_reports_what_was_new(database: None, tmp_path: Path) -> None:
    _run(migrate_command)
    path = tmp_path / "events.csv"
    path.write_text("user,item,type,timestamp\n1,2,view,1760000000\n1,2,save,1760000000\n")
    refused = _run(import_command, str(path))
    assert isinstance(refused.exception, BadInput)
    loaded = _run(import_command, str(path), "--map-type", "save=share", "--rejects", str(tmp_path / "r.csv"))
    assert loaded.exit_code == 0, loaded.output
    assert "Loaded 2 interactions, 2 new users and 1 new posts." in loaded.output
    again = _run(import_command, str(path), "--map-type", "save=share")
    assert "2 interactions were there already" in again.output
    assert _run(import_command, str(path), "--map-type", "save").exit_code == 2


def test_the_doctors_exit_code_and_json_agree(database: None) -> None:
    _run(migrate_command)
    well = _run(doctor_command, "--json")
    assert (well.exit_code, json.loads(well.output)["ok"]) == (0, True)
    assert "Nothing has been published yet" in _run(doctor_command, "--quiet").output


def test_the_doctor_fails_where_the_database_is_out_of_reach(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECO_DATABASE_URL", "postgresql://x@127.0.0.1:1/x")
    monkeypatch.setenv("RECO_CONNECTION_RETRIES", "0")
    result = _run(doctor_command)
    assert result.exit_code == 1
    assert result.output.startswith("ERROR  connection:")


def test_zero_bytes_and_unclosed_quotes_are_survived(database: None, tmp_path: Path) -> None:
    path = tmp_path / "zero.csv"
    path.write_bytes(b"user,item,type,timestamp\nu1,p\0x,view,1760000000\n")
    loaded = _run(import_command, str(path))
    assert loaded.exit_code == 0, loaded.output
    path = tmp_path / "unclosed.csv"
    path.write_text('user,item,type,timestamp\nu1,"p1,view,1760000000\nu2,p2,view,1760000000\n')
    assert isinstance(_run(import_command, str(path), "--dry-run").exception, BadInput)
    path = tmp_path / "old-mac.csv"
    path.write_bytes(b"user,item,type,timestamp\ru1,p1,view,1760000000\r")
    outcome = _run(import_command, str(path), "--dry-run")
    assert outcome.exception is None or isinstance(outcome.exception, (BadInput, SystemExit))
