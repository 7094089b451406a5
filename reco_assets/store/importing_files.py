"""Reads files of interactions in chunks of text columns: CSV, Parquet, JSON lines, gzipped or not.

The format is told by the content, not by the name. Ids are text from the first byte on, because
64-bit ids do not survive a float.
"""

import csv
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Literal

import numpy as np
import pyarrow as pa

from reco_assets.errors import BadInput

FileFormat = Literal["csv", "json", "parquet"]
Roles = Mapping[str, str]
"""What a column is for (user, item, type, time, title, author) → its name in the file."""

CHUNK_ROWS: Final = 100_000
_BLOCK_BYTES: Final = 8 << 20
USUAL_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "user": (
        *("user_id", "userid", "user", "visitor_id", "visitorid", "person_id", "personid"),
        *("customer_id", "account_id", "uid", "reader_id"),
    ),
    "item": (
        *("post_id", "postid", "post", "item_id", "itemid", "item", "content_id", "contentid"),
        *("article_id", "product_id", "news_id", "movie_id", "movieid"),
    ),
    "type": ("interaction_type", "event_type", "eventtype", "type", "event", "action", "behavior"),
    "time": (
        *("created_at", "createdat", "timestamp", "event_time", "time", "datetime"),
        *("occurred_at", "ts", "date"),
    ),
}
"""Names that are recognised without being told, in order of preference, in any case."""


