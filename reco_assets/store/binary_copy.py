"""PostgreSQL's binary COPY: what frames its rows, and its times and ids as numpy arrays.

The layout is that of "COPY … (FORMAT binary)" in PostgreSQL's documentation: a header, per row a field
count (int16), per field its length (int32) and its bytes, all big-endian, and a trailer. Arrays laid
out like that are sent and read without a Python object per row, ten times faster than through the
driver.
"""

import os
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np
    import sqlalchemy as sa
    from numpy.typing import NDArray

HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER: Final = b"\xff\xff"
POSTGRES_EPOCH_US: Final = 946_684_800_000_000
"""2000-01-01 UTC, from which PostgreSQL counts, in microseconds of the Unix epoch."""

_GROUPS: Final = ((0, 8), (9, 13), (14, 18), (19, 23), (24, 36))
"""Where the digits of a UUID's text stand, between dashes."""

Field = tuple[str, str, tuple[int, ...]]
"""A column of fixed width: its name, its type and the shape of one value, as numpy spells them."""


def row_layout(fields: Sequence[Field]) -> "np.dtype[Any]":
    """One row: `n_fields`, then for each field `<name>_length` and `<name>`; no nulls, no padding."""
    import numpy as np

    parts: list[Any] = [("n_fields", ">i2")]
    for name, kind, shape in fields:
        parts += [(f"{name}_length", ">i4"), (name, kind, shape)]
    return np.dtype(parts)


def framed_rows(n: int, fields: Sequence[Field]) -> "NDArray[Any]":
    """(n,) rows of `row_layout` with counts and lengths in place, and zeros for values."""
    import numpy as np

    layout = row_layout(fields)
    rows = np.zeros(n, dtype=layout)
    rows["n_fields"] = len(fields)
    for name, _, _ in fields:
        rows[f"{name}_length"] = layout[name].itemsize
    return rows


def parsed_rows(data: bytes, fields: Sequence[Field]) -> "NDArray[Any]":
    """The rows of a whole COPY TO, header and trailer included."""
    import numpy as np

    return np.frombuffer(data[len(HEADER) : -len(TRAILER)], dtype=row_layout(fields))


def temporary_table(connection: "sa.Connection", name: str, columns: str, rows: "NDArray[Any]") -> None:
    """A new temporary table for the session, filled with (n,) rows of `framed_rows`, with statistics."""
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor:
        cursor.execute(f"DROP TABLE IF EXISTS pg_temp.{name}")
        cursor.execute(f"CREATE TEMPORARY TABLE {name} ({columns})")
        with cursor.copy(f"COPY pg_temp.{name} FROM STDIN (FORMAT binary)") as copy:
            copy.write(HEADER + rows.tobytes() + TRAILER)
        cursor.execute(f"ANALYZE pg_temp.{name}")


def uuid_text(ids: "NDArray[np.uint8]") -> "NDArray[np.uint8]":
    """(n, 16) bytes to (n, 36) characters: 8-4-4-4-12 lower-case hexadecimal digits."""
    import numpy as np

    digits = np.frombuffer(bytes(range(256)).hex().encode(), dtype=np.uint8).reshape(256, 2)
    hexadecimal = digits[ids].reshape(len(ids), 32)
    text = np.full((len(ids), 36), ord("-"), dtype=np.uint8)
    taken = 0
    for start, stop in _GROUPS:
        text[:, start:stop] = hexadecimal[:, taken : taken + stop - start]
        taken += stop - start
    return text


def uuid_bytes(texts: "NDArray[np.uint8]") -> "tuple[NDArray[np.uint8], NDArray[np.bool_]]":
    """The reverse of `uuid_text`: (n, 36) characters to (n, 16) bytes, and which are spelled just so.

    The bytes of a text with another spelling mean nothing.
    """
    import numpy as np

    digits = np.concatenate([texts[:, start:stop] for start, stop in _GROUPS], axis=1)
    values = _two_digits()[digits.view(np.uint16)]
    canonical = values.max(axis=1, initial=0) < 256
    for dash in (8, 13, 18, 23):
        canonical &= texts[:, dash] == ord("-")
    return values.astype(np.uint8), canonical


@cache
def _two_digits() -> "NDArray[np.uint16]":
    """The byte that two characters, read as one number, spell; 256 for what are not two lower-case digits."""
    import numpy as np

    values = np.full(1 << 16, 256, dtype=np.uint16)
    for value in range(256):
        values[np.frombuffer(b"%02x" % value, dtype=np.uint16)] = value
    return values


def rising_uuids(start: int, stop: int, n: int) -> "NDArray[np.uint8]":
    """Numbers `start` to `stop` of `n` random UUIDs that rise: (stop - start, 16), version 4.

    The range of all UUIDs is cut into `n` equal parts and one is drawn from each, so they are all
    different, and an index over them is built without sorting.
    """
    import numpy as np

    ids = np.frombuffer(os.urandom(16 * (stop - start)), dtype=np.uint8).reshape(-1, 16).copy()
    part = np.uint64(2**64 // max(n, 2))
    drawn = np.ascontiguousarray(ids[:, :8]).view(np.uint64).reshape(-1) % part
    lead = np.arange(start, stop, dtype=np.uint64) * part + drawn
    ids[:, :8] = lead.astype(">u8").view(np.uint8).reshape(-1, 8)
    ids[:, 6] = ids[:, 6] & 0x0F | 0x40
    ids[:, 8] = ids[:, 8] & 0x3F | 0x80
    return ids
