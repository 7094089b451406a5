"""Imports a file: a first pass (`importing_check`) judges every row, the second loads the good ones.

Nothing is written before the whole file has been read once, so a damaged file or one with too many
bad rows changes nothing. Loading goes in chunks, a transaction each, and records in the same
transaction how far it got: an interrupted import goes on from there when it is run again. Every id
follows from the row, so importing twice adds nothing.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from typing import Any
from uuid import UUID, uuid5

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from reco_assets.errors import RecoError
from reco_assets.store.arrow_scan import ahead
from reco_assets.store.copy_buffer import CodedIds
from reco_assets.store.database import run_transaction, transaction
from reco_assets.store.importing_check import Checked, ImportOptions, Progress, namespace_of
from reco_assets.store.importing_files import CHUNK_ROWS
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
from reco_assets.store.importing_rows import GoodRows, interaction_ids, judge

_FIRST_FILLING = 1_000_000
_LARGEST_FILLING = 10_000_000
"""Bounds what an interruption takes back, and how long others wait for the table, to about a minute."""
_WORTH_BUILDING = 4
"""Building the indexes anew takes a fifth as long a row as keeping them up to date."""


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
