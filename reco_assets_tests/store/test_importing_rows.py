from datetime import UTC, date, datetime
from uuid import UUID, uuid5

import numpy as np
import pyarrow as pa
import pytest

from reco_assets.store.importing_files import Chunk
from reco_assets.store.importing_rows import (
    PROJECT_NAMESPACE,
    IdBook,
    Rules,
    guess_time_unit,
    instants,
    interaction_ids,
    judge,
    microseconds,
    stable_uuid,
)

NOW = datetime(2026, 10, 20, tzinfo=UTC)


def _rules(**changes: object) -> Rules:
    values = {
        "types": ("view", "click", "like", "share"),
        "type_map": {},
        "constant_type": None,
        "time_unit": "iso",
        "now_us": microseconds(NOW),
    }
    return Rules(**(values | changes))  # type: ignore[arg-type]


def _chunk(*rows: tuple[str | None, str | None, str | None, str | None]) -> Chunk:
    columns = {
        role: pa.array([row[i] for row in rows], pa.string())
        for i, role in enumerate(("user", "item", "type", "time"))
    }
    return Chunk(np.arange(2, 2 + len(rows)), columns)


@pytest.mark.parametrize(
    ("text", "unit", "expected"),
    [
        ("1457963676", "s", "2016-03-14T13:54:36+00:00"),
        ("1457963676.5", "s", "2016-03-14T13:54:36.500000+00:00"),
        ("1457963676123", "ms", "2016-03-14T13:54:36.123000+00:00"),
        ("1457963676123456", "us", "2016-03-14T13:54:36.123456+00:00"),
        ("1457963676123456789", "ns", "2016-03-14T13:54:36.123456+00:00"),
        ("9957963676123456789", "ns", None),
        ("2026-10-01", "iso", "2026-10-01T00:00:00+00:00"),
        ("2026-10-01 12:30", "iso", "2026-10-01T12:30:00+00:00"),
        (" 2026-10-01T12:30:00.123456789Z ", "iso", "2026-10-01T12:30:00.123456+00:00"),
        ("2026-10-01T12:30:00,5+02:00", "iso", "2026-10-01T10:30:00.500000+00:00"),
        ("2026-10-01 12:30:00 UTC", "iso", "2026-10-01T12:30:00+00:00"),
        ("2026-10-01T12:30:00-0330", "iso", "2026-10-01T16:00:00+00:00"),
        ("2026-10-01T12:30:00+02", "iso", "2026-10-01T10:30:00+00:00"),
        ("2026-02-30", "iso", None),
        ("2026-10-01T25:00:00Z", "iso", None),
        ("now", "iso", None),
        ("10/01/2026", "iso", None),
        ("yesterday", "s", None),
        ("1e300", "s", None),
        ("", "s", None),
        (None, "iso", None),
    ],
)
def test_times_in_every_spelling(text: str | None, unit: str, expected: str | None) -> None:
    us, ok = instants(pa.array([text], pa.string()), unit)  # type: ignore[arg-type]
    assert bool(ok[0]) == (expected is not None)
    if expected is not None:
        assert us[0] == microseconds(datetime.fromisoformat(expected))


def test_a_time_without_zone_is_utc_whatever_the_row_before_has() -> None:
    """pandas would read the second as being in the first one's zone."""
    us, _ = instants(pa.array(["2026-10-01T12:00:00+05:00", "2026-10-01T12:00:00"]), "iso")
    assert us[1] - us[0] == 5 * 3600 * 1_000_000


def test_times_of_typed_columns() -> None:
    naive = pa.array(np.array(["2026-10-01T12:00"], dtype="datetime64[ns]"))
    zoned = pa.array([datetime(2026, 10, 1, 12, tzinfo=UTC)], pa.timestamp("ms", "Europe/Berlin"))
    day = pa.array([date(2026, 10, 1), None], pa.date32())
    noon = microseconds(datetime(2026, 10, 1, 12, tzinfo=UTC))
    assert instants(naive, "iso")[0][0] == instants(zoned, "iso")[0][0] == noon
    us, ok = instants(day, "iso")
    assert us[0] == noon - 12 * 3600 * 1_000_000
    assert ok.tolist() == [True, False]
    assert instants(pa.array([1457963676]), "s")[0][0] == 1457963676_000_000


