"""Interactions into one Parquet file per day."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import IO
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from reco_assets.errors import (
    BadInput,
    CorruptArtifact,
    DatabaseBusy,
    DatabaseUnreachable,
    MissingUpstream,
    SchemaError,
    StorageFull,
    StorageUnwritable,
)
from reco_assets.settings import Settings
from reco_assets.store import arrow_scan, day_files
from reco_assets.store import extract as extract_module
from reco_assets.store.database import create_engine_for, transaction
from reco_assets.store.day_files import day_path, read_day, sha256_of
from reco_assets.store.extract import DayExtract, extract_interactions
from reco_assets_tests.store.conftest import settings_for
from reco_assets_tests.store.published import make_world, post, run_sql, user

DAY = date(2026, 11, 10)
TYPES = ("view", "like")
LATER = datetime(2026, 12, 1, tzinfo=UTC)
DROP_FOREIGN_KEYS = (
    "ALTER TABLE user_interactions DROP CONSTRAINT user_interactions_user_id_fkey, "
    "DROP CONSTRAINT user_interactions_post_id_fkey",
)
Extract = Callable[..., list[DayExtract]]


@pytest.fixture
def extract(settings: Settings, tmp_path: Path) -> Extract:
    def run(days: int = 1, start: date = DAY, directory: Path = tmp_path) -> list[DayExtract]:
        end = start + timedelta(days=days)
        return extract_interactions(settings, start, end, directory, TYPES, now=LATER)

    return run


def interact(
    engine: sa.Engine, number: int, when: str, kind: str = "view", who: int = 1, what: int = 1
) -> None:
    run_sql(
        engine,
        "INSERT INTO user_interactions (id, user_id, post_id, interaction_type, created_at) VALUES "
        f"('{UUID(int=number)}', '{user(who)}', '{post(what)}', '{kind}', '{when}+00')",
    )


def test_a_day_holds_its_interactions_from_midnight_to_midnight(engine: sa.Engine, extract: Extract) -> None:
    make_world(engine)
    interact(engine, 4, "2026-11-09 23:59:59.999999")
    interact(engine, 3, "2026-11-10 23:59:59.999999", "like", who=2, what=2)
    interact(engine, 2, "2026-11-10 00:00:00")
    interact(engine, 1, "2026-11-11 00:00:00")
    (day,) = extract()
    first, last = datetime(2026, 11, 10, tzinfo=UTC), datetime(2026, 11, 10, 23, 59, 59, 999999, tzinfo=UTC)
    table = read_day(day.path)
    assert table.to_pylist() == [
        row(2, 1, 1, "view", first),
        row(3, 2, 2, "like", last),
    ]
    assert table.schema.field("created_at").type == pa.timestamp("us", tz="UTC")
    assert table.schema.field("interaction_type").type == pa.dictionary(pa.int32(), pa.string())
    assert (day.n_rows, day.first, day.last, dict(day.rejected)) == (2, first, last, {})
    assert day.sha256 == sha256_of(day.path)


def test_an_empty_day_writes_a_file_without_rows(extract: Extract, tmp_path: Path) -> None:
    (day,) = extract()
    assert day.path == tmp_path / "2026-11-10.parquet"
    assert (day.n_rows, day.first, day.last) == (0, None, None)
    assert read_day(day.path).num_rows == 0


def test_unknown_types_are_left_out_and_counted_by_name(engine: sa.Engine, extract: Extract) -> None:
    make_world(engine)
    for number, kind in enumerate(("view", "wave", "wave", "nod")):
        interact(engine, number, "2026-11-10 12:00:00", kind)
    (day,) = extract()
    assert day.n_rows == 1
    assert day.rejected == {"unknown type 'nod'": 1, "unknown type 'wave'": 2}


def test_rows_of_users_and_posts_that_do_not_exist_are_left_out_and_counted(
    engine: sa.Engine, extract: Extract
) -> None:
    """As in an app's database that has no foreign keys."""
    make_world(engine)
    run_sql(engine, *DROP_FOREIGN_KEYS)
    interact(engine, 1, "2026-11-10 12:00:00")
    interact(engine, 2, "2026-11-10 12:00:01", who=77)
    interact(engine, 3, "2026-11-10 12:00:02", what=77)
    interact(engine, 4, "2026-11-10 12:00:03", what=78)
    interact(engine, 5, "2026-11-10 12:00:04", "wave", who=77, what=77)
    (day,) = extract()
    assert [each["id"] for each in read_day(day.path).to_pylist()] == [UUID(int=1).bytes]
    assert day.rejected == {"unknown post": 2, "unknown user": 2}


