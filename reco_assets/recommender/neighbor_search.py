"""Who is like whom: for every user the k most similar others, exactly, by the cosine of their rows.

An index arranges the users' rows for the loops of `neighbor_kernel`: users in blocks, and the readers
of every post by the same blocks, then called tiles. A search goes through the pairs of block and tile
on a pool of threads. The result does not depend on threads, tiles or memory.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from reco_assets.errors import BadInput
from reco_assets.recommender.compiled import frozen
from reco_assets.recommender.neighbor_kernel import (
    Lists,
    Query,
    Readers,
    Rows,
    Workspace,
    empty_lists,
    nothing_found,
    put_on_lists,
    search_pairs,
    search_tile,
    thin_out_all,
    workspace,
    write_out,
)
from reco_assets.recommender.selection import room_for
from reco_assets.recommender.threads import Progress, ShouldStop, run_tasks

Array = npt.NDArray[Any]

TILE = 4096
"""Users in a tile: 32 KB of dot products."""

LIST_BYTES = 1 << 29
"""Memory for unfinished lists. Beyond it, blocks of users are finished one group after the other."""

_MOST_ENTRIES = 1 << 32
_THREAD = threading.local()
# Ranking squares dot products, which are sums of squares: fourth powers, which float64 must hold.
_LEAST_WEIGHT, _MOST_WEIGHT = 1e-70, 1e70


@dataclass(frozen=True, eq=False)
class NeighborIndex:
    """Users' weighted rows, arranged for the search of similar users.

    Similarity(u, v) = u·v / (‖u‖‖v‖ + shrinkage), computed in float64. With weights that are whole
    numbers, dot products below 2^26.5 ≈ 9e7 and no shrinkage, equal cosines tie exactly; otherwise
    similarities that differ by less than about 1e-16 of their value for each shared post may rank
    either way, but always the same way. Equal ones rank by the lower index. Who shares no post (or
    fewer than `min_overlap`) is no neighbour.

    Attributes:
        reader_indptr: (n_tiles, n_posts + 1) uint32: where a tile's readers of each post are in …
        readers: (nnz,) uint16 or uint32, counted from the tile's first user, and …
        reader_weights: (nnz,) float64.
        squared_norms: (n_users,) float64 ‖u‖².
        tile_users: users in a tile, all but the last.
        row_indptr, row_posts, row_weights: the rows, CSR: (n_users + 1,) int64, int32, float64; None
            without rows.
    """

    reader_indptr: Array
    readers: Array
    reader_weights: Array
    squared_norms: Array
    tile_users: int
    row_indptr: Array | None = None
    row_posts: Array | None = None
    row_weights: Array | None = None

    @classmethod
    def build(cls, weights: sp.csr_array, *, tile_users: int | None = None) -> Self:
        """Arrange the rows.

        Args:
            weights: (n_users, n_posts) CSR with sorted indices, none twice, fewer than 2³² entries, from
                1e-70 to 1e70. The index refers to its arrays.
            tile_users: None: what makes `search` fast; `n_users` makes `search_one` fast, because one
                row finds all readers of a post in one place. Does not change any result.

        Raises:
            BadInput: too many entries, weights out of range, or tiles of nobody.
        """
        if tile_users is not None and tile_users < 1:
            raise BadInput(f"tile_users is {tile_users}; it must be at least 1.")
        if weights.nnz >= _MOST_ENTRIES:
            raise BadInput(
                f"The matrix has {weights.nnz:,} entries; the search takes fewer than {_MOST_ENTRIES:,}. "
                "Take a shorter window."
            )
        n_users, n_posts = weights.shape
        tile = min(tile_users or _tile_users(n_users, n_posts, weights.nnz), max(1, n_users))
        n_tiles = max(1, -(-n_users // tile))
        values = np.asarray(weights.data, dtype=np.float64)
        _check_range(values)
        indptr = np.zeros((n_tiles, n_posts + 1), dtype=np.uint32)
        readers = np.empty(weights.nnz, dtype=np.uint16 if tile <= 1 << 16 else np.uint32)
        reader_weights = np.empty(weights.nnz)
        for t in range(n_tiles):
            first, last = weights.indptr[t * tile], weights.indptr[min(n_users, (t + 1) * tile)]
            rows = weights.indptr[t * tile : (t + 1) * tile + 1] - first
            block = sp.csr_array(
                (values[first:last], weights.indices[first:last], rows), shape=(len(rows) - 1, n_posts)
            ).tocsc()
            indptr[t] = first + block.indptr
            readers[first:last], reader_weights[first:last] = block.indices, block.data
        return cls(
            indptr,
            readers,
            reader_weights,
            _sums_of_squares(values, weights.indptr),
            tile,
            row_indptr=np.asarray(weights.indptr, dtype=np.int64),
            row_posts=np.asarray(weights.indices, dtype=np.int32),
            row_weights=values,
        )

    def without_rows(self) -> Self:
        """The same arrays but the rows: all that `search_one` needs. `search` refuses such an index."""
        return replace(self, row_indptr=None, row_posts=None, row_weights=None)

    @property
    def n_users(self) -> int:
        """Users in the index."""
        return len(self.squared_norms)

    def search(
        self,
        n_neighbors: int,
        *,
        shrinkage: float = 0.0,
        min_overlap: int = 1,
        n_threads: int | None = None,
        list_bytes: int = LIST_BYTES,
        progress: Progress | None = None,
        should_stop: ShouldStop | None = None,
    ) -> tuple[Array, Array]:
        """The most similar others of every user.

        Args:
            n_neighbors: columns of the result, at least 1.
            shrinkage: damps similarities of short rows; 0 for the cosine.
            min_overlap: posts two users must share.
            n_threads: None: the cores this process may use.
            list_bytes: memory for unfinished lists, of one block at least; less costs time, not quality.
            progress: called with (users done, all users) from the calling thread.
            should_stop: asked now and then; true ends the work.

        Returns:
            (n_users, n_neighbors) int32 users and float32 similarities, most similar first, equal ones
            by lower index, filled up with -1 and 0 where fewer users share a post.

        Raises:
            FitCancelled: `should_stop` said so.
        """
        query = _query(n_neighbors, shrinkage, min_overlap)
        neighbors = np.empty((self.n_users, n_neighbors), dtype=np.int32)
        similarities = np.empty((self.n_users, n_neighbors), dtype=np.float32)
        for group in self._groups(n_neighbors, list_bytes):
            users = slice(group.start * self.tile_users, group.stop * self.tile_users)
            search = _GroupSearch(self, query, group)
            run_tasks(
                search.run,
                *search.tasks(),
                self.n_users,
                done_before=users.start,
                done_after=min(users.stop, self.n_users),
                n_threads=n_threads,
                progress=progress,
                should_stop=should_stop,
            )
            search.finish(neighbors[users], similarities[users], n_threads)
        return neighbors, similarities

    def search_one(
        self,
        posts: Array,
        weights: Array,
        n_neighbors: int,
        *,
        exclude: int = -1,
        shrinkage: float = 0.0,
        min_overlap: int = 1,
    ) -> tuple[Array, Array]:
        """The users most similar to one row, which need not be in the index.

        What `search` finds for a user, this finds for the user's row with the user excluded, to the bit.

        Args:
            posts: (m,) ascending.
            weights: (m,) positive.
            n_neighbors: length of the result.
            exclude: a user who is not to be found; -1: none.
            shrinkage: as in `search`.
            min_overlap: as in `search`.

        Returns:
            (n_neighbors,) int32 users and float32 similarities, as in `search`.

        Raises:
            BadInput: posts that the index does not have, or weights out of range.
        """
        n_posts = self.reader_indptr.shape[1] - 1
        posts = np.asarray(posts)
        if len(posts) != len(weights) or (len(posts) and not (posts[0] >= 0 and posts[-1] < n_posts)):
            raise BadInput(
                f"posts and weights must be equally many, and posts from 0 to {n_posts - 1}, ascending; "
                f"there are {len(posts)} and {len(weights)}."
            )
        query = _query(n_neighbors, shrinkage, min_overlap)
        values = frozen(weights, np.float64)
        _check_range(values)
        squared_norms = _sums_of_squares(values, np.array([0, len(values)]))
        rows = Rows(
            frozen(np.array([0, len(posts)]), np.int64),
            frozen(posts, np.uint32),
            values,
            frozen(squared_norms, np.float64),
            frozen(np.sqrt(squared_norms), np.float64),
        )
        lists, space = empty_lists(squared_norms, n_neighbors), _space_for_one(self.tile_users, n_neighbors)
        for t in range(self._n_tiles):
            search_tile(rows, exclude, self._readers_of(t), self._tile(t).start, query, lists, space)
        neighbors = np.empty((1, n_neighbors), dtype=np.int32)
        similarities = np.empty((1, n_neighbors), dtype=np.float32)
        thin_out_all(lists, query, space.scratch)
        write_out(lists, query, neighbors, similarities)
        return neighbors[0], similarities[0]

    @cached_property
    def _norms(self) -> Array:
        return frozen(np.sqrt(self.squared_norms), np.float64)

    @cached_property
    def _all_readers(self) -> Readers:
        return Readers(
            frozen(self.reader_indptr, np.uint32),
            frozen(self.readers, self.readers.dtype),
            frozen(self.reader_weights, np.float64),
            frozen(self.squared_norms, np.float64),
            self._norms,
        )

    @cached_property
    def _all_rows(self) -> Rows:
        if self.row_indptr is None or self.row_posts is None or self.row_weights is None:
            raise BadInput(
                "This index has no rows: it answers for one row at a time. Build one from the matrix."
            )
        return Rows(
            frozen(self.row_indptr, np.int64),
            frozen(self.row_posts, np.uint32),
            frozen(self.row_weights, np.float64),
            self._all_readers.squared_norms,
            self._norms,
        )

    def _groups(self, n_neighbors: int, list_bytes: int) -> Iterator[range]:
        """Tiles whose users' unfinished lists fit into memory together."""
        of_a_tile = self.tile_users * room_for(n_neighbors) * 12
        size = max(1, list_bytes // of_a_tile)
        for start in range(0, self._n_tiles, size):
            yield range(start, min(start + size, self._n_tiles))

    @property
    def _n_tiles(self) -> int:
        return len(self.reader_indptr)

    def _tile(self, t: int) -> slice:
        return slice(t * self.tile_users, min((t + 1) * self.tile_users, self.n_users))

    def _rows_of(self, t: int) -> Rows:
        users, rows = self._tile(t), self._all_rows
        return rows._replace(
            indptr=rows.indptr[users.start : users.stop + 1],
            squared_norms=rows.squared_norms[users],
            norms=rows.norms[users],
        )

    def _readers_of(self, t: int) -> Readers:
        users, readers = self._tile(t), self._all_readers
        return readers._replace(
            indptr=readers.indptr[t],
            squared_norms=readers.squared_norms[users],
            norms=readers.norms[users],
        )


class _GroupSearch:
    """The search for a group of blocks, whose lists are unfinished together."""

    def __init__(self, index: NeighborIndex, query: Query, group: range) -> None:
        self._index, self._query, self._group = index, query, group
        self._first_user = group.start * index.tile_users
        stop = index._tile(group.stop - 1).stop
        self._lists = empty_lists(index.squared_norms[self._first_user : stop], query.k)
        self._locks = {block: threading.Lock() for block in group}

    def tasks(self) -> tuple[list[tuple[int, int]], list[float]]:
        """(block, tile) pairs and their costs: every block with itself first, which sets the floors."""
        pairs = [(block, block) for block in self._group]
        pairs += [(block, tile) for block in self._group for tile in self._group if tile < block]
        pairs += [
            (block, tile)
            for block in self._group
            for tile in range(self._index._n_tiles)
            if tile not in self._group
        ]
        return pairs, [1.0] * len(pairs)

    def run(self, task: tuple[int, int]) -> None:
        block, tile = task
        index, query = self._index, self._query
        rows, readers = index._rows_of(block), index._readers_of(tile)
        first_user, first_reader = index._tile(block).start, index._tile(tile).start
        lists, space = self._lists_of(block), workspace(index.tile_users, query.k)
        if block == tile:
            with self._locks[block]:
                search_tile(rows, first_user, readers, first_reader, query, lists, space)
                thin_out_all(lists, query, space.scratch)
            return
        both_ways = tile in self._locks
        reader_floors = self._lists_of(tile).floors if both_ways else np.full(len(readers.norms), np.inf)
        found, found_for_readers = nothing_found(index.tile_users), nothing_found(index.tile_users)
        row = 0
        while row < len(rows.norms):
            row, n_found, n_for_readers = search_pairs(
                *(row, rows, first_user, readers, first_reader, query),
                *(lists.floors, reader_floors, found, found_for_readers, space),
            )
            with self._locks[block]:
                put_on_lists(found, n_found, lists, query, space.scratch)
            if both_ways:
                with self._locks[tile]:
                    put_on_lists(found_for_readers, n_for_readers, self._lists_of(tile), query, space.scratch)

    def finish(self, neighbors: Array, similarities: Array, n_threads: int | None) -> None:
        """Write the finished lists to the group's part of the result."""

        def write(block: int) -> None:
            lists, users = self._lists_of(block), self._users_of(block)
            thin_out_all(lists, self._query, np.empty(lists.keys.shape[1]))
            write_out(lists, self._query, neighbors[users], similarities[users])

        blocks = list(self._group)
        run_tasks(write, blocks, [1.0] * len(blocks), 0, n_threads=n_threads, progress=None, should_stop=None)

    def _users_of(self, block: int) -> slice:
        users = self._index._tile(block)
        return slice(users.start - self._first_user, users.stop - self._first_user)

    def _lists_of(self, block: int) -> Lists:
        users = self._users_of(block)
        return Lists(*(array[users] for array in self._lists))


def _tile_users(n_users: int, n_posts: int, n_entries: int) -> int:
    # Some blocks for every thread; and tiles so large that their pointers take less room than the entries.
    tile = min(TILE, max(512, -(-n_users // 8)))
    while n_users * n_posts > 2 * n_entries * tile and tile < 1 << 15:
        tile *= 2
    return tile


def _space_for_one(tile_users: int, n_neighbors: int) -> Workspace:
    """Each thread's own, kept: clearing it anew would take longer than many a search."""
    space: Workspace | None = getattr(_THREAD, "space", None)
    if space is None or (len(space.dots), len(space.scratch)) != (tile_users, room_for(n_neighbors)):
        space = _THREAD.space = workspace(tile_users, n_neighbors)
    return space


def _query(n_neighbors: int, shrinkage: float, min_overlap: int) -> Query:
    if n_neighbors < 1:
        raise BadInput(f"n_neighbors is {n_neighbors}; it must be at least 1.")
    return Query(n_neighbors, float(shrinkage), min_overlap)


def _check_range(weights: Array) -> None:
    # Written so that NaN is out of range too.
    if len(weights) and not (weights.min() >= _LEAST_WEIGHT and weights.max() <= _MOST_WEIGHT):
        raise BadInput(
            f"weights holds a value outside {_LEAST_WEIGHT:g} … {_MOST_WEIGHT:g}, whose fourth power float64 "
            "cannot hold; multiply all weights by one factor, and drop those that are not positive."
        )


def _sums_of_squares(values: Array, indptr: Array) -> Array:
    """(n_rows,) float64, one entry after the other in a fixed order: equal rows get equal norms."""
    row_of_entry = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    return np.bincount(row_of_entry, values * values, minlength=len(indptr) - 1)
