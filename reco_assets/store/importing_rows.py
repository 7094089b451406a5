"""Judges rows of a file: ids, types and times become codes and instants, or a reason to refuse them."""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID, uuid5

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from reco_assets.store.importing_files import Chunk

Array = npt.NDArray[Any]
TimeUnit = Literal["auto", "s", "ms", "us", "ns", "iso"]
Reject = tuple[int, str, str]
"""Row number, reason, the value seen."""

PROJECT_NAMESPACE: Final = UUID("6f1f2f0e-6d0b-5c59-9d3c-3f5b0c5a7e21")
"""What `--namespace` names are derived in."""

_NUMBER: Final = r"^-?(\d{1,18}|[1-8]\d{18})$"  # what fits 64 bits
_DECIMAL: Final = r"^-?\d{1,15}\.\d+$"
_ISO: Final = (
    r"^(?P<day>\d{4}-\d{2}-\d{2})(?:[T ](?P<time>\d{2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?)\s?"
    r"(?P<zone>Z|z|UTC|[+-]\d{2}(?::?\d{2})?)?)?$"
)
_NULLS: Final = ("", "null", "none", "nan", "\\n", "n/a")
_FLOAT_ID: Final = r"^-?(\d+\.0+|\d(\.\d+)?[eE]\+?\d+)$"
_PER_UNIT: Final = {"s": 1_000_000, "ms": 1_000, "us": 1}
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True)
class Rules:
    """How rows are read.

    Attributes:
        types: the known interaction types, in the order that `GoodRows.types` codes.
        type_map: name in the file, lower case → one of `types`; other names stand for themselves.
        constant_type: the type of every row of a file without such a column.
        time_unit: `auto` until the first rows have told.
        now_us: later rows are refused.
    """

    types: Sequence[str]
    type_map: Mapping[str, str]
    constant_type: str | None
    time_unit: TimeUnit
    now_us: int


@dataclass(frozen=True)
class GoodRows:
    """Rows that can be loaded: (n,) arrays; ids and texts are pyarrow strings."""

    rows: Array
    users: Any
    items: Any
    types: Array
    created_at: Array
    titles: Any | None
    authors: Any | None


def judge(chunk: Chunk, rules: Rules) -> tuple[GoodRows, list[Reject], Counter[str]]:
    """Split a chunk into good rows and refused ones.

    A row is refused for one reason, the first that applies: misshapen, id missing, id written as a
    floating-point number, time unreadable, type unknown, time in the future. Rows without anything
    in them are passed over.

    Args:
        chunk: rows of a file.
        rules: with a time unit that is not `auto`.

    Returns:
        The good rows, the refused ones and how many each unknown type has.
    """
    n = len(chunk.rows)
    users, items = (_trimmed(chunk.columns[role]) for role in ("user", "item"))
    created_at, time_ok = instants(chunk.columns["time"], rules.time_unit)
    types, type_names = _types(chunk, rules, n)
    missing = {"user": _is_null(users), "item": _is_null(items)}
    as_float = {role: _matches(column, _FLOAT_ID) for role, column in (("user", users), ("item", items))}
    raw_time = chunk.columns["time"]
    problems: list[tuple[str, Array, Any]] = [
        ("no user id", missing["user"], users),
        ("no item id", missing["item"], items),
        ("user id written as a floating-point number", as_float["user"], users),
        ("item id written as a floating-point number", as_float["item"], items),
        ("time cannot be read", ~time_ok, raw_time),
        ("unknown interaction type", types < 0, type_names),
        ("time in the future", time_ok & (created_at > rules.now_us), raw_time),
    ]
    blank = missing["user"] & missing["item"] & ~time_ok & _is_null(_trimmed(_as_text(raw_time)))
    open_rows = ~blank
    rejects: list[Reject] = list(chunk.misshapen)
    unknown: Counter[str] = Counter()
    for reason, found, values in problems:
        hit = np.flatnonzero(found & open_rows)
        if not len(hit):
            continue
        open_rows[hit] = False
        shown = ["" if value is None else str(value) for value in values.take(pa.array(hit)).to_pylist()]
        rejects.extend(zip(chunk.rows[hit].tolist(), [reason] * len(hit), shown, strict=True))
        if reason == "unknown interaction type":
            unknown.update(shown)
    good = np.flatnonzero(open_rows)
    chosen = pa.array(good)
    texts = {
        role: _trimmed(chunk.columns[role]).take(chosen)
        for role in ("title", "author")
        if role in chunk.columns
    }
    rows = GoodRows(
        chunk.rows[good],
        users.take(chosen),
        items.take(chosen),
        types[good],
        created_at[good],
        texts.get("title"),
        texts.get("author"),
    )
    return rows, sorted(rejects), unknown


