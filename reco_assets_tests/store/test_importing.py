import csv
import gzip
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from reco_assets.errors import BadInput, DatabaseBusy, SchemaError
from reco_assets.settings import Settings
from reco_assets.store import importing, importing_files, migrate
from reco_assets.store.database import create_engine_for, transaction
from reco_assets.store.importing import Imported, load_checked
from reco_assets.store.importing_check import Checked, ImportOptions, check_file, refuse_if_too_bad

NOW = datetime(2026, 10, 20, tzinfo=UTC)
WEIGHTS = {"view": 0.1, "click": 0.3, "like": 0.7, "share": 1.0}
ROWS = [
    ("9007199254740993", "-77", "view", 1760000000),
    ("9007199254740993", "-77", "like", 1760000060),
    ("9007199254740992", "-77", "view", 1759999000),
    ("u", "i2", "click", 1760001000),
    ("u", "i2", "click", 1760001000),
]


@pytest.fixture
def engine(empty_database_url: str) -> Iterator[sa.Engine]:
    settings = Settings.load(database_url=empty_database_url)
    migrate.upgrade(settings)
    engine = create_engine_for(settings)
    yield engine
    engine.dispose()


def _write(path: Path, rows: list[tuple[Any, ...]] = ROWS, header: str = "user,item,type,timestamp") -> Path:
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def _check(path: Path, **options: Any) -> Checked:
    rejects = options.pop("rejects", None)
    return check_file(
        path,
        ImportOptions(**options),
        known_types=WEIGHTS,
        start_date=date(2025, 1, 1),
        now=NOW,
        rejects=rejects,
    )


def _import(engine: sa.Engine, path: Path, **options: Any) -> Imported:
    checked = _check(path, **options)
    return load_checked(engine, checked, ImportOptions(**options))


def _scalar(engine: sa.Engine, statement: str) -> Any:
    with transaction(engine) as connection:
        return connection.scalar(sa.text(statement))


def test_an_import_creates_what_is_missing_and_a_second_one_adds_nothing(
    engine: sa.Engine, tmp_path: Path
) -> None:
    path = _write(tmp_path / "events.csv")
    first = _import(engine, path)
    assert (first.rows.interactions, first.rows.posts, first.repeated) == (4, 2, 1)
    assert first.rows.users == 4  # three readers and the stand-in for the unknown author
    again = _import(engine, path)
    assert (again.rows.interactions, again.rows.users, again.rows.posts) == (0, 0, 0)
    assert (again.already_there, again.repeated) == (4, 1)
    assert _scalar(engine, "SELECT count(*) FROM user_interactions") == 4
    # A post is as old as the first row that names it, wherever that stands in the file.
    created = "SELECT extract(epoch FROM created_at)::bigint FROM posts WHERE title = 'Post -77'"
    assert _scalar(engine, created) == 1759999000


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "jsonl", "jsonl.gz", "parquet", "tsv", "bom", "latin-1"])
def test_every_format_gives_the_same_rows(engine: sa.Engine, tmp_path: Path, kind: str) -> None:
    _import(engine, _write(tmp_path / "reference.csv"))
    path = tmp_path / "no-telling-name"
    text = _write(tmp_path / "plain.csv").read_text()
    lines = "\n".join(json.dumps(dict(zip(("user", "item", "type", "ts"), row, strict=True))) for row in ROWS)
    columns = {name: [row[i] for row in ROWS] for i, name in enumerate(("user", "item", "type", "time"))}
    options: dict[str, Any] = {}
    if kind == "parquet":
        pq.write_table(pa.table(columns), path)
    elif kind == "latin-1":
        path.write_bytes(text.replace("type", "tÿpe").encode("latin-1"))
        options = {"encoding": "latin-1", "type_column": "tÿpe"}
    else:
        content = {
            "csv": text,
            "jsonl": lines,
            "tsv": text.replace(",", "\t"),
            "bom": "\ufeff" + text.replace("\n", "\r\n") + "\r\n",
        }[kind.removesuffix(".gz")].encode()
        path.write_bytes(gzip.compress(content) if kind.endswith(".gz") else content)
    done = _import(engine, path, **options)
    assert (done.rows.interactions, done.already_there, done.repeated) == (0, 4, 1)


def test_integer_ids_of_parquet_and_json_stay_exact(tmp_path: Path) -> None:
    path = tmp_path / "ids.parquet"
    ids = pa.array([2**53 + 1, 2**53, 2**63 - 1], pa.int64())
    pq.write_table(pa.table({"user_id": ids, "item_id": ids, "ts": [1, 2, 3]}), path)
    checked = _check(path, constant_type="view")
    assert [checked.users.name(code) for code in range(3)] == [
        "9007199254740993",
        "9007199254740992",
        "9223372036854775807",
    ]
    floats = tmp_path / "floats.parquet"
    pq.write_table(
        pa.table({"user_id": ids.cast(pa.float64(), safe=False), "item_id": ids, "ts": [1, 2, 3]}), floats
    )
    with pytest.raises(BadInput, match="floating-point numbers"):
        _check(floats, constant_type="view")


