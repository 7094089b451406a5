"""Judges interactions as they come out of the database: which are good, and what is wrong with the others.

Works on whole Arrow batches with numpy: asking the database about each row takes it six times as long as
reading the row, and fifty times where ids are text.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from reco_assets.events import CREATED_AT, INTERACTION_TYPE, POST_ID, USER_ID
from reco_assets.store.arrow_scan import have_length, id_bytes, ids_as_arrow, plain_ids
from reco_assets.store.binary_copy import uuid_bytes
from reco_assets.store.day_files import INTERACTION_ID, day_schema

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

REASON: Final = "reason"
FUTURE: Final = "created_at in the future"
UNKNOWN_USER: Final = "unknown user"
UNKNOWN_POST: Final = "unknown post"
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, eq=False)
class RowJudge:
    """What the rows of a scan are held against.

    Attributes:
        types: the known interaction types.
        now: rows after it are from the future.
        unknown: of the columns user_id and post_id, the ids that the app does not have.
    """

    types: Collection[str]
    now: datetime
    unknown: "Mapping[str, pa.Array]"

    def judged(self, batch: "pa.RecordBatch") -> "pa.RecordBatch":
        """The rows in the columns of a day's file and `reason`: null, or what is wrong with the row.

        Of several reasons the first counts, in the order of the columns id, user, post, type, time.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        reasons = _Reasons(batch.num_rows)
        times = batch.column(CREATED_AT).cast(pa.timestamp("us", tz="UTC"))
        now_us = (self.now - datetime(1970, 1, 1, tzinfo=UTC)) // _MICROSECOND
        reasons.mark(times.cast(pa.int64()).to_numpy(zero_copy_only=False) > now_us, FUTURE)
        types = batch.column(INTERACTION_TYPE).dictionary_encode()
        self._judge_types(types, reasons)
        columns = {CREATED_AT: times, INTERACTION_TYPE: types}
        for name in (POST_ID, USER_ID, INTERACTION_ID):  # the first column last: its reasons take precedence
            raw = plain_ids(batch.column(name))
            columns[name], malformed = _as_uuids(raw)
            if len(unknown := self.unknown.get(name, ())):
                absent = pc.is_in(raw, value_set=unknown).to_numpy(zero_copy_only=False)
                reasons.mark(absent, UNKNOWN_USER if name == USER_ID else UNKNOWN_POST)
            if malformed is not None:
                reasons.mark(malformed, f"{name} is not a UUID in lower case")
            if raw.null_count:
                reasons.mark(raw.is_null().to_numpy(zero_copy_only=False), f"{name} is null")
        schema = day_schema()
        return pa.record_batch(
            [*(columns[field.name].cast(field.type) for field in schema), reasons.as_arrow()],
            schema=schema.append(pa.field(REASON, pa.dictionary(pa.int32(), pa.string()))),
        )

    def _judge_types(self, types: "pa.DictionaryArray", reasons: "_Reasons") -> None:
        codes = types.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        for code, name in enumerate(types.dictionary.to_pylist()):
            if name not in self.types:
                reasons.mark(codes == code, f"unknown type {_quoted(name)}")
        if types.null_count:
            reasons.mark(codes < 0, "interaction_type is null")


class _Reasons:
    """One reason a row; who marks a row last is the one that counts."""

    def __init__(self, n: int) -> None:
        import numpy as np

        self._names: list[str] = []
        self._codes = np.full(n, -1, dtype=np.int32)

    def mark(self, rows: "NDArray[np.bool_]", reason: str) -> None:
        if rows.any():
            self._codes[rows] = len(self._names)
            self._names.append(reason)

    def as_arrow(self) -> "pa.DictionaryArray":
        import pyarrow as pa

        names = pa.array(self._names, pa.string())
        return pa.DictionaryArray.from_arrays(pa.array(self._codes, mask=self._codes < 0), names)


def _as_uuids(ids: "pa.Array") -> "tuple[pa.Array, NDArray[np.bool_] | None]":
    """Ids as 16 bytes each, and which of the texts, if they are texts, are not spelled as UUIDs."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(ids, pa.FixedSizeBinaryArray):
        return ids, None
    if have_length(ids, 36):
        values, canonical = uuid_bytes(id_bytes(ids))
        return ids_as_arrow(values, "uuid"), ~canonical
    fits = pc.equal(pc.binary_length(ids), 36).fill_null(False)
    values, canonical = np.zeros((len(ids), 16), dtype=np.uint8), np.zeros(len(ids), dtype=np.bool_)
    rows = np.flatnonzero(fits.to_numpy(zero_copy_only=False))
    values[rows], canonical[rows] = uuid_bytes(id_bytes(ids.filter(fits)))
    return ids_as_arrow(values, "uuid"), ~canonical & ids.is_valid().to_numpy(zero_copy_only=False)


def _quoted(name: Any) -> str:
    """As PostgreSQL's quote_literal spells it."""
    quoted = "'" + str(name).replace("'", "''") + "'"
    return "E" + quoted.replace("\\", "\\\\") if "\\" in quoted else quoted