@dataclass(frozen=True)
class Chunk:
    """Some rows of the file.

    Attributes:
        rows: (n,) int64 row numbers, as a spreadsheet counts them: a header is row 1.
        columns: role → pyarrow array of n; text, or for `time` also a number or a timestamp.
        misshapen: rows that could not be split into columns: (row number, reason, what it holds).
    """

    rows: Any
    columns: Mapping[str, Any]
    misshapen: list[tuple[int, str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class SourceFile:
    """A file whose format and columns are known.

    Attributes:
        roles: the columns that will be read.
    """

    path: Path
    format: FileFormat
    gzipped: bool
    encoding: str
    delimiter: str
    roles: Roles

    def chunks(self) -> Iterator[Chunk]:
        """All rows in order, at most `CHUNK_ROWS` a chunk.

        Raises:
            BadInput: The file is damaged, cut off or not in its encoding.
        """
        read = {"csv": _read_csv, "json": _read_json, "parquet": _read_parquet}[self.format]
        with _readable(self.path, self.encoding):
            yield from read(self)


def open_source(
    path: Path, wanted: Mapping[str, str | None], *, encoding: str = "utf-8", delimiter: str | None = None
) -> SourceFile:
    """Find out what the file is and which of its columns to read.

    Args:
        path: the file.
        wanted: role → the column's name, or None to guess it. A role that cannot be guessed is an
            error, except `title` and `author`, which are only read when named, and roles that are
            not in `wanted`.
        encoding: of CSV and JSON lines.
        delimiter: of CSV; None: whichever of comma, semicolon, tab and bar the header has most of.

    Raises:
        BadInput: No such file, an empty one, one of another format, or without the columns.
    """
    with _readable(path, encoding):
        with path.open("rb") as file:
            start = file.read(4)
        gzipped = start[:2] == b"\x1f\x8b"
        with _open(path, gzipped) as file:
            head = file.read(1 << 16)
        file_format = _format_of(path, head, start)
        if file_format == "parquet":
            columns, delimiter = _parquet_columns(path), ""
        elif file_format == "json":
            columns, delimiter = _json_columns(path, head, encoding), ""
        else:
            columns, delimiter = _csv_columns(path, head, encoding, delimiter)
    roles = _assign(path, columns, wanted)
    return SourceFile(path, file_format, gzipped, encoding, delimiter, roles)


def _format_of(path: Path, head: bytes, start: bytes) -> FileFormat:
    if start == b"PAR1":
        return "parquet"
    if not head.strip():
        raise BadInput(f"{path} is empty; expected a header and rows, or one JSON object per line.")
    if start in (b"PK\x03\x04", b"\xfd7zX", b"BZh9") or start == b"\x28\xb5\x2f\xfd":
        raise BadInput(
            f"{path} is compressed or packed in a way that is not read here (zip, Excel, xz, bzip2, zstd). "
            "Unpack it, or pack it with gzip."
        )
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"["):
        raise BadInput(
            f"{path} is one JSON array; expected JSON lines, one object a line. Convert it: "
            f"jq -c '.[]' {path.name} > rows.jsonl"
        )
    return "json" if text.startswith(b"{") else "csv"


def _csv_columns(path: Path, head: bytes, encoding: str, delimiter: str | None) -> tuple[list[str], str]:
    if encoding == "utf-8" and head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise BadInput(f"{path} is UTF-16. Pass --encoding utf-16.")
    text = io.TextIOWrapper(io.BytesIO(head), encoding=encoding, errors="replace", newline="").read()
    line = text.lstrip("\ufeff").splitlines()[0]
    delimiter = delimiter or max(",;\t|", key=line.count)
    try:
        columns = next(csv.reader(io.StringIO(text.lstrip("\ufeff")), delimiter=delimiter))
    except csv.Error as error:
        raise BadInput(
            f"{path} cannot be read as CSV: {error}. Expected text with a header line; convert bare carriage "
            "returns to line feeds, or pass --encoding."
        ) from None
    return columns, delimiter


def _json_columns(path: Path, head: bytes, encoding: str) -> list[str]:
    columns: dict[str, None] = {}
    lines = head.decode(encoding, errors="replace").lstrip("\ufeff").splitlines()
    for line in lines[:-1] or lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            columns.update(dict.fromkeys(row))
    if not columns:
        raise BadInput(f"{path} begins with '{{', but none of its first lines is a JSON object.")
    return list(columns)


def _parquet_columns(path: Path) -> list[str]:
    import pyarrow.parquet as pq

    return [str(name) for name in pq.read_schema(path).names]


def _assign(path: Path, columns: list[str], wanted: Mapping[str, str | None]) -> Roles:
    seen = f"It has: {', '.join(columns)}."
    lower = {name.lower().strip(): name for name in reversed(columns)}
    roles = {}
    for role, name in wanted.items():
        if name is None and role in USUAL_NAMES:
            guesses = [lower[guess] for guess in USUAL_NAMES[role] if guess in lower]
            if not guesses:
                constant = " or give all rows one type with --type" if role == "type" else ""
                raise BadInput(
                    f"{path} has no column that looks like the {role}. {seen} "
                    f"Name it with --{role}-column{constant}."
                )
            name = guesses[0]
        elif name is not None and name not in columns:
            raise BadInput(f"{path} has no column {name!r} (--{role}-column). {seen}")
        if name is not None:
            roles[role] = name
    if twice := [name for name, n in Counter(columns).items() if n > 1 and name in roles.values()]:
        raise BadInput(f"{path} has the column {twice[0]!r} more than once; rename one of them.")
    if twice := [name for name, n in Counter(roles.values()).items() if n > 1]:
        raise BadInput(f"The column {twice[0]!r} of {path} cannot be two things at once. {seen}")
    return roles


def _read_csv(source: SourceFile) -> Iterator[Chunk]:
    import pyarrow.csv as pcsv

    misshapen: list[tuple[int, str, str]] = []

    def note(row: Any) -> str:
        reason = f"{row.actual_columns} columns instead of {row.expected_columns}"
        misshapen.append((row.number, reason, row.text[:100]))
        return "skip"

    names = list(source.roles.values())
    with _open(source.path, source.gzipped) as file:
        reader = pcsv.open_csv(
            pa.PythonFile(file, mode="r"),
            # One thread, because only then a bad row has its number.
            read_options=pcsv.ReadOptions(
                use_threads=False, block_size=_BLOCK_BYTES, encoding=source.encoding
            ),
            parse_options=pcsv.ParseOptions(
                delimiter=source.delimiter,
                newlines_in_values=True,
                ignore_empty_lines=False,
                invalid_row_handler=note,
            ),
            convert_options=pcsv.ConvertOptions(
                column_types={name: pa.string() for name in names},
                include_columns=names,
                strings_can_be_null=False,
            ),
        )
        next_row, n_noted = 2, 0
        for batch in reader:
            skipped = np.array([row for row, _, _ in misshapen if row >= next_row], dtype=np.int64)
            rows = np.setdiff1d(np.arange(next_row, next_row + len(batch) + len(skipped)), skipped)
            rows = rows[: len(batch)]
            next_row = int(rows[-1]) + 1 if len(rows) else next_row
            yield from _cut(rows, _by_role(source, batch), misshapen[n_noted:])
            n_noted = len(misshapen)
        if len(misshapen) > n_noted:
            yield from _cut(np.empty(0, dtype=np.int64), _no_rows(source), misshapen[n_noted:])


def _read_parquet(source: SourceFile) -> Iterator[Chunk]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(source.path) as file:
        for role in ("user", "item", "author"):
            name = source.roles.get(role)
            if name is not None and pa.types.is_floating(file.schema_arrow.field(name).type):
                raise BadInput(
                    f"The column {name!r} of {source.path} holds floating-point numbers, which lose digits "
                    "of ids above 2^53. Write the file with integers or text there."
                )
        first = 1
        for batch in file.iter_batches(CHUNK_ROWS, columns=list(source.roles.values())):
            rows = np.arange(first, first + len(batch))
            first += len(batch)
            yield from _cut(rows, _by_role(source, batch), [])


def _read_json(source: SourceFile) -> Iterator[Chunk]:
    with _open(source.path, source.gzipped) as file:
        lines = io.TextIOWrapper(file, encoding=source.encoding)
        rows: list[int] = []
        values: dict[str, list[str | None]] = {role: [] for role in source.roles}
        misshapen: list[tuple[int, str, str]] = []

        def chunk() -> Chunk:
            columns = {role: pa.array(column, pa.string()) for role, column in values.items()}
            return Chunk(np.array(rows, dtype=np.int64), columns, misshapen)

        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.lstrip("\ufeff"))
            except ValueError:
                row = None
            if not isinstance(row, dict):
                misshapen.append((number, "not a JSON object", line.strip()[:100]))
            else:
                rows.append(number)
                for role, name in source.roles.items():
                    value = row.get(name)
                    values[role].append(None if value is None else str(value))
            if len(rows) + len(misshapen) >= CHUNK_ROWS:
                yield chunk()
                rows, misshapen = [], []
                values = {role: [] for role in source.roles}
        if rows or misshapen:
            yield chunk()


