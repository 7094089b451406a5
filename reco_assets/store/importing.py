"""Imports a file of interactions: a first pass that judges every row, a second that loads the good ones.

Nothing is written before the whole file has been read once, so a damaged file or one with too many
bad rows changes nothing. Loading goes in chunks, a transaction each, and records in the same
transaction how far it got: an interrupted import goes on from there when it is run again. Every id
follows from the row, so importing twice adds nothing.
"""

import csv
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime
from itertools import chain
from pathlib import Path
from typing import IO, Any, Final, Literal
from uuid import UUID, uuid5

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from reco_assets.errors import BadInput, RecoError
from reco_assets.store.arrow_scan import ahead
from reco_assets.store.copy_buffer import CodedIds
from reco_assets.store.database import run_transaction, transaction
from reco_assets.store.importing_files import CHUNK_ROWS, SourceFile, open_source
from reco_assets.store.importing_load import (
    Array,
    BulkLoader,
    Loaded,
    NewInteractions,
    NewPosts,
    NewUsers,
    analyze,
    can_fill,
    filling,
)
from reco_assets.store.importing_progress import can_record, forget, record, rows_done
from reco_assets.store.importing_rows import (
    PROJECT_NAMESPACE,
    GoodRows,
    IdBook,
    Reject,
    Rules,
    TimeUnit,
    guess_time_unit,
    interaction_ids,
    judge,
    microseconds,
)

Phase = Literal["checking", "loading"]
Progress = Callable[[Phase, int], None]
"""Told the rows read so far."""

SHOWN_REJECTS: Final = 20
_FIRST_FILLING = 1_000_000
_LARGEST_FILLING = 10_000_000
"""Bounds what an interruption takes back, and how long others wait for the table, to about a minute."""
_WORTH_BUILDING = 4
"""Building the indexes anew takes a fifth as long a row as keeping them up to date."""


@dataclass(frozen=True)
class ImportOptions:
    """What the user of the command may say about the file.

    Attributes:
        user_column, item_column, type_column, time_column: names in the file; None: guessed.
        title_column, author_column: None: not read.
        constant_type: the type of all rows of a file without a type column.
        type_map: name in the file → known type.
        time_unit: how to read the time; `auto` looks at the first rows.
        namespace: sets apart the ids of two sources that number alike; None: the default one.
        encoding, delimiter: of text files.
        max_bad: most rows that may be refused before the file is, as a number or a percentage.
    """

    user_column: str | None = None
    item_column: str | None = None
    type_column: str | None = None
    time_column: str | None = None
    title_column: str | None = None
    author_column: str | None = None
    constant_type: str | None = None
    type_map: Mapping[str, str] = field(default_factory=dict)
    time_unit: TimeUnit = "auto"
    namespace: str | None = None
    encoding: str = "utf-8"
    delimiter: str | None = None
    max_bad: str = "10%"


@dataclass
class Checked:
    """What the first pass found.

    Attributes:
        n_good, n_bad: those that can be loaded, and those refused.
        bad_by_reason: refused rows by reason.
        unknown_types: rows by type name that has no weight and no mapping.
        first_bad: the first refused rows: (row number, reason, value).
        types: good rows by interaction type.
        before_start: good rows before RECO_START_DATE, which no partition will hold.
        first_us, last_us: time span of the good rows, or None without any.
        users, posts: distinct ids among the good rows.
    """

    source: SourceFile
    rules: Rules
    users: IdBook
    posts: IdBook
    n_good: int = 0
    n_bad: int = 0
    bad_by_reason: Counter[str] = field(default_factory=Counter)
    unknown_types: Counter[str] = field(default_factory=Counter)
    first_bad: list[Reject] = field(default_factory=list)
    types: Counter[str] = field(default_factory=Counter)
    before_start: int = 0
    first_us: int | None = None
    last_us: int | None = None

    @property
    def n_rows(self) -> int:
        """Rows read, empty ones aside."""
        return self.n_good + self.n_bad


@dataclass(frozen=True)
class Imported:
    """What the second pass did.

    Attributes:
        rows: new users, posts and interactions.
        repeated: rows equal to another of their chunk in user, item, type and instant.
        already_there: rows whose interaction the database had, or an earlier chunk brought.
        skipped: good rows that an interrupted run had loaded.
        resumed_after: the row number that run had reached, 0 for a fresh start.
    """

    rows: Loaded = field(default_factory=Loaded)
    repeated: int = 0
    already_there: int = 0
    skipped: int = 0
    resumed_after: int = 0


