"""What is wrong with a row, and its ids as bytes."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import numpy as np
import pyarrow as pa

from reco_assets.store.binary_copy import uuid_bytes, uuid_text
from reco_assets.store.interaction_rows import RowJudge
from reco_assets_tests.store.published import as_array

NOON = datetime(2026, 11, 10, 12, tzinfo=UTC)
A, B, C = (UUID(int=n) for n in (0xA, 0xB, 0xC))


def batch(*rows: tuple[object, object, object, object, datetime]) -> pa.RecordBatch:
    names = ("id", "user_id", "post_id", "interaction_type")
    columns = [pa.array([row[i] for row in rows], pa.string()) for i in range(4)]
    times = pa.array([row[4] for row in rows], pa.timestamp("us", tz="UTC"))
    return pa.record_batch([*columns, times], names=[*names, "created_at"])


def judge(**unknown: list[str]) -> RowJudge:
    return RowJudge({"view", "like"}, NOON, {name: pa.array(ids) for name, ids in unknown.items()})


def reasons(judged: pa.RecordBatch) -> list[str | None]:
    return judged.column("reason").to_pylist()


def test_good_rows_keep_their_values_and_have_no_reason() -> None:
    judged = judge().judged(batch((str(A), str(B), str(C), "like", NOON)))
    row = {"id": A.bytes, "user_id": B.bytes, "post_id": C.bytes, "interaction_type": "like"}
    assert judged.to_pylist() == [row | {"created_at": NOON, "reason": None}]


def test_the_first_reason_counts_in_the_order_of_the_columns() -> None:
    late = NOON + timedelta(microseconds=1)
    x, unknown = str(A), str(C)
    rows = batch(
        ("bad", "bad", "bad", "wave", late),
        (x, None, None, None, late),
        (x, "bad", "bad", "wave", late),
        (x, unknown, unknown, "wave", late),
        (x, x, None, "wave", late),
        (x, x, "bad", "wave", late),
        (x, x, unknown, "wave", late),
        (x, x, x, None, late),
        (x, x, x, "wave", late),
        (x, x, x, "view", late),
        (x, x, x, "view", NOON),
        (None, x, x, "view", NOON),
    )
    assert reasons(judge(user_id=[unknown], post_id=[unknown]).judged(rows)) == [
        "id is not a UUID in lower case",
        "user_id is null",
        "user_id is not a UUID in lower case",
        "unknown user",
        "post_id is null",
        "post_id is not a UUID in lower case",
        "unknown post",
        "interaction_type is null",
        "unknown type 'wave'",
        "created_at in the future",
        None,
        "id is null",
    ]


def test_types_are_quoted_as_postgresql_quotes_them() -> None:
    rows = batch((str(A), str(A), str(A), "it's", NOON), (str(A), str(A), str(A), "a\\b", NOON))
    assert reasons(judge().judged(rows)) == ["unknown type 'it''s'", "unknown type E'a\\\\b'"]


def test_a_uuid_and_its_text_are_turned_into_each_other() -> None:
    ids = as_array([UUID(int=0), UUID(int=2**128 - 1), *(uuid4() for _ in range(50))])
    texts = uuid_text(ids)
    assert bytes(texts[2]).decode() == str(UUID(bytes=bytes(ids[2])))
    back, canonical = uuid_bytes(texts)
    assert canonical.all()
    assert np.array_equal(back, ids)


def test_only_one_spelling_of_a_uuid_is_canonical() -> None:
    spelled = "0123abcd-4567-4789-8abc-def012345678"
    wrong = [spelled.replace("a", "A", 1), spelled[:-1] + "g", spelled[:14] + "-" + spelled[15:]]
    wrong += [f"{spelled[:dash]}0{spelled[dash + 1 :]}" for dash in (8, 13, 18, 23)]
    texts = np.array([list(each.encode()) for each in [spelled, *wrong]], dtype=np.uint8)
    assert uuid_bytes(texts)[1].tolist() == [True, *(False for _ in wrong)]