def test_uuids_join_the_apps_own_rows(engine: sa.Engine, tmp_path: Path) -> None:
    with transaction(engine) as connection:
        user = connection.scalar(sa.text("INSERT INTO users DEFAULT VALUES RETURNING id"))
        post = connection.scalar(
            sa.text("INSERT INTO posts (author_id, title) VALUES (:user, 'Mine') RETURNING id"),
            {"user": user},
        )
    done = _import(engine, _write(tmp_path / "a.csv", [(str(user).upper(), post, "like", 1760000000)]))
    assert (done.rows.interactions, done.rows.posts) == (1, 0)
    assert (
        _scalar(engine, "SELECT title FROM posts JOIN user_interactions i ON i.post_id = posts.id") == "Mine"
    )


def test_titles_and_authors_are_taken_over(engine: sa.Engine, tmp_path: Path) -> None:
    rows = [
        ("u1", "p1", "view", 1760000000, '"A title, with\na line"', "w1"),
        ("w1", "p2", "view", 1760000000, "", ""),
    ]
    path = _write(tmp_path / "a.csv", rows, "user,item,type,timestamp,headline,writer")
    done = _import(engine, path, title_column="headline", author_column="writer")
    assert done.rows.users == 3
    assert _scalar(engine, "SELECT string_agg(title, '|' ORDER BY title) FROM posts") == (
        "A title, with\na line|Post p2"
    )
    wrote = (
        "SELECT count(*) FROM posts p JOIN user_interactions i ON i.user_id = p.author_id "
        "WHERE p.title LIKE 'A%'"
    )
    assert _scalar(engine, wrote) == 1


def test_a_namespace_sets_sources_apart(engine: sa.Engine, tmp_path: Path) -> None:
    path = _write(tmp_path / "a.csv")
    _import(engine, path)
    assert _import(engine, path, namespace="other shop").rows.interactions == 4


def test_bad_rows_are_counted_shown_and_all_written_down(tmp_path: Path) -> None:
    bad = [("", "p", "view", 1760000000)] * 25 + [("u", "p", "follow", 1760000000)]
    path = _write(tmp_path / "a.csv", [*ROWS, *bad, ("u", "p"), ("v", "p", "view", 1760000000)])
    checked = _check(path, rejects=tmp_path / "rejects.csv")
    assert (checked.n_good, checked.n_bad) == (6, 27)
    assert checked.bad_by_reason == {
        "no user id": 25,
        "unknown interaction type": 1,
        "wrong number of columns": 1,
    }
    assert len(checked.first_bad) == 20
    with (tmp_path / "rejects.csv").open() as file:
        written = list(csv.reader(file))
    assert written[0] == ["row", "reason", "value"]
    assert written[1] == ["7", "no user id", ""]
    assert written[-1] == ["33", "2 columns instead of 4", "u,p"]
    with pytest.raises(BadInput, match=r"27 of 33 rows are bad.*--map-type follow=share"):
        refuse_if_too_bad(checked, "10%")
    refuse_if_too_bad(checked, "27")
    with pytest.raises(BadInput, match="expected a number"):
        refuse_if_too_bad(checked, "few")


def test_rows_keep_their_numbers_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing_files, "_BLOCK_BYTES", 256)
    rows: list[tuple[Any, ...]] = [(f"u{n}", "p", "view", 1760000000 + n) for n in range(200)]
    for place in (3, 50, 51, 120, 199):
        rows[place] = ("only", "two")
    rows[150] = ("", "p", "view", 1)
    checked = _check(_write(tmp_path / "a.csv", rows))
    assert sorted(row for row, _, _ in checked.first_bad) == [5, 52, 53, 122, 152, 201]


def test_rows_before_the_start_are_loaded_and_counted(tmp_path: Path) -> None:
    checked = _check(_write(tmp_path / "a.csv", [*ROWS, ("u", "p", "view", 1460000000)]))
    assert (checked.n_good, checked.before_start) == (6, 1)