def check_file(
    path: Path,
    options: ImportOptions,
    *,
    known_types: Mapping[str, float],
    start_date: date,
    now: datetime,
    rejects: Path | None = None,
    progress: Progress | None = None,
) -> Checked:
    """Read the whole file and judge every row; the database is not needed.

    Args:
        path: the file.
        options: what is known about it.
        known_types: the interaction types that have a weight.
        start_date: RECO_START_DATE.
        now: later rows are refused.
        rejects: a CSV to write every refused row to, with its number and reason.
        progress: told the rows read so far.

    Raises:
        BadInput: The file cannot be read, or an option does not fit it.
    """
    wanted = {
        "user": options.user_column,
        "item": options.item_column,
        **({"type": options.type_column} if options.constant_type is None else {}),
        "time": options.time_column,
        "title": options.title_column,
        "author": options.author_column,
    }
    rules = Rules(
        tuple(known_types),
        _known_targets(options, known_types),
        options.constant_type,
        options.time_unit,
        microseconds(now),
    )
    source = open_source(path, wanted, encoding=options.encoding, delimiter=options.delimiter)
    namespace = namespace_of(options)
    checked = Checked(source, rules, IdBook(uuid5(namespace, "user")), IdBook(uuid5(namespace, "post")))
    start_us = microseconds(datetime(start_date.year, start_date.month, start_date.day, tzinfo=UTC))
    with _writable(rejects) if rejects else nullcontext() as file:
        writer = csv.writer(file) if file else None
        if writer:
            writer.writerow(("row", "reason", "value"))
        for chunk in source.chunks():
            if checked.rules.time_unit == "auto" and len(chunk.rows):
                checked.rules = replace(checked.rules, time_unit=guess_time_unit(chunk.columns["time"]))
            rules = checked.rules
            if rules.time_unit == "auto":  # so far only misshapen rows, which have no time to tell from
                rules = replace(rules, time_unit="iso")
            good, bad, unknown = judge(chunk, rules)
            _count(checked, good, bad, unknown, start_us)
            if writer:
                writer.writerows(bad)
            if progress:
                progress("checking", checked.n_rows)
    return checked


def refuse_if_too_bad(checked: Checked, max_bad: str) -> None:
    """Raise unless there are rows to load and few enough bad ones.

    Raises:
        BadInput: with the counts by reason and what to do about them.
    """
    reasons = "; ".join(f"{reason}: {n:,}" for reason, n in checked.bad_by_reason.most_common())
    if not checked.n_good:
        raise BadInput(
            f"{checked.source.path} has no row that can be loaded ({checked.n_rows:,} read"
            + (f"; {reasons})." if reasons else ").")
            + _advice(checked)
        )
    try:
        limit = float(max_bad.removesuffix("%"))
    except ValueError:
        limit = -1.0
    if limit < 0:
        raise BadInput(f"--max-bad is {max_bad!r}; expected a number of rows such as 100, or 5%.")
    allowed = checked.n_rows * limit / 100 if max_bad.endswith("%") else limit
    if checked.n_bad > allowed:
        raise BadInput(
            f"{checked.n_bad:,} of {checked.n_rows:,} rows are bad, more than --max-bad {max_bad} allows; "
            f"nothing was loaded. {reasons}.{_advice(checked)} Or raise --max-bad."
        )


def load_checked(
    engine: sa.Engine, checked: Checked, options: ImportOptions, *, progress: Progress | None = None
) -> Imported:
    """Load the good rows, a chunk a transaction, from where an earlier run of the same import stopped.

    Into an empty table several chunks go in one transaction, which then builds the indexes: a million rows
    at first, then as many as are there.

    Raises:
        SchemaError: Tables are missing, or the app's own need values that are not in the file.
        RecoError: The database failed; the message says how far the import got.
    """
    loading = _Loading(engine, checked, options, progress)
    try:
        with closing(ahead(loading.read())) as batches:
            loading.fill(batches)
            loading.go_on(batches)
    except RecoError as error:
        raise type(error)(f"{error} {how_to_resume(loading.last_row)}") from error
    with transaction(engine) as connection:
        forget(connection, loading.fingerprint)
        analyze(connection)
    return replace(loading.result, skipped=loading.n_skipped)


@dataclass(frozen=True)
class _Batch:
    """A chunk's good rows, without those that repeat another one of the chunk.

    Attributes:
        last_row: The number of its last row.
        n_read: How many rows of the file have been read up to here.
    """

    users: NewUsers
    posts: NewPosts
    interactions: NewInteractions
    repeated: int
    last_row: int
    n_read: int