def guess_time_unit(column: Any) -> TimeUnit:
    """The unit of a time column: numbers by their size, anything else is ISO 8601.

    Seconds reach 1e11 in the year 5138, which milliseconds passed in 1973.

    Example:
        >>> guess_time_unit(pa.array(["1457963676"])), guess_time_unit(pa.array(["1457963676000"]))
        ('s', 'ms')
        >>> guess_time_unit(pa.array(["2026-10-01T12:00:00Z"]))
        'iso'
    """
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        return "iso"
    numbers = _numbers(column)
    numbers = np.abs(numbers[~np.isnan(numbers)])
    if not len(numbers) or 2 * len(numbers) < len(column) - column.null_count:
        return "iso"
    middle = float(np.median(numbers))
    limits: tuple[tuple[float, TimeUnit], ...] = ((1e11, "s"), (1e14, "ms"), (1e17, "us"))
    return next((unit for limit, unit in limits if middle < limit), "ns")


def instants(column: Any, unit: TimeUnit) -> tuple[Array, Array]:
    """(n,) int64 µs since the epoch, and which of them could be read. Without a zone it is UTC."""
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        us = column.cast(pa.timestamp("us", getattr(column.type, "tz", None)), safe=False).cast(pa.int64())
        return us.fill_null(0).to_numpy(zero_copy_only=False), ~_nulls(column)
    if unit == "iso":
        return _iso_instants(_trimmed(column))
    numbers = _numbers(column)
    ok = np.isfinite(numbers)
    whole = _whole_numbers(column)
    scaled = np.where(ok, numbers, 0.0)
    if unit == "ns":
        return np.where(whole != 0, whole // 1000, (scaled / 1000).astype(np.int64)), ok
    factor = _PER_UNIT[unit]
    limit = 253_402_300_800_000_000  # year 10000
    ok &= np.abs(scaled) * factor < limit
    scaled = np.where(ok, scaled, 0.0)
    exact = np.where(ok, whole, 0) * factor
    return np.where(whole != 0, exact, np.rint(scaled * factor).astype(np.int64)), ok


def _iso_instants(texts: Any) -> tuple[Array, Array]:
    import pandas as pd

    parts = pc.extract_regex(texts, _ISO)
    day, time, zone = (pc.struct_field(parts, name) for name in ("day", "time", "zone"))
    time = pc.replace_substring(pc.if_else(pc.equal(time, ""), "00:00", time), ",", ".")
    # Every text gets a zone: pandas reads one without as being in the zone of the one before it.
    zone = pc.if_else(pc.is_in(zone, pa.array(["", "z", "UTC"])), "Z", zone)
    spelled = pc.binary_join_element_wise(day, "T", time, zone, "")
    parsed = pd.to_datetime(spelled.to_pandas(), format="ISO8601", utc=True, errors="coerce")
    ok = parsed.notna().to_numpy()
    us = parsed.dt.as_unit("us").astype("int64").to_numpy()
    return np.where(ok, us, 0), ok


class IdBook:
    """Text ids of one kind, each with a code, a UUID and the first instant it was seen.

    Memory grows with the number of distinct ids, not with the rows.

    Args:
        namespace: in which ids that are not UUIDs get one.
    """

    def __init__(self, namespace: UUID) -> None:
        self._namespace = namespace
        self._codes: dict[str, int] = {}
        self._ids = bytearray()
        self._names: list[str] = []
        self._first_seen = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._names)

    def codes(self, texts: Any, created_at: Array | None = None) -> Array:
        """(n,) int64; new ids are added, and `created_at` moves the first instant they were seen."""
        encoded = texts.dictionary_encode()
        distinct = encoded.dictionary.to_pylist()
        known = np.fromiter((self._code(text) for text in distinct), dtype=np.int64, count=len(distinct))
        codes: Array = known[encoded.indices.to_numpy(zero_copy_only=False)] if len(texts) else known[:0]
        if len(self._first_seen) < len(self._names):
            room = np.full(2 * len(self._names) - len(self._first_seen), np.iinfo(np.int64).max)
            self._first_seen = np.concatenate([self._first_seen, room])
        if created_at is not None:
            np.minimum.at(self._first_seen, codes, created_at)
        return codes

    def ids(self, codes: Array) -> Array:
        """(n, 16) uint8: the UUIDs of codes."""
        return np.frombuffer(bytes(self._ids), dtype=np.uint8).reshape(-1, 16)[codes]

    def first_seen(self, codes: Array) -> Array:
        """(n,) int64 µs."""
        return self._first_seen[codes]

    def name(self, code: int) -> str:
        """The id as the file has it."""
        return self._names[code]

    def _code(self, text: str) -> int:
        code = self._codes.get(text)
        if code is None:
            code = self._codes[text] = len(self._names)
            self._names.append(text)
            self._ids += stable_uuid(self._namespace, text).bytes
        return code