def test_an_interrupted_import_goes_on_after_its_last_chunk(
    engine: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing_files, "CHUNK_ROWS", 10)
    monkeypatch.setattr(importing, "_FIRST_FILLING", 10)
    path = _write(tmp_path / "a.csv", [(f"u{n}", f"p{n % 7}", "view", 1760000000 + n) for n in range(35)])
    checked = _check(path)
    loads: list[int] = []
    original = importing.BulkLoader.load

    def fail_in_the_third(self: Any, *batch: Any) -> Any:
        loads.append(1)
        loaded = original(self, *batch)
        if len(loads) == 3:
            raise DatabaseBusy("PostgreSQL: a lock was not free.")
        return loaded

    monkeypatch.setattr(importing.BulkLoader, "load", fail_in_the_third)
    with pytest.raises(DatabaseBusy, match=r"Rows up to 21 are loaded. Run the same command again"):
        load_checked(engine, checked, ImportOptions())
    assert _scalar(engine, "SELECT count(*) FROM user_interactions") == 20
    assert _scalar(engine, "SELECT rows_done FROM reco_import_progress") == 21
    loads[:] = [1, 1, 1]
    done = load_checked(engine, _check(path), ImportOptions())
    assert (done.resumed_after, done.skipped, done.rows.interactions) == (21, 20, 15)
    assert len(loads) == 5
    assert _scalar(engine, "SELECT to_regclass('reco_import_progress')") is None


@pytest.mark.parametrize("first_filling", [10, 25, 1000])
def test_rows_repeated_in_another_chunk_are_loaded_once_however_chunks_are_taken_together(
    engine: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first_filling: int
) -> None:
    monkeypatch.setattr(importing_files, "CHUNK_ROWS", 10)
    monkeypatch.setattr(importing, "_FIRST_FILLING", first_filling)
    rows = [(f"u{n}", f"p{n % 7}", "view", 1760000000 + n) for n in range(35)]
    before = _table_definition(engine)
    done = _import(engine, _write(tmp_path / "a.csv", [*rows, *rows[5:15]]))
    assert (done.rows.interactions, done.already_there, done.repeated) == (35, 10, 0)
    assert _scalar(engine, "SELECT count(DISTINCT id) FROM user_interactions") == 35
    assert _table_definition(engine) == before


def _table_definition(engine: sa.Engine) -> list[object]:
    queries = (
        "SELECT indexdef FROM pg_indexes WHERE tablename = 'user_interactions' ORDER BY 1",
        "SELECT conname, contype, convalidated, pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE conrelid = 'user_interactions'::regclass ORDER BY 1",
    )
    with transaction(engine) as connection:
        return [tuple(row) for query in queries for row in connection.execute(sa.text(query))]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"user,item,type,timestamp\n", "no row that can be loaded"),
        (
            b"who,item,type,timestamp\n1,2,view,3\n",
            r"looks like the user. It has: who, item, type, timestamp",
        ),
        (b"user,item,timestamp\n1,2,3\n", "or give all rows one type with --type"),
        (b"user,item,type,timestamp\n\xff\xfe,2,view,3\n", "is not utf-8.*--encoding"),
        ("user,item,type,timestamp\n1,2,view,3\n".encode("utf-16"), "--encoding utf-16"),
        (gzip.compress(b"user,item,type,timestamp\n" + b"1,2,view,3\n" * 50_000)[:-9], "cut off or damaged"),
        (b"PAR1 and then nothing", "cannot be read"),
        (b"PK\x03\x04 a workbook", "zip, Excel"),
        (b'[{"user": 1}]', "jq -c"),
        (b"user,user,item,type,timestamp\n1,1,2,view,3\n", "more than once"),
    ],
)
def test_a_file_that_cannot_be_read_says_why_and_what_to_do(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=message):
        refuse_if_too_bad(_check(path), "10%")


def test_a_place_for_rejects_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be written: No such file or directory"):
        _check(_write(tmp_path / "a.csv"), rejects=tmp_path / "nowhere" / "bad.csv")


def test_a_type_must_be_mapped_to_a_known_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"bookmark=save: 'save' has no weight\. Known types: view, click"):
        _check(_write(tmp_path / "a.csv"), type_map={"bookmark": "save"})


def test_an_apps_required_columns_are_named_when_users_would_have_to_be_made(
    empty_database_url: str, tmp_path: Path
) -> None:
    settings = Settings.load(database_url=empty_database_url)
    engine = create_engine_for(settings)
    with transaction(engine) as connection:
        connection.execute(
            sa.text("CREATE TABLE users (id uuid PRIMARY KEY, email text NOT NULL, plan text DEFAULT 'x')")
        )
    migrate.upgrade(settings)
    with pytest.raises(SchemaError, match=r"4 users are not in the app's table.*it requires email"):
        _import(engine, _write(tmp_path / "a.csv"))
    engine.dispose()


def test_before_migrating_an_import_says_so(empty_database_url: str, tmp_path: Path) -> None:
    engine = create_engine_for(Settings.load(database_url=empty_database_url))
    with pytest.raises(SchemaError, match="reco migrate"):
        _import(engine, _write(tmp_path / "a.csv"))
    engine.dispose()
