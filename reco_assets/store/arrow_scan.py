"""Query results out of PostgreSQL as Arrow batches, through ADBC: no Python object per row."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from reco_assets.errors import DatabaseBusy, DatabaseUnreachable
from reco_assets.store.schema import IdType

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray


@contextmanager
def arrow_batches(
    uri: str, query: str, *, what: str, hint: str = "Run it again."
) -> "Iterator[Iterator[pa.RecordBatch]]":
    """The batches of `query`, some 16 MB each, over a connection of its own.

    Args:
        uri: For libpq.
        query: Without parameters: only then does ADBC stream.
        what: Named in errors.
        hint: What to do when the connection was lost.

    Raises:
        DatabaseUnreachable, DatabaseBusy: The scan broke off. What fails before its first batch is an
            error of the driver, for `database.translated`.
    """
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(uri) as connection, connection.cursor() as cursor:
        cursor.execute("SET work_mem = '64MB'")  # a larger sort spills to the server's disk
        cursor.execute(query)
        yield _batches(cursor.fetch_record_batch(), what, hint)


def _batches(reader: Any, what: str, hint: str) -> "Iterator[pa.RecordBatch]":
    """The errors of a stream are Arrow's: the driver's words without its codes."""
    import pyarrow as pa

    while True:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            return
        except (OSError, pa.ArrowException) as error:
            message = f"{what} broke off: {' '.join(str(error).split())}."
            if "canceling statement" in str(error):
                raise DatabaseBusy(
                    f"{message} Raise RECO_STATEMENT_TIMEOUT_S or let it read less."
                ) from error
            raise DatabaseUnreachable(f"{message} {hint}") from error
        yield batch


def ids_as_arrow(ids: "NDArray[np.uint8]", id_type: IdType) -> "pa.Array":
    """(n, 16) or (n, 36) uint8 as binaries of fixed width, or as strings."""
    import pyarrow as pa

    n, width = ids.shape
    fixed = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), n, [None, pa.py_buffer(ids.tobytes())])
    return fixed if id_type == "uuid" else fixed.cast(pa.binary()).cast(pa.string())


def plain_ids(ids: "pa.Array") -> "pa.Array":
    """Ids of either type without the extension type that marks UUIDs."""
    import pyarrow as pa

    return ids.storage if isinstance(ids, pa.ExtensionArray) else ids


def id_bytes(ids: "pa.Array") -> "NDArray[np.uint8]":
    """(n, 16) or (n, 36) uint8, without a copy; all values are of that length."""
    import numpy as np
    import pyarrow as pa

    if isinstance(ids, pa.FixedSizeBinaryArray):
        width, data, begin = ids.type.byte_width, ids.buffers()[1], ids.offset * ids.type.byte_width
    else:
        offsets = np.frombuffer(ids.buffers()[1], dtype=np.int32)
        width, data, begin = 36, ids.buffers()[2], int(offsets[ids.offset])
    if not len(ids):
        return np.empty((0, width), dtype=np.uint8)
    return np.frombuffer(data, dtype=np.uint8, count=len(ids) * width, offset=begin).reshape(-1, width)