@pytest.mark.parametrize("column", ["user_id", "post_id"])
def test_a_foreign_key_that_is_not_validated_keeps_nobody_away(
    engine: sa.Engine, extract: Extract, column: str
) -> None:
    make_world(engine)
    constraint = f"user_interactions_{column}_fkey"
    run_sql(engine, f"ALTER TABLE user_interactions DROP CONSTRAINT {constraint}")
    interact(engine, 1, "2026-11-10 12:00:00", **{"who" if column == "user_id" else "what": 77})
    run_sql(
        engine,
        f"ALTER TABLE user_interactions ADD CONSTRAINT {constraint} FOREIGN KEY ({column}) "
        f"REFERENCES {column.removesuffix('_id')}s (id) NOT VALID",
    )
    (day,) = extract()
    assert (day.n_rows, day.rejected) == (0, {f"unknown {column.removesuffix('_id')}": 1})


def test_text_ids_without_foreign_keys_are_judged_by_spelling_and_by_existence(
    empty_database_url: str, tmp_path: Path
) -> None:
    settings = settings_for(empty_database_url)
    engine = create_engine_for(settings)
    names = "ABCDEFGH"
    spellings = {
        "A": str(user(1)),
        "B": str(user(77)),
        "C": str(user(1)).upper(),
        "D": f"{{{user(1)}}}",
        "E": user(1).hex,
        "F": f"-{str(user(1))[1:]}",
        "G": f"{str(user(1))[:-1]}g",
        "H": str(user(1)) + " ",
    }
    run_sql(
        engine,
        "CREATE TABLE users (id text PRIMARY KEY)",
        "CREATE TABLE posts (id text PRIMARY KEY, author_id text, created_at timestamp)",
        "CREATE TABLE user_interactions (id text PRIMARY KEY, user_id text, post_id text, "
        "interaction_type text, created_at timestamp)",
        *(f"INSERT INTO users VALUES ('{each}')" for name, each in spellings.items() if name != "B"),
        f"INSERT INTO posts VALUES ('{post(1)}', '{user(1)}', now())",
        *(
            "INSERT INTO user_interactions VALUES "
            f"('{UUID(int=number)}', '{spellings[name]}', '{post(1)}', 'view', '2026-11-10 12:00')"
            for number, name in enumerate(names)
        ),
    )
    engine.dispose()
    (day,) = extract_interactions(settings, DAY, DAY + timedelta(days=1), tmp_path, TYPES, now=LATER)
    assert [each["user_id"] for each in read_day(day.path).to_pylist()] == [user(1).bytes]
    assert day.rejected == {"unknown user": 1, "user_id is not a UUID in lower case": 6}


def test_rows_from_the_future_are_left_out_and_counted(
    settings: Settings, engine: sa.Engine, tmp_path: Path
) -> None:
    make_world(engine)
    interact(engine, 1, "2026-11-10 11:59:00")
    interact(engine, 2, "2026-11-10 12:01:00")
    noon = datetime(2026, 11, 10, 12, tzinfo=UTC)
    (day,) = extract_interactions(settings, DAY, DAY + timedelta(days=1), tmp_path, TYPES, now=noon)
    assert (day.n_rows, day.rejected) == (1, {"created_at in the future": 1})


def test_the_same_interaction_under_two_ids_is_kept_twice(engine: sa.Engine, extract: Extract) -> None:
    make_world(engine)
    interact(engine, 2, "2026-11-10 12:00:00")
    interact(engine, 1, "2026-11-10 12:00:00")
    (day,) = extract()
    assert [each["id"] for each in read_day(day.path).to_pylist()] == [UUID(int=i).bytes for i in (1, 2)]


