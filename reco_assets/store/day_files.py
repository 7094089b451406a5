"""The files of extracted days: one Parquet file per UTC day, written whole or not at all.

Columns: `id`, `user_id`, `post_id` as fixed_size_binary(16) (the UUID's bytes), `interaction_type` as
dictionary of strings, `created_at` as timestamp[us, UTC]; sorted by (created_at, id). A day without
interactions has a file without rows; a missing file means that the day was not extracted.
"""

import errno
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from reco_assets.errors import CorruptArtifact, MissingUpstream, StorageFull, StorageUnwritable
from reco_assets.events import CREATED_AT, INTERACTION_TYPE, POST_ID, USER_ID

if TYPE_CHECKING:
    import pyarrow as pa

INTERACTION_ID: Final = "id"
_ROW_GROUP_ROWS = 131_072
_LAYOUT: Final[dict[str, Any]] = {
    # Random bytes shrink by no compression; what repeats shrinks by being numbered, and times, which rise,
    # by their differences. Half the time of zstd over everything, and smaller.
    "compression": {
        INTERACTION_ID: "none",
        USER_ID: "none",
        POST_ID: "none",
        INTERACTION_TYPE: "zstd",
        CREATED_AT: "none",
    },
    "use_dictionary": [USER_ID, POST_ID, INTERACTION_TYPE],
    "column_encoding": {CREATED_AT: "DELTA_BINARY_PACKED"},
}
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def day_path(directory: Path, day: date) -> Path:
    """Where the day's file is."""
    return directory / f"{day.isoformat()}.parquet"


def day_schema() -> "pa.Schema":
    """The columns of a day's file."""
    import pyarrow as pa

    return pa.schema(
        [
            (INTERACTION_ID, pa.binary(16)),
            (USER_ID, pa.binary(16)),
            (POST_ID, pa.binary(16)),
            (INTERACTION_TYPE, pa.dictionary(pa.int32(), pa.string())),
            (CREATED_AT, pa.timestamp("us", tz="UTC")),
        ]
    )


def read_day(path: Path, columns: Sequence[str] | None = None) -> "pa.Table":
    """Read one day's interactions.

    Args:
        path: of the day's file.
        columns: those wanted; all by default. Read by one thread: days are many, so threads take a day each.

    Raises:
        MissingUpstream: The day was not extracted.
        CorruptArtifact: The file cannot be read or has other columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    redo = f"Run `reco run --partition {path.stem} --assets raw_interactions`."
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            if schema.equals(day_schema()):
                return file.read(None if columns is None else list(columns), use_threads=False)
    except FileNotFoundError:
        raise MissingUpstream(f"No interactions of {path.stem}: {path} is not there. {redo}") from None
    except (pa.ArrowException, OSError) as error:
        raise CorruptArtifact(f"{path} cannot be read: {error}. {redo}") from error
    found = ", ".join(f"{field.name} {field.type}" for field in schema)
    raise CorruptArtifact(f"{path} holds other columns than an extracted day: {found}. {redo}")


def sha256_of(path: Path) -> str:
    """The digest of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class DayWriter:
    """Writes one day below a temporary name; `finish` puts it in place, `discard` removes it.

    The name is the same each time, so that the next writer of the day overwrites what a killed one left.
    One writer at a time: the caller holds a lock.

    Raises:
        StorageFull, StorageUnwritable: see `explained_storage_errors`; so do the methods.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self.path = path
        self.n_rows = 0
        self.first: datetime | None = None
        self.last: datetime | None = None
        self._temporary = path.with_name(f".{path.name}.tmp")
        with explained_storage_errors(path):
            self._file = self._temporary.open("wb")
            try:
                self._writer = pq.ParquetWriter(self._file, day_schema(), **_LAYOUT)
            except BaseException:
                self._abandon()
                raise
        self._pending: list[pa.RecordBatch] = []
        self._n_pending = 0

    def write(self, batch: "pa.RecordBatch") -> None:
        """Add rows, which follow those before in (created_at, id)."""
        times = batch.column(CREATED_AT)
        self.first = self.first or times[0].as_py()
        self.last = times[-1].as_py()
        self.n_rows += batch.num_rows
        # Row groups are cut at fixed counts, not where the driver's batches end: the bytes must not
        # depend on how the rows arrived.
        self._pending.append(batch)
        self._n_pending += batch.num_rows
        if self._n_pending >= _ROW_GROUP_ROWS:
            self._flush(whole_groups_only=True)

    def finish(self) -> str:
        """Put the file in place, whole; returns its SHA-256. Its name is durable after `sync_directory`."""
        with explained_storage_errors(self.path):
            self._flush(whole_groups_only=False)
            self._writer.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            digest = sha256_of(self._temporary)
            self._temporary.replace(self.path)
        return digest

    def discard(self) -> None:
        """Leave nothing behind; the previous file stays as it was."""
        with suppress(Exception):  # closing writes the footer, which a full disk refuses
            self._writer.close()
        self._abandon()

    def _abandon(self) -> None:
        with suppress(OSError):  # what is still buffered may not fit either
            self._file.close()
        with suppress(OSError):  # a file system turned read-only; the next writer overwrites it
            self._temporary.unlink(missing_ok=True)

    def _flush(self, *, whole_groups_only: bool) -> None:
        import pyarrow as pa

        table = pa.Table.from_batches(self._pending, day_schema())
        n_rows = table.num_rows
        n_written = n_rows - n_rows % _ROW_GROUP_ROWS if whole_groups_only else n_rows
        with explained_storage_errors(self.path):
            for start in range(0, n_written, _ROW_GROUP_ROWS):
                group = table.slice(start, min(_ROW_GROUP_ROWS, n_written - start))
                self._writer.write_table(_canonical(group), row_group_size=_ROW_GROUP_ROWS)
        rest = table.slice(n_written)
        self._pending = rest.to_batches()
        self._n_pending = rest.num_rows


def _canonical(group: "pa.Table") -> "pa.Table":
    """One chunk per column, the dictionary in order of appearance: equal rows give equal bytes."""
    import pyarrow as pa

    position = group.schema.get_field_index(INTERACTION_TYPE)
    types = group.column(position).cast(pa.string()).combine_chunks().dictionary_encode()
    return group.combine_chunks().set_column(position, group.schema.field(position), types)


@contextmanager
def explained_storage_errors(path: Path) -> Iterator[None]:
    """Turn what the file system answers to writing `path` into ours.

    Raises:
        StorageFull: No space, over quota, or larger than files may be.
        StorageUnwritable: Anything else, such as missing rights or a read-only file system.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        if error.errno in _NO_SPACE:
            raise StorageFull(
                f"No space for {path}: {reason}. The previous file is untouched. Free space "
                f"below {path.parent}, lower RECO_ARCHIVE_DAYS or move RECO_STORAGE_DIR, then run again."
            ) from error
        raise StorageUnwritable(
            f"{path} cannot be written: {reason} ({error.filename or path.parent}). The previous file is "
            "untouched. Let this user write there or set RECO_STORAGE_DIR to a directory that it can write "
            "to, then run again."
        ) from error


def sync_directory(directory: Path) -> None:
    """Make the names of new files durable.

    Raises:
        StorageFull, StorageUnwritable: see `explained_storage_errors`.
    """
    with explained_storage_errors(directory):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
