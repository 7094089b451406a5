"""Query results out of PostgreSQL as Arrow batches, through ADBC: no Python object per row."""

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from reco_assets.errors import DatabaseBusy, DatabaseUnreachable
from reco_assets.store.schema import IdType

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

T = TypeVar("T")


@contextmanager
def arrow_cursor(uri: str) -> Iterator[Any]:
    """A cursor on a connection of its own, in a transaction that sees the database as of its first query.

    Raises errors of the driver, for `database.translated`; so does what runs on it.
    """
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(uri) as connection, connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        cursor.execute("SET work_mem = '64MB'")  # a larger sort spills to the server's disk
        yield cursor


def arrow_batches(
    cursor: Any, query: str, *, what: str, hint: str = "Run it again."
) -> "Iterator[pa.RecordBatch]":
    """The batches of `query`, some 16 MB each.

    Args:
        cursor: Of `arrow_cursor`.
        query: Without parameters: only then does ADBC stream.
        what: Named in errors.
        hint: What to do when the connection was lost.

    Raises:
        DatabaseUnreachable, DatabaseBusy: The scan broke off.
    """
    cursor.execute(query)
    return _batches(cursor.fetch_record_batch(), what, hint)


def ahead(values: Iterator[T]) -> Generator[T, None, None]:
    """The same values, each made by a thread while the caller works on the one before."""
    end: Any = object()
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
        coming = pool.submit(next, values, end)
        while (value := coming.result()) is not end:
            coming = pool.submit(next, values, end)
            yield value


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
                raise DatabaseBusy(f"{message} Raise RECO_STATEMENT_TIMEOUT_S.") from error
            raise DatabaseUnreachable(f"{message} {hint}") from error
        if batch.num_rows:
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


def have_length(texts: "pa.StringArray", length: int) -> bool:
    """Whether all are that long and none is null."""
    import numpy as np

    if texts.null_count:
        return False
    offsets = np.frombuffer(texts.buffers()[1], dtype=np.int32)[texts.offset :][: len(texts) + 1]
    return bool((np.diff(offsets) == length).all())