def test_a_range_gives_the_bytes_of_its_days_and_a_rerun_gives_them_again(
    engine: sa.Engine, extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(day_files, "_ROW_GROUP_ROWS", 100)  # several row groups in a small file
    make_world(engine)
    run_sql(
        engine,
        "INSERT INTO user_interactions (user_id, post_id, interaction_type, created_at) "
        f"SELECT '{user(1)}', '{post(1)}', CASE WHEN i % 3 = 0 THEN 'like' ELSE 'view' END, "
        "timestamptz '2026-11-09 00:00+00' + (i / 7) * interval '7 minutes' FROM generate_series(0, 3999) i",
    )
    ranged = extract(days=5, start=date(2026, 11, 8))
    digests = [day.sha256 for day in ranged]
    assert [day.n_rows for day in ranged] == [0, 1442, 1442, 1116, 0]
    assert pq.ParquetFile(ranged[1].path).num_row_groups == 15
    batches = arrow_scan.arrow_batches

    def in_small_pieces(*arguments: object, **named: object) -> Iterator[pa.RecordBatch]:
        for batch in batches(*arguments, **named):  # type: ignore[arg-type]
            yield from (batch.slice(start, 37) for start in range(0, batch.num_rows, 37))

    monkeypatch.setattr(extract_module, "arrow_batches", in_small_pieces)  # as another driver might send them
    (tmp_path / "again").mkdir()
    single = [
        extract(start=date(2026, 11, 8) + timedelta(days=i), directory=tmp_path / "again")[0]
        for i in range(5)
    ]
    assert [day.sha256 for day in single] == digests
    assert [day.sha256 for day in extract(days=5, start=date(2026, 11, 8))] == digests


def test_a_full_disk_is_reported_and_leaves_the_previous_file_and_no_debris(
    engine: sa.Engine, extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_world(engine)
    interact(engine, 1, "2026-11-10 12:00:00")
    (before,) = extract()
    interact(engine, 2, "2026-11-10 13:00:00")

    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(StorageFull, match=r"The previous file is untouched"):
        extract()
    assert [path.name for path in tmp_path.iterdir()] == ["2026-11-10.parquet"]
    assert sha256_of(before.path) == before.sha256


def test_a_disk_that_fills_up_while_rows_are_written_is_reported_the_same_way(
    engine: sa.Engine, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/dev/full answers every write as a full disk does."""
    make_world(engine)
    interact(engine, 1, "2026-11-10 12:00:00")

    class Full(day_files.DayWriter):
        def finish(self) -> str:
            with open("/dev/full", "wb", buffering=0) as full:  # noqa: PTH123
                os.dup2(full.fileno(), self._file.fileno())
            return super().finish()

    monkeypatch.setattr(extract_module, "DayWriter", Full)
    with pytest.raises(StorageFull, match=r"Free space"):
        extract_interactions(settings, DAY, DAY + timedelta(days=1), tmp_path, TYPES, now=LATER)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_extraction_left_is_overwritten_by_the_next(extract: Extract, tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from reco_assets.store.day_files import DayWriter\n"
        "DayWriter(Path(sys.argv[1]))\n"
        "os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", script, day_path(tmp_path, DAY)], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    extract()
    assert [path.name for path in tmp_path.iterdir()] == ["2026-11-10.parquet"]


def test_a_writer_that_cannot_begin_leaves_neither_file_nor_handle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def no_space(file: IO[bytes], *_: object, **__: object) -> None:
        opened.append(file)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq, "ParquetWriter", no_space)
    with pytest.raises(StorageFull):
        day_files.DayWriter(day_path(tmp_path, DAY))
    assert [file.closed for file in opened] == [True]
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_told_with_its_path_and_reason(
    extract: Extract, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    wanted = rf"{tmp_path}/file/raw cannot be written: Not a directory .*RECO_STORAGE_DIR"
    with pytest.raises(StorageUnwritable, match=wanted):
        extract(directory=tmp_path / "file" / "raw")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EIO])
def test_a_refusal_for_another_reason_than_space_does_not_say_free_space(
    engine: sa.Engine, extract: Extract, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    make_world(engine)

    def refused(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("os.fsync", refused)
    with pytest.raises(StorageUnwritable, match=os.strerror(code)) as raised:
        extract()
    assert "pace" not in str(raised.value)


def test_a_connection_lost_in_the_middle_of_the_scan_starts_it_again(
    engine: sa.Engine, extract: Extract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_world(engine)
    run_sql(
        engine,
        *DROP_FOREIGN_KEYS,  # makes filling it fast
        "INSERT INTO user_interactions (user_id, post_id, interaction_type, created_at) "
        f"SELECT '{user(1)}', '{post(1)}', 'view', timestamptz '2026-11-10 00:00+00' + i * interval '10 ms' "
        "FROM generate_series(1, 250000) i",
    )
    cut: list[int] = []
    original = day_files.DayWriter.write

    def cut_once(writer: day_files.DayWriter, batch: pa.RecordBatch) -> None:
        if not cut:
            with transaction(engine) as connection:
                stop = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE query LIKE :copy"
                cut.extend(connection.scalars(sa.text(stop), {"copy": "COPY (%user_interactions%"}))
        original(writer, batch)

    monkeypatch.setattr(day_files.DayWriter, "write", cut_once)
    (day,) = extract()
    assert cut == [True]
    assert day.n_rows == 250_000
    assert [path.name for path in tmp_path.iterdir()] == ["2026-11-10.parquet"]


def test_a_missing_day_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(MissingUpstream, match=r"reco run --partition 2026-11-10 --assets raw_interactions"):
        read_day(day_path(tmp_path, DAY))


def test_a_broken_or_foreign_file_is_corrupt(tmp_path: Path) -> None:
    path = day_path(tmp_path, DAY)
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(CorruptArtifact, match=r"reco run --partition 2026-11-10"):
        read_day(path)
    pq.write_table(pa.table({"user_id": ["a"]}), path)
    with pytest.raises(CorruptArtifact, match=r"other columns than an extracted day: user_id string"):
        read_day(path)


def test_a_truncated_file_is_corrupt(engine: sa.Engine, extract: Extract) -> None:
    make_world(engine)
    interact(engine, 1, "2026-11-10 12:00:00")
    (day,) = extract()
    day.path.write_bytes(day.path.read_bytes()[:-20])
    with pytest.raises(CorruptArtifact):
        read_day(day.path)


def test_an_empty_range_is_bad_input(extract: Extract) -> None:
    with pytest.raises(BadInput, match=r"starts on 2026-11-10 and ends before 2026-11-10"):
        extract(days=0)


def test_a_database_that_was_never_migrated_names_the_command(
    empty_database_url: str, tmp_path: Path
) -> None:
    with pytest.raises(SchemaError, match=r"reco migrate"):
        extract_interactions(settings_for(empty_database_url), DAY, LATER.date(), tmp_path, TYPES)


def test_an_unreachable_server_is_named_without_its_password(tmp_path: Path) -> None:
    settings = settings_for("postgresql://u:hidden@127.0.0.1:1/x", connection_retries=0)
    with pytest.raises(DatabaseUnreachable, match=r"127.0.0.1:1/x") as raised:
        extract_interactions(settings, DAY, LATER.date(), tmp_path, TYPES)
    assert "hidden" not in str(raised.value)


def test_a_scan_that_waits_for_a_lock_too_long_is_busy(
    settings: Settings, engine: sa.Engine, tmp_path: Path
) -> None:
    quick = settings.model_copy(update={"lock_timeout_s": 0.05})
    with transaction(engine) as holder:
        holder.execute(sa.text("LOCK TABLE user_interactions IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(DatabaseBusy, match=r"RECO_LOCK_TIMEOUT_S"):
            extract_interactions(quick, DAY, LATER.date(), tmp_path, TYPES)
    assert list(tmp_path.iterdir()) == []


def row(number: int, who: int, what: int, kind: str, when: datetime) -> dict[str, object]:
    return {
        "id": UUID(int=number).bytes,
        "user_id": user(who).bytes,
        "post_id": post(what).bytes,
        "interaction_type": kind,
        "created_at": when,
    }