def test_the_unit_is_told_by_size_and_majority() -> None:
    assert guess_time_unit(pa.array(["1457963676", "x", "1457963677"])) == "s"
    assert guess_time_unit(pa.array([1457963676123456])) == "us"
    assert guess_time_unit(pa.array(["1457963676123456789"])) == "ns"
    assert guess_time_unit(pa.array(["2026-10-01", "7", "2026-10-02"])) == "iso"


def test_each_bad_row_is_refused_for_its_first_reason_with_its_number() -> None:
    chunk = _chunk(
        ("u", "p", "view", "2026-10-01"),
        ("", "p", "view", "2026-10-01"),
        ("u", "NULL", "view", "2026-10-01"),
        ("u", "p", "view", "soon"),
        ("u", "p", "follow", "2026-10-01"),
        ("u", "p", "view", "2026-10-21"),
        ("1.23e+18", "p", "view", "2026-10-01"),
        ("u", "123.0", "view", "2026-10-01"),
        (None, None, None, None),
        ("u", "p", " LIKE ", "2026-10-20"),
    )
    good, bad, unknown = judge(chunk, _rules())
    assert good.rows.tolist() == [2, 11]
    assert good.types.tolist() == [0, 2]
    assert bad == [
        (3, "no user id", ""),
        (4, "no item id", "NULL"),
        (5, "time cannot be read", "soon"),
        (6, "unknown interaction type", "follow"),
        (7, "time in the future", "2026-10-21"),
        (8, "user id written as a floating-point number", "1.23e+18"),
        (9, "item id written as a floating-point number", "123.0"),
    ]
    assert unknown == {"follow": 1}


def test_types_are_mapped_whatever_their_case() -> None:
    chunk = _chunk(("u", "p", "BookMark", "2026-10-01"), ("u", "p", "Like", "2026-10-01"))
    good, bad, _ = judge(chunk, _rules(type_map={"BOOKMARK": "share"}))
    assert (good.types.tolist(), bad) == ([3, 2], [])


def test_ids_stay_exact_text() -> None:
    ids = ["9007199254740993", "9007199254740992", "-6411371239765052331", "007", "7"]
    book = IdBook(PROJECT_NAMESPACE)
    codes = book.codes(pa.array(ids))
    assert len(set(codes.tolist())) == 5
    assert book.ids(codes)[0].tobytes() == uuid5(PROJECT_NAMESPACE, "9007199254740993").bytes
    assert book.name(int(codes[2])) == "-6411371239765052331"


def test_a_uuid_stays_itself_in_any_case_and_kinds_do_not_meet() -> None:
    text = "0192F0C1-7B3A-7000-8000-000000000001"
    assert stable_uuid(PROJECT_NAMESPACE, text) == UUID(text)
    assert stable_uuid(uuid5(PROJECT_NAMESPACE, "user"), "1") != stable_uuid(
        uuid5(PROJECT_NAMESPACE, "post"), "1"
    )


def test_an_id_is_first_seen_at_its_earliest_row() -> None:
    book = IdBook(PROJECT_NAMESPACE)
    book.codes(pa.array(["a", "b", "a"]), np.array([30, 20, 10]))
    codes = book.codes(pa.array(["c", "a"]), np.array([5, 15]))
    assert book.first_seen(codes).tolist() == [5, 10]


def test_equal_interactions_have_equal_ids_and_any_difference_tells() -> None:
    user, post = (np.frombuffer(UUID(int=n).bytes, dtype=np.uint8)[None, :] for n in (1, 2))
    names = ("view", "click")

    def one(u: np.ndarray, p: np.ndarray, code: int, at: int) -> UUID:
        ids = interaction_ids(PROJECT_NAMESPACE, u, p, np.array([code]), names, np.array([at]))
        return UUID(bytes=ids[0].tobytes())

    first = one(user, post, 0, 7)
    assert first == one(user, post, 0, 7)
    assert first.version == 5
    assert len({first, one(post, user, 0, 7), one(user, post, 1, 7), one(user, post, 0, 8)}) == 4