class _Loading:
    """The second pass: `fill` while the table can be filled, then `go_on`.

    Attributes:
        result, last_row: what is committed.
        n_skipped: good rows passed over, because an earlier run had loaded them.
    """

    def __init__(
        self, engine: sa.Engine, checked: Checked, options: ImportOptions, progress: Progress | None
    ) -> None:
        self.fingerprint = _fingerprint(checked, options)
        self._engine = engine
        self._checked = checked
        self._namespace = namespace_of(options)
        self._progress = progress
        with transaction(engine) as connection:
            BulkLoader(connection)
            self.last_row = rows_done(connection, self.fingerprint)
            self._records = can_record(connection)
            self._can_fill = not self.last_row and can_fill(connection)
        self.result = Imported(resumed_after=self.last_row)
        self.n_skipped = 0

    def fill(self, batches: Iterator[_Batch]) -> None:
        """Several chunks a transaction, which builds the indexes at its end, as long as that pays."""
        while self._can_fill:
            n_there = self.result.rows.interactions
            size = min(max(_FIRST_FILLING, n_there), _LARGEST_FILLING)
            if n_there > _WORTH_BUILDING * size or (first := next(batches, None)) is None:
                return
            done: list[tuple[_Batch, Loaded]] = []
            with (
                transaction(self._engine) as connection,
                filling(connection, go_on=n_there > 0) as under_way,
            ):
                for batch in chain([first], batches):
                    done.append((batch, self._load(connection, under_way.loader, batch)))
                    if sum(len(each.interactions.ids) for each, _ in done) >= size:
                        break
            self._count(done, under_way.n_removed)

    def go_on(self, batches: Iterator[_Batch]) -> None:
        """A chunk a transaction; a lost connection is tried again."""
        for batch in batches:

            def load(connection: sa.Connection, batch: _Batch = batch) -> Loaded:
                return self._load(connection, BulkLoader(connection), batch)

            self._count([(batch, run_transaction(self._engine, load))], 0)

    def _load(self, connection: sa.Connection, loader: BulkLoader, batch: _Batch) -> Loaded:
        loaded = loader.load(batch.users, batch.posts, batch.interactions)
        if self._records:
            record(connection, self.fingerprint, self._checked.source.path.name, batch.last_row)
        if self._progress:
            self._progress("loading", batch.n_read)
        return loaded

    def _count(self, done: Sequence[tuple[_Batch, Loaded]], n_removed: int) -> None:
        """What is committed."""
        rows = sum((loaded for _, loaded in done), Loaded(interactions=-n_removed))
        self.last_row = done[-1][0].last_row
        self.result = replace(
            self.result,
            rows=self.result.rows + rows,
            repeated=self.result.repeated + sum(batch.repeated for batch, _ in done),
            already_there=self.result.already_there
            + sum(len(batch.interactions.ids) for batch, _ in done)
            - rows.interactions,
        )

    def read(self) -> Iterator[_Batch]:
        """What is still to be loaded; may run ahead in a thread, for it changes nothing but `n_skipped`."""
        n_read = 0
        for chunk in self._checked.source.chunks():
            good, bad, _ = judge(chunk, self._checked.rules)
            n_read += len(good.rows) + len(bad)
            if not len(good.rows):
                continue
            if int(good.rows[-1]) <= self.result.resumed_after:
                self.n_skipped += len(good.rows)
                continue
            yield _batch(self._checked, good, self._namespace, n_read)


def how_to_resume(last_row: int) -> str:
    """What an interrupted import left behind, and how to go on."""
    if not last_row:
        return "Nothing was loaded."
    return f"Rows up to {last_row:,} are loaded. Run the same command again: it goes on after them."


def namespace_of(options: ImportOptions) -> UUID:
    """The namespace that ids of this source get their UUIDs in."""
    return uuid5(PROJECT_NAMESPACE, options.namespace) if options.namespace else PROJECT_NAMESPACE


def _writable(rejects: Path) -> IO[str]:
    try:
        return rejects.open("w", newline="", encoding="utf-8")
    except OSError as error:
        raise BadInput(f"--rejects {rejects} cannot be written: {error.strerror}.") from error


def _known_targets(options: ImportOptions, known_types: Mapping[str, float]) -> Mapping[str, str]:
    known = {name.lower(): name for name in known_types}
    targets = {**options.type_map, **({"--type": options.constant_type} if options.constant_type else {})}
    for name, target in targets.items():
        if target.lower() not in known:
            raise BadInput(
                f"{name}={target}: {target!r} has no weight. Known types: {', '.join(known_types)}. "
                "RECO_INTERACTION_WEIGHTS adds others."
            )
    return options.type_map