def stable_uuid(namespace: UUID, text: str) -> UUID:
    """The id itself where it is a UUID, else the same UUID for the same text, always.

    Example:
        >>> stable_uuid(PROJECT_NAMESPACE, "0192F0C1-7B3A-7000-8000-000000000001")
        UUID('0192f0c1-7b3a-7000-8000-000000000001')
        >>> stable_uuid(PROJECT_NAMESPACE, "-6411371239765052331").version
        5
    """
    return UUID(text) if _UUID.fullmatch(text) else uuid5(namespace, text)


def interaction_ids(
    namespace: UUID, users: Array, posts: Array, types: Array, names: Sequence[str], created_at: Array
) -> Array:
    """(n, 16) uint8: version 5 UUIDs of user, post, type and instant; equal rows have equal ids."""
    n = len(users)
    instant = created_at.astype(">i8").view(np.uint8).reshape(n, 8)
    keys = np.ascontiguousarray(np.concatenate([users, posts, instant], axis=1)).tobytes()
    seeds = [hashlib.sha1(namespace.bytes + name.encode(), usedforsecurity=False) for name in names]
    digests = bytearray()
    for row, code in enumerate(types.tolist()):
        digest = seeds[code].copy()
        digest.update(keys[row * 40 : row * 40 + 40])
        digests += digest.digest()[:16]
    ids = np.frombuffer(bytes(digests), dtype=np.uint8).reshape(n, 16).copy()
    ids[:, 6] = ids[:, 6] & 0x0F | 0x50
    ids[:, 8] = ids[:, 8] & 0x3F | 0x80
    return ids


def _types(chunk: Chunk, rules: Rules, n: int) -> tuple[Array, Any]:
    codes = {name.lower(): code for code, name in enumerate(rules.types)}
    codes |= {name.lower(): codes[target.lower()] for name, target in rules.type_map.items()}
    if rules.constant_type is not None:
        return np.full(n, codes[rules.constant_type.lower()]), pa.array([rules.constant_type] * n)
    column = _trimmed(chunk.columns["type"])
    encoded = column.fill_null("").dictionary_encode()
    distinct = encoded.dictionary.to_pylist()
    known = np.array([codes.get(name.lower(), -1) for name in distinct], dtype=np.int64)
    types: Array = known[encoded.indices.to_numpy(zero_copy_only=False)] if n else known[:0]
    return types, column


def _as_text(column: Any) -> Any:
    return column if pa.types.is_string(column.type) else column.cast(pa.string())


def _trimmed(column: Any) -> Any:
    return pc.utf8_trim_whitespace(_as_text(column))


def _is_null(texts: Any) -> Array:
    named = pc.is_in(pc.utf8_lower(texts), pa.array(_NULLS, pa.string())).to_numpy(zero_copy_only=False)
    return np.asarray(named | _nulls(texts))


def _nulls(column: Any) -> Array:
    return np.asarray(column.is_null().to_numpy(zero_copy_only=False))


def _matches(texts: Any, pattern: str) -> Array:
    found = pc.match_substring_regex(texts, pattern).fill_null(False)
    return np.asarray(found.to_numpy(zero_copy_only=False))


def _numbers(column: Any) -> Array:
    """(n,) float64, NaN for what is not a number."""
    if not pa.types.is_string(column.type):
        return np.asarray(column.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy())
    texts = _trimmed(column)
    numeric = _matches(texts, _NUMBER) | _matches(texts, _DECIMAL)
    return np.asarray(
        pc.if_else(pa.array(numeric), texts, None).cast(pa.float64()).fill_null(np.nan).to_numpy()
    )


def _whole_numbers(column: Any) -> Array:
    """(n,) int64, exact beyond 2^53; 0 for what is not a whole number."""
    if pa.types.is_integer(column.type):
        return np.asarray(column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False))
    if not pa.types.is_string(column.type):
        return np.zeros(len(column), dtype=np.int64)
    texts = _trimmed(column)
    whole = pc.if_else(pa.array(_matches(texts, _NUMBER)), texts, None).cast(pa.int64())
    return np.asarray(whole.fill_null(0).to_numpy(zero_copy_only=False))


def microseconds(instant: datetime) -> int:
    """Since the epoch."""
    return round(instant.timestamp() * 1_000_000)