def _by_role(source: SourceFile, batch: Any) -> dict[str, Any]:
    columns = {}
    for role, name in source.roles.items():
        column = batch.column(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        as_is = role == "time" and not pa.types.is_string(column.type)
        columns[role] = column if as_is else _text(column)
    return columns


def _text(column: Any) -> Any:
    """Integers and UUIDs become their usual spelling."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_fixed_size_binary(column.type) and column.type.byte_width == 16:
        from uuid import UUID

        spelled = [None if raw is None else str(UUID(bytes=raw)) for raw in column.to_pylist()]
        return pa.array(spelled, pa.string())
    return column.cast(pa.string())


def _no_rows(source: SourceFile) -> dict[str, Any]:
    return {role: pa.array([], pa.string()) for role in source.roles}


def _cut(rows: Any, columns: Mapping[str, Any], misshapen: list[tuple[int, str, str]]) -> Iterator[Chunk]:
    for start in range(0, max(1, len(rows)), CHUNK_ROWS):
        part = {role: column.slice(start, CHUNK_ROWS) for role, column in columns.items()}
        yield Chunk(rows[start : start + CHUNK_ROWS], part, misshapen if start == 0 else [])


def _open(path: Path, gzipped: bool) -> IO[bytes]:
    # Python's gzip, not Arrow's, because it notices when the end is missing.
    opener: Callable[..., Any] = gzip.open if gzipped else open
    stream: IO[bytes] = opener(path, "rb")
    return stream


@contextmanager
def _readable(path: Path, encoding: str) -> Iterator[None]:
    """Turn what readers raise into one sentence for whoever has the file."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadInput(
            f"{path} is cut off or damaged: {error}. Fetch it again; `gzip -t` checks a copy."
        ) from error
    except FileNotFoundError:
        raise BadInput(f"There is no file {path}.") from None
    except (UnicodeError, LookupError) as error:
        raise BadInput(
            f"{path} is not {encoding}: {error}. Pass its --encoding, such as latin-1 or utf-16."
        ) from error
    except pa.ArrowException as error:
        if "UTF8" in str(error):
            raise BadInput(
                f"{path} is not {encoding}: {error}. Pass its --encoding, such as latin-1."
            ) from error
        raise BadInput(f"{path} cannot be read: {error}") from error
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error}") from error