def _count(checked: Checked, good: GoodRows, bad: list[Reject], unknown: Counter[str], start_us: int) -> None:
    checked.n_good += len(good.rows)
    checked.n_bad += len(bad)
    # Shapes differ from row to row; as one reason they stay countable.
    checked.bad_by_reason.update(
        "wrong number of columns" if "columns instead of" in reason else reason for _, reason, _ in bad
    )
    checked.unknown_types.update(unknown)
    checked.first_bad += bad[: SHOWN_REJECTS - len(checked.first_bad)]
    if not len(good.rows):
        return
    for code, n in enumerate(np.bincount(good.types, minlength=len(checked.rules.types)).tolist()):
        if n:
            checked.types[checked.rules.types[code]] += n
    checked.before_start += int(np.count_nonzero(good.created_at < start_us))
    low, high = int(good.created_at.min()), int(good.created_at.max())
    checked.first_us = low if checked.first_us is None else min(low, checked.first_us)
    checked.last_us = high if checked.last_us is None else max(high, checked.last_us)
    checked.users.codes(good.users, good.created_at)
    checked.posts.codes(good.items, good.created_at)
    if good.authors is not None:
        named = good.authors.fill_null("")
        written = np.flatnonzero(np.array(named.to_pylist(), dtype=object) != "")
        checked.users.codes(named.take(written), good.created_at[written])


def _batch(checked: Checked, good: GoodRows, namespace: UUID, n_read: int) -> _Batch:
    """What a chunk asks for: its users, authors and posts, and its rows without repetitions."""
    user_codes, post_codes = checked.users.codes(good.users), checked.posts.codes(good.items)
    users, posts = checked.users.ids(user_codes), checked.posts.ids(post_codes)
    ids = interaction_ids(
        uuid5(namespace, "interaction"), users, posts, good.types, checked.rules.types, good.created_at
    )
    first = _first_of_each(ids)
    interactions = NewInteractions(
        ids[first], users[first], posts[first], good.types[first], checked.rules.types, good.created_at[first]
    )
    new_posts, extra_users, extra_times = _posts(checked, good, post_codes, namespace)
    distinct = np.unique(user_codes)
    user_ids = np.concatenate([checked.users.ids(distinct), extra_users])
    times = np.concatenate([checked.users.first_seen(distinct), extra_times])
    once = _first_of_each(user_ids)
    new_users = NewUsers(user_ids[once], times[once])
    repeated, last_row = len(ids) - len(first), int(good.rows[-1])
    return _Batch(new_users, new_posts, interactions, repeated, last_row, n_read)


def _first_of_each(ids: Array) -> Array:
    """Where each of the (n, 16) ids occurs for the first time, in order."""
    index = CodedIds.of(ids).index  # numbered in order of appearance
    return np.flatnonzero(np.diff(np.maximum.accumulate(index), prepend=-1))


def _posts(
    checked: Checked, good: GoodRows, post_codes: Array, namespace: UUID
) -> tuple[NewPosts, Array, Array]:
    """The chunk's posts and their authors, who are users: (posts, author ids, author times)."""
    distinct, row = np.unique(post_codes, return_index=True)
    titles = [f"Post {checked.posts.name(code)}".replace("\0", "") for code in distinct.tolist()]
    for place, title in _texts_at(good.titles, row):
        titles[place] = title
    nobody = np.frombuffer(uuid5(namespace, "author unknown").bytes, dtype=np.uint8)
    author_ids = np.tile(nobody, (len(distinct), 1))
    # The stand-in author is as old as the file, a named one as the first row that names them.
    author_times = np.full(len(distinct), checked.first_us, dtype=np.int64)
    if written := _texts_at(good.authors, row):
        places = [place for place, _ in written]
        codes = checked.users.codes(pa.array([author for _, author in written]))
        author_ids[places] = checked.users.ids(codes)
        author_times[places] = checked.users.first_seen(codes)
    posts = NewPosts(
        checked.posts.ids(distinct),
        author_ids,
        checked.posts.first_seen(distinct),
        titles,
        [""] * len(distinct),
    )
    return posts, author_ids, author_times


def _texts_at(texts: Any | None, rows: Array) -> list[tuple[int, str]]:
    """(place, text) of the rows that have one; zero bytes, which PostgreSQL cannot hold, are dropped."""
    if texts is None:
        return []
    found = enumerate(texts.take(rows).to_pylist())
    return [(place, text.replace("\0", "")) for place, text in found if text]


def _fingerprint(checked: Checked, options: ImportOptions) -> str:
    """Of the file's bytes and of everything that shapes what is loaded and in which chunks."""
    digest = hashlib.sha256()
    with checked.source.path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    shaping = {**asdict(options), "max_bad": None, "types": checked.rules.types, "chunk": CHUNK_ROWS}
    digest.update(repr(sorted(shaping.items())).encode())
    return digest.hexdigest()


def _advice(checked: Checked) -> str:
    if not checked.unknown_types:
        return ""
    name, n = checked.unknown_types.most_common(1)[0]
    return f" Type {name!r} has {n:,} rows: --map-type {name}=share (or another known type) takes them in."
